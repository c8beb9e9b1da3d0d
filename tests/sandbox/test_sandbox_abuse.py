"""The abuse list: what a hostile program tries, at every level and under every identity, in the real sandbox.

After each attack the program is stopped; the `run` fixture fails if a single process of it is left.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openresource.sandbox.proc import descendants
from tests.sandbox import attacks
from tests.sandbox.containers import engine_missing, in_container, runsc_missing
from tests.sandbox.workers import EXTRA_MODES, LIMITS, MODES, PYTHON, ROOT, SECRET, Worker, worker

pytestmark = pytest.mark.sandbox
Run = Callable[..., Any]
Mode = tuple[str, str]
ATTACK = {"call": "attack", "deadline": 90.0}
PING = {"call": "ping"}
# What a kernel in user space takes for itself.
OWN_KERNEL_BYTES = 128 << 20


@pytest.fixture(
    params=[*MODES, *EXTRA_MODES], ids=[f"{level}-{identity}" for level, identity in [*MODES, *EXTRA_MODES]]
)
def mode(request: pytest.FixtureRequest) -> Mode:
    """Every driver of this machine, under each identity that this process can take."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def run(mode: Mode, workers: Callable[[str], Worker]) -> Run:
    """Starts a program in the mode, takes steps, stops it; nothing may be left afterwards."""
    level, identity = mode
    missing = {"gvisor": runsc_missing, "oci": engine_missing}.get(level, str)()
    if missing:
        pytest.skip(missing)

    def start(files: dict[str, str], steps: list[Any], manifest: str = PYTHON, **options: Any) -> Any:
        if level == "oci":
            if manifest != PYTHON:
                pytest.skip("what is tried is a way of speaking that images do not have")
            files, manifest, options["copies"] = in_container(files, "yield" in files["program.py"])
        outcome = workers(identity).run(level, files, steps, manifest=manifest, **options)
        assert outcome["left"] == [], "processes were left behind"
        return outcome

    return start


def has_own_kernel(mode: Mode) -> bool:
    """Whether system calls of a program end in a kernel that is the sandbox's own."""
    return mode[0] in ("gvisor",)


def host_state() -> tuple[str, ...]:
    """What a program could change if a system call reached this machine's kernel."""
    names = ("sys/kernel/hostname", "sys/kernel/core_pattern", "sys/kernel/domainname")
    # How much of them is in use changes by itself.
    swaps = [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()]
    return (*(Path("/proc", name).read_text() for name in names), *swaps)


def value(reply: dict[str, Any]) -> Any:
    """What an attack has returned."""
    assert "body" in reply, reply
    return json.loads(reply["body"])


def test_sandbox_processes_are_counted(run: Run) -> None:
    outcome = run(attacks.program(attacks.COUNT_FORKS), [ATTACK], processes=20)
    assert 5 <= value(outcome["replies"][0]) <= 24


def test_sandbox_a_fork_bomb_ends_with_its_deadline(run: Run) -> None:
    outcome = run(attacks.program(attacks.FORK_BOMB), [{**ATTACK, "deadline": 1.0}])
    assert outcome["replies"][0]["error"] in ("ProgramTimedOut", "ProgramCrashed", "OutOfMemory")
    assert outcome["seconds"][0] + outcome["stop_seconds"] < 8


def test_sandbox_threads_are_counted(run: Run) -> None:
    outcome = run(attacks.program(attacks.THREADS), [ATTACK], processes=20)
    assert value(outcome["replies"][0]) <= 24


def test_sandbox_one_process_cannot_allocate_for_ever(run: Run, mode: Mode) -> None:
    outcome = run(attacks.program(attacks.ALLOCATE_ALONE), [ATTACK])
    assert outcome["replies"][0]["error"] == "OutOfMemory"
    own_bytes = OWN_KERNEL_BYTES if has_own_kernel(mode) else 0
    assert outcome["usage"]["peak_rss_bytes"] < LIMITS["memory_bytes"] * 1.3 + own_bytes
    assert not outcome["alive"]


def test_sandbox_many_processes_cannot_allocate_together(run: Run) -> None:
    outcome = run(attacks.program(attacks.ALLOCATE_TOGETHER), [ATTACK])
    assert outcome["replies"][0]["error"] == "OutOfMemory"
    assert outcome["seconds"][0] < 10


