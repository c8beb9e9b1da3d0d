"""One paid call from its words to its checked receipt: choose a provider, cover the price, send, check, count.

A provider that is away or fails costs nothing and the next one is tried, once. A connection that breaks in the middle
of a call is tried again under the same number, which gives the stored answer and is never paid twice.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openresource.client.books import DAY_MS, Books
from openresource.client.chain import Chain
from openresource.client.channels import Channels, OpenChannel
from openresource.client.homes import Home
from openresource.client.services import Choice, Directory, Method
from openresource.client.wires import ProviderAway, Wire
from openresource.ledger.draft import NetworkDomain
from openresource.market.fields import InvalidRecord
from openresource.market.papers import SCHEME, hex_text, network_name
from openresource.market.placements import Placement
from openresource.market.prices import Price
from openresource.market.purses import (
    GatewayClaimsUnsigned,
    NonceMoved,
    SpendingUnexplained,
    read_gateway_state,
)
from openresource.market.receipts import (
    CallReceipt,
    check_receipt,
    receipt_from_json,
)
from openresource.market.schemas import check_value
from openresource.market.vouchers import Voucher, voucher_to_json
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

ANSWER_BYTES_MAX: Final = 256 << 20
CALL_SECONDS: Final = 120.0
RECEIPT_BYTES_MAX: Final = 64 * 1024
JSON_DEPTH_MAX: Final = 128
PROVIDERS_TRIED_MAX: Final = 2
PAYMENT_TRIES_MAX: Final = 3
BROKEN_TRIES_MAX: Final = 3
BROKEN_WAIT_SECONDS: Final = 0.2
BUSY_STATUSES: Final = frozenset((429, 503))
FAILED_STATUSES: Final = frozenset((500, 502, 504))
RECEIPT_HEADER: Final = "openresource-receipt"
EVENTS_TYPE: Final = "text/event-stream"


class NoProvider(Refusal):
    template = "Nobody runs {service} {version} just now."
    way_out = (
        "See who offered it before: openresource quote {service}. Or run it yourself: openresource provide"
    )


class NoProviderAnswered(Refusal):
    template = "No provider of {service} answered: {reasons}."
    way_out = "Nothing was paid for it. Try again in a moment."


class PriceAboveMaximum(Refusal):
    template = "A call of {service} costs {price} AIN; you allowed {maximum} AIN."
    way_out = "Allow more with --max-price, or look for another provider: openresource quote {service}"


class OverSpendingLimit(Refusal):
    template = "This call would bring {period} to {would_be} AIN; the limit is {limit} AIN."
    way_out = "Raise it if you mean it: openresource money limit {option} AMOUNT"


class DeadlinePassed(Refusal):
    template = "{service} gave no answer within {seconds} s."
    way_out = "Allow more time with --deadline. What has no answer costs nothing."


class ProviderRefused(Refusal):
    """What a gateway said no to; its own code, message and remedy."""

    template = "The provider {provider} refused the call."


class AnswerNotReceipted(Refusal):
    template = "{provider} answered without a receipt that fits the call: {reason}."
    way_out = (
        "The answer is not used and the receipt not acknowledged; at most the price of this call is at risk."
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave: the value, what it cost, and the provider's signed receipt."""

    value: Any
    content_type: str
    body: bytes
    price_uain: int
    receipt: dict[str, Any]
    provider: str
    service: str
    version: str
    isolation: str
    milliseconds: float

    @property
    def price(self) -> str:
        """The price as a text of AIN."""
        return text_from_uain(self.price_uain)

    @property
    def receipt_id(self) -> str:
        """The receipt's id, under which the provider shows it to anybody."""
        return str(self.receipt.get("id", ""))


@dataclass(slots=True)
class Standing:
    """How a provider has done for this client, newest first in weight."""

    milliseconds: float = 0.0
    failures: int = 0

    def answered(self, milliseconds: float) -> None:
        """An answer came."""
        self.milliseconds = (
            milliseconds if not self.milliseconds else 0.7 * self.milliseconds + 0.3 * milliseconds
        )
        self.failures = 0


