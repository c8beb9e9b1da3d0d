"""Runs inside a sandbox before its program: makes the bound unix socket look like an ordinary proxy on loopback.

    egress_guest.py PORT SOCKET COMMAND [WORD ...]

A relay stays behind as a process of its own; this one becomes the program, so that its descriptors, its number and its
end are the program's own.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys

# Importing it would cost as much time as all our own work.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNECTIONS_MAX = 64
WAITING_MAX = 256
BUFFER_BYTES_MAX = 256 * 1024
PART_BYTES = 64 * 1024


class Side:
    """One end of a relayed connection: what waits to be sent to it, and whether more will come from it."""

    __slots__ = ("buffer", "is_finished", "is_shut", "other", "wire")

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self.buffer = bytearray()
        self.is_finished = False
        self.is_shut = False
        self.other: Any = None


class Relay:
    """Carries bytes between loopback and the unix socket until it is killed."""

    def __init__(self, listening: socket.socket, path: str) -> None:
        self._listening = listening
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._connections = 0
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)

    def run(self) -> None:
        """Relay for ever."""
        while True:
            for key, events in self._selector.select():
                if key.data is None:
                    self._accept()
                elif key.data.wire.fileno() >= 0:
                    self._move(key.data, events)

    def _accept(self) -> None:
        try:
            near, _ = self._listening.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            far.connect(self._path)
        except OSError:
            near.close()
            far.close()
            return
        self._connections += 1
        if self._connections >= CONNECTIONS_MAX:
            # Who comes now waits in line until somebody has gone.
            self._selector.unregister(self._listening)
        sides = Side(near), Side(far)
        sides[0].other, sides[1].other = sides[1], sides[0]
        for side in sides:
            side.wire.setblocking(False)
            self._selector.register(side.wire, selectors.EVENT_READ, side)

    def _move(self, side: Side, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not side.is_finished:
                part = side.wire.recv(PART_BYTES)
                if part:
                    side.other.buffer += part
                else:
                    side.is_finished = True
                self._flush(side.other)
            if events & selectors.EVENT_WRITE:
                self._flush(side)
            self._watch(side)
            self._watch(side.other)
            if side.is_shut and side.other.is_shut:
                self._close(side)
        except BlockingIOError:
            return
        except OSError:
            self._close(side)

    def _flush(self, side: Side) -> None:
        if side.buffer:
            try:
                del side.buffer[: side.wire.send(side.buffer)]
            except BlockingIOError:
                return
        if side.other.is_finished and not side.buffer and not side.is_shut:
            side.is_shut = True
            side.wire.shutdown(socket.SHUT_WR)

    def _watch(self, side: Side) -> None:
        wanted = selectors.EVENT_WRITE if side.buffer else 0
        if not side.is_finished and len(side.other.buffer) < BUFFER_BYTES_MAX:
            wanted |= selectors.EVENT_READ
        is_known = side.wire.fileno() in self._selector.get_map()
        if wanted and is_known:
            self._selector.modify(side.wire, wanted, side)
        elif wanted:
            self._selector.register(side.wire, wanted, side)
        elif is_known:
            self._selector.unregister(side.wire)

    def _close(self, side: Side) -> None:
        for one in (side, side.other):
            if one.wire.fileno() >= 0:
                if one.wire.fileno() in self._selector.get_map():
                    self._selector.unregister(one.wire)
                one.wire.close()
        self._connections -= 1
        if self._connections == CONNECTIONS_MAX - 1:
            self._selector.register(self._listening, selectors.EVENT_READ)


def leave_behind(listening: socket.socket, path: str) -> None:
    """Start the relay as nobody's child, so that no program waits for a process that it has not started."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    if os.fork():
        os._exit(0)
    # The program's descriptors must close when the program ends, not when we do.
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    kept = listening.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 4096)
    try:
        Relay(listening, path).run()
    finally:
        os._exit(1)


def main() -> None:
    """Listen, leave the relay behind, become the program."""
    port, path, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(WAITING_MAX)
    leave_behind(listening, path)
    listening.close()
    try:
        os.execvpe(command[0], command, os.environ)
    except OSError as problem:
        sys.stderr.write(f"{command[0]}: {problem.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


if __name__ == "__main__":
    main()
