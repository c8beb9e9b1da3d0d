"""Stands in a container's network on the host's behalf: waits for the program's port and hands out connections to it.

    door.py PID PORT        with a control socket as standard input

It speaks as the guest beside an HTTP program does, so nothing has to be put into an image. It enters the network of the
process PID, and its user namespace first where that is another; it never enters its files. With 0 for PID it stays where
it is, as where a port is forwarded to this machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

CONNECT = b"c"
CONNECTED, REFUSED, READY = b"+", b"-", b"R"
WAIT_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05)
EXIT_REFUSED = 120


def enter(pid: int) -> None:
    """Into the network of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    is_foreign = os.fstat(user).st_ino != os.stat("/proc/self/ns/user").st_ino
    for descriptor in (user, network) if is_foreign else (network,):
        if libc.setns(descriptor, 0) < 0:
            raise OSError(ctypes.get_errno(), "setns")
    os.close(network)
    os.close(user)


def connect(port: int) -> socket.socket | None:
    """A connection to the program, or None while nobody listens."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
        try:
            connection.connect((address, port))
        except OSError:
            connection.close()
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    return None


def main() -> None:
    """Serve connections until the other side hangs up."""
    pid, port = int(sys.argv[1]), int(sys.argv[2])
    control = socket.socket(fileno=0)
    try:
        if pid:
            enter(pid)
    except OSError as problem:
        sys.stderr.write(f"the container's network cannot be entered: {problem}\n")
        sys.stderr.flush()
        os._exit(EXIT_REFUSED)
    number = 0
    while (first := connect(port)) is None:
        try:
            if control.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b"":
                os._exit(0)
        except BlockingIOError:
            time.sleep(WAIT_SECONDS[min(number, len(WAIT_SECONDS) - 1)])
        number += 1
    first.close()
    control.send(READY)
    while control.recv(1) == CONNECT:
        connection = connect(port)
        if connection is None:
            control.send(REFUSED)
        else:
            socket.send_fds(control, [CONNECTED], [connection.fileno()])
            connection.close()


if __name__ == "__main__":
    main()
