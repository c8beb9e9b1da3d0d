"""The door of a machine: takes connections by SSH, asks `Shells` who may enter, and carries the bytes of their sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from typing import Any, Final

import asyncssh

from openresource import __version__
from openresource.adapters.ssh.keys import public_key_of
from openresource.market.machines import Right
from openresource.market.ssh_keys import PublicKey
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import checksum_address, is_address
from openresource.provider.shells import Shells
from openresource.provider.visits import Visit
from openresource.sandbox.computers import Ended, Said, Terminal

log = logging.getLogger("openresource.adapters.ssh")

CONNECTIONS_MAX: Final = 64
# Of those, so many may not have shown a key yet.
UNPROVEN_MAX: Final = 16
LOGIN_SECONDS: Final = 15
KEYS_TRIED_MAX: Final = 10
KEEPALIVE_SECONDS: Final = 30
WINDOW_BYTES: Final = 1 << 18
PACKET_BYTES: Final = 1 << 15
WAITING_BYTES_MAX: Final = 1 << 18
REFUSED_EXIT: Final = 254
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")


class DoorPortTaken(Refusal):
    template = "Shells cannot be opened at {host}:{port}: {reason}."
    way_out = "Choose another port with --shell-port, or stop what listens there."


class ShellServer:
    """Listens for people."""

    def __init__(self, shells: Shells, host_key: asyncssh.SSHKey, host: str, port: int) -> None:
        self._shells = shells
        self._host_key = host_key
        self._host = host
        self._port = port
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._connections: set[_Connection] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._acceptor is not None
        return int(self._acceptor.get_port())

    async def start(self) -> None:
        """Listen from now on."""
        # The library tells every step of every connection; our own trail has what matters.
        asyncssh.set_log_level("ERROR")
        try:
            self._acceptor = await asyncssh.listen(
                self._host,
                self._port,
                server_factory=lambda: _Connection(self),
                server_host_keys=[self._host_key],
                server_version=f"OpenResource-{__version__}",
                encoding=None,
                line_editor=False,
                x11_forwarding=False,
                agent_forwarding=False,
                allow_scp=False,
                sftp_factory=None,
                rdns_lookup=False,
                # Nothing is inflated that a stranger has packed.
                compression_algs=["none"],
                gss_host=None,
                login_timeout=LOGIN_SECONDS,
                keepalive_interval=KEEPALIVE_SECONDS,
                window=WINDOW_BYTES,
                max_pktsize=PACKET_BYTES,
                backlog=CONNECTIONS_MAX,
            )
        except OSError as error:
            raise DoorPortTaken(
                host=self._host, port=self._port, reason=error.strerror or str(error)
            ) from None

    async def stop(self) -> None:
        """Listen no more, and hang up."""
        if self._acceptor is not None:
            self._acceptor.close()
            for connection in list(self._connections):
                connection.hang_up()
            await self._acceptor.wait_closed()

    def take(self, connection: _Connection) -> bool:
        """Whether one more connection has room."""
        unproven = sum(1 for one in self._connections if not one.is_proven)
        if len(self._connections) >= CONNECTIONS_MAX or unproven >= UNPROVEN_MAX:
            return False
        self._connections.add(connection)
        return True

    def drop(self, connection: _Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    @property
    def shells(self) -> Shells:
        """What decides."""
        return self._shells


class _Connection(asyncssh.SSHServer):
    """One connection: at first a stranger, later an address with a right."""

    def __init__(self, server: ShellServer) -> None:
        self._server = server
        self._shells = server.shells
        self._conn: asyncssh.SSHServerConnection | None = None
        self._tried: Counter[str] = Counter()
        self._admitted: dict[str, tuple[Right, PublicKey]] = {}
        self.is_proven = False
        self.came_from = ""
        self.address = ""

    # Beginning

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        peer = conn.get_extra_info("peername") or ("", 0)
        self.came_from = f"{peer[0]}:{peer[1]}"
        if not self._server.take(self):
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.drop(self)

    def hang_up(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()

    # Who it is

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return False

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether the chain lets the address that is the user's name enter with this key; the library checks its signature."""
        self._tried["keys"] += 1
        if self._tried["keys"] > 2 * KEYS_TRIED_MAX:
            if self._conn is not None:
                self._conn.abort()
            return False
        if not is_address(username):
            self._shells.note_refused(self.came_from, username, "the user's name is not an address")
            return False
        address = checksum_address(username)
        fingerprint = ""
        try:
            public = public_key_of(key)
            fingerprint = public.fingerprint
            right = await self._shells.admit(address, public)
        except Refusal as refusal:
            self._shells.note_refused(self.came_from, address, refusal.message, fingerprint)
            return False
        self._admitted[username] = (right, public)
        return True

    def auth_completed(self) -> None:
        assert self._conn is not None
        username = str(self._conn.get_extra_info("username"))
        if username in self._admitted:
            self.is_proven = True
            self.address = checksum_address(username)

    # What it wants: sessions, and nothing else

    def session_requested(self) -> Any:
        assert self._conn is not None
        username = str(self._conn.get_extra_info("username"))
        if not self.is_proven or username not in self._admitted:
            return False
        right, key = self._admitted[username]
        channel = self._conn.create_server_channel(
            encoding=None, window=WINDOW_BYTES, max_pktsize=PACKET_BYTES
        )
        # A guest's environment stays outside; the library would keep as much of it as is sent.
        setattr(channel, "_process_env_request", _refuse_environment)  # noqa: B010
        return channel, _Session(self._shells, self.address, right, key, self.came_from)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return self._no_forwarding(f"a connection to {dest_host[:80]}:{dest_port}")

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self._no_forwarding(f"a connection to {dest_path[:80]}")

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return self._no_forwarding(f"to listen at {listen_host[:80]}:{listen_port}")

    def unix_server_requested(self, listen_path: str) -> bool:
        return self._no_forwarding(f"to listen at {listen_path[:80]}")

    def tun_requested(self, unit: int | None) -> bool:
        return self._no_forwarding("a tunnel")

    def tap_requested(self, unit: int | None) -> bool:
        return self._no_forwarding("a tunnel")

    def _no_forwarding(self, what: str) -> bool:
        self._shells.note_refused(self.came_from, self.address, f"asked for {what}")
        return False


