"""Who signed: recovery of signers' addresses, aside in processes of this node once there is much of it.

Recovering an address takes most of what a door does for a transaction, and while it runs nothing else does. So when
signatures keep coming, a node with more than one core starts processes that do nothing else. Little is answered at
once, in this process: so a single transaction waits for nobody, and a resting node has no other process. Answers come
in the order of the questions. If a process dies or hangs, what it was asked is recovered here, and it is started again.
Why so: `docs/decisions/0036-signers-in-processes.md`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from openresource.node.signer_process import (
    ADDRESS_BYTES,
    READY,
    addresses,
    question,
    signer,
)

PROCESSES_MAX: Final = 4
# So few are answered at once, if nothing else waits.
DIRECT_MAX: Final = 2
# This many within a second make processes worth their start.
BUSY_SIGNATURES: Final = 200
BUSY_SECONDS: Final = 1.0
# What one process holds may fill some milliseconds in which this one is busy, and always fits into the socket.
IN_FLIGHT_MAX: Final = 512
PIECE_MIN: Final = 16
PIECE_MAX: Final = 64
# With more than this waiting, this process helps.
WAITING_MAX: Final = 8_192
ANSWER_SECONDS_MAX: Final = 10.0
IDLE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
RESTART_SECONDS: Final = 1.0
RESTART_SECONDS_MAX: Final = 60.0
RECEIVE_BYTES: Final = 65_536
# All that a process is given of the node's environment, which may hold its key: how Python finds its libraries.
VARIABLES_GIVEN: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "OPENRESOURCE_PLAIN")

_log = logging.getLogger("openresource.node.signers")


class _Question:
    """Signatures that came together, and the answers so far."""

    __slots__ = ("found", "future", "missing")

    def __init__(self, count: int, future: asyncio.Future[list[str]]) -> None:
        self.found: list[str] = [""] * count
        self.missing = count
        self.future = future


class _Piece:
    """A part of a question that one process answers."""

    __slots__ = ("asked_at", "first", "question", "records")

    def __init__(self, question: _Question, first: int, records: list[bytes]) -> None:
        self.question = question
        self.first = first
        self.records = records
        self.asked_at = 0.0


class _Process:
    """One running process, and what it has been asked."""

    __slots__ = ("channel", "child", "in_flight", "is_ready", "pieces", "received", "used_at")

    def __init__(self, now: float) -> None:
        self.channel, theirs = socket.socketpair()
        with theirs:
            try:
                self.child = subprocess.Popen(
                    [
                        sys.executable or "python3",
                        "-P",
                        "-s",
                        "-m",
                        "openresource.node.signer_process",
                        str(theirs.fileno()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env=_environment(),
                )
            except OSError:
                self.channel.close()
                raise
        self.channel.setblocking(False)
        self.pieces: deque[_Piece] = deque()
        self.in_flight = 0
        self.received = bytearray()
        self.is_ready = False
        self.used_at = now

    def ask(self, piece: _Piece, now: float) -> bool:
        """Send a piece; False if the socket has no room for it. Raises OSError if only a part of it could be sent."""
        data = question(piece.records)
        try:
            sent = self.channel.send(data)
        except BlockingIOError:
            return False
        if sent != len(data):
            raise OSError("it took a part of what it was asked")
        piece.asked_at = self.used_at = now
        self.pieces.append(piece)
        self.in_flight += len(piece.records)
        return True

    def end(self) -> None:
        """Kill it; it keeps nothing."""
        self.channel.close()
        self.child.kill()
        self.child.wait()


class Signers:
    """Recovers the addresses behind signatures for one node; used from one event loop."""

    def __init__(self, processes_max: int | None = None) -> None:
        """`processes_max` is by default one less than there are cores; with 0 everything happens here."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._processes_max = min(cores - 1, PROCESSES_MAX) if processes_max is None else processes_max
        self._processes: list[_Process] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._questions: deque[_Question] = deque()
        self._waiting: deque[_Piece] = deque()
        self._waiting_count = 0
        # Those who have their answer and did not go on yet: nobody who came later may pass them.
        self._leaving: set[_Question] = set()
        self._helper: asyncio.Task[None] | None = None
        self._look: asyncio.TimerHandle | None = None
        self._counted_from = 0.0
        self._counted = 0
        self._start_at = 0.0
        self._restart_seconds = RESTART_SECONDS
        self._is_closed = False

    @property
    def pids(self) -> list[int]:
        """The processes that are running."""
        return [process.child.pid for process in self._processes]

    @property
    def ready_count(self) -> int:
        """How many of them have said that they are ready."""
        return sum(process.is_ready for process in self._processes)

    @property
    def waiting_count(self) -> int:
        """Signatures that no process has been given yet."""
        return self._waiting_count

    async def recover(self, records: Sequence[bytes]) -> list[str]:
        """The addresses behind records of a digest and r, s, v (97 bytes); empty where no key belongs to one."""
        if not records:
            return []
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        self._note_demand(len(records))
        if len(records) <= DIRECT_MAX and not self._questions and not self._leaving:
            return [signer(record) for record in records]
        asked = _Question(len(records), loop.create_future())
        self._questions.append(asked)
        size = min(PIECE_MAX, max(PIECE_MIN, -(-len(records) // max(1, len(self._processes)))))
        for first in range(0, len(records), size):
            self._waiting.append(_Piece(asked, first, list(records[first : first + size])))
        self._waiting_count += len(records)
        self._hand_out()
        try:
            return await asked.future
        finally:
            self._leaving.discard(asked)

    def close(self) -> None:
        """End the processes; what is still asked is recovered here, as long as the loop of those who ask runs."""
        self._is_closed = True
        while self._processes:
            self._give_up(self._processes[0])
        self._look_no_more()
        if self._loop is not None and self._loop.is_running():
            self._hand_out()

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forget what belongs to a loop that is no more."""
        while self._processes:
            self._give_up(self._processes[0])
        self._questions.clear()
        self._waiting.clear()
        self._leaving.clear()
        self._waiting_count = 0
        self._helper = self._look = None
        self._loop = loop

    # Processes.

    def _note_demand(self, count: int) -> None:
        """Start processes when signatures keep coming."""
        if len(self._processes) >= self._processes_max or self._is_closed:
            return
        now = time.monotonic()
        if now - self._counted_from > BUSY_SECONDS:
            self._counted_from, self._counted = now, 0
        self._counted += count
        if self._counted >= BUSY_SIGNATURES and now >= self._start_at:
            self._start(now)

    def _start(self, now: float) -> None:
        loop = self._loop
        assert loop is not None
        while len(self._processes) < self._processes_max:
            try:
                process = _Process(now)
            except OSError as error:
                self._put_off(now)
                _log.warning(
                    "no process for signatures can be started", extra={"facts": {"reason": str(error)}}
                )
                return
            self._processes.append(process)
            loop.add_reader(process.channel, self._take, process)
        if self._look is None:
            self._look = loop.call_later(LOOK_SECONDS, self._look_after)
        _log.info("signatures are recovered aside", extra={"facts": {"processes": len(self._processes)}})

    def _put_off(self, now: float) -> None:
        self._start_at = now + self._restart_seconds
        self._restart_seconds = min(2 * self._restart_seconds, RESTART_SECONDS_MAX)

    def _look_after(self) -> None:
        """End what hangs, and what nobody needs any more."""
        self._look = None
        now = time.monotonic()
        for process in list(self._processes):
            if process.pieces and now - process.pieces[0].asked_at > ANSWER_SECONDS_MAX:
                self._fail(process, "it does not answer")
            elif not process.pieces and now - process.used_at > IDLE_SECONDS:
                self._give_up(process)
        if self._processes:
            assert self._loop is not None
            self._look = self._loop.call_later(LOOK_SECONDS, self._look_after)

    def _look_no_more(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _fail(self, process: _Process, reason: str) -> None:
        facts = {"process": process.child.pid, "reason": reason, "signatures": process.in_flight}
        _log.warning("a process for signatures has failed; they are recovered here", extra={"facts": facts})
        self._put_off(time.monotonic())
        self._give_up(process)
        self._hand_out()

    def _give_up(self, process: _Process) -> None:
        """End a process; what it was asked waits again, before everything else."""
        self._processes.remove(process)
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.remove_reader(process.channel)
        process.end()
        self._waiting.extendleft(reversed(process.pieces))
        self._waiting_count += process.in_flight

    # Questions.

    def _hand_out(self) -> None:
        """Give what waits to processes with room; without any, and when too much waits, it is recovered here."""
        ready = [process for process in self._processes if process.is_ready]
        now = time.monotonic()
        while ready and self._waiting:
            process = min(ready, key=lambda one: one.in_flight)
            piece = self._waiting[0]
            if process.in_flight + len(piece.records) > IN_FLIGHT_MAX:
                break
            try:
                if not process.ask(piece, now):
                    break
            except OSError as error:
                self._fail(process, str(error))
                return
            self._waiting.popleft()
            self._waiting_count -= len(piece.records)
        if self._waiting and self._helper is None and (not ready or self._waiting_count > WAITING_MAX):
            self._helper = asyncio.get_running_loop().create_task(self._help(), name="signers")

    async def _help(self) -> None:
        try:
            while self._waiting:
                piece = self._waiting.popleft()
                self._waiting_count -= len(piece.records)
                found: list[str] = []
                for record in piece.records:
                    found.append(signer(record))
                    # Others must not wait for all of them.
                    await asyncio.sleep(0)
                self._note(piece, found)
                if self._waiting_count <= WAITING_MAX and any(one.is_ready for one in self._processes):
                    break
        finally:
            self._helper = None
        self._hand_out()

    def _take(self, process: _Process) -> None:
        """Read what a process has written."""
        try:
            data = process.channel.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(process, str(error))
            return
        if not data:
            self._fail(process, "it has ended")
            return
        process.received += data
        if not process.is_ready:
            if process.received[:1] != READY:
                self._fail(process, "it says something else")
                return
            del process.received[:1]
            process.is_ready = True
        while process.pieces:
            piece = process.pieces[0]
            size = len(piece.records) * ADDRESS_BYTES
            if len(process.received) < size:
                break
            try:
                found = addresses(bytes(process.received[:size]))
            except UnicodeDecodeError:
                self._fail(process, "it says something else")
                return
            process.pieces.popleft()
            process.in_flight -= len(piece.records)
            self._note(piece, found)
            del process.received[:size]
            self._restart_seconds = RESTART_SECONDS
        self._hand_out()

    def _note(self, piece: _Piece, found: list[str]) -> None:
        """Keep answers, and give whole ones back, in the order of the questions."""
        asked = piece.question
        asked.found[piece.first : piece.first + len(found)] = found
        asked.missing -= len(found)
        while self._questions and not self._questions[0].missing:
            done = self._questions.popleft()
            # Who asked may have left.
            if not done.future.done():
                done.future.set_result(done.found)
                self._leaving.add(done)


def _environment() -> dict[str, str]:
    given = {name: os.environ[name] for name in VARIABLES_GIVEN if name in os.environ}
    return {**given, "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path)}
