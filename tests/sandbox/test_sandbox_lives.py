"""Many lives in one process: starting and stopping leaves no descriptor, folder, group or zombie behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.confined.driver import Confined
from openresource.sandbox.driver import Limits, ProgramCall, ProgramDidNotStart, ProgramError, Sandbox
from openresource.sandbox.pool import ProgramPool
from openresource.sandbox.proc import descendants
from openresource.sandbox.releases import load_release
from openresource.sandbox.uids import take_uid
from openresource.sandbox.zygotes import zygote_pid

pytestmark = pytest.mark.sandbox
MANIFEST = 'name = "lives"\n[run]\nkind = "python"\nentry = "program:run"\n'
PROGRAM = """
import os
def run(how: str) -> str:
    if how == "crash": os._exit(1)
    return how
"""
LIMITS = Limits(memory_bytes=128 << 20, processes=8)


def traces() -> dict[str, object]:
    """What a program might leave, beside what waits for the next one: the launcher and numbers of users."""
    zygote_pid()
    if os.geteuid() == 0:
        take_uid("test").release()
    mine = f"openresource-{os.getpid()}-"
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(descendants(os.getpid())),
        "folders": sorted(
            path.name for path in Path(tempfile.gettempdir()).glob("openresource-*") if _is_mine(path)
        ),
        "groups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{mine}*")),
    }


def _is_mine(path: Path) -> bool:
    return path.name.startswith(("openresource-broker-", "openresource-program-")) and path.name in _MADE


_MADE: set[str] = set()


@pytest.fixture(autouse=True)
def folders_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other test processes make such folders too: remember which are ours."""
    real = tempfile.mkdtemp

    def remembering(*arguments: object, **named: object) -> str:
        made = real(*arguments, **named)  # type: ignore[arg-type]
        _MADE.add(Path(made).name)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", remembering)


@pytest.fixture(params=[Bubblewrap, Confined])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """A level that starts here."""
    made: Sandbox = request.param()
    if not made.probe().available:
        pytest.skip(f"{made.probe().level} does not start here: {made.probe().why_not}")
    return made


def test_sandbox_lives_leave_no_trace(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "openresource.toml").write_text(MANIFEST)
    (tmp_path / "program.py").write_text(PROGRAM)
    release = load_release(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/openresource.toml").write_text(MANIFEST)
    (tmp_path / "bad/program.py").write_text("raise SystemExit(3)")
    bad = load_release(tmp_path / "bad")

    async def main() -> None:
        async def lives() -> None:
            for how in ("fine", "crash"):
                instance = await sandbox.start(release, LIMITS)
                try:
                    await instance.call(ProgramCall("run", "/run", f'"{how}"'.encode()))
                except ProgramError:
                    assert how == "crash"
                await instance.stop()
                await instance.stop()
            with pytest.raises(ProgramDidNotStart):
                await sandbox.start(bad, LIMITS)
            # Somebody gives up at whatever point of a start.
            for seconds in (0, 0.005, 0.03, 0.06, 0.1):
                starting = asyncio.ensure_future(sandbox.start(release, LIMITS))
                await asyncio.wait((starting,), timeout=seconds)
                starting.cancel()
                for started in await asyncio.gather(starting, return_exceptions=True):
                    if not isinstance(started, BaseException):
                        await started.stop()

        await lives()
        before = traces()
        for _ in range(3):
            await lives()
        assert traces() == before

    asyncio.run(main())


def test_sandbox_a_pool_replaces_what_dies(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "openresource.toml").write_text(MANIFEST)
    (tmp_path / "program.py").write_text(PROGRAM)

    async def main() -> None:
        pool = ProgramPool(sandbox, load_release(tmp_path), LIMITS, size=2)
        await pool.start()
        for how in ("fine", "crash", "fine", "crash", "fine"):
            try:
                reply = await pool.call(ProgramCall("run", "/run", f'"{how}"'.encode()))
                assert reply.body == b'"fine"'
            except ProgramError:
                assert how == "crash"
        usage = await pool.usage()
        assert usage.bytes_out > 0 and usage.peak_rss_bytes > 0
        await pool.drain(5)

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives programs a uid of their own")
def test_sandbox_a_uid_is_taken_over_without_its_past(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openresource.toml").write_text(MANIFEST)
    (tmp_path / "program.py").write_text(PROGRAM)
    uid = take_uid("test")
    # As one that a killed provider had before.
    uid.is_new = True
    left = subprocess.Popen(["sleep", "600"], user=uid.number, group=uid.number, extra_groups=[])
    module = sys.modules[type(sandbox).__module__]
    monkeypatch.setattr(module, "take_uid", lambda level: uid)

    async def main() -> None:
        instance = await sandbox.start(load_release(tmp_path), LIMITS)
        assert (await instance.call(ProgramCall("run", "/run", b'"fine"'))).body == b'"fine"'
        await instance.stop()

    asyncio.run(main())
    assert left.wait(10) == -signal.SIGKILL
