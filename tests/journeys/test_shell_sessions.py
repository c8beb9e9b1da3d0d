"""People in a machine: commands, terminals, pipes, exit codes, ends in time, and the trail of it all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncssh
import pytest

from openresource.client.shells import rent_machine
from openresource.market.machines import read_machine
from openresource.provider.audits import verify
from openresource.provider.visits import Visit
from openresource.sandbox.computers import Ended, Said, Shell
from openresource.sandbox.guest.shell_guest import DRAIN_SECONDS
from tests.journeys.shell_stage import Stage, on_a_stage, until

pytestmark = pytest.mark.journey


def test_shell_commands_give_their_output_and_their_exit_code(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        done = await stage.run(stage.owner, "echo out; echo err >&2; exit 5")
        assert (done.out, done.err, done.code) == (b"out\n", b"err\n", 5)
        done = await stage.run(stage.owner, "wc -c", input=b"x" * 1_000_000)
        assert (done.out, done.code) == (b"1000000\n", 0)
        done = await stage.run(stage.owner, "kill -TERM $$")
        assert done.signal == "TERM"
        done = await stage.run(stage.owner, "head -c 3000000 /dev/zero")
        assert done.out == b"\0" * 3_000_000
        done = await stage.run(stage.owner, "no-such-command-here")
        assert done.code == 127
        entries, digest = verify(stage.shells.audit.path)
        assert (entries, digest) == (stage.shells.audit.entries, stage.shells.audit.digest)
        enters = stage.events("enter")
        assert enters[0]["command"] == "echo out; echo err >&2; exit 5"
        assert enters[0]["address"] == stage.owner.wallet.address and enters[0]["right"] == "owner"
        assert enters[0]["came_from"].startswith("127.0.0.1:")
        assert stage.events("exit")[0]["exit_code"] == 5
        # The guest has the end of a command before it is written down that the session is over.
        left = await until(lambda: [one for one in stage.events("left") if one["session"] == 2])
        assert left[0]["bytes_in"] == 1_000_000

    on_a_stage(tmp_path, work)


def test_shell_a_terminal_has_a_size_that_changes_and_what_is_typed_is_written_down(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        async with stage.connect(stage.owner) as connection:
            process = await connection.create_process(term_type="xterm", term_size=(91, 33), encoding="utf-8")
            said = await read_until(process, "There is no network.")
            assert stage.owner.wallet.address in said and "written down" in said
            process.stdin.write("stty size; tty\r")
            assert "33 91" in await read_until(process, "/dev/pts/")
            process.change_terminal_size(70, 20)
            process.stdin.write("sleep 0.2; stty size\r")
            await read_until(process, "20 70")
            # The terminal's own keys reach what runs in front.
            process.stdin.write("sleep 500; echo not-reached\r")
            await until(lambda: len(stage.events("typed")) == 3)
            # A key that comes before the command runs in front would not reach it.
            await running(stage, "sleep")
            process.stdin.write("\x03")
            process.stdin.write("exit 7\r")
            await process.wait_closed()
            assert process.exit_status == 7
        typed = [entry["line"] for entry in stage.events("typed")]
        assert typed == ["stty size; tty", "sleep 0.2; stty size", "sleep 500; echo not-reached", "exit 7"]

    on_a_stage(tmp_path, work)


async def read_until(process: asyncssh.SSHClientProcess[str], text: str) -> str:
    said = ""
    async with asyncio.timeout(60):
        while text not in said:
            part = await process.stdout.read(4_096)
            assert part, said
            said += part
    return said


async def running(stage: Stage, name: str, *, wanted: bool = True) -> None:
    """Waits until a command of this name runs in the owner's computer, or none does."""

    async def is_so() -> bool:
        found = await stage.run(stage.owner, f"pgrep -x {name} || echo none")
        return (found.out != b"none\n") == wanted

    await until(is_so)


