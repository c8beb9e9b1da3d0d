"""A plain HTTP address on this machine for clients that know nothing of us: it finds, pins, pays and retries for them.

    GET  /                               the services, with prices and how to call each
    GET  /<service>                      its interface
    GET  /<service>/interface.proto      the same for gRPC clients
    POST /<service>[/<method>]           JSON in, the answer out; its price and receipt are in the headers
    POST /v1/…                           for stock OpenAI clients: the service that `model` names, at that path
    GET  /v1/models                      those services

`<service>` is a name or publisher/name, either with @version. Whoever reaches this address spends from the wallet, so
it listens on loopback unless asked otherwise, checks Host and Origin, and spends at most a limit per run.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from openresource.client import openai_shapes
from openresource.client.calls import EVENTS_TYPE, Answer, Calls, Exchange, NoProvider, Plan, fit_inputs
from openresource.client.facade import AsyncClient
from openresource.client.replies import FailedTry, why
from openresource.client.services import Choice, Interface, Listing, Method
from openresource.market.allowances import Allowance as InnerAllowance
from openresource.market.choices import Considered
from openresource.market.proto_files import proto_file, proto_text
from openresource.market.services import fork_source_text
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.keys import is_address

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
JSON_DEPTH_MAX: Final = 64
LIMIT_UAIN_DEFAULT: Final = 1_000_000
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
SERVICES_SHOWN_MAX: Final = 500
CONSIDERED_SHOWN_MAX: Final = 8
JSON_TYPE: Final = "application/json"

_log = logging.getLogger("openresource.client.connect")

_STATUS_BY_CODE: Final[Mapping[str, int]] = {
    "no-such-service": 404,
    "no-such-method": 404,
    "no-such-version": 404,
    "no-such-model": 404,
    "no-such-page": 404,
    "service-name-ambiguous": 409,
    "invalid-input": 400,
    "not-json": 400,
    "invalid-value": 422,
    "program-refused": 422,
    "foreign-host": 403,
    "foreign-origin": 403,
    "verb-not-served": 405,
    "body-too-large": 413,
    "run-limit-reached": 402,
    "over-spending-limit": 402,
    "price-above-maximum": 402,
    "not-enough-coins": 402,
    "no-provider": 503,
    "no-provider-answered": 503,
    "node-away": 503,
    "provider-away": 503,
    "outcome-unknown": 503,
    "answer-lost": 503,
    "deadline-passed": 504,
    "internal-fault": 500,
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class RunLimitReached(Refusal):
    template = "This run of connect may spend {limit} AIN; {spent} are spent or promised, and this call costs {price}."
    way_out = "Start it again, with --limit if more is meant to be spent."


class ForeignHost(Refusal):
    template = "Requests to the host {host} are not served here."
    way_out = "Use the address that connect printed; a page on the web must not reach it under another name."


class ForeignOrigin(Refusal):
    template = "Pages of {origin} may not spend from this wallet."
    way_out = "Allow that origin with --origin when connect starts."


class VerbNotServed(Refusal):
    template = "{verb} is not served at {path}."
    way_out = "GET lists services and interfaces, POST calls."


class BodyTooLarge(Refusal):
    template = "The body has more than {bytes_max} bytes."
    way_out = "Send less at once."


class InternalFault(Refusal):
    template = "This request met a defect of Open Resource; what the wallet signed is in its books."
    way_out = "Report it with the log of connect, and look at: openresource money"


class NoSuchPage(Refusal):
    template = "There is nothing at {path}."
    way_out = "GET / lists the services."


class ClientGone(Exception):
    """Who asked has hung up."""


@dataclass(slots=True)
class Allowance:
    """What one run may spend."""

    limit_uain: int = LIMIT_UAIN_DEFAULT
    spent_uain: int = 0
    promised_uain: int = 0

    @property
    def left_uain(self) -> int:
        """What is neither spent nor promised."""
        return self.limit_uain - self.spent_uain - self.promised_uain

    @contextmanager
    def promise(self, price_uain: int) -> Any:
        """Set a call's price aside while it runs; two calls at once cannot pass the limit together."""
        if price_uain > self.left_uain:
            raise RunLimitReached(
                limit=text_from_uain(self.limit_uain),
                spent=text_from_uain(self.spent_uain + self.promised_uain),
                price=text_from_uain(price_uain),
            )
        self.promised_uain += price_uain
        try:
            yield
        finally:
            self.promised_uain -= price_uain