def test_sandbox_memory_that_nobody_counts_is_refused(run: Run, mode: Mode) -> None:
    outcome = run(attacks.program(attacks.UNCOUNTED_MEMORY), [ATTACK])
    if has_own_kernel(mode):
        # It comes out of that kernel's own memory, which is bounded as a whole.
        assert set(value(outcome["replies"][0])) >= {"memfd_create", "shmget"}
        return
    assert value(outcome["replies"][0]) == {
        "memfd_create": 38,
        "memfd_secret": 38,
        "shmget": 1,
        "semget": 1,
        "msgget": 1,
        "mq_open": 1,
    }


def test_sandbox_buffers_of_sockets_are_bounded(run: Run) -> None:
    outcome = run(attacks.program(attacks.SOCKET_BUFFERS), [ATTACK])
    assert outcome["replies"][0]["error"] in ("ProgramCrashed", "OutOfMemory")
    assert outcome["seconds"][0] < 10


@pytest.mark.parametrize("attack", ["FILL_DISK", "NAMELESS_FILES"])
def test_sandbox_the_disk_cannot_be_filled(run: Run, attack: str) -> None:
    reply = run(attacks.program(getattr(attacks, attack)), [ATTACK])["replies"][0]
    if "error" in reply:
        assert reply["error"] == "DiskFull"
    else:
        assert value(reply)["error"] in ("ENOSPC", "EFBIG", "ENOTSUP")
        assert value(reply)["written"] <= LIMITS["disk_bytes"]


def test_sandbox_shared_memory_cannot_be_filled(run: Run) -> None:
    result = value(run(attacks.program(attacks.FILL_SHARED_MEMORY), [ATTACK])["replies"][0])
    assert result["error"] in ("ENOSPC", "EFBIG", "EACCES")
    assert result["written"] <= LIMITS["disk_bytes"]


def test_sandbox_files_without_number_are_stopped(run: Run, mode: Mode) -> None:
    # A kernel in user space is slower at it, and its memory is bounded as a whole.
    deadline = {"deadline": 3.0} if has_own_kernel(mode) else {}
    reply = run(attacks.program(attacks.MANY_FILES), [{**ATTACK, **deadline}])["replies"][0]
    if "error" in reply:
        # On a busy machine its time is over before the watch has counted them.
        assert reply["error"] in ("DiskFull", "OutOfMemory", "ProgramTimedOut")
    else:
        assert value(reply)["error"] in ("ENOSPC", "ENOMEM")


def test_sandbox_what_a_program_has_nested_is_wiped(run: Run) -> None:
    outcome = run(attacks.program(attacks.DEEP_FOLDERS), [ATTACK])
    assert value(outcome["replies"][0]) == 2_999
    assert outcome["folders"] == []


def test_sandbox_nothing_outside_can_be_written(run: Run) -> None:
    outcome = run(attacks.program(attacks.WRITE_OUTSIDE), [{**ATTACK, "input": {"argument": str(ROOT)}}])
    assert value(outcome["replies"][0]) == []


def test_sandbox_secrets_of_the_host_are_not_there(run: Run) -> None:
    argument = {"secret": SECRET, "folder": str(ROOT / "tests")}
    outcome = run(attacks.program(attacks.READ_SECRETS), [{**ATTACK, "input": {"argument": argument}}])
    assert value(outcome["replies"][0]) == {"found": [], "leaks": []}


def test_sandbox_links_in_a_release_lead_nowhere(run: Run) -> None:
    links = {"shadow": "/etc/shadow", "proc": f"/proc/{os.getpid()}/environ", "up": f"{ROOT}/pyproject.toml"}
    outcome = run(attacks.program(attacks.FOLLOW_LINK), [ATTACK], links=links)
    assert set(value(outcome["replies"][0]).values()) <= {"ENOENT", "EACCES"}


@pytest.fixture
def listeners() -> Iterator[dict[str, Any]]:
    """Doors of the host that a program must not find: TCP, an abstract name, a socket that everybody may write to."""
    name = f"openresource-test-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        tcp, abstract, file = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        os.chmod(folder, 0o755)
        tcp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{name}")
        file.bind(f"{folder}/door")
        os.chmod(f"{folder}/door", 0o777)
        for listener in (tcp, abstract, file):
            listener.listen()
        yield {"port": tcp.getsockname()[1], "abstract": name, "file": f"{folder}/door"}
        for listener in (tcp, abstract, file):
            listener.close()


def test_sandbox_there_is_no_network(run: Run, listeners: dict[str, Any]) -> None:
    outcome = run(attacks.program(attacks.NETWORK), [{**ATTACK, "input": {"argument": listeners}}])
    results = value(outcome["replies"][0])
    assert len(results) == 10
    assert "done" not in results.values(), results


