"""The one door out of a sandbox: a unix socket on which a program may ask for calls of other services.

One line of JSON asks, one line answers:

    {"service": "search", "method": "search", "input": {"query": "loans"}}
    {"output": […], "receipt": "0x…", "price_uain": 500, "total_uain": 500, …}    or    {"error": {"code": …}}

Requests with an `id` are worked on side by side, and their answers carry it; those without one are answered in order.
The door itself calls nobody and holds nothing: what is asked goes to whoever made the program's present call. Which
call that is says the secret that came with the call, `"call": "…"`; a program that works on one call at a time needs
to say nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from openresource.market.allowances import NoAllowance, is_service_text
from openresource.primitives.amounts import uain_from_text
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Asker, InnerRequest
from openresource.sandbox.folders import make_folder, remove_folder
from openresource.sandbox.layout import BROKER_NAME

REQUEST_BYTES_MAX: Final = 1 << 20
CONNECTIONS_MAX: Final = 16
# Requests that wait for their answers, of all connections together; who has more waits to be read.
REQUESTS_AT_ONCE_MAX: Final = 16
# A program that asks without an end is answered ever later: so many at once, then so many a second.
REQUESTS_BURST: Final = 200
REQUESTS_PER_SECOND: Final = 100.0
SECRET_BYTES: Final = 16
ID_CHARACTERS_MAX: Final = 64
DEADLINE_SECONDS_MAX: Final = 86_400.0
SHOW_ALLOWANCE: Final = "allowance"


class BrokerClosed(Refusal):
    template = "Programs call no other services on this machine."
    way_out = "Call a provider that runs the program on its own machine, or let the caller make both calls."


class BrokerRequestInvalid(Refusal):
    template = (
        "The broker cannot read this: {reason}. A request is one line of JSON, at most {bytes_max} bytes."
    )
    way_out = 'Send {{"service": "name", "method": "name", "input": {{}}}} and a newline.'


class CallNotNamed(Refusal):
    template = "The program works on {in_flight} calls; the request does not say for which of them it is."
    way_out = 'Send the secret that came with the call as "call": in Python openresource_broker knows it.'


class CallOver(Refusal):
    template = "The call that this request names has ended, or there never was one."
    way_out = "Ask while the call runs, and wait for the answer before its own is given."


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A line as a program writes it."""

    service: str = ""
    method: str | None = None
    input: Any = None
    max_price: str | None = None
    allowance: str | None = None
    deadline_seconds: float | None = None
    policy: str | None = None
    call: str | None = None
    show: str | None = None
    id: str | int | None = None


_requests: Final = msgspec.json.Decoder(_Asked)
_encoder: Final = msgspec.json.Encoder()