@dataclass(slots=True)
class Request:
    """One request as this door sees it."""

    verb: str
    path: str
    headers: Mapping[str, str]
    receive: Receive
    is_local: bool = field(default=True)

    @property
    def parts(self) -> list[str]:
        """The path's parts, decoded."""
        return [unquote(part) for part in self.path.split("/") if part]

    async def body(self) -> bytes:
        """The whole body, within its bound."""
        content = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return bytes(content)
            content += message.get("body", b"")
            if len(content) > BODY_BYTES_MAX:
                raise BodyTooLarge(bytes_max=BODY_BYTES_MAX)
            if not message.get("more_body"):
                return bytes(content)

    async def json(self) -> Any:
        """The body as JSON; an empty one is an empty object."""
        return parse_json(await self.body() or b"{}", bytes_max=BODY_BYTES_MAX, depth_max=JSON_DEPTH_MAX)


class Connect:
    """The ASGI application over one client."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        limit_uain: int = LIMIT_UAIN_DEFAULT,
        origins: tuple[str, ...] = (),
        names: tuple[str, ...] | None = LOOPBACK_NAMES,
        insists: bool = False,
        inner: InnerAllowance | None = None,
        on_call: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        """`names` are the host names under which it may be reached; None takes any.

        `inner` is what the program of each call may spend on others, within the limit of the run.
        """
        self.allowance = Allowance(limit_uain)
        self._client = client
        self._origins = frozenset(origins)
        self._names = names
        self._insists = insists
        self._inner = inner
        self._on_call = on_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = Request(scope["method"], scope["path"], headers, receive)
        answer = Answering(send, receive, self._cross_origin(headers))
        try:
            self._check_who_asks(headers)
            await self._route(request, answer)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except ClientGone:
            pass
        except Exception:
            _log.exception("a request failed within connect")
            await answer.refuse(InternalFault())

    def _check_who_asks(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if self._names is not None and _without_port(host) not in self._names:
            raise ForeignHost(host=host)
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            raise ForeignOrigin(origin=origin)

    def _cross_origin(self, headers: Mapping[str, str]) -> Headers:
        origin = headers.get("origin")
        if origin not in self._origins or origin is None:
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-headers", b"content-type, authorization"),
            (
                b"access-control-expose-headers",
                b"openresource-price, openresource-receipt, openresource-chosen",
            ),
            (b"vary", b"origin"),
        ]

    async def _route(self, request: Request, answer: Answering) -> None:
        parts = request.parts
        match request.verb:
            case "OPTIONS":
                await answer.whole(204, b"", JSON_TYPE)
            case "GET" | "HEAD":
                await self._show(parts, request, answer)
            case "POST" if parts and parts[0] == "v1":
                await self._openai(request, answer)
            case "POST" if parts:
                await self._call(request, answer)
            case _:
                raise VerbNotServed(verb=request.verb, path=request.path)

    # Showing

    async def _show(self, parts: list[str], request: Request, answer: Answering) -> None:
        if not parts:
            await answer.json(await self._services(request.headers.get("host", "")))
        elif parts == ["healthz"]:
            await answer.json({"status": "ok", "left_uain": self.allowance.left_uain})
        elif parts == ["v1", "models"]:
            await answer.json(openai_shapes.model_list([found[0] for found in await self._models("")]))
        elif parts[0] == "v1":
            raise NoSuchPage(path=request.path)
        else:
            service, rest = _service_in(parts)
            if rest == ["interface.proto"]:
                choice = await self._client.directory.choose(service)
                text = _proto_of(choice, await self._client.directory.interface(choice.program))
                await answer.whole(200, text.encode(), "text/plain; charset=utf-8")
                return
            if rest:
                raise VerbNotServed(verb=request.verb, path=request.path)
            choice = await self._client.directory.choose(service)
            interface = await self._client.directory.interface(choice.program)
            await answer.json(_interface_json(choice, interface))

    async def _services(self, host: str) -> dict[str, Any]:
        listings = await self._client.services()
        return {
            "services": [_listing_json(one, host) for one in listings[:SERVICES_SHOWN_MAX] if one.placements],
            "limit_uain": self.allowance.limit_uain,
            "left_uain": self.allowance.left_uain,
        }

    # Calling

    async def _call(self, request: Request, answer: Answering) -> None:
        service, rest = _service_in(request.parts)
        choice = await self._client.directory.choose(service)
        interface = await self._client.directory.interface(choice.program)
        method = interface.method("/".join(rest) or None, choice.service)
        inputs = named_inputs(await request.json(), method)
        await self._pay(service, choice, method, inputs, answer)

    async def _openai(self, request: Request, answer: Answering) -> None:
        body = await request.json()
        if not isinstance(body, dict):
            raise InvalidInput(what="body", reason="it is not a JSON object")
        path = request.path
        found = openai_shapes.chosen_model(await self._models(path), body.get("model"), path)
        choice, method = found[0].choice, found[1]
        inputs, ignored = openai_shapes.fitting(body, method.input)
        if ignored:
            answer.extra.append((b"openresource-ignored", ", ".join(ignored).encode("latin-1", "replace")))
        wants_stream = body.get("stream") is True
        if wants_stream and not method.stream:
            answer.reshape = openai_shapes.stream_of_completion
        await self._pay(choice.service, choice, method, inputs, answer, is_openai=True)

    async def _models(self, path: str) -> list[tuple[Listing, Method]]:
        """Services that run and have a method at a path of OpenAI's; any such path if none is given."""
        found = []
        for listing in await self._client.services():
            if not listing.placements:
                continue
            interface = await self._client.directory.interface(listing.choice.program)
            for method in interface.methods:
                if method.path == path or (not path and method.path.startswith("/v1/")):
                    found.append((listing, method))
                    break
        return found

    @asynccontextmanager
    async def _planned(
        self, asked: str, choice: Choice, method: Method, inputs: dict[str, Any]
    ) -> AsyncIterator[tuple[Calls, Plan, int]]:
        """A call that is planned, and its price set aside while it runs."""
        fit_inputs(method, inputs)
        calls = await self._client.calls()
        service = f"{choice.service}@{choice.program}"
        _, offers = await self._client.quote(service)
        if not offers:
            # It may have made room for another version since it was found.
            self._client.directory.look_again()
            choice, offers = await self._client.quote(asked)
        if not offers:
            raise NoProvider(service=choice.service, version=choice.version.version)
        # Any of them may be chosen, as far as the run's limit allows.
        prices = [price.total_uain for _, price in offers]
        left_uain = self.allowance.left_uain
        price_uain = max([price for price in prices if price <= left_uain], default=min(prices))
        max_price_uain = price_uain
        declares_calls = (await self._client.directory.interface(choice.program)).calls is not None
        inner = self._inner if declares_calls else None
        most_uain = price_uain + (0 if inner is None else inner.budget_uain)
        with self.allowance.promise(most_uain):
            plan = await calls.plan(
                asked,
                method.name,
                inputs,
                max_price_uain=max_price_uain,
                choice=choice,
                insists=self._insists,
                allowance=inner,
            )
            try:
                yield calls, plan, most_uain
            except Refusal as refusal:
                # The call is free, what others did for its program is not.
                self.allowance.spent_uain += int(refusal.facts.get("inner_uain", 0))
                raise

    async def pieces(
        self, asked: str, choice: Choice, method: Method, inputs: dict[str, Any], exchange: Exchange
    ) -> AsyncGenerator[bytes, None]:
        """The body of a paid answer as it comes, for other doors; `exchange.answer` is there at its end."""
        async with self._planned(asked, choice, method, inputs) as (calls, plan, price_uain):
            try:
                async with aclosing(calls.stream(plan, exchange)) as pieces:
                    async for piece in pieces:
                        yield piece
            except (GeneratorExit, asyncio.CancelledError):
                # What the provider has sent by now may cost the price, and calls below it theirs.
                self.allowance.spent_uain += price_uain
                raise
            finally:
                if exchange.answer is not None:
                    self.allowance.spent_uain += exchange.answer.total_uain
                    self._on_call(exchange.answer)

    async def _pay(
        self,
        asked: str,
        choice: Choice,
        method: Method,
        inputs: dict[str, Any],
        answer: Answering,
        *,
        is_openai: bool = False,
    ) -> None:
        async with self._planned(asked, choice, method, inputs) as (calls, plan, price_uain):
            exchange = Exchange()
            try:
                if method.stream:
                    async with (
                        aclosing(calls.stream(plan, exchange)) as pieces,
                        aclosing(while_there(pieces, answer.receive)) as heard,
                    ):
                        await answer.stream(heard, exchange, is_openai=is_openai)
                else:
                    exchange.answer = await calls.call(plan)
            except ClientGone:
                # The provider hears that nobody listens any more; what it has sent by then may cost the price.
                self.allowance.spent_uain += price_uain
                raise
            finally:
                if exchange.answer is not None:
                    self.allowance.spent_uain += exchange.answer.total_uain
                    self._on_call(exchange.answer)
        if not method.stream:
            assert exchange.answer is not None
            await answer.paid(exchange.answer)