def test_sandbox_a_program_may_listen_in_its_own_folder(run: Run, mode: Mode) -> None:
    result = value(run(attacks.program(attacks.LISTEN), [ATTACK])["replies"][0])
    assert result == ("EPERM" if mode[0] == "confined" else "done")


def test_sandbox_dangerous_system_calls_are_refused(run: Run, mode: Mode) -> None:
    before = host_state()
    results = value(run(attacks.program(attacks.FORBIDDEN_CALLS), [ATTACK])["replies"][0])
    assert host_state() == before
    if has_own_kernel(mode):
        # Answered by that kernel: what it grants concerns the program alone.
        for name in ("bpf", "kexec_load", "init_module", "keyctl", "reboot"):
            assert results[name] in ("EPERM", "EACCES", "ENOSYS", "EINVAL"), name
        return
    absent = {"io_uring_setup", "clone3", "a call that is younger than the list"}
    if mode[0] == "oci":
        # Its filter goes by names, and this kernel may know the number.
        assert results.pop("a call that is younger than the list") != "done"
        absent.discard("a call that is younger than the list")
    assert {name for name, error in results.items() if error == "ENOSYS"} == absent
    assert {error for name, error in results.items() if name not in absent} == {"EPERM"}


def test_sandbox_no_namespace_can_be_made_inside(run: Run, mode: Mode) -> None:
    results = value(run(attacks.program(attacks.NEW_NAMESPACES), [ATTACK])["replies"][0])
    assert set(results.values()) == {"EPERM"} or has_own_kernel(mode)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other numberings exist on x86-64 alone")
def test_sandbox_other_numberings_of_system_calls_do_not_help(run: Run, mode: Mode) -> None:
    reply = run(attacks.program(attacks.OTHER_NUMBERINGS), [ATTACK])["replies"][0]
    if mode[0] == "oci":
        # The engine's filter ends a program at the first call of another numbering.
        assert "SIGSYS" in reply["message"]
        return
    result = value(reply)
    if has_own_kernel(mode):
        assert result["x32"] in ("ENOSYS", "done")
        return
    assert result["x32"] == "ENOSYS"
    assert result["killed_by"] in (signal.SIGSYS, signal.SIGSEGV)


def test_sandbox_privileges_are_gone_and_do_not_come_back(run: Run, mode: Mode) -> None:
    files = attacks.program(attacks.PRIVILEGES)
    files["program.py"] = files["program.py"].replace(
        "class Program:", attacks.RAISE_LIMIT + "\nclass Program:"
    )
    result = value(run(files, [ATTACK])["replies"][0])
    assert result["no_new_privs"] == 1 and (result["seccomp"] == 2 or has_own_kernel(mode))
    assert result["capabilities"] == [0] * 6
    assert 0 not in result["uid"] and 0 not in result["groups"]
    assert result["setuid"] in ("EPERM", "EINVAL") and result["setgroups"] == "EPERM"
    assert set(result["limits"]) == {"EPERM"}


def test_sandbox_other_processes_cannot_be_reached(
    run: Run, mode: Mode, workers: Callable[[str], Worker]
) -> None:
    argument = {"worker": workers(mode[1]).pid, "level": mode[0], "shared": mode[1] == "plain"}
    outcome = run(attacks.program(attacks.NEIGHBOURS), [{**ATTACK, "input": {"argument": argument}}, PING])
    assert value(outcome["replies"][0]) == []
    assert value(outcome["replies"][1]) == "pong"


def test_sandbox_killing_everything_kills_only_itself(run: Run, mode: Mode) -> None:
    outcome = run(
        attacks.program("attempt(os.kill, -1, signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)"),
        [ATTACK],
    )
    # In a container it is the first process, which cannot kill itself.
    assert outcome["replies"][0].get("error") == (None if mode[0] == "oci" else "ProgramCrashed")
    assert value(run(attacks.program("pass"), [PING])["replies"][0]) == "pong"


def test_sandbox_open_files_are_counted(run: Run) -> None:
    result = value(run(attacks.program(attacks.DESCRIPTORS), [ATTACK])["replies"][0])
    assert result["error"] == "EMFILE" and result["count"] <= 256


def test_sandbox_no_descriptor_of_the_host_is_inherited(run: Run, mode: Mode) -> None:
    found = value(run(attacks.program(attacks.INHERITED), [ATTACK])["replies"][0])
    # The pipe is the one on which the wrapper in a container answers.
    expected = {"confined": ["socket"] * 2, "oci": ["0o10600"]}
    assert found == expected.get(mode[0], ["socket"])


