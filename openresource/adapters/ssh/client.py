"""Our own client: one command or shell on a machine whose host key the chain names."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import sys
import termios
import tty
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import asyncssh

from openresource.market.machines import MachineOffer
from openresource.primitives.errors import Refusal

CONNECT_SECONDS: Final = 20
READ_BYTES: Final = 1 << 16
SIGNALLED_EXIT: Final = 128


class MachineAway(Refusal):
    template = "The machine {machine} does not answer at {endpoint}: {reason}."
    way_out = "Try again later, or choose another: openresource shell"
    exit_code = 3


class MachineNotTrusted(Refusal):
    template = "What answers at {endpoint} does not have the host key that the chain names for {machine}."
    way_out = "Somebody stands between, or the machine has moved. Nothing was sent; tell its owner."


class NotLetIn(Refusal):
    template = "{machine} does not let {address} in."
    way_out = "Rent it (--rent MINUTES), or ask its owner to admit you."


async def open_shell(
    offer: MachineOffer,
    address: str,
    key: asyncssh.SSHKey,
    command: str | None,
    *,
    wants_terminal: bool,
) -> int:
    """Runs a command or a shell there with this process's input and output; gives its exit code."""
    asyncssh.set_log_level("ERROR")
    pinned = asyncssh.import_public_key(offer.host_key)
    try:
        connection = await asyncssh.connect(
            offer.host,
            offer.port,
            username=address,
            client_keys=[key],
            known_hosts=([pinned], [], []),
            server_host_key_algs=["ssh-ed25519"],
            # Nothing of this machine's own settings, agents or certificates goes there.
            config=None,
            agent_path=None,
            agent_forwarding=False,
            x11_forwarding=False,
            preferred_auth=["publickey"],
            compression_algs=["none"],
            connect_timeout=CONNECT_SECONDS,
            login_timeout=CONNECT_SECONDS,
            keepalive_interval=30,
        )
    except asyncssh.HostKeyNotVerifiable:
        raise MachineNotTrusted(endpoint=offer.endpoint, machine=offer.machine) from None
    except asyncssh.PermissionDenied:
        raise NotLetIn(machine=offer.machine, address=address) from None
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise MachineAway(
            machine=offer.machine, endpoint=offer.endpoint, reason=str(error) or type(error).__name__
        ) from None
    try:
        return await _talk(connection, command, wants_terminal)
    finally:
        connection.close()
        await connection.wait_closed()


async def _talk(connection: asyncssh.SSHClientConnection, command: str | None, wants_terminal: bool) -> int:
    options: dict[str, Any] = {"encoding": None}
    if wants_terminal:
        columns, rows = _window()
        options |= {"term_type": os.environ.get("TERM", "dumb"), "term_size": (columns, rows)}
    process = await connection.create_process(command, **options)
    with ExitStack() as held:
        if wants_terminal:
            held.callback(_raw())
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGWINCH, lambda: process.change_terminal_size(*_window()))
            held.callback(loop.remove_signal_handler, signal.SIGWINCH)
        feeding = asyncio.create_task(_feed(process))
        held.callback(feeding.cancel)
        await asyncio.gather(_show(process.stdout, 1), _show(process.stderr, 2))
        await process.wait_closed()
    if process.exit_signal is not None:
        number = getattr(signal, f"SIG{process.exit_signal[0]}", None)
        return SIGNALLED_EXIT + (number.value if number is not None else 0)
    return process.exit_status if process.exit_status is not None else 255


async def _feed(process: Any) -> None:
    """What arrives on standard input goes there, no faster than it is taken."""
    loop = asyncio.get_running_loop()
    while True:
        data = await _readable(loop)
        if not data:
            process.stdin.write_eof()
            return
        try:
            process.stdin.write(data)
            await process.stdin.drain()
        except (OSError, asyncssh.Error):
            # The command reads no more.
            return


async def _readable(loop: asyncio.AbstractEventLoop) -> bytes:
    ready = asyncio.Event()
    try:
        loop.add_reader(0, ready.set)
    except (PermissionError, OSError):
        # A plain file is always ready.
        return os.read(0, READ_BYTES)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(0)
    try:
        return os.read(0, READ_BYTES)
    except OSError:
        return b""


async def _show(reader: Any, descriptor: int) -> None:
    while data := await reader.read(READ_BYTES):
        await asyncio.to_thread(_write_all, descriptor, data)


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        # Nobody listens, as with `| head`: the rest is dropped.
        return


def _window() -> tuple[int, int]:
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        rows = columns = 0
    return columns or 80, rows or 24


def _raw() -> Callable[[], None]:
    """Keys go there as they are typed; gives what restores the terminal."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    return lambda: termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
