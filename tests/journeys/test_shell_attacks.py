"""What people must not be able to do to a machine that opens to them, from before the door to inside the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from openresource.adapters.ssh.keys import public_key_of
from openresource.adapters.ssh.server import UNPROVEN_MAX
from openresource.client.shells import vouch_for_key
from openresource.market.ssh_keys import ssh_key_record
from openresource.primitives.errors import Refusal
from openresource.provider.visits import Visit
from tests.journeys.shell_stage import LIMITS, Person, Stage, done, on_a_stage, until
from tests.sandbox import attacks

pytestmark = [pytest.mark.journey, pytest.mark.sandbox]


def test_shell_nobody_enters_without_a_key_that_the_chain_knows(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        stranger = await stage.person()
        unknown = await stage.person(known=False)
        thief = Person(stage.owner.wallet, unknown.key)
        for who, options in (
            (stranger, {}),
            (unknown, {}),
            # Somebody else's name with a key of one's own.
            (thief, {}),
            (stage.owner, {"client_keys": None}),
            (stage.owner, {"client_keys": None, "password": "hunter2"}),
            (stage.owner, {"username": "root"}),
            (stage.owner, {"username": "x" * 1_000}),
            (stage.owner, {"username": stranger.wallet.address}),
            (Person(stage.owner.wallet, asyncssh.generate_private_key("ssh-rsa", key_size=2048)), {}),
        ):
            with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
                async with stage.connect(who, **options):
                    pass
        reasons = [entry["reason"] for entry in stage.events("refused")]
        assert any("neither owns" in reason for reason in reasons)
        assert any("does not know this key" in reason for reason in reasons)
        assert any("not an address" in reason for reason in reasons)
        assert not stage.events("enter") and stage.shells.guests == 0
        # The name may be written in any case, as wallets do.
        async with stage.connect(stage.owner, username=stage.owner.wallet.address.lower()) as connection:
            assert (await connection.run("echo in")).stdout == "in\n"

    on_a_stage(tmp_path, work)


def test_shell_a_key_that_was_taken_back_opens_nothing(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        guest = await stage.guest()
        public = public_key_of(guest.key)
        await stage.run(guest, "true")
        path = f"/ssh_keys/{guest.wallet.address}/{public.fingerprint}"
        await stage.chain.write(path, None, guest.wallet)
        with pytest.raises(asyncssh.PermissionDenied):
            await stage.run(guest, "true")
        # Nobody vouches in somebody else's name.
        other = await stage.person()
        with pytest.raises(Refusal):
            await stage.chain.write(path, ssh_key_record(public), other.wallet)
        await vouch_for_key(stage.chain, guest.wallet, public)
        assert (await stage.run(guest, "echo again")).out == b"again\n"

    on_a_stage(tmp_path, work)


def test_shell_an_old_connection_is_no_way_around_the_chain(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        dismissed, careful = await stage.guest(), await stage.guest()
        async with stage.connect(dismissed) as first, stage.connect(careful) as second:
            for connection in (first, second):
                assert (await connection.run("echo in")).stdout == "in\n"
            running = asyncio.create_task(second.run("sleep 600"))
            await until(lambda: any(one["command"] == "sleep 600" for one in stage.events("enter")))
            await stage.admit(dismissed, None)
            fingerprint = public_key_of(careful.key).fingerprint
            path = f"/ssh_keys/{careful.wallet.address}/{fingerprint}"
            await stage.chain.write(path, None, careful.wallet)
            for connection, words in ((first, "neither owns"), (second, "does not know this key")):
                refused = await connection.run("echo in")
                assert refused.exit_status == 254 and words in str(refused.stderr)
            ended = await asyncio.wait_for(running, 60)
            assert ended.exit_status == 254 and "taken its word" in str(ended.stderr)

    on_a_stage(tmp_path, work)


def test_shell_nothing_is_forwarded_and_no_files_are_served(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        async with stage.connect(stage.owner, agent_forwarding=True) as connection:
            for attempt in (
                lambda: connection.open_connection("127.0.0.1", stage.node.port),
                lambda: connection.open_unix_connection("/run/docker.sock"),
                lambda: connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1),
                lambda: connection.forward_remote_path("/tmp/planted", "/tmp/x"),
                connection.start_sftp_client,
                lambda: connection.create_process(subsystem="netconf"),
                lambda: connection.create_process("true", x11_forwarding=True, x11_display=":0"),
            ):
                with pytest.raises((asyncssh.Error, asyncssh.ChannelListenError, OSError)):
                    made = await attempt()
                    if isinstance(made, asyncssh.SSHClientProcess):
                        await made.wait(check=True)
                    if made is None:
                        raise OSError("refused")
            seen = done(await connection.run("env", encoding=None))
            assert b"SSH_AUTH_SOCK" not in seen.out and b"DISPLAY" not in seen.out
        assert len([entry for entry in stage.events("refused") if "asked for" in entry["reason"]]) >= 4

    on_a_stage(tmp_path, work)


def test_shell_a_guests_environment_stays_outside(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        smuggled = {"LD_PRELOAD": "/tmp/evil.so", "BASH_ENV": "/tmp/evil", "PATH": "/tmp", "SMUGGLED": "1"}
        async with stage.connect(stage.owner) as connection:
            seen = done(await connection.run("env", env=smuggled, encoding=None)).out.decode()
            assert "SMUGGLED" not in seen and "/tmp/evil" not in seen and "PATH=/tmp\n" not in seen
            for term in ("xterm\x1b]0;x", "$(touch /tmp/x)", "../../etc", "x" * 300):
                process = await connection.create_process("echo $TERM", term_type=term)
                assert "dumb" in await process.stdout.read()

    on_a_stage(tmp_path, work)


def in_shell(body: str, argument: Any = None) -> bytes:
    """An attack of the abuse list as a script for the shell's Python."""
    source = attacks.program(body)["program.py"].replace("os.path.abspath(__file__)", "sys.prefix")
    call = f"Program().attack({argument!r})"
    return f"{source}\nprint(json.dumps({call}))\n".encode()


