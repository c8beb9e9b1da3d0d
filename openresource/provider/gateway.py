"""The gateway: follows one HTTP request from its path to its answer, and says every no with its way out.

    POST /services/<publisher>/<name>/<program>[/<method path>]   a call
    GET  /services/<publisher>/<name>/<program>/interface.json    what may be called, how, for how much
    GET  /services/<publisher>/<name>/<program>/interface.proto   the same for gRPC clients
    GET  /receipts/<id>                                           any receipt that was given
    GET  /inner , POST /inner/<number>                            what a program asks of others (`inner_door.py`)
    GET  /channels/<buyer>/<id>                                   the tab, for who knows the session
    GET  /channels/<buyer>/<id>/receipt                           the receipt of the call that the session header numbers
    POST /channels/<buyer>/<id>/settle                            claim now and send the rest back
    GET  / , /healthz , /metrics                                  what this is, whether it is well, what it did

A stream answers as server-sent events: a program's JSON lines are `data:` events, and the last event is
`event: receipt`. The receipt's output digest covers every byte of the body before that event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from openresource.market.channels import parse_channel_name
from openresource.market.proto_files import proto_file, proto_text
from openresource.market.tabs import UnknownSession, tab_json
from openresource.market.vouchers import recover_voucher_signer
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.provider.accounts import Account
from openresource.provider.answers import Answer
from openresource.provider.calls import Calls, Request, StartedCall
from openresource.provider.inner_door import InnerDoor
from openresource.provider.offers import Offer, Offers
from openresource.provider.payments import (
    PaymentMissing,
    Session,
    decode_voucher,
    parse_session,
    payment_required,
    payment_response,
)
from openresource.provider.statuses import (
    INTERNAL,
    NOT_FOUND,
    PAYMENT_REQUIRED,
    RETRY_SECONDS,
    UNAVAILABLE,
    http_status,
    register,
)
from openresource.sandbox.driver import (
    LINES_TYPE,
    InputTooLarge,
    OutputTooLarge,
    ProgramError,
    ProgramStream,
)

log = logging.getLogger("openresource.provider.gateway")

EVENTS_TYPE = "text/event-stream"
LOAD_HEADER = b"openresource-load"
DEADLINE_DIGITS_MAX = 9
BODY_SECONDS_MAX = 60.0
BODIES_BYTES_MAX = 256 * 1024 * 1024
# A stream longer than this is sent, but not kept for a retry.
STREAM_KEPT_BYTES_MAX = 1024 * 1024

PROGRAM_REMEDY = (
    "Nothing was charged. Try again, or another input; if it stays so, tell the service's publisher."
)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_CONTENT_TYPE = re.compile(
    r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,60}(?:; ?[A-Za-z0-9-]{1,20}=[A-Za-z0-9._-]{1,60}){0,3}"
)
_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_encoder = msgspec.json.Encoder()


class NotFound(Refusal):
    template = "There is nothing at {path}."
    way_out = "Read / for what this provider serves."


class MethodNotAllowed(Refusal):
    template = "{path} does not answer to {verb}."
    way_out = "Calls are POST; everything that is read is GET."


class ReceiptUnknown(Refusal):
    template = "No receipt {receipt} was given here, or it is no longer kept."
    way_out = "Check the id: 0x and 64 hex digits, from the OpenResource-Receipt header."


class SettleNotPossible(Refusal):
    template = "The channel {channel} has no voucher, so there is nothing that this provider could claim."
    way_out = "Wait for the expiry and close the channel: then everything in it returns."


class BodyTooSlow(Refusal):
    template = "The request's body did not arrive within {seconds} seconds."
    way_out = "Nothing was charged. Send it again over a faster connection, or send less at once."


class TooManyBodies(Refusal):
    template = "Requests that are under way hold the {bytes_max} bytes that this gateway keeps for them."
    way_out = "Nothing was charged. Send it again in a moment, or to another provider."


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


register(NotFound, NOT_FOUND)
register(ReceiptUnknown, NOT_FOUND)
register(MethodNotAllowed, 405)
register(SettleNotPossible, 409)
register(BodyTooSlow, 408)
register(TooManyBodies, UNAVAILABLE)


class Settler(Protocol):
    """Claims a channel at once; given by the claims."""

    async def settle(self, account: Account) -> str: ...


class Gateway:
    """The ASGI application."""

    def __init__(
        self,
        offers: Offers,
        calls: Calls,
        settler: Settler,
        *,
        overview: Callable[[], dict[str, Any]],
        health: Callable[[], tuple[bool, dict[str, Any]]],
        gauges: Callable[[], dict[str, float]],
    ) -> None:
        self.endpoint = ""
        self._offers = offers
        self._calls = calls
        self._settler = settler
        self._overview = overview
        self._health = health
        self._gauges = gauges
        self._bodies_bytes = 0
        self._inner = None if calls.lines is None else InnerDoor(calls.lines, self.hold_body, _body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            path: str = scope["path"]
            verb: str = scope["method"]
            if verb == "POST" and path.startswith("/services/"):
                await self._call(scope, receive, send)
            elif path == "/inner" and verb == "GET" and self._inner is not None:
                await _send(send, 200, [_JSON], await self._inner.fetch(scope, receive))
            elif path.startswith("/inner/") and verb == "POST" and self._inner is not None:
                await _send(send, 200, [_JSON], await self._inner.hand_in(path, scope, receive))
            elif verb in ("GET", "HEAD"):
                await self._read(path, scope, send)
            elif verb == "POST" and path.startswith("/channels/") and path.endswith("/settle"):
                await self._settle(path.removesuffix("/settle"), scope, send)
            else:
                raise MethodNotAllowed(path=path, verb=verb)
        except Refusal as refusal:
            await self._refuse(refusal, send)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a request failed within the gateway")
            await _send(send, INTERNAL, [_JSON], _INTERNAL_BODY)

    # ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        offer, method = self._offers.route(scope["raw_path"], scope["path"])
        request = Request(offer, method, b"")
        length = -1
        for name, value in scope["headers"]:
            if name == b"openresource-session":
                request.session = value
            elif name == b"payment-signature":
                request.payment = value
            elif name == b"content-length":
                length = int(value)
            elif name == b"content-type":
                request.content_type = value.decode("latin-1").partition(";")[0].strip().lower()
            elif name == b"openresource-test":
                request.test = value
            elif name == b"openresource-allowance":
                request.allowance = value
            elif name == b"openresource-deadline":
                request.patience_seconds = _patience_seconds(value)
        try:
            await self._call_of(request, length, receive, send)
        except Refusal as refusal:
            await self._refuse(refusal, send, offer)

    async def _call_of(self, request: Request, length: int, receive: Receive, send: Send) -> None:
        bytes_max = request.offer.limits.input_bytes
        if length > bytes_max:
            raise InputTooLarge(bytes=length, bytes_max=bytes_max)
        with self.hold_body(length if length >= 0 else bytes_max):
            request.body = await _body(receive, bytes_max)
            await self._answer_call(request, receive, send)

    @contextlib.contextmanager
    def hold_body(self, size: int) -> Iterator[None]:
        """Bodies come before payment, so what all of them may hold together is bounded."""
        if self._bodies_bytes + size > BODIES_BYTES_MAX:
            raise TooManyBodies(bytes_max=BODIES_BYTES_MAX)
        self._bodies_bytes += size
        try:
            yield
        finally:
            self._bodies_bytes -= size

    async def _answer_call(self, request: Request, receive: Receive, send: Send) -> None:
        try:
            started = await self._calls.begin(request)
            if isinstance(started, Answer):
                await self._send_answer(send, started, self._account(request), request.offer)
                return
            reply = await self._calls.run(started)
        except Refusal as refusal:
            if http_status(refusal) != PAYMENT_REQUIRED:
                raise
            await self._refuse_payment(refusal, request, send)
            return
        if isinstance(reply.body, bytes):
            answer = await self._calls.complete(started, reply.body, _safe_type(reply.content_type))
            await self._send_answer(send, answer, started.account, request.offer)
        else:
            await self._stream(started, reply.body, _safe_type(reply.content_type), receive, send)

    async def _send_answer(self, send: Send, answer: Answer, account: Account | None, offer: Offer) -> None:
        body = answer.body if not answer.body_file else await self._calls.answers.read_body(answer)
        if not answer.is_whole:
            body = await self._calls.answers.read_body(answer)
        headers: Headers = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"openresource-receipt", answer.receipt_header),
            (LOAD_HEADER, offer.lane.load_text()),
        ]
        if account is not None:
            headers.append((b"payment-response", self.payment_response(account)))
        if answer.content_type == EVENTS_TYPE:
            body += _receipt_event(answer)
        await _send(send, answer.status, headers, body)

    async def _stream(
        self, started: StartedCall, stream: ProgramStream, content_type: str, receive: Receive, send: Send
    ) -> None:
        """Passes a stream on; once a byte of it went out the call counts, however it ends for the client."""
        is_lines = content_type == LINES_TYPE
        sent_type = EVENTS_TYPE if is_lines else content_type
        sent: list[bytes] = []
        sent_bytes = 0
        gone = asyncio.ensure_future(_wait_until_gone(receive))
        try:
            async with contextlib.aclosing(_Chunks(stream, gone)) as chunks:
                async for chunk in chunks:
                    data = b"data: " + chunk.rstrip(b"\r\n") + b"\n\n" if is_lines else chunk
                    if not data:
                        continue
                    if not sent:
                        if started.account is not None:
                            await self._calls.admission.secure(started.account)
                        head: Headers = [
                            (b"content-type", sent_type.encode("latin-1")),
                            (LOAD_HEADER, started.request.offer.lane.load_text()),
                            *_NO_STORE,
                        ]
                        await send(_start(200, head))
                    sent.append(data)
                    sent_bytes += len(data)
                    if sent_bytes > started.request.offer.limits.output_bytes:
                        raise OutputTooLarge(
                            what="stream", bytes_max=started.request.offer.limits.output_bytes
                        )
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except ClientGone:
            if not sent:
                self._calls.release(started)
                raise
            # What went out is paid for; nobody waits for the rest.
            await self._calls.complete(started, b"".join(sent), sent_type, is_whole=False, is_cancelled=True)
            raise
        except Refusal as refusal:
            self._calls.release(started)
            if not sent:
                raise
            await self._break_off(refusal, sent_type, sent[-1], send)
            return
        except BaseException:
            self._calls.release(started)
            raise
        finally:
            gone.cancel()
        if sent and sent_type == EVENTS_TYPE and not sent[-1].endswith(b"\n\n"):
            # The program's last event did not end; ours begins on a line of its own.
            sent.append(b"\n\n")
            await send({"type": "http.response.body", "body": sent[-1], "more_body": True})
        body = b"".join(sent)
        answer = await self._calls.complete(
            started, body, sent_type, is_whole=len(body) <= STREAM_KEPT_BYTES_MAX
        )
        if not sent:
            await self._send_answer(send, answer, started.account, started.request.offer)
            return
        last = _receipt_event(answer) if sent_type == EVENTS_TYPE else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _break_off(self, refusal: Refusal, sent_type: str, last: bytes, send: Send) -> None:
        """Ends a stream whose program failed: nobody pays for it, and the client is told why."""
        self._calls.metrics.count("openresource_refusals_total", f'code="{refusal.code}"')
        event = b""
        if sent_type == EVENTS_TYPE:
            event = b"event: error\ndata: " + _error_body(refusal) + b"\n\n"
            if not last.endswith(b"\n\n"):
                event = b"\n\n" + event
        await send({"type": "http.response.body", "body": event, "more_body": False})

    def _account(self, request: Request) -> Account | None:
        if not request.session:
            return None
        return self._calls.admission.known_account(parse_session(request.session).channel)

    def payment_response(self, account: Account) -> bytes:
        """x402's confirmation for a channel."""
        if not account.payment_response:
            account.payment_response = payment_response(
                self._calls.network, account.buyer, account.price_uain
            )
        return account.payment_response

    # ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _refuse(self, refusal: Refusal, send: Send, offer: Offer | None = None) -> None:
        status = http_status(refusal)
        self._calls.metrics.count("openresource_refusals_total", f'code="{refusal.code}"')
        headers: Headers = [_JSON]
        if offer is not None:
            headers.append((LOAD_HEADER, offer.lane.load_text()))
        if status in RETRY_SECONDS:
            retry_seconds = max(RETRY_SECONDS[status], -(-int(refusal.facts.get("retry_ms", 0)) // 1000))
            headers.append((b"retry-after", str(retry_seconds).encode()))
        await _send(send, status, headers, _error_body(refusal))

    def payment_envelope(self, refusal: Refusal, request: Request) -> tuple[bytes, bytes]:
        """What a call without a good payment is told: a body, and x402's header."""
        offer = request.offer
        account = self._entitled_account(request)
        price = offer.price if account is None else account.terms.price
        return payment_required(
            refusal,
            url=self.endpoint + offer.path + request.method.path,
            description=offer.version.summary,
            price=price,
            provider=self._calls.provider,
            network=self._calls.network,
            program=offer.program,
            call_seconds=offer.limits.call_seconds,
            account=account,
        )

    async def _refuse_payment(self, refusal: Refusal, request: Request, send: Send) -> None:
        self._calls.metrics.count("openresource_refusals_total", f'code="{refusal.code}"')
        body, header = self.payment_envelope(refusal, request)
        headers: Headers = [
            _JSON,
            (b"payment-required", header),
            (LOAD_HEADER, request.offer.lane.load_text()),
        ]
        await _send(send, PAYMENT_REQUIRED, headers, body)

    def _entitled_account(self, request: Request) -> Account | None:
        """The channel of a request, if its sender shows that it is its own."""
        if not request.session:
            return None
        try:
            session = parse_session(request.session)
            account = self._calls.admission.known_account(session.channel)
            if account is None or account.terms.program != request.offer.program:
                return None
            if session.call.session in account.tab.sessions or self._is_signed_by_buyer(
                account, request.payment
            ):
                return account
        except Refusal:
            return None
        return None

    def _is_signed_by_buyer(self, account: Account, payment: bytes) -> bool:
        if not payment:
            return False
        voucher = decode_voucher(payment)
        if voucher.channel != account.name:
            return False
        return recover_voucher_signer(voucher, self._calls.network) in (account.buyer, account.channel.signer)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, path: str, scope: Scope, send: Send) -> None:
        if path == "/healthz":
            is_well, facts = self._health()
            await _send(send, 200 if is_well else 503, [_JSON], _encoder.encode(facts))
        elif path == "/metrics":
            text = self._calls.metrics.text(self._gauges())
            await _send(send, 200, [(b"content-type", b"text/plain; version=0.0.4")], text.encode())
        elif path == "/":
            await _send(send, 200, [_JSON], _encoder.encode(self._overview()))
        elif path.startswith("/receipts/"):
            await _send(send, 200, [_JSON], await self._receipt(path.removeprefix("/receipts/")))
        elif path.startswith("/channels/") and path.endswith("/receipt"):
            account, session = await self._own_channel(path.removesuffix("/receipt"), scope)
            if session is None:
                raise InvalidInput(what="OpenResource-Session header", reason="it has to number the call")
            receipt = await self._calls.admission.receipt_of(account, session.call)
            await _send(send, 200, [_JSON], receipt)
        elif path.startswith("/channels/"):
            account, _ = await self._own_channel(path, scope)
            await _send(send, 200, [_JSON], _encoder.encode(_channel_json(account)))
        elif path.startswith("/services/"):
            offer, rest = self._offers.offer_at(path)
            if rest == "/interface.proto":
                await _send(send, 200, [_TEXT], self._proto(offer))
            else:
                await _send(send, 200, [_JSON], self._interface(path))
        else:
            raise NotFound(path=path)

    def _proto(self, offer: Offer) -> bytes:
        """The service as a .proto: its own where it speaks gRPC, else the one that its interface gives."""
        own = getattr(offer.runner, "interface", {}).get("proto")
        if isinstance(own, str) and own:
            return own.encode()
        methods = msgspec.json.decode(offer.interface)["methods"]
        return proto_text(proto_file(offer.name, methods)).encode()

    def _interface(self, path: str) -> bytes:
        offer, rest = self._offers.offer_at(path)
        if rest not in ("", "/interface.json"):
            raise MethodNotAllowed(path=path, verb="GET")
        return offer.interface

    async def _receipt(self, text: str) -> bytes:
        try:
            receipt_id = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            raise ReceiptUnknown(receipt=text) from None
        found = self._calls.free_receipt(receipt_id) or await self._calls.answers.receipt(receipt_id)
        if found is None:
            raise ReceiptUnknown(receipt=text)
        return found

    async def _own_channel(self, path: str, scope: Scope) -> tuple[Account, Session | None]:
        """The channel at a path, for whoever sends its session's secret or a voucher that its buyer signed."""
        name = path.removeprefix("/channels/")
        parse_channel_name(name)
        session_header, payment = (
            _header(scope, b"openresource-session"),
            _header(scope, b"payment-signature"),
        )
        account = await self._calls.admission.account(name)
        session = parse_session(session_header) if session_header else None
        if session is not None:
            if session.channel != name:
                raise InvalidInput(what="OpenResource-Session header", reason="it names another channel")
            if session.call.session in account.tab.sessions:
                return account, session
        if self._is_signed_by_buyer(account, payment):
            return account, session
        if not session_header and not payment:
            raise PaymentMissing(
                "A channel's tab is for its buyer.",
                remedy="Send OpenResource-Session or a signed voucher.",
                price="",
            )
        raise UnknownSession()

    async def _settle(self, path: str, scope: Scope, send: Send) -> None:
        account, _ = await self._own_channel(path, scope)
        payment = _header(scope, b"payment-signature")
        if payment:
            # Without one there may be nothing to claim with: the channel is new, or was claimed a moment ago.
            await self._calls.admission.take_voucher(account, payment)
        if account.tab.voucher is None:
            raise SettleNotPossible(channel=account.name)
        amount_uain = account.tab.spent_uain
        tx_hash = await self._settler.settle(account)
        settled = {"tx_hash": tx_hash, "channel": account.name, "claimed_uain": amount_uain}
        await _send(send, 200, [_JSON], _encoder.encode(settled))


class _Chunks:
    """A program's stream that ends as soon as its client is gone."""

    def __init__(self, stream: ProgramStream, gone: asyncio.Future[None]) -> None:
        self._stream = stream
        self._gone = gone

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        if self._gone.done():
            raise ClientGone()
        step = asyncio.ensure_future(self._stream.__anext__())
        try:
            await asyncio.wait((step, self._gone), return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                raise ClientGone()
            return step.result()
        finally:
            if not step.done():
                step.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Refusal):
                    await step

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive, bytes_max: int) -> bytes:
    """The request's body; one message is the usual case."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts = [body]
        size = len(body)
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                while message.get("more_body", False) and size <= bytes_max:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone()
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
        except TimeoutError:
            raise BodyTooSlow(seconds=BODY_SECONDS_MAX) from None
        body = b"".join(parts)
    if len(body) > bytes_max:
        raise InputTooLarge(bytes=len(body), bytes_max=bytes_max)
    return body


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for header, value in scope["headers"] if header == name), b"")


def _patience_seconds(value: bytes) -> float | None:
    """How long a client waits, from its header in milliseconds; what is no number says nothing."""
    return int(value) / 1000 if value.isdigit() and len(value) <= DEADLINE_DIGITS_MAX else None


def _safe_type(content_type: str) -> str:
    """A program's content type, or bytes of unknown kind if it is none."""
    return content_type if _CONTENT_TYPE.fullmatch(content_type) else "application/octet-stream"


