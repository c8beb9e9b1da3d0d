"""Lines of a process's output as they come: all of them are read at once, so that no full pipe stops who writes."""

from __future__ import annotations

import queue
import threading
from typing import IO


class Lines:
    """What comes out of a pipe, line by line and as a whole."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._said: list[str] = []
        self._next: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self, seconds_max: float) -> str:
        """The line that nobody took yet, empty after the last one; `queue.Empty` if none comes in time."""
        line = self._next.get(timeout=max(0.0, seconds_max))
        if not line:
            self._next.put("")
        return line

    def rest(self, seconds_max: float) -> str:
        """Everything that was said, the pipe's other end having been closed."""
        self._thread.join(seconds_max)
        assert not self._thread.is_alive(), "somebody still holds the other end"
        return "".join(self._said)

    def _read(self) -> None:
        with self._pipe:
            for line in self._pipe:
                self._said.append(line)
                self._next.put(line)
        self._next.put("")