@dataclass(slots=True)
class Plan:
    """Everything about a call that is known before a provider is asked."""

    choice: Choice
    method: Method
    body: bytes
    max_price_uain: int | None
    ends_at: float
    progress: Callable[[str], None]
    tried: list[str] = field(default_factory=list)

    def left_seconds(self) -> float:
        """Time until the deadline; a refusal once there is none."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise DeadlinePassed(service=self.choice.service, seconds="the time allowed")
        return left


class Calls:
    """Calls services on behalf of one home."""

    def __init__(
        self,
        home: Home,
        chain: Chain,
        books: Books,
        channels: Channels,
        directory: Directory,
        network: NetworkDomain,
        *,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._home = home
        self._chain = chain
        self._books = books
        self._channels = channels
        self._directory = directory
        self._network = network
        self._clock_ms = clock_ms
        self._wires: dict[tuple[str, str, bytes], Wire] = {}
        self._standings: dict[str, Standing] = {}

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(wire.close() for wire in self._wires.values()))
        self._wires.clear()

    async def plan(
        self,
        service: str,
        method: str | None,
        inputs: Mapping[str, Any],
        *,
        max_price_uain: int | None = None,
        deadline_seconds: float = CALL_SECONDS,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Plan:
        """Find the service and check the inputs against its interface; nothing is spent."""
        ends_at = time.monotonic() + deadline_seconds
        choice = await self._directory.choose(service)
        interface = await self._directory.interface(choice.program)
        chosen = interface.method(method, choice.service)
        value = fit_inputs(chosen, inputs)
        body = json.dumps(value, ensure_ascii=False).encode()
        return Plan(choice, chosen, body, max_price_uain, ends_at, progress)

    async def call(self, plan: Plan) -> Answer:
        """Make a planned call and give its whole answer."""
        pieces: list[bytes] = []
        exchange = Exchange()
        async for piece in self.stream(plan, exchange):
            pieces.append(piece)
        assert exchange.answer is not None
        return exchange.answer

    async def stream(self, plan: Plan, exchange: Exchange) -> AsyncIterator[bytes]:
        """The body of an answer as it comes; `exchange.answer` is there when it has ended."""
        reasons: list[str] = []
        for placement, price in await self._candidates(plan):
            if len(plan.tried) >= PROVIDERS_TRIED_MAX:
                break
            plan.tried.append(placement.provider)
            self._check_price(plan, price)
            plan.progress(f"calling {placement.provider[:10]}… for {text_from_uain(price.total_uain)} AIN")
            begun = False
            try:
                async for piece in self._ask(plan, placement, price, exchange):
                    begun = True
                    yield piece
                return
            except (ProviderAway, ProviderBusy, ProgramFailedThere) as failure:
                self._standing(placement).failures += 1
                reasons.append(failure.message)
                if begun:
                    # Part of a stream is with the caller already; a second provider would begin it anew.
                    raise
        raise NoProviderAnswered(service=plan.choice.service, reasons="; ".join(reasons))

    async def quote(self, service: str) -> tuple[Choice, list[tuple[Placement, Price]]]:
        """Who offers a service at which price, the best first."""
        choice = await self._directory.choose(service)
        placements = await self._directory.placements(choice)
        priced = [(placement, await self._directory.price(choice, placement)) for placement in placements]
        return choice, self._in_order(priced)

    async def settle(self, name: str) -> dict[str, Any]:
        """Ask a channel's provider to claim and send the rest back at once."""
        entry = self._books.channel(name)
        shown = await self._channels.on_chain(name)
        terms = shown.terms
        assert entry is not None
        choice = await self._directory.choose(f"{terms.publisher}/{terms.name}@{terms.program}")
        for placement in await self._directory.all_placements(choice):
            if placement.provider == terms.provider and placement.endpoint:
                wire = self._wire(placement)
                header = {"OpenResource-Session": f"{name};{entry.secret.hex()};{entry.purse.next_sequence}"}
                status, _, body = await wire.request(
                    "POST",
                    f"/channels/{name}/settle",
                    headers=header,
                    seconds=30,
                    bytes_max=RECEIPT_BYTES_MAX,
                )
                if status != 200:
                    raise _refusal_of(status, body, placement)
                settled = dict(parse_json(body, bytes_max=RECEIPT_BYTES_MAX, depth_max=8))
                await self._chain.wait_final(str(settled["tx_hash"]))
                self._channels.mark_closed(name)
                return settled
        raise NoProvider(service=choice.service, version=choice.version.version)

    # Choosing

    async def _candidates(self, plan: Plan) -> list[tuple[Placement, Price]]:
        choice = plan.choice
        placements = await self._directory.placements(choice)
        if not placements:
            raise NoProvider(service=choice.service, version=choice.version.version)
        return self._in_order([(p, await self._directory.price(choice, p)) for p in placements])

    def _in_order(self, priced: list[tuple[Placement, Price]]) -> list[tuple[Placement, Price]]:
        """Those that did not fail lately first, then the cheapest, then the quickest seen."""

        def rank(entry: tuple[Placement, Price]) -> tuple[int, int, float, str]:
            standing = self._standings.get(entry[0].provider, Standing())
            return standing.failures, entry[1].total_uain, standing.milliseconds, entry[0].provider

        return sorted(priced, key=rank)

    def _check_price(self, plan: Plan, price: Price) -> None:
        total_uain, service = price.total_uain, plan.choice.service
        if plan.max_price_uain is not None and total_uain > plan.max_price_uain:
            raise PriceAboveMaximum(
                service=service, price=text_from_uain(total_uain), maximum=text_from_uain(plan.max_price_uain)
            )
        limits = self._home.limits()
        if total_uain > limits.per_call_uain:
            raise OverSpendingLimit(
                period="a single call",
                would_be=text_from_uain(total_uain),
                limit=text_from_uain(limits.per_call_uain),
                option="--per-call",
            )
        would_be = self._books.spent_uain(self._clock_ms() - DAY_MS) + total_uain
        if total_uain and would_be > limits.per_day_uain:
            raise OverSpendingLimit(
                period="the last 24 hours",
                would_be=text_from_uain(would_be),
                limit=text_from_uain(limits.per_day_uain),
                option="--per-day",
            )

    # Asking one provider

    async def _ask(
        self, plan: Plan, placement: Placement, price: Price, exchange: Exchange
    ) -> AsyncIterator[bytes]:
        wire = self._wire(placement)
        held: OpenChannel | None = None
        permissions = await self._directory.permissions(plan.choice)
        is_open_to_all = permissions.call is None or permissions.call.get("everyone", False)
        if price.total_uain > 0 or not is_open_to_all:
            held = await self._channels.ready(plan.choice, placement, price, progress=plan.progress)
            if held.is_unsettled:
                await self._ask_for_state(held, wire)
        for _ in range(PAYMENT_TRIES_MAX):
            try:
                async for piece in self._send(plan, wire, held, exchange):
                    yield piece
                return
            except PaymentRefused as refused:
                assert held is not None
                await self._mend(held, refused)
                held = await self._channels.ready(plan.choice, placement, price, progress=plan.progress)
        raise ProviderBusy(
            f"{placement.provider} does not accept the payment.",
            remedy="Close the channel: openresource channel close",
        )

    async def _send(
        self, plan: Plan, wire: Wire, held: OpenChannel | None, exchange: Exchange
    ) -> AsyncIterator[bytes]:
        """One call under one number; a broken connection asks again for the answer that may be there."""
        headers = {"Content-Type": "application/json"}
        sequence = -1
        if held is not None:
            started, voucher = held.start()
            sequence = started.sequence
            headers["OpenResource-Session"] = held.session_header(sequence)
            if voucher is not None:
                headers["PAYMENT-SIGNATURE"] = payment_header(voucher, wire.placement, held, self._network)
        is_ended = False
        try:
            for attempt in range(BROKEN_TRIES_MAX):
                begun = False
                try:
                    async for piece in self._exchange(plan, wire, held, sequence, headers, exchange):
                        begun = True
                        yield piece
                    is_ended = True
                    return
                except ProviderAway:
                    if begun or held is None or attempt + 1 == BROKEN_TRIES_MAX:
                        raise
                    await asyncio.sleep(min(BROKEN_WAIT_SECONDS * 2**attempt, plan.left_seconds()))
        finally:
            if held is not None and not is_ended and sequence in held.purse.in_flight:
                # Without an answer nothing is owed; what the gateway counts all the same shows when we resume.
                held.drop(sequence)
                held.is_unsettled = True

    async def _exchange(
        self,
        plan: Plan,
        wire: Wire,
        held: OpenChannel | None,
        sequence: int,
        headers: Mapping[str, str],
        exchange: Exchange,
    ) -> AsyncIterator[bytes]:
        placement, began = wire.placement, time.monotonic()
        path = f"/services/{plan.choice.service}/{plan.choice.program}{plan.method.path}"
        received = bytearray()
        try:
            async with (
                asyncio.timeout(plan.left_seconds()),
                wire.stream(
                    "POST", path, body=plan.body, headers=headers, seconds=plan.left_seconds()
                ) as response,
            ):
                if response.status_code != 200:
                    content = await response.aread()
                    raise _refusal_of(response.status_code, content, placement)
                content_type = response.headers.get("content-type", "").partition(";")[0]
                receipt_text = response.headers.get(RECEIPT_HEADER)
                is_events = content_type == EVENTS_TYPE
                async for piece in response.aiter_bytes():
                    received += piece
                    if len(received) > ANSWER_BYTES_MAX:
                        raise AnswerNotReceipted(provider=placement.provider, reason="its answer is too long")
                    if receipt_text is None or is_events:
                        yield piece
        except TimeoutError:
            raise DeadlinePassed(
                service=plan.choice.service, seconds=round(time.monotonic() - began)
            ) from None
        body = bytes(received)
        if is_events:
            body, receipt_text = split_events(body, placement)
        record = _receipt_record(receipt_text, placement)
        receipt, digest = self._check(plan, held, sequence, record, body, placement)
        milliseconds = (time.monotonic() - began) * 1000
        self._standing(placement).answered(milliseconds)
        entry = None if held is None else held.count(sequence, receipt.completed, receipt.price_uain, digest)
        record["id"] = hex_text(digest)
        self._books.save_call(
            entry,
            receipt_id=record["id"],
            receipt=record,
            amount_uain=receipt.price_uain,
            service=plan.choice.service,
            at_ms=self._clock_ms(),
        )
        exchange.answer = Answer(
            value=_value_of(body, content_type),
            content_type=content_type,
            body=body,
            price_uain=receipt.price_uain,
            receipt=record,
            provider=placement.provider,
            service=plan.choice.service,
            version=plan.choice.version.version,
            isolation=str(receipt.facts.get("isolation", "")),
            milliseconds=milliseconds,
        )
        if not is_events and response.headers.get(RECEIPT_HEADER) is not None:
            yield body

    def _check(
        self,
        plan: Plan,
        held: OpenChannel | None,
        sequence: int,
        record: dict[str, Any],
        body: bytes,
        placement: Placement,
    ) -> tuple[CallReceipt, bytes]:
        try:
            receipt = receipt_from_json(record)
            paid = held is not None
            digest = check_receipt(
                receipt,
                self._network,
                provider=placement.provider,
                channel=held.entry.name if paid and held else receipt.channel,
                nonce=held.purse.nonce if paid and held else receipt.nonce,
                session=held.purse.session if paid and held else receipt.session,
                sequence=sequence if paid else receipt.sequence,
                program=plan.choice.program,
                price_uain=held.price_uain if paid and held else 0,
                input_body=plan.body,
                output_body=body,
            )
        except Refusal as refusal:
            raise AnswerNotReceipted(provider=placement.provider, reason=refusal.message) from refusal
        return receipt, digest

    # Payment that went wrong

    async def _mend(self, held: OpenChannel, refused: PaymentRefused) -> None:
        """After a 402: take the gateway's word as far as we signed, or the chain's."""
        if refused.extra.get("channel") == held.entry.name:
            try:
                held.resume(read_gateway_state(_state_members(refused.extra)))
                if refused.extra.get("channel_value_uain") != held.purse.deposit_uain:
                    await self._channels.refresh(held)
                return
            except NonceMoved:
                await self._channels.refresh(held)
                return
            except (GatewayClaimsUnsigned, SpendingUnexplained):
                # No more is signed for a provider whose books do not fit ours; what is left returns at the expiry.
                self._channels.mark_closed(held.entry.name)
                raise
            except InvalidRecord as wrong:
                raise refused from wrong
        # The gateway does not know the channel (yet), or says nothing about it: the chain decides.
        await self._channels.refresh(held)
        if refused.code not in ("channel-unknown", "voucher-too-old", "voucher-ahead", "unknown-session"):
            raise refused
        await asyncio.sleep(BROKEN_WAIT_SECONDS)

    async def _ask_for_state(self, held: OpenChannel, wire: Wire) -> None:
        """What became of calls whose end we did not see."""
        header = {"OpenResource-Session": held.session_header(held.purse.next_sequence)}
        status, _, body = await wire.request(
            "GET", f"/channels/{held.entry.name}", headers=header, seconds=10, bytes_max=RECEIPT_BYTES_MAX
        )
        held.forget_unanswered()
        if status == 200:
            record = parse_json(body, bytes_max=RECEIPT_BYTES_MAX, depth_max=8)
            try:
                held.resume(read_gateway_state(_state_members(record)))
            except NonceMoved:
                await self._channels.refresh(held)
        held.is_unsettled = False

    def _wire(self, placement: Placement) -> Wire:
        key = (placement.provider, placement.endpoint, placement.tls_key)
        if key not in self._wires:
            self._wires[key] = Wire(placement, self._network)
        return self._wires[key]

    def _standing(self, placement: Placement) -> Standing:
        return self._standings.setdefault(placement.provider, Standing())