class _Session(asyncssh.SSHServerSession[bytes]):
    """One channel: what a guest wants is collected, then carried out, then carried on."""

    def __init__(self, shells: Shells, address: str, right: Right, key: PublicKey, came_from: str) -> None:
        self._shells = shells
        self._address = address
        self._right = right
        self._key = key
        self._came_from = came_from
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._terminal: Terminal | None = None
        self._command: str | None = None
        self._visit: Visit | None = None
        self._work: asyncio.Task[None] | None = None
        # Input in its order; None is its end, functions are what else has its place there.
        self._input: asyncio.Queue[Any] = asyncio.Queue()
        self._waiting_bytes = 0
        self._is_paused = False
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write.set()
        if self._work is not None:
            self._work.cancel()

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Any) -> bool:
        name = term_type if _TERM.fullmatch(term_type) else "dumb"
        columns, rows = term_size[0] or 80, term_size[1] or 24
        self._terminal = Terminal(name, rows, columns)
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._shells.note_refused(self._came_from, self._address, f"asked for {subsystem[:40]}")
        return False

    def session_started(self) -> None:
        self._work = asyncio.create_task(self._serve())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._waiting_bytes += len(data)
        self._input.put_nowait(data)
        if self._waiting_bytes > WAITING_BYTES_MAX and not self._is_paused and self._channel is not None:
            self._is_paused = True
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        self._input.put_nowait(None)
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._request(("resize", height or 24, width or 80))

    def signal_received(self, signal: str) -> None:
        self._request(("signal", signal))

    def break_received(self, msec: int) -> bool:
        return False

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def _request(self, wish: tuple[Any, ...]) -> None:
        # Whoever asks faster than it is carried out is not heard for a while.
        if self._input.qsize() < 1_000:
            self._input.put_nowait(wish)

    async def _serve(self) -> None:
        channel = self._channel
        assert channel is not None
        feeding: asyncio.Task[None] | None = None
        try:
            visit = self._visit = await self._shells.enter(
                self._address,
                self._key,
                command=self._command,
                terminal=self._terminal,
                came_from=self._came_from,
            )
            if self._command is None:
                await self._tell(self._welcome(), is_error=self._terminal is None)
            feeding = asyncio.create_task(self._feed(visit))
            ended = await self._carry(visit)
            await self._end(visit, ended)
        except asyncio.CancelledError:
            raise
        except Refusal as refusal:
            await self._say_why(f"{refusal.message} {refusal.remedy}".strip())
        except (asyncssh.Error, OSError) as error:
            log.info("a session of %s broke: %s", self._address, error)
            channel.abort()
        finally:
            if feeding is not None:
                feeding.cancel()
            if self._visit is not None:
                # A client that closes the channel meanwhile ends this task, and must not end the goodbye.
                self._shells.keep(asyncio.create_task(_leave(self._visit, feeding)))

    async def _carry(self, visit: Visit) -> Ended | None:
        """What the session says goes to the guest, no faster than it is taken."""
        channel = self._channel
        assert channel is not None
        async for part in visit.said():
            if isinstance(part, Ended):
                return part
            assert isinstance(part, Said)
            if part.out:
                channel.write(part.out)
            if part.err:
                channel.write_stderr(part.err)
            await self._may_write.wait()
            if channel.is_closing():
                return None
        return None

    async def _end(self, visit: Visit, ended: Ended | None) -> None:
        channel = self._channel
        assert channel is not None
        if visit.why:
            await self._say_why(visit.why)
        elif ended is None:
            channel.close()
        elif ended.signal:
            channel.exit_with_signal(ended.signal)
        else:
            channel.exit(ended.exit_code)

    async def _say_why(self, why: str) -> None:
        """Why there is no session, or no longer; then the end with a code of its own."""
        channel = self._channel
        assert channel is not None
        if not channel.is_closing():
            await self._tell(f"openresource: {why}\n", is_error=self._terminal is None)
            channel.exit(REFUSED_EXIT)

    async def _tell(self, text: str, *, is_error: bool) -> None:
        channel = self._channel
        assert channel is not None
        with contextlib.suppress(OSError):
            if is_error:
                channel.write_stderr(text.encode())
            else:
                channel.write(text.replace("\n", "\r\n").encode())

    async def _feed(self, visit: Visit) -> None:
        """What the guest sends goes to the session, in its order."""
        while True:
            item = await self._input.get()
            try:
                if item is None:
                    await visit.write(b"", ends=True)
                elif isinstance(item, bytes):
                    await visit.write(item)
                    self._taken(len(item))
                elif item[0] == "resize":
                    await visit.resize(item[1], item[2])
                else:
                    await visit.signal(item[1])
            except Refusal:
                # The session has ended; whoever reads from it says so.
                return

    def _taken(self, count: int) -> None:
        self._waiting_bytes -= count
        if self._is_paused and self._waiting_bytes <= WAITING_BYTES_MAX // 2 and self._channel is not None:
            self._is_paused = False
            self._channel.resume_reading()

    def _welcome(self) -> str:
        settings = self._shells.settings
        audit = self._shells.audit
        return (
            f"Machine {self._shells.machine}. You are {self._address}, its {self._right.kind}.\n"
            "This session is written down: who, when and from where, what is typed, and how many bytes.\n"
            f"The audit trail has {audit.entries} entries; its digest is {audit.digest}.\n"
            f"Your home is memory ({settings.limits.disk_bytes >> 20} MiB), kept until "
            f"{settings.linger_seconds / 60:.0f} minutes after your last session. There is no network.\n"
        )


async def _leave(visit: Visit, feeding: asyncio.Task[None] | None) -> None:
    if feeding is not None:
        await asyncio.gather(feeding, return_exceptions=True)
    await visit.leave()


def _refuse_environment(packet: Any) -> bool:
    return False