class Broker:
    """A listening socket in a folder of its own, for one instance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / BROKER_NAME
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._granted: dict[str, Asker] = {}
        self._in_flight: Callable[[], int] | None = None
        self._room = asyncio.Semaphore(REQUESTS_AT_ONCE_MAX)
        self._tokens = float(REQUESTS_BURST)
        self._counted_at = 0.0
        self._working: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls) -> Broker:
        """A broker in a new folder; programs under another uid may enter it, nobody may list its parent."""
        parent = make_folder("broker")
        broker = cls(parent / "sock")
        try:
            broker.folder.mkdir()
            os.chmod(broker.folder, 0o755)
            opening = asyncio.ensure_future(
                asyncio.start_unix_server(broker._serve, broker.path, limit=REQUEST_BYTES_MAX)
            )
            try:
                await asyncio.shield(opening)
            finally:
                # Cancelled half-way, asyncio would forget a socket that listens already.
                broker._server = await opening
            os.chmod(broker.path, 0o666)
        except BaseException:
            await broker.close()
            raise
        return broker

    async def close(self) -> None:
        """Hang up and remove the folder."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._working):
            task.cancel()
        for writer in list(self._writers):
            writer.transport.abort()
        self._granted.clear()
        remove_folder(self.folder.parent)

    def serve(self, in_flight: Callable[[], int]) -> None:
        """Open the door for an instance that says how many calls it works on."""
        self._in_flight = in_flight

    def grant(self, asker: Asker) -> str:
        """A secret by which a program says for which call it asks."""
        secret = secrets.token_hex(SECRET_BYTES)
        self._granted[secret] = asker
        return secret

    def revoke(self, secret: str) -> None:
        """The call is over: nothing is asked for it any more."""
        self._granted.pop(secret, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._writers.add(writer)
        mine: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    line = await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    writer.write(_refused(_invalid("it is too long"), None))
                    await writer.drain()
                    return
                self.requests += 1
                await self._pace()
                await self._room.acquire()
                task = asyncio.ensure_future(self._answered(line, writer))
                for tasks in (mine, self._working):
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                if not _has_id(line):
                    await asyncio.wait((task,))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            # Whoever hangs up wants no answer, but what was asked in its name goes on until it is known what it cost.
            for task in mine:
                task.cancel()
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answered(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(line)
        finally:
            self._room.release()
        if not writer.transport.is_closing():
            writer.write(answer)
            try:
                await writer.drain()
            except ConnectionError:
                return

    async def _answer(self, line: bytes) -> bytes:
        try:
            asked = _requests.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            return _refused(_invalid(str(problem)[:200] or type(problem).__name__), None)
        identifier = asked.id if not isinstance(asked.id, str) else asked.id[:ID_CHARACTERS_MAX]
        try:
            asker = self._asker(asked)
            if asked.show == SHOW_ALLOWANCE:
                return _line({"allowance": asker.left()}, identifier)
            answer = await asker.ask(_request(asked))
        except Refusal as refusal:
            return _refused(refusal, identifier)
        return _line({"output": answer.output, **answer.facts}, identifier)

    def _asker(self, asked: _Asked) -> Asker:
        """Whose call a request belongs to."""
        if self._in_flight is None:
            raise BrokerClosed(service=asked.service[:200])
        if asked.call:
            for secret, asker in self._granted.items():
                if hmac.compare_digest(secret.encode(), asked.call.encode("utf-8", "replace")):
                    return asker
            raise CallOver(service=asked.service[:200])
        if not self._granted:
            raise NoAllowance(service=asked.service[:200])
        in_flight = self._in_flight()
        if in_flight != 1:
            raise CallNotNamed(in_flight=in_flight)
        return next(iter(self._granted.values()))

    async def _pace(self) -> None:
        now = asyncio.get_running_loop().time()
        gained = (now - self._counted_at) * REQUESTS_PER_SECOND
        self._counted_at = now
        self._tokens = min(float(REQUESTS_BURST), self._tokens + gained) - 1.0
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / REQUESTS_PER_SECOND)


def _request(asked: _Asked) -> InnerRequest:
    if not is_service_text(asked.service):
        raise _invalid("service is not name or publisher/name, either with @version")
    if asked.deadline_seconds is not None and not 0 < asked.deadline_seconds <= DEADLINE_SECONDS_MAX:
        raise _invalid(f"deadline_seconds is not above 0 and at most {DEADLINE_SECONDS_MAX:g}")
    if asked.show is not None:
        raise _invalid(f"show is not {SHOW_ALLOWANCE}")
    given = {} if asked.input is None else asked.input
    if not isinstance(given, dict):
        raise _invalid("input is not an object with the method's inputs")
    return InnerRequest(
        service=asked.service,
        method=asked.method or "",
        input=given,
        max_price_uain=None if asked.max_price is None else uain_from_text(asked.max_price),
        allowance_uain=None if asked.allowance is None else uain_from_text(asked.allowance),
        deadline_seconds=asked.deadline_seconds,
        policy=asked.policy or "",
    )


def _has_id(line: bytes) -> bool:
    """Whether a line may carry an id; without one it is answered before the next is read."""
    return b'"id"' in line


def _invalid(reason: str) -> BrokerRequestInvalid:
    return BrokerRequestInvalid(reason=reason, bytes_max=REQUEST_BYTES_MAX)


def _line(answer: dict[str, Any], identifier: str | int | None) -> bytes:
    if identifier is not None:
        answer["id"] = identifier
    return _encoder.encode(answer) + b"\n"


def _refused(refusal: Refusal, identifier: str | int | None) -> bytes:
    return _line({"error": refusal.to_json()}, identifier)
