"""Ports that stay with a test, although the process that serves there comes later, or comes again."""

from __future__ import annotations

import socket
import sys
from collections import deque

KEPT_MAX = 90
_kept: deque[socket.socket] = deque()


def hold_port(port: int = 0) -> socket.socket:
    """A socket that has a port of loopback and never listens there; closing it gives the port back.

    Who binds with SO_REUSEADDR, as all our servers do, may listen on the port all the same. Everybody else gets another
    one, and connections to it are refused while nobody listens.
    """
    holder = socket.socket()
    try:
        # In this order: another holder's port is refused here, and servers may join afterwards.
        holder.bind(("127.0.0.1", port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        holder.close()
        raise
    return holder


def port_of(holder: socket.socket) -> int:
    """The port that a socket holds; on systems that let only one have it, it is given back here."""
    port: int = holder.getsockname()[1]
    if sys.platform != "linux":
        holder.close()
    return port


def keep_port(port: int = 0) -> int:
    """A port that is held without anybody having to give it back: so many later ones push it out."""
    _kept.append(hold_port(port))
    if len(_kept) > KEPT_MAX:
        _kept.popleft().close()
    return port_of(_kept[-1])