class Answering:
    """Writes one answer; a refusal after the first byte of a stream becomes an event of it."""

    def __init__(self, send: Send, receive: Receive, extra: Headers) -> None:
        self.extra = extra
        self.receive = receive
        self.reshape: Callable[[Any], bytes] | None = None
        self._send = send
        self._begun = False

    async def json(self, value: Any) -> None:
        """An object of our own."""
        await self.whole(200, json.dumps(value, ensure_ascii=False).encode() + b"\n", JSON_TYPE)

    async def refuse(self, refusal: Refusal) -> None:
        """A refusal with its way out, in the form that OpenAI's clients show as well."""
        error = {**refusal.to_json(), "type": "open_resource_refusal", "param": None}
        content = json.dumps({"error": error}, ensure_ascii=False, default=str).encode() + b"\n"
        if self._begun:
            await self._body(b"event: error\ndata: " + content.rstrip() + b"\n\n", more=False)
            return
        await self.whole(status_of(refusal), content, JSON_TYPE)

    async def paid(self, answer: Answer) -> None:
        """A program's answer, with price and receipt in the headers."""
        receipt = base64.urlsafe_b64encode(json.dumps(answer.receipt).encode()).rstrip(b"=")
        self.extra += [
            (b"openresource-price", f"{answer.price} AIN".encode()),
            (b"openresource-provider", answer.provider.encode()),
            (b"openresource-isolation", answer.isolation.encode()),
            (b"openresource-receipt-id", answer.receipt_id.encode()),
            (b"openresource-receipt", receipt),
            (b"openresource-chosen", chosen(answer.considered, answer.failed)),
        ]
        if self.reshape is not None:
            await self.whole(200, self.reshape(answer.value), EVENTS_TYPE)
        else:
            await self.whole(200, answer.body, answer.content_type)

    async def stream(self, pieces: AsyncIterator[bytes], exchange: Exchange, *, is_openai: bool) -> None:
        """A stream as it comes; its last event carries the receipt."""
        pending = b""
        async for piece in pieces:
            if not self._begun:
                if exchange.plan is not None:
                    told = chosen(exchange.plan.considered, exchange.plan.failed)
                    self.extra.append((b"openresource-chosen", told))
                await self._start(200, EVENTS_TYPE, None)
            if not is_openai:
                await self._body(piece, more=True)
                continue
            # Stock clients know data events alone.
            *blocks, pending = (pending + piece).split(b"\n\n")
            for block in blocks:
                if block.startswith(b"data: "):
                    await self._body(block + b"\n\n", more=True)
        last = openai_shapes.STREAM_END
        if not is_openai and exchange.answer is not None:
            last = b"event: receipt\ndata: " + json.dumps(exchange.answer.receipt).encode() + b"\n\n"
        await self._body(last, more=False)

    async def whole(self, status: int, content: bytes, content_type: str) -> None:
        """A whole answer."""
        await self._start(status, content_type, len(content))
        await self._body(content, more=False)

    async def _start(self, status: int, content_type: str, length: int | None) -> None:
        self._begun = True
        headers: Headers = [
            (b"content-type", content_type.encode("latin-1", "replace")),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *self.extra,
        ]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _body(self, content: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})


