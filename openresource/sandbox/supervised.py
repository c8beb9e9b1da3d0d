"""A program below a supervisor of our own: it reaps orphans, and whatever it leaves behind dies with it.

For drivers without a process namespace that the kernel would end as a whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from openresource.sandbox import proc
from openresource.sandbox.driver import ProgramDidNotStart
from openresource.sandbox.groups import Groups
from openresource.sandbox.launching import launch
from openresource.sandbox.processes import Ends, GuestProcess, Process, first_words, kill_tree

STARTED_SECONDS_MAX: Final = 20.0


class SupervisedProcess(GuestProcess):
    """A supervisor of our own, which reaps and kills, and below it the program."""

    def __init__(self, popen: Process, ends: Ends, groups: Groups | None, main: int) -> None:
        super().__init__(popen, ends, groups)
        self._program = main
        self._killed = False

    def tree(self) -> list[int]:
        """The program's processes, without the supervisor."""
        return proc.descendants(self.root)[1:]

    def find_main(self) -> int:
        """The program's first process."""
        return self._program

    def kill(self) -> None:
        """The supervisor kills everything below it and ends last."""
        if not self._killed:
            self._killed = True
            self.popen.send_signal(signal.SIGTERM)

    async def reap(self) -> None:
        """Wait for the supervisor; should it be stuck, do its work."""
        try:
            await super().reap()
        except TimeoutError:
            for pid in reversed(proc.descendants(self.root)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            await super().reap()


Supervised = TypeVar("Supervised", bound=SupervisedProcess)


async def start_supervised(
    plan: Mapping[str, Any],
    ends: Ends,
    groups: Groups | None,
    keep: Sequence[int] = (),
    *,
    make: type[Supervised],
) -> Supervised:
    """Launch a plan below a supervisor, which goes when this process goes."""
    ready, ready_theirs = os.pipe()
    plan = {**plan, "supervise": os.getpid(), "ready": ready_theirs}
    try:
        popen = launch(plan, ends, (ready_theirs, *keep))
    finally:
        os.close(ready_theirs)
        ends.close_theirs()
    try:
        main = await _main_pid(ready)
        if main == 0:
            raise ProgramDidNotStart(reason="the launcher refused", stderr=first_words(ends))
        return make(popen, ends, groups, main)
    except BaseException:
        kill_tree(popen)
        raise
    finally:
        os.close(ready)


async def _main_pid(ready: int) -> int:
    """The program's process number, as the launcher tells it; 0 when it has ended without a word."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(ready, told.set)
    try:
        async with asyncio.timeout(STARTED_SECONDS_MAX):
            await told.wait()
    except TimeoutError:
        return 0
    finally:
        loop.remove_reader(ready)
    text = os.read(ready, 32).strip()
    return int(text) if text.isdigit() else 0
