"""Stands between a driver and a program: takes away what the program must not have, then becomes the program.

It is run as a script with nothing but the standard library, in a process of its own, and reads its plan (JSON) from
the descriptor that its one argument names. With `serve` and a descriptor it waits on that socket instead, and makes a
copy of itself for each plan that comes with its descriptors. A plan's members, each optional but `argv`:
groups (files of control groups to enter), stage (folders to show at other places of a private mount namespace),
supervise (stay behind as parent, reap and kill the whole tree), keeps_privileges (for clients of engines alone),
limits, uid, takes_over_uid (nobody else has it), folder, landlock, filter, argv, env.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import sys
import time

# Importing it would cost as much time as all our own work.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXIT_REFUSED = 120
KILL_ROUNDS_MAX = 2_000

CLONE = 220 if os.uname().machine == "aarch64" else 56
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RULE_PATH_BENEATH = 1

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """One plan, or many."""
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        carry_out(int(sys.argv[1]))


def serve(descriptor: int) -> None:
    """Make a launcher for each request, until the other side hangs up; each is a child of our parent."""
    import socket

    requests = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    while True:
        data, received, _, _ = socket.recv_fds(requests, 4_096, 64)
        if not data:
            return
        request = json.loads(data)
        pid = libc.syscall(CLONE, ctypes.c_ulong(CLONE_PARENT | signal.SIGCHLD), None, None, None, None)
        if pid == 0:
            try:
                take_places(received, request["targets"])
                os.setsid()
                carry_out(request["plan"])
            finally:
                os._exit(EXIT_REFUSED)
        error = ctypes.get_errno()
        for number in received:
            os.close(number)
        requests.send(str(pid).encode() if pid > 0 else os.strerror(error).encode())


def take_places(received: list[int], targets: list[int]) -> None:
    """Every descriptor to the number that it has in the plan, and nothing else stays open."""
    above = max([*received, *targets]) + 1
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, above) for number in received]
    for number, target in zip(moved, targets, strict=True):
        os.dup2(number, target, inheritable=True)
    kept = 0
    for target in [*sorted(targets), above + len(received) + 64]:
        # An empty range from 0 would be taken for all there are.
        if kept < target:
            os.closerange(kept, target)
        kept = target + 1


def carry_out(plan_descriptor: int) -> None:
    """Carry out a plan; on any failure say why on standard error and end with a code of our own."""
    try:
        with open(plan_descriptor, "rb") as plan_file:
            plan = json.load(plan_file)
        for name in plan.get("groups", ()):
            with open(name, "w", encoding="ascii") as group:
                group.write("0")
        if plan.get("takes_over_uid"):
            # Whoever had this uid before may have left something running, or been killed while it started something.
            kill_everything_of(plan["uid"])
        if "stage" in plan:
            show_elsewhere(plan["stage"])
        if plan.get("supervise"):
            supervise(plan)
        confine(plan)
        os.execve(plan["argv"][0], plan["argv"], plan.get("env", {}))
    except Exception as problem:
        sys.stderr.write(f"launcher: {type(problem).__name__}: {problem}\n")
        sys.stderr.flush()
        os._exit(EXIT_REFUSED)


def check(result: int, what: str) -> int:
    """The result of a C call, or its error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def show_elsewhere(stage: dict[str, Any]) -> None:
    """Bind folders that only root can reach below a folder that everybody can, seen by this process tree alone."""
    check(libc.unshare(CLONE_NEWNS), "private mounts")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Opened in the new namespace, and before anything covers them.
    sources = [(os.open(source, os.O_PATH), target) for source, target in stage["binds"]]
    point = stage["point"]
    mount("tmpfs", point, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for descriptor, target in sources:
        place = os.path.join(point, target)
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        source = f"/proc/self/fd/{descriptor}"
        if os.path.isdir(source):
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(source, place, None, MS_BIND | MS_REC)
        os.close(descriptor)
    mount(None, point, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    options = None if data is None else data.encode()
    check(libc.mount(*words, ctypes.c_ulong(flags), options), f"mount {target}")


def confine(plan: dict[str, Any]) -> None:
    """Limits, identity, folder and filters of the process that will be the program."""
    for name, value in plan.get("limits", {}).items():
        limit = getattr(resource, name)
        # Nobody may raise a hard limit that this machine's owner has set lower.
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    prefer_for_oom()
    if "uid" in plan:
        os.setgroups([])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    if plan.get("supervise"):
        # After the change of uid, which forgets it.
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "death signal")
    os.umask(0o077)
    if "folder" in plan:
        os.chdir(plan["folder"])
    if not plan.get("keeps_privileges"):
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if "landlock" in plan:
        restrict_paths(plan["landlock"])
    if "filter" in plan:
        install_filter(bytes.fromhex(plan["filter"]["code"]), plan["filter"]["pid_offsets"])


def prefer_for_oom() -> None:
    """If this machine runs out of memory, its own processes shall survive the programs."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("500")
    except OSError as problem:
        sys.stderr.write(f"launcher: oom_score_adj: {problem.strerror}\n")


def restrict_paths(rules: dict[str, Any]) -> None:
    """Landlock: only the named folders, each with the named rights, and no signals or sockets beyond ourselves."""
    attributes = struct.pack("=QQQ", rules["handled"], rules["handled_net"], rules["scoped"])[
        : rules["bytes"]
    ]
    ruleset = check(
        libc.syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0),
        "landlock ruleset",
    )
    for path, rights in rules["paths"]:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, descriptor)
        check(
            libc.syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0), f"landlock {path}"
        )
        os.close(descriptor)
    check(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)


def install_filter(code: bytes, pid_offsets: list[int]) -> None:
    """seccomp: our own process number goes where the filter compares with it."""
    filled = bytearray(code)
    for offset in pid_offsets:
        struct.pack_into("=I", filled, offset, os.getpid())
    buffer = ctypes.create_string_buffer(bytes(filled), len(filled))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(filled) // 8, ctypes.addressof(buffer)))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "seccomp")


def supervise(plan: dict[str, Any]) -> None:
    """Fork: the child returns and becomes the program, the parent reaps orphans and leaves nothing behind."""
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "sub-reaper")
    uid = plan.get("uid")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), "death signal")
    if os.getppid() != plan["supervise"]:
        os._exit(EXIT_REFUSED)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(plan["ready"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
        return
    # The program's descriptors must close when the program ends, not when we do.
    os.write(plan["ready"], f"{child}\n".encode())
    close_all()
    status = wait_for(child)
    if uid is not None:
        kill_everything_of(uid)
    kill_descendants()
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def close_all() -> None:
    """Close every descriptor but standard error."""
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for descriptor in (0, 1):
        os.close(descriptor)
        os.open("/dev/null", os.O_RDWR)


def wait_for(child: int) -> int:
    """Reap whatever ends until the child does, or until we are told to stop; then kill it."""
    status = signal.SIGKILL.value
    while True:
        received = signal.sigwait({signal.SIGTERM, signal.SIGCHLD})
        if received == signal.SIGTERM:
            os.kill(child, signal.SIGKILL)
        while True:
            try:
                ended, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if ended == 0:
                break
            if ended == child:
                return code


def kill_everything_of(uid: int) -> None:
    """Every process of a uid that belongs to one program alone: the kernel goes through its list at once."""
    for _ in range(KILL_ROUNDS_MAX):
        helper = os.fork()
        if helper == 0:
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                os.kill(-1, signal.SIGKILL)
                os._exit(0)
            finally:
                os._exit(1)
        # The helper shares their uid for a moment, so they may have killed it first: then again.
        if os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) >= 0:
            return


def kill_descendants() -> None:
    """Stop, then kill, whatever is below us, until nothing is; orphans become our children, so none escapes."""
    for round_number in range(KILL_ROUNDS_MAX):
        below = descendants(os.getpid())
        if not below:
            break
        for pid in below:
            try:
                os.kill(pid, signal.SIGSTOP if round_number == 0 else signal.SIGKILL)
            except ProcessLookupError:
                continue
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                return
        if round_number:
            time.sleep(0.002)


def descendants(pid: int) -> list[int]:
    """Process numbers below one; zombies that nobody has reaped yet count as well."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    layer = [pid]
    while layer:
        layer = [child for parent in layer for child in parents.get(parent, ())]
        found += layer
    return found


if __name__ == "__main__":
    main()