def chosen(considered: Sequence[Considered], failed: Sequence[FailedTry]) -> bytes:
    """Why this provider, as JSON that fits a header: the first few who were considered, and who was asked in vain."""
    told = why(considered[:CONSIDERED_SHOWN_MAX], failed[:CONSIDERED_SHOWN_MAX])
    return json.dumps({**told, "candidates": len(considered)}).encode("ascii")


async def while_there(pieces: AsyncIterator[bytes], receive: Receive) -> AsyncGenerator[bytes, None]:
    """A stream as long as its client is there; when it hangs up, the stream is broken off where it comes from."""
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        while True:
            step = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait((step, gone), return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
                raise ClientGone()
            piece = step.result()
            if piece is None:
                return
            yield piece
    finally:
        gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def named_inputs(value: Any, method: Method) -> dict[str, Any]:
    """Inputs by name; a lone value goes to the method's only parameter."""
    if isinstance(value, dict):
        return value
    names = method.input.get("required") or method.parameters
    if len(names) == 1:
        return {names[0]: value}
    raise InvalidInput(what="body", reason=f"it must be an object with {', '.join(method.parameters)}")


def _service_in(parts: list[str]) -> tuple[str, list[str]]:
    """The service that a path begins with, and the rest."""
    if is_address(parts[0]) and len(parts) > 1:
        return f"{parts[0]}/{parts[1]}", parts[2:]
    return parts[0], parts[1:]


def status_of(refusal: Refusal) -> int:
    status = refusal.facts.get("status")
    if refusal.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[refusal.code]
    return status if isinstance(status, int) and 400 <= status < 600 else 400


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _listing_json(listing: Listing, host: str) -> dict[str, Any]:
    choice, version = listing.choice, listing.choice.version
    return {
        "name": choice.name,
        "service": choice.service,
        "version": version.version,
        "summary": version.summary,
        "price": f"{text_from_uain(listing.from_uain or 0)} AIN a {version.unit}",
        "price_uain": listing.from_uain,
        "providers": len(listing.placements),
        "isolation": sorted({placement.isolation for placement in listing.placements}),
        "labels": [label.text for label in listing.labels],
        "fork_of": fork_source_text(version.fork_of) if version.fork_of is not None else None,
        "url": f"http://{host}/{choice.name}",
    }


def _proto_of(choice: Choice, interface: Interface) -> str:
    """A service as gRPC clients see it: by its own .proto, or by the one that its interface gives."""
    if interface.proto:
        return interface.proto
    return proto_text(proto_file(choice.name, [asdict(method) for method in interface.methods]))


def _interface_json(choice: Choice, interface: Interface) -> dict[str, Any]:
    return {
        "service": choice.service,
        "version": choice.version.version,
        "program": choice.program,
        "methods": [
            {
                "name": method.name,
                "path": method.path,
                "summary": method.summary,
                "input": method.input,
                "output": method.output,
                "stream": method.stream,
                "example": method.example,
            }
            for method in interface.methods
        ],
    }