def test_shell_the_abuse_list_gets_nowhere(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        guest = await stage.guest()

        async def attack(body: str, argument: Any = None) -> Any:
            ended = await stage.run(guest, "python3 -I -S -", input=in_shell(body, argument))
            return json.loads(ended.out.splitlines()[-1]) if ended.out else ended.code

        assert await attack(attacks.WRITE_OUTSIDE, str(tmp_path)) == []
        found = await attack(attacks.READ_SECRETS, {"secret": stage.machine.address, "folder": str(tmp_path)})
        assert found == {"found": [], "leaks": []}
        calls = await attack(attacks.FORBIDDEN_CALLS)
        assert set(calls.values()) == {"EPERM", "ENOSYS"}
        assert set((await attack(attacks.NEW_NAMESPACES)).values()) == {"EPERM"}
        assert set((await attack(attacks.UNCOUNTED_MEMORY)).values()) <= {errno.EPERM, errno.ENOSYS}
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            doors = {"port": listener.getsockname()[1], "abstract": "nobody", "file": "/nobody"}
            assert "done" not in (await attack(attacks.NETWORK, doors)).values()
            assert "done" not in (await attack(attacks.NETWORK, doors | {"port": stage.server.port})).values()
        assert (
            await attack(
                "return [name for name in os.listdir('/proc') if name == str(argument)]", os.getpid()
            )
            == []
        )
        assert await attack(attacks.COUNT_FORKS) <= LIMITS.processes
        assert (await attack(attacks.DESCRIPTORS))["error"] == "EMFILE"
        for body in (attacks.FILL_DISK, attacks.FILL_SHARED_MEMORY):
            filled = await attack(body)
            assert filled["error"] in ("ENOSPC", "ENOMEM", "EFBIG") if isinstance(filled, dict) else filled

    on_a_stage(tmp_path, work)


def test_shell_a_bomb_ends_the_guests_computer_and_not_its_neighbours(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        bomber, neighbour = await stage.guest(), await stage.guest()
        await stage.run(neighbour, "echo safe > $HOME/note")
        for body in (attacks.ALLOCATE_ALONE, attacks.ALLOCATE_TOGETHER, attacks.MANY_FILES):
            ended = await stage.run(bomber, "python3 -I -S -", input=in_shell(body), timeout=60)
            assert ended.code != 0
        assert (await stage.run(neighbour, "cat $HOME/note")).out == b"safe\n"
        assert (await stage.run(bomber, "echo back")).out == b"back\n"

    on_a_stage(tmp_path, work, seconds=170)


def test_shell_whoever_kills_the_guest_side_of_the_sandbox_only_ends_their_own(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        villain, neighbour = await stage.guest(), await stage.guest()
        await stage.run(neighbour, "echo safe > $HOME/note")
        assert (await stage.run(villain, "kill -9 -1; kill -9 1 2 3; sleep 1")).code != 0
        # Words that only the guest side may say.
        forged = """for p in /proc/[0-9]*; do printf '{"id":1,"output":{"exit":0}}\\nnonsense\\n' > $p/fd/1; done 2>/dev/null"""
        await stage.run(villain, forged)
        assert (await stage.run(villain, "echo alive")).out == b"alive\n"
        assert (await stage.run(neighbour, "cat $HOME/note")).out == b"safe\n"

    on_a_stage(tmp_path, work)


def test_shell_huge_output_that_nobody_reads_is_held_back(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        async with stage.connect(stage.owner) as connection:
            process = await connection.create_process("yes", encoding=None)
            process.channel.pause_reading()
            await until(lambda: stage.events("computer"))
            # Other sessions of the same guest go on meanwhile.
            for _ in range(5):
                assert (await stage.run(stage.owner, "echo on")).out == b"on\n"

            def visits() -> list[Visit]:
                return [one for guest in stage.shells._guests.values() for one in guest.visits]

            await until(lambda: len(visits()) == 1)
            (visit,) = visits()
            seen = -1
            while visit.bytes_out != seen:
                seen = visit.bytes_out
                await asyncio.sleep(0.5)
            assert seen < 8 << 20

    on_a_stage(tmp_path, work)


def test_shell_sessions_and_guests_have_bounds(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        guest = await stage.guest()
        async with stage.connect(guest) as connection:
            running = [await connection.create_process("sleep 600", encoding=None) for _ in range(2)]
            await until(lambda: len(stage.events("enter")) == 2 and stage.events("computer"))
            third = done(await connection.run("echo third", encoding=None))
            assert third.code == 254 and b"may be" in third.err
            full = await stage.run(stage.owner, "echo full")
            assert full.code == 254 and b"as many as it takes" in full.err
            for process in running:
                process.close()
        long = "x" * 40_000
        assert (await stage.run(guest, f"echo {long}")).code == 254

    on_a_stage(tmp_path, work, sessions_max=2, guests_max=1)


async def hung_up(reader: asyncio.StreamReader) -> None:
    """Returns when the other side has hung up."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1_000):
            continue


def test_shell_half_open_connections_are_few_and_short(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        try:
            for _ in range(200):
                held.append(await asyncio.open_connection("127.0.0.1", stage.server.port))
            ends = [asyncio.ensure_future(hung_up(reader)) for reader, _ in held]
            await until(lambda: sum(end.done() for end in ends) >= 200 - UNPROVEN_MAX - 5)
            assert len(stage.server._connections) <= UNPROVEN_MAX
            for end in ends:
                end.cancel()
        finally:
            for _, writer in held:
                writer.transport.abort()
        await until(lambda: not stage.server._connections)
        assert (await stage.run(stage.owner, "echo open")).out == b"open\n"

    on_a_stage(tmp_path, work)


def test_shell_garbage_at_the_door_is_hung_up_on(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n" * 1_000,
            os.urandom(100_000),
            b"SSH-2.0-x\r\n" + os.urandom(50_000),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.server.port)
            try:
                writer.write(garbage)
                async with asyncio.timeout(60):
                    while await reader.read(65_536):
                        continue
            except ConnectionError:
                continue
            finally:
                writer.transport.abort()
        assert (await stage.run(stage.owner, "echo open")).out == b"open\n"

    on_a_stage(tmp_path, work)
