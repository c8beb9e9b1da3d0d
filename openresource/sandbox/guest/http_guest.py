"""Runs inside the sandbox beside an HTTP program: starts it, waits for its port, and hands out connections to it.

The other side asks for a connection with one byte over the socket that is our standard input, and gets the connected
socket itself. So requests travel straight to the program, although nothing outside can reach its network.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

# Importing it would cost as much time as all our own work.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNECT = b"c"
CONNECTED, REFUSED, READY = b"+", b"-", b"R"
WAIT_SECONDS = (0.002, 0.004, 0.008, 0.016, 0.03, 0.05)


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


def ended(process: Any) -> None:
    """End as the program ended."""
    code = process.returncode
    os._exit(code if code >= 0 else 128 - code)


def main() -> None:
    """Start the program and serve connections until it ends or the other side hangs up."""
    options = json.loads(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    try:
        process = subprocess.Popen(options["command"], stdin=null, stdout=2, stderr=2)
    except OSError as problem:
        sys.stderr.write(f"{options['command'][0]}: {problem.strerror}\n")
        sys.stderr.flush()
        os._exit(127)
    number = 0
    while True:
        first = connect(options["port"])
        if first is not None:
            break
        if process.poll() is not None:
            ended(process)
        time.sleep(WAIT_SECONDS[min(number, len(WAIT_SECONDS) - 1)])
        number += 1
    first.close()
    control.send(READY)
    watch = os.pidfd_open(process.pid)
    watched: list[Any] = [control, watch]
    while True:
        readable = select.select(watched, [], [])[0]
        if watch in readable:
            process.wait()
            ended(process)
        asked = control.recv(1)
        if asked != CONNECT:
            process.send_signal(signal.SIGKILL)
            os._exit(0)
        connection = connect(options["port"])
        if connection is None:
            control.send(REFUSED)
        else:
            socket.send_fds(control, [CONNECTED], [connection.fileno()])
            connection.close()


if __name__ == "__main__":
    main()
