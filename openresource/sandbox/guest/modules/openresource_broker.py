"""For programs: calls of other services go through the provider's broker, the only way out of a sandbox.

    from openresource_broker import call
    answer = call("search", {"query": "loans"})        # or call("search", "method", query="loans")

The caller of the program pays for them, as far as the allowance goes that came with the call. `allowance()` says how
much is left, `acall` is the same as `call` for asynchronous programs, and `paid` gives the price and the receipt as
well. A program's own threads say for which call they ask: `token = current()` in the call, `call(…, token=token)`.
"""

import contextvars
import json
import os
import socket
import threading
from typing import Any

# The secret of the call that this thread or task works on; its own channel sets it.
_current: Any = contextvars.ContextVar("openresource_call", default="")
_line: Any = None
_line_lock = threading.Lock()


class BrokerRefused(Exception):
    """The broker's no; `code`, `remedy` and `facts` say which and what to do."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.get("message", "The broker refused the call."))
        self.code = error.get("code", "refused")
        self.remedy = error.get("remedy", "")
        self.facts = error.get("facts", {})


def call(service: str, value: Any = None, method: Any = None, **options: Any) -> Any:
    """The answer of another service, or BrokerRefused.

    Inputs are one object, or words: `call("translate", text="hello", into="fr")`. Options: `max_price` and `allowance`
    (texts of AIN), `deadline_seconds`, `token`.
    """
    return paid(service, value, method, **options)["output"]


def paid(service: str, value: Any = None, method: Any = None, **options: Any) -> Any:
    """The same with what it cost: output, price_uain, total_uain, receipt, provider, version."""
    request = {name: options.pop(name) for name in _OPTIONS if options.get(name) is not None}
    token = options.pop("token", None) or current()
    if isinstance(value, str) and method is None and options:
        value, method = None, value
    if options:
        value = {**(value or {}), **options}
    request.update(service=service, method=method, input={} if value is None else value)
    return _ask(request, token)


async def acall(service: str, value: Any = None, method: Any = None, **options: Any) -> Any:
    """`call` beside other work of an asynchronous program."""
    import asyncio  # Half of what a program takes to start, and most are not asynchronous.

    return await asyncio.to_thread(call, service, value, method, **options)


def allowance(token: str = "") -> Any:
    """What is left for calls of other services: budget_uain, spent_uain, left_uain, depth, calls_left."""
    return _ask({"show": "allowance"}, token or current())["allowance"]


def current() -> Any:
    """The secret of the call that is worked on here, for threads of the program's own."""
    return _current.get() or os.environ.get("OPENRESOURCE_CALL_SECRET", "")


def set_current(token: Any) -> None:
    """Whoever runs the program says for which call this thread or task asks."""
    _current.set(token)


_OPTIONS = ("max_price", "allowance", "deadline_seconds", "policy")


def _ask(request: Any, token: Any) -> Any:
    global _line
    if token:
        request["call"] = token
    with _line_lock:
        if _line is None or _line.has_ended:
            _line = _Line()
        line = _line
    answer = line.ask(request)
    if "error" in answer:
        raise BrokerRefused(answer["error"])
    return answer


class _Line:
    """One connection for all threads: each waits for its own answer, and one of those who wait reads for all."""

    def __init__(self) -> None:
        self.has_ended = False
        try:
            self.stream = _connected().makefile("rwb")
        except (OSError, ValueError) as problem:
            raise _gone(f"The broker cannot be reached: {problem}.") from None
        self.write_lock = threading.Lock()
        self.changed = threading.Condition()
        self.answers: dict[int, Any] = {}
        self.number = 0
        self.is_read = False

    def ask(self, request: Any) -> Any:
        """One request and its answer."""
        with self.write_lock:
            self.number += 1
            number = self.number
            try:
                self.stream.write(json.dumps({**request, "id": number}).encode() + b"\n")
                self.stream.flush()
            except (OSError, ValueError):
                raise self.ended() from None
        while True:
            with self.changed:
                while self.is_read and number not in self.answers and not self.has_ended:
                    self.changed.wait()
                if number in self.answers:
                    return self.answers.pop(number)
                if self.has_ended:
                    raise _gone("The broker has hung up.")
                self.is_read = True
            try:
                self.read()
            finally:
                with self.changed:
                    self.is_read = False
                    self.changed.notify_all()

    def read(self) -> None:
        """The next answer, for whomever it is."""
        try:
            line = self.stream.readline()
            answer = json.loads(line)
        except (OSError, ValueError):
            raise self.ended() from None
        if "id" not in answer:
            # The broker could not even read the number: everybody who waits is told.
            self.ended()
            raise BrokerRefused(answer.get("error", {}))
        self.answers[answer.pop("id")] = answer

    def ended(self) -> Any:
        """Nothing comes on this connection any more."""
        self.has_ended = True
        return _gone("The broker has hung up.")


def _gone(message: str) -> Any:
    return BrokerRefused({"code": "broker-gone", "message": message})


def _connected() -> Any:
    place = os.environ.get("OPENRESOURCE_BROKER", "")
    if not place:
        raise OSError("there is no way to it at this level of isolation")
    if place.startswith("fd:"):
        return socket.socket(fileno=os.dup(int(place[3:])))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(place)
    return connection
