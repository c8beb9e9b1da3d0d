"""The one way from a sandbox to the network: an HTTP proxy on a unix socket, open towards listed names alone.

A sandbox has no network of its own; the socket is bound into it, and a relay inside (`guest/egress_guest.py`) makes it
look like an ordinary proxy. Names are resolved here, the address that was looked at is the one that is called, and
addresses of this machine and of private networks are refused unless this machine's operator has named the host.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from openresource.primitives.errors import Refusal
from openresource.sandbox.folders import make_folder, remove_folder

log = logging.getLogger("openresource.sandbox.egress")

EGRESS_FOLDER: Final = "/egress"
EGRESS_NAME: Final = "egress.sock"

HEAD_BYTES_MAX: Final = 16 << 10
HEAD_SECONDS_MAX: Final = 15.0
CONNECT_SECONDS_MAX: Final = 20.0
PART_BYTES: Final = 64 << 10
LOG_KEPT_MAX: Final = 1_000
ALLOWED_MAX: Final = 256

ALLOWED: Final = "allowed"
NOT_LISTED: Final = "not on the list"
PRIVATE: Final = "a private address"
UNKNOWN_NAME: Final = "no such name"
UNREACHABLE: Final = "unreachable"
TOO_MUCH: Final = "cut: too many bytes"
TOO_LONG: Final = "cut: too long"
MALFORMED: Final = "not a request"

# This machine, its neighbours, and where clouds keep their machines' secrets.
PRIVATE_NETWORKS: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
        "::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fc00::/7", "fe80::/10",
        "fec0::/10", "ff00::/8",
    )
)  # fmt: skip

TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")

_TARGET = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})")
_METHOD = re.compile(rb"[A-Z]{3,10}")
_HOP_HEADERS: Final = (b"proxy-connection", b"proxy-authorization", b"connection", b"keep-alive")


class InvalidTarget(Refusal):
    template = (
        "{target} names no place in the network: a target is a host and a port, such as example.org:443."
    )
    way_out = 'Write it as "host:port".'


@dataclass(frozen=True, slots=True)
class Target:
    """A host and a port, as they are listed."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(slots=True)
class Connection:
    """What a sandbox asked for and what became of it."""

    target: str
    verdict: str = ALLOWED
    bytes_out: int = 0
    bytes_in: int = 0
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What one sandbox may take from the network; bytes are counted over all of its connections."""

    connections: int = 64
    bytes: int = 256 << 20
    connection_seconds: float = 600.0
    idle_seconds: float = 120.0


@dataclass(slots=True)
class _Spent:
    bytes: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


def parse_target(text: str) -> Target:
    """The target that a text names; names are compared in lower case and without a final dot."""
    match = _TARGET.fullmatch(text)
    port = int(match[2]) if match else 0
    if match is None or not 0 < port < 65_536:
        raise InvalidTarget(target=text)
    return Target(match[1].strip("[]").lower().rstrip("."), port)


def is_private(address: str) -> bool:
    """Whether an address belongs to this machine or to networks beside it."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed in TRANSLATED:
            # A machine without IPv4 of its own reaches every such address under this prefix.
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    return any(parsed.version == network.version and parsed in network for network in PRIVATE_NETWORKS)


def is_own(address: str) -> bool:
    """Whether a public address is this machine's: its firewall lets through from itself what it keeps out otherwise."""
    bare = address.partition("%")[0]
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        # Nothing is sent; the system only says from where it would be.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((bare, 9))
            mine = str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return False
    return ipaddress.ip_address(mine) == ipaddress.ip_address(bare)