def test_sandbox_a_daemon_dies_with_its_program(run: Run) -> None:
    outcome = run(attacks.program(attacks.DAEMON), [ATTACK])
    assert value(outcome["replies"][0]) == "hidden"


def test_sandbox_a_daemon_does_not_survive_a_crash(run: Run) -> None:
    outcome = run(attacks.program(attacks.DAEMON.replace('return "hidden"', "os._exit(3)")), [ATTACK])
    assert outcome["replies"][0]["error"] == "ProgramCrashed"


def test_sandbox_work_between_calls_is_stopped(run: Run) -> None:
    outcome = run(attacks.program(attacks.MINE), [ATTACK, {"until_dead": 60}], idle_cpu_seconds=0.5)
    assert value(outcome["replies"][0]) == "thanks"
    assert outcome["replies"][1] == {"alive": False}


def test_sandbox_memory_taken_between_calls_is_noticed(run: Run) -> None:
    outcome = run(attacks.program(attacks.GROW_LATER), [ATTACK, {"until_dead": 60}])
    assert outcome["replies"][1] == {"alive": False}


@pytest.mark.parametrize(
    "body", ["time.sleep(600)", "while True: pass", "signal.pause()", "[x for x in iter(int, 1)]"]
)
def test_sandbox_time_is_bounded(run: Run, body: str) -> None:
    # So much that no list grows to it before somebody looks at the clock.
    outcome = run(attacks.program(body), [{**ATTACK, "deadline": 0.5}], memory_bytes=1 << 30)
    assert outcome["replies"][0]["error"] == "ProgramTimedOut"
    assert outcome["seconds"][0] < 3


def test_sandbox_a_program_that_hangs_at_its_start_is_stopped(run: Run, mode: Mode) -> None:
    if mode[0] == "oci":
        pytest.skip("a program that reads lines need not say that it is ready")
    outcome = run({"program.py": "import time\ntime.sleep(600)"}, [], startup_seconds=0.5)
    assert "not ready within 0.5 seconds" in outcome["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        'return "x" * 50_000_000',
        'return {"list": list(range(2_000_000))}',
        "while True: yield 'x' * 100_000",
        "while True: print('x' * 100_000)",
        "while True: os.write(2, b'x' * 100_000)",
    ],
)
def test_sandbox_output_is_bounded(run: Run, mode: Mode, body: str) -> None:
    outcome = run(
        attacks.program(body), [{**ATTACK, "take": 1_000_000}], output_bytes=4 << 20, memory_bytes=1 << 30
    )
    # A kernel in user space refuses to write to a full pipe, which a program may not survive.
    ends = (
        ("OutputTooLarge", "ProgramCrashed", "ProgramFailed") if has_own_kernel(mode) else ("OutputTooLarge",)
    )
    assert outcome["replies"][0]["error"] in ends
    assert outcome["seconds"][0] < 15


@pytest.mark.parametrize("command", [["yes"], ["cat", "/dev/zero"], ["sh", "-c", "yes x | tr -d '\\n'"]])
def test_sandbox_lines_without_end_are_bounded(run: Run, command: list[str]) -> None:
    manifest = f'name = "flood"\n[run]\nkind = "jsonl"\ncommand = {json.dumps(command)}\n'
    outcome = run({}, [{"call": "call", "deadline": 60.0}], manifest=manifest, output_bytes=1 << 20)
    assert outcome["replies"][0]["error"] in ("OutputTooLarge", "ProgramCrashed")
    assert not outcome["alive"]


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\xff\0\0\0\1\x0b",
        b"\0\0\0\2\0\0\x30\x39\x0b42",
        b"\0\0\0\0\0\0\0\1\x63",
        b"\0\0\0\2\0\0\0\1\x0eno" * 3,
        b"\0" * 100_000,
    ],
    ids=[
        "a length beyond all bounds",
        "another call's number",
        "an unknown kind",
        "a refusal, thrice",
        "zeros",
    ],
)
def test_sandbox_a_forged_frame_ends_the_instance_and_nothing_else(
    run: Run, mode: Mode, frame: bytes
) -> None:
    if mode[0] == "oci":
        pytest.skip("containers do not speak in frames")
    call = {**ATTACK, "input": {"argument": frame.decode("latin-1")}, "deadline": 60.0}
    outcome = run(attacks.program(attacks.OWN_SOCKET), [call, {"until_dead": 60}])
    assert outcome["replies"][0]["error"] in ("OutputTooLarge", "ProgramCrashed", "ProgramRefused")
    assert outcome["replies"][1] == {"alive": False}