@dataclass(slots=True)
class Exchange:
    """Holds the answer of a streamed call once it has ended."""

    answer: Answer | None = None


class ProviderBusy(ProviderRefused):
    template = "The provider {provider} has no room just now."


class ProgramFailedThere(ProviderRefused):
    template = "The program failed at {provider}."


class PaymentRefused(ProviderRefused):
    """A 402: the payment was missing or not enough; `extra` is what the envelope says about it."""

    template = "The provider {provider} asks for payment."
    extra: dict[str, Any]


def fit_inputs(method: Method, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as the method's schema wants them; bytes become base64; what does not fit is refused here already."""
    value = {name: _plain_input(item) for name, item in inputs.items()}
    if method.input:
        check_value(method.input, value)
    return value


def payment_header(voucher: Voucher, placement: Placement, held: OpenChannel, network: NetworkDomain) -> str:
    """The PAYMENT-SIGNATURE header of x402 version 2 with our scheme."""
    payment = {
        "x402Version": 2,
        "accepted": {
            "scheme": SCHEME,
            "network": network_name(network),
            "amount": str(held.price_uain),
            "asset": "AIN",
            "payTo": placement.provider,
        },
        "payload": voucher_to_json(voucher),
    }
    return base64.b64encode(json.dumps(payment).encode()).decode()


def split_events(body: bytes, placement: Placement) -> tuple[bytes, str]:
    """A stream's own bytes, and the receipt that its last event carries."""
    marker = b"event: receipt\n"
    start = body.rfind(marker)
    if start < 0 or (start > 0 and body[start - 2 : start] != b"\n\n"):
        error = body.rfind(b"event: error\n")
        if error >= 0:
            raise _refusal_of(502, _event_data(body[error:]), placement)
        raise AnswerNotReceipted(provider=placement.provider, reason="the stream ended without a receipt")
    return body[:start], _event_data(body[start:]).decode("utf-8", "replace")


def stream_values(body: bytes) -> list[Any]:
    """The values of a finished stream's data events."""
    values = []
    for block in body.split(b"\n\n"):
        if block.startswith(b"data: "):
            try:
                values.append(json.loads(block[6:]))
            except ValueError:
                values.append(block[6:].decode("utf-8", "replace"))
    return values


def _event_data(event: bytes) -> bytes:
    for line in event.split(b"\n"):
        if line.startswith(b"data: "):
            return line[6:]
    return b""


def _plain_input(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return value


def _receipt_record(text: str | None, placement: Placement) -> dict[str, Any]:
    if not text or len(text) > RECEIPT_BYTES_MAX:
        raise AnswerNotReceipted(provider=placement.provider, reason="there is none")
    try:
        raw = (
            text.encode() if text.startswith("{") else base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
        record = parse_json(raw, bytes_max=RECEIPT_BYTES_MAX, depth_max=16)
    except (binascii.Error, ValueError, Refusal) as problem:
        raise AnswerNotReceipted(provider=placement.provider, reason=str(problem)) from None
    if not isinstance(record, dict):
        raise AnswerNotReceipted(provider=placement.provider, reason="it is not an object")
    return record


def _refusal_of(status: int, content: bytes, placement: Placement) -> Refusal:
    try:
        record = parse_json(content[:RECEIPT_BYTES_MAX] or b"{}", bytes_max=RECEIPT_BYTES_MAX, depth_max=32)
    except Refusal:
        record = {}
    said = record.get("error") if isinstance(record, dict) else None
    facts = {"provider": placement.provider, "status": status}
    if status == 402 and isinstance(record, dict):
        accepts = record.get("accepts")
        extra = (
            accepts[0].get("extra")
            if isinstance(accepts, list) and accepts and isinstance(accepts[0], dict)
            else {}
        )
        refused = PaymentRefused(
            str(record.get("message") or "The provider asks for payment."),
            remedy=str(record.get("remedy") or ""),
            **facts,
        )
        refused.code = str(said or "payment-required")  # type: ignore[misc]
        refused.extra = extra if isinstance(extra, dict) else {}
        return refused
    words = said if isinstance(said, dict) else {}
    message = str(words.get("message") or f"The provider {placement.provider} answered with status {status}.")
    kind = ProviderRefused
    if status in BUSY_STATUSES:
        kind = ProviderBusy
    elif status in FAILED_STATUSES:
        kind = ProgramFailedThere
    refusal = kind(message, remedy=str(words.get("remedy") or ""), **facts)
    refusal.code = str(words.get("code") or kind.code)  # type: ignore[misc]
    return refusal


def _state_members(record: Any) -> dict[str, Any]:
    names = ("nonce", "total_uain", "spent_uain", "in_flight_uain", "completed", "receipts")
    return {name: record.get(name) for name in names} if isinstance(record, dict) else {}


def _value_of(body: bytes, content_type: str) -> Any:
    if content_type == EVENTS_TYPE:
        return stream_values(body)
    if content_type == "application/json":
        return parse_json(body, bytes_max=ANSWER_BYTES_MAX, depth_max=JSON_DEPTH_MAX)
    if content_type.startswith("text/"):
        return body.decode("utf-8", "replace")
    return body