class EgressProxy:
    """A listening socket in a folder of its own, for one sandbox."""

    def __init__(
        self,
        allowed: Sequence[str],
        *,
        private_hosts: Iterable[str] = (),
        limits: EgressLimits | None = None,
        on_connection: Callable[[Connection], None] | None = None,
    ) -> None:
        """`private_hosts` are those of the list that this machine's operator runs in a network of their own."""
        if len(allowed) > ALLOWED_MAX:
            raise InvalidTarget(target=f"a list of {len(allowed)} targets")
        self._allowed = frozenset(parse_target(text) for text in allowed)
        self._private_hosts = frozenset(host.lower() for host in private_hosts)
        self._limits = limits or EgressLimits()
        self._on_connection = on_connection
        self._spent = _Spent()
        self._server: asyncio.Server | None = None
        self._parent: Path | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.log: deque[Connection] = deque(maxlen=LOG_KEPT_MAX)

    @property
    def folder(self) -> Path:
        """The folder that is bound into the sandbox."""
        assert self._parent is not None, "it listens"
        return self._parent / "egress"

    async def open(self) -> None:
        """Listen; programs under another uid may enter the folder, nobody may list its parent."""
        self._parent = make_folder("egress")
        try:
            os.chmod(self._parent, 0o711)
            self.folder.mkdir()
            os.chmod(self.folder, 0o755)
            path = self.folder / EGRESS_NAME
            opening = asyncio.ensure_future(
                asyncio.start_unix_server(self._accept, path, limit=HEAD_BYTES_MAX)
            )
            try:
                await asyncio.shield(opening)
            finally:
                # Cancelled half-way, asyncio would forget a socket that listens already.
                self._server = await opening
            os.chmod(path, 0o666)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up and remove the folder."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=CONNECT_SECONDS_MAX)
        if self._parent is not None:
            remove_folder(self._parent)

    async def __aenter__(self) -> EgressProxy:
        await self.open()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._limits.connections:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection("?")
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._limits.connection_seconds):
                await self._carry_out(reader, writer, connection)
        except TimeoutError:
            connection.verdict = TOO_LONG
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            if connection.target == "?":
                connection.verdict = MALFORMED
        finally:
            writer.transport.abort()
            connection.milliseconds = round((time.monotonic() - began) * 1000)
            self.log.append(connection)
            log.info(
                "%s: %s, %d bytes out, %d in, %d ms",
                connection.target,
                connection.verdict,
                connection.bytes_out,
                connection.bytes_in,
                connection.milliseconds,
            )
            if self._on_connection is not None:
                self._on_connection(connection)

    async def _carry_out(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        async with asyncio.timeout(HEAD_SECONDS_MAX):
            head = await reader.readuntil(b"\r\n\r\n")
        target, first = _request(head)
        if target is None:
            connection.verdict = MALFORMED
            return await _refuse(writer, 400, "This is a proxy; it takes CONNECT and absolute addresses.")
        connection.target = str(target)
        if target not in self._allowed:
            connection.verdict = NOT_LISTED
            return await _refuse(writer, 403, f"{target} is not on the list of this program's network.")
        if self._spent.bytes >= self._limits.bytes:
            connection.verdict = TOO_MUCH
            return await _refuse(writer, 403, "This program has used up its network bytes.")
        addresses, verdict = await self._addresses(target)
        if verdict:
            connection.verdict = verdict
            return await _refuse(writer, 502 if verdict == UNKNOWN_NAME else 403, f"{target}: {verdict}.")
        upstream = await _connect(addresses, target.port)
        if upstream is None:
            connection.verdict = UNREACHABLE
            return await _refuse(writer, 502, f"{target} does not answer.")
        try:
            if first:
                upstream[1].write(first)
                connection.bytes_out += len(first)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self._relay(reader, writer, upstream, connection)
        finally:
            upstream[1].transport.abort()
        return None

    async def _addresses(self, target: Target) -> tuple[list[str], str]:
        """What may be called for a target, or the verdict on it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            return [], UNKNOWN_NAME
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        # One private address among public ones is how names are turned against a proxy.
        if target.host not in self._private_hosts and any(
            is_private(address) or is_own(address) for address in addresses
        ):
            return [], PRIVATE
        return addresses, ""

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        connection: Connection,
    ) -> None:
        out = asyncio.ensure_future(self._pump(reader, upstream[1], connection, is_out=True))
        back = asyncio.ensure_future(self._pump(upstream[0], writer, connection, is_out=False))
        try:
            # What the far side sends decides: a client that has said all may still listen.
            await asyncio.wait({out, back}, return_when=asyncio.FIRST_COMPLETED)
            if out.done() and not out.exception():
                await back
            if back.done() and not back.exception():
                writer.close()
                await writer.wait_closed()
        finally:
            for pump in (out, back):
                pump.cancel()
            await asyncio.gather(out, back, return_exceptions=True)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Connection,
        *,
        is_out: bool,
    ) -> None:
        while True:
            async with asyncio.timeout(self._limits.idle_seconds):
                part = await reader.read(PART_BYTES)
            if not part:
                with suppress(OSError, RuntimeError):
                    writer.write_eof()
                return
            self._spent.bytes += len(part)
            if self._spent.bytes > self._limits.bytes:
                connection.verdict = TOO_MUCH
                raise ConnectionError("the bytes are used up")
            if is_out:
                connection.bytes_out += len(part)
            else:
                connection.bytes_in += len(part)
            writer.write(part)
            await writer.drain()


def _request(head: bytes) -> tuple[Target | None, bytes]:
    """What a request's head asks for, and the bytes to send on: none for a tunnel."""
    line, _, rest = head.partition(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or _METHOD.fullmatch(words[0]) is None:
        return None, b""
    try:
        asked = words[1].decode("ascii")
        if words[0] == b"CONNECT":
            return parse_target(asked), b""
        if not asked.startswith("http://"):
            return None, b""
        place, slash, path = asked.removeprefix("http://").partition("/")
        target = parse_target(place if _TARGET.fullmatch(place) else f"{place}:80")
    except (UnicodeDecodeError, Refusal):
        return None, b""
    kept = [
        header
        for header in rest.rstrip(b"\r\n").split(b"\r\n")
        if header.partition(b":")[0].strip().lower() not in _HOP_HEADERS and header
    ]
    # One request for each connection, so that the next one is looked at as well.
    lines = [words[0] + b" " + (slash + path or "/").encode() + b" " + words[2], *kept, b"Connection: close"]
    return target, b"\r\n".join(lines) + b"\r\n\r\n"


async def _connect(
    addresses: Sequence[str], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    for address in addresses[:4]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                return await asyncio.open_connection(address, port, limit=PART_BYTES)
        except (OSError, TimeoutError):
            continue
    return None


async def _refuse(writer: asyncio.StreamWriter, status: int, words: str) -> None:
    body = (words + "\n").encode()
    reason = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}[status]
    writer.write(
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
