"""Many lives in one process: starting and stopping leaves no descriptor, folder, group or zombie behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
    gc.collect()
    zygote_pid()
    if os.geteuid() == 0:
        take_uid("test").release()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(descendants(os.getpid())),
        "folders": sorted(path.name for path in Path(tempfile.gettempdir()).iterdir()),
        "groups": sorted(
            str(path) for path in Path("/sys/fs/cgroup").glob(f"*/openresource-{os.getpid()}-*")
        ),
    }


@pytest.fixture(params=[Bubblewrap, Confined])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """A level that starts here."""
    made: Sandbox = request.param()
    if not made.probe().available:
        pytest.skip(f"{made.probe().level} does not start here: {made.probe().why_not}")
    return made


async def live(sandbox: Sandbox, folder: Path) -> None:
    """Programs that end well, that crash, that never start, and that somebody gives up at whatever point of a start."""
    release, bad = load_release(folder), load_release(folder / "bad")

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
        for seconds in (0, 0.005, 0.03, 0.06, 0.1):
            starting = asyncio.ensure_future(sandbox.start(release, LIMITS))
            await asyncio.wait((starting,), timeout=seconds)
            starting.cancel()
            for started in await asyncio.gather(starting, return_exceptions=True):
                if not isinstance(started, BaseException):
                    await started.stop()

    async def until(condition: Callable[[], bool]) -> None:
        """What was given up may take a moment to go."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while not condition():
                    await asyncio.sleep(0.05)

    await lives()
    await until(lambda: not list(Path(tempfile.gettempdir()).glob("openresource-program-*")))
    before = traces()
    for _ in range(3):
        await lives()
    await until(lambda: traces() == before)
    assert traces() == before, f"{before} became {traces()}"


def test_sandbox_lives_leave_no_trace(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "openresource.toml").write_text(MANIFEST)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/openresource.toml").write_text(MANIFEST)
    (tmp_path / "bad/program.py").write_text("raise SystemExit(3)")
    # In a process of its own: what other tests hold open in this one goes at its own time.
    with tempfile.TemporaryDirectory(prefix="lives-") as folder:
        # Programs of the level `confined` have a user of their own, who has to come through.
        Path(folder).chmod(0o711)
        child = subprocess.run(
            [sys.executable, "-m", "tests.sandbox.test_sandbox_lives", type(sandbox).__name__, str(tmp_path)],
            env={**os.environ, "TMPDIR": folder},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=170,
        )
    assert child.returncode == 0, child.stderr


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
        await pool.drain(60)

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
    assert left.wait(60) == -signal.SIGKILL


if __name__ == "__main__":
    LEVELS: dict[str, type[Sandbox]] = {"Bubblewrap": Bubblewrap, "Confined": Confined}
    asyncio.run(live(LEVELS[sys.argv[1]](), Path(sys.argv[2])))