def test_sandbox_the_broker_is_bounded(run: Run) -> None:
    outcome = run(attacks.program(attacks.BROKER), [ATTACK, PING])
    assert value(outcome["replies"][0]) < 400 << 20
    assert value(outcome["replies"][1]) == "pong"


def test_sandbox_a_program_cannot_hide_from_the_watch(run: Run, mode: Mode) -> None:
    hidden = value(run(attacks.program(attacks.HIDE), [ATTACK])["replies"][0])
    assert hidden == (-1 if mode[0] == "confined" else 0)


HOSTILE_HTTP = {
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x-header: " + b"y" * 1000 + b"\r\n",
    "no status": b"hello\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
    "length beyond all bounds": b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999999\r\n\r\n" + b"x" * 1000,
    "chunk beyond all bounds": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffff\r\n"
    + b"x" * 1000,
    "nonsense chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
    "endless body": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000,
    "endless stream": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"x" * 100_000,
    "a status that goes on": b"HTTP/1.1 100 Continue\r\n\r\n",
    "silence": b"",
}
HTTP_SERVER = """
import fcntl, os, socket, time
listener = socket.socket(); listener.bind(("127.0.0.1", int(os.environ["PORT"]))); listener.listen()
while True:
    connection, _ = listener.accept()
    connection.settimeout(5)
    # Our end shares nothing with the host's, and blocking must not spread either.
    try:
        if not connection.recv(65536): continue
        data = bytes.fromhex(open("data").read())
        while data and {endless}: connection.sendall(data)
        connection.sendall(data)
        time.sleep(600 if {silent} else 0)
    except OSError:
        pass
    connection.close()
"""


@pytest.mark.parametrize("what", list(HOSTILE_HTTP))
def test_sandbox_a_hostile_http_server_is_bounded(workers: Callable[[str], Worker], what: str) -> None:
    source = HTTP_SERVER.format(
        endless=what.startswith("endless") or "beyond" in what or "goes on" in what, silent=what == "silence"
    )
    files = {"app.py": source, "data": HOSTILE_HTTP[what].hex()}
    manifest = 'name = "web"\n[run]\nkind = "http"\ncommand = ["python", "app.py"]\n'
    call = {"call": "call", "path": "/", "deadline": 2.0, "take": 1_000_000}
    outcome = workers("plain").run("bubblewrap", files, [call], manifest=manifest, output_bytes=1 << 20)
    assert outcome["replies"][0]["error"] in ("OutputTooLarge", "ProgramFailed", "ProgramTimedOut")
    assert outcome["seconds"][0] < 8
    assert outcome["left"] == []


def test_sandbox_a_guest_that_lies_about_its_sockets_is_harmless(workers: Callable[[str], Worker]) -> None:
    # The program takes the guest's place: it finds the control socket and hands out what is no connection.
    source = """
import os, signal, socket, time
listener = socket.socket(); listener.bind(("127.0.0.1", int(os.environ["PORT"]))); listener.listen()
time.sleep(0.5)
guest = os.getppid()
os.kill(guest, signal.SIGSTOP)
try:
    memory = open(f"/proc/{guest}/mem", "r+b")
except OSError as problem:
    print(problem)
os.kill(guest, signal.SIGKILL)
time.sleep(600)
"""
    manifest = 'name = "web"\n[run]\nkind = "http"\ncommand = ["python", "app.py"]\n'
    steps = [{"call": "call", "path": "/", "deadline": 3.0}, {"until_dead": 60}]
    outcome = workers("plain").run("bubblewrap", {"app.py": source}, steps, manifest=manifest)
    assert outcome["left"] == []
    if outcome["error"]:
        # The guest was gone before it had said that the program listens.
        assert outcome["error"]["error"] == "ProgramDidNotStart"
        return
    assert outcome["replies"][0]["error"] in ("ProgramCrashed", "ProgramTimedOut")
    assert outcome["replies"][1] == {"alive": False}


def test_sandbox_programs_die_with_a_provider_that_is_killed(mode: Mode) -> None:
    level, identity = mode
    with worker(identity) as provider:
        provider.send(
            {
                "level": level,
                "files": {
                    "openresource.toml": PYTHON,
                    **attacks.program(attacks.DAEMON.replace('return "hidden"', "time.sleep(600)")),
                },
                "links": {},
                "steps": [ATTACK],
                "limits": LIMITS,
            }
        )
        deadline = time.monotonic() + 60
        # The daemon, its two children, and what started them.
        while len(tree := descendants(provider.pid)) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(tree) >= 6
        provider.kill()
        deadline = time.monotonic() + 60
        while (left := [pid for pid in tree if _runs(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
