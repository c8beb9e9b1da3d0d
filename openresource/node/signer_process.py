"""A process that finds out who signed: it reads digests with signatures, and writes addresses, until its socket ends.

What comes in is a count (two bytes, big endian) and that many records of 97 bytes: a digest, and r, s and v. For each
one 42 bytes go out, in the same order: the address, or zeros if no key belongs to it. It has no key, no file of the
node, and nothing from outside but these numbers.
"""

from __future__ import annotations

import signal
import socket
import sys

from openresource.primitives.errors import Refusal
from openresource.primitives.keys import recover

READY = b"\x01"
COUNT_BYTES = 2
DIGEST_BYTES = 32
RECORD_BYTES = DIGEST_BYTES + 65
ADDRESS_BYTES = 42
NOBODY = bytes(ADDRESS_BYTES)


def question(records: list[bytes]) -> bytes:
    """What the process reads, of records of digest and signature."""
    return len(records).to_bytes(COUNT_BYTES, "big") + b"".join(records)


def signer(record: bytes) -> str:
    """The address behind a record; empty if there is none."""
    try:
        return recover(record[:DIGEST_BYTES], record[DIGEST_BYTES:])
    except Refusal:
        return ""


def addresses(answer: bytes) -> list[str]:
    """The addresses in what the process wrote; empty for those where there is none."""
    parts = [answer[at : at + ADDRESS_BYTES] for at in range(0, len(answer), ADDRESS_BYTES)]
    return ["" if part == NOBODY else part.decode("ascii") for part in parts]


def serve(channel: socket.socket) -> None:
    """Answer until the other side is gone."""
    channel.sendall(READY)
    with channel.makefile("rb") as incoming:
        while head := incoming.read(COUNT_BYTES):
            wanted = int.from_bytes(head, "big") * RECORD_BYTES
            records = incoming.read(wanted)
            if len(records) < wanted:
                return
            found = [
                signer(records[at : at + RECORD_BYTES]).encode("ascii") or NOBODY
                for at in range(0, wanted, RECORD_BYTES)
            ]
            channel.sendall(b"".join(found))


def main() -> None:
    """Serve on the descriptor that is named; the end of the node is the end of its socket, whatever ended it."""
    # A key press at a terminal goes to the node, which says when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with socket.socket(fileno=int(sys.argv[1])) as channel:
            serve(channel)
    except ConnectionError:
        # Nobody is left to whom it could be told.
        return


if __name__ == "__main__":
    main()