def _start(status: int, headers: Headers) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers.append((b"content-length", str(len(body)).encode()))
    await send(_start(status, headers))
    await send({"type": "http.response.body", "body": body})


def refusal_json(refusal: Refusal) -> dict[str, Any]:
    """A refusal as callers see it."""
    said = refusal.to_json()
    if isinstance(refusal, ProgramError) and said["facts"].pop("stderr", None) is not None:
        # A program's last words are its publisher's business, not every caller's.
        said["remedy"] = PROGRAM_REMEDY
    return said


def _error_body(refusal: Refusal) -> bytes:
    return _encoder.encode({"error": refusal_json(refusal)})


def _receipt_event(answer: Answer) -> bytes:
    return b"event: receipt\ndata: " + answer.receipt_json + b"\n\n"


def _channel_json(account: Account) -> dict[str, object]:
    return {
        **tab_json(account.tab),
        "channel": account.name,
        "channel_value_uain": account.channel.value_uain,
        "expires_at_ms": account.channel.expires_at_ms,
        "serves_until_ms": account.serves_until_ms,
    }


_NO_STORE: Headers = [(b"cache-control", b"no-store")]
_INTERNAL_BODY = _encoder.encode(
    {
        "error": {
            "code": "internal",
            "message": "The gateway failed at this request.",
            "remedy": "Nothing was charged for it. Try again; if it happens again, tell the provider.",
            "facts": {},
        }
    }
)