def test_shell_a_guest_keeps_a_computer_between_sessions_and_no_other_guest_sees_it(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        first, second = await stage.guest(), await stage.guest()
        await stage.run(first, "echo mine > $HOME/note; (sleep 300 &) ; echo $$ > $HOME/pid")
        assert (await stage.run(first, "cat $HOME/note")).out == b"mine\n"
        assert (await stage.run(second, "ls $HOME; ls /proc | grep -c '^[0-9]'")).out.split()[0].isdigit()
        assert (await stage.run(second, "cat $HOME/note")).code != 0
        assert (await stage.run(second, "pgrep -x sleep || echo none")).out == b"none\n"
        # A guest that shows itself out loses the computer and what was in it.
        await stage.admit(first, None)
        await until(lambda: stage.events("computer-ended"))
        await stage.admit(first, 600)
        assert (await stage.run(first, "cat $HOME/note")).code != 0

    on_a_stage(tmp_path, work)


def test_shell_rent_opens_the_machine_for_the_minutes_that_were_paid(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        tenant = await stage.person()
        with pytest.raises(asyncssh.PermissionDenied):
            await stage.run(tenant, "true")
        assert "neither owns nor rents" in stage.events("refused")[-1]["reason"]
        await stage.node.fund(tenant.wallet.address, 10_000)
        offer = read_machine(
            stage.machine.address, await stage.chain.read(f"/machines/{stage.machine.address}/offer")
        )
        await rent_machine(stage.chain, tenant.wallet, offer, 30)
        assert (await stage.run(tenant, "echo paid")).out == b"paid\n"
        assert stage.events("enter")[-1]["right"] == "tenant"
        assert await stage.chain.balance(stage.owner.wallet.address) == 2_940
        assert await stage.chain.balance("treasury|market|fees") == 60

    on_a_stage(tmp_path, work)


def test_shell_a_right_that_ends_ends_its_sessions(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        guest = await stage.guest(seconds=600)
        running = asyncio.create_task(stage.run(guest, "sleep 600"))
        await until(lambda: stage.events("computer"))
        stage.ahead_ms = 601_000
        done = await running
        assert done.code == 254 and b"has ended" in done.err
        left = await until(lambda: stage.events("left"))
        assert "has ended" in left[-1]["why"]
        assert stage.shells.guests == 0
        with pytest.raises(asyncssh.PermissionDenied):
            await stage.run(guest, "true")

    on_a_stage(tmp_path, work)


def test_shell_a_guest_who_is_shown_out_is_out_at_once(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        guest = await stage.guest()
        running = asyncio.create_task(stage.run(guest, "sleep 600"))
        await until(lambda: stage.events("computer"))
        await stage.admit(guest, None)
        done = await asyncio.wait_for(running, 60)
        assert done.code == 254

    on_a_stage(tmp_path, work)


def test_shell_sessions_end_when_they_are_long_or_idle_or_large(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        # One bound at a time, as a machine that is slow for a moment would reach another one first.
        stage.change(idle_seconds_max=1.0)
        done = await stage.run(stage.owner, "sleep 600")
        assert done.code == 254 and b"nothing happened" in done.err
        stage.change(idle_seconds_max=600.0)
        long = asyncio.create_task(stage.run(stage.owner, "while true; do echo tick; sleep 0.2; done"))
        # Whoever says something is not idle.
        await until(lambda: [one for one in visits(stage) if one.active > one.began + 1.0])
        stage.change(session_seconds_max=1.0)
        done = await long
        assert done.code == 254 and b"lasts at most" in done.err
        stage.change(session_seconds_max=600.0, session_bytes_max=4 << 20)
        done = await stage.run(stage.owner, "yes")
        assert done.code == 254 and b"as many bytes" in done.err
        assert len(done.out) + (1 << 18) >= 4 << 20 and len(done.out) < 6 << 20

    on_a_stage(tmp_path, work)


def test_shell_a_computer_that_nobody_uses_ends(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        await stage.run(stage.owner, "sleep 300 & echo started")
        assert stage.shells.guests == 1
        stage.change(linger_seconds=0.5)
        # A guest is counted out first; the line is written when the computer has stopped.
        ended = await until(lambda: stage.events("computer-ended"))
        assert "nobody" in ended[-1]["why"]
        assert stage.shells.guests == 0

    on_a_stage(tmp_path, work)


def test_shell_whoever_hangs_up_leaves_nothing_running(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        async with stage.connect(stage.owner) as connection:
            await connection.create_process("sleep 500", encoding=None)
            await until(lambda: stage.events("computer"))
        await until(lambda: stage.events("left"))
        await running(stage, "sleep", wanted=False)

    on_a_stage(tmp_path, work)


def test_shell_what_a_command_said_is_kept_for_a_guest_who_reads_late(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        await stage.run(stage.owner, "true")
        (guest,) = stage.shells._guests.values()
        assert guest.computer is not None
        command = "printf %050000d 7; exit 3"
        given = {"session": "late", "command": command, "terminal": None}
        pid = (await guest.computer.ask("open", given))["pid"]

        async def has_ended() -> bool:
            return (await stage.run(stage.owner, f"test -e /proc/{pid} || echo ended")).out == b"ended\n"

        # It has ended, and for longer than what its children say is waited for.
        await until(has_ended)
        await asyncio.sleep(2 * DRAIN_SECONDS)
        *said, ended = [part async for part in Shell(guest.computer, "late").said()]
        assert b"".join(one.out for one in said if isinstance(one, Said)) == b"%050000d" % 7
        assert ended == Ended(exit_code=3)

    on_a_stage(tmp_path, work)


def test_shell_a_client_that_closes_during_the_goodbye_does_not_stay_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goodbyes: list[asyncio.Event] = []
    leave = Visit.leave

    async def slowly(visit: Visit) -> None:
        goodbyes.append(asyncio.Event())
        await goodbyes[-1].wait()
        await leave(visit)

    async def work(stage: Stage) -> None:
        monkeypatch.setattr(Visit, "leave", slowly)
        assert (await stage.run(stage.owner, "echo said")).out == b"said\n"
        # The connection has gone, with everything that was done for it.
        await until(lambda: goodbyes and not stage.server._connections)
        assert not stage.events("left") and len(visits(stage)) == 1
        goodbyes[0].set()
        await until(lambda: stage.events("left"))
        assert not visits(stage)
        stage.change(linger_seconds=0.0)
        await until(lambda: stage.events("computer-ended"))

    on_a_stage(tmp_path, work)


def visits(stage: Stage) -> list[Visit]:
    return [one for guest in stage.shells._guests.values() for one in guest.visits]
