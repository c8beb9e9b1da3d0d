"""For programs: calls to other services go through the provider's broker, the only way out of a sandbox.

    import openresource_broker
    answer = openresource_broker.call("search", {"query": "loans"})

The broker is there from the first day; until calls between services open it answers every call with a refusal.
"""

import json
import os
import socket
import threading
from typing import Any

_lock = threading.Lock()
_stream = None


class BrokerRefused(Exception):
    """The broker's no; `code`, `remedy` and `facts` say which and what to do."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.get("message", "The broker refused the call."))
        self.code = error.get("code", "refused")
        self.remedy = error.get("remedy", "")
        self.facts = error.get("facts", {})


def call(service: Any, value: Any = None, method: Any = None) -> Any:
    """The answer of another service, or BrokerRefused."""
    global _stream
    request = {"service": service, "method": method, "input": {} if value is None else value}
    with _lock:
        if _stream is None:
            _stream = _connected().makefile("rwb")
        _stream.write(json.dumps(request).encode() + b"\n")
        _stream.flush()
        line = _stream.readline()
    if not line:
        _stream = None
        raise BrokerRefused({"code": "broker-gone", "message": "The broker has hung up."})
    answer = json.loads(line)
    if "error" in answer:
        raise BrokerRefused(answer["error"])
    return answer["output"]


def _connected() -> Any:
    place = os.environ["OPENRESOURCE_BROKER"]
    if place.startswith("fd:"):
        return socket.socket(fileno=int(place[3:]))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(place)
    return connection
