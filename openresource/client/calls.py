"""A call from its words to its answer: find the service, check inputs and price, try providers, best first.

A provider that is away or fails costs nothing and the next one is tried, once. `attempts.py` is one call at one
provider, `envelopes.py` what travels on the wire.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.attempts import Attempt, ask_about_lost
from openresource.client.books import DAY_MS, Books
from openresource.client.chain import Chain, TransactionRefused
from openresource.client.channels import Channels, OverSpendingLimit
from openresource.client.envelopes import (
    ANSWER_BYTES_MAX,
    EVENTS_TYPE,
    RECEIPT_BYTES_MAX,
    RECEIPT_HEADER,
    AnswerNotReceipted,
    PaymentRefused,
    ProgramFailedThere,
    ProviderBusy,
    ProviderRefused,
    payment_header,
    refusal_of,
    split_events,
    stream_values,
)
from openresource.client.homes import Home
from openresource.client.purses import OpenChannel
from openresource.client.replies import Answer, DeadlinePassed, Desk, Plan, Streaming
from openresource.client.services import Choice, Directory, Method
from openresource.client.wires import InvalidCertificate, ProviderAway, TlsKeyNotPinned, Wire
from openresource.ledger.draft import NetworkDomain
from openresource.market.placements import Placement, TlsKeyNotSignedByProvider
from openresource.market.prices import Price
from openresource.market.purses import GatewayClaimsUnsigned, SpendingUnexplained
from openresource.market.schemas import check_value
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

__all__ = [
    "ANSWER_BYTES_MAX",
    "CALL_SECONDS",
    "EVENTS_TYPE",
    "RECEIPT_HEADER",
    "Answer",
    "AnswerNotReceipted",
    "Calls",
    "DeadlinePassed",
    "Exchange",
    "NoProvider",
    "NoProviderAnswered",
    "OverSpendingLimit",
    "Plan",
    "PriceAboveMaximum",
    "ProgramFailedThere",
    "ProviderBusy",
    "ProviderRefused",
    "fit_inputs",
    "split_events",
    "stream_values",
]

CALL_SECONDS: Final = 120.0
PROVIDERS_TRIED_MAX: Final = 2
SETTLE_SECONDS: Final = 60.0
SETTLE_TRIES_MAX: Final = 3
# A provider that failed is asked last for so long.
DOUBT_SECONDS: Final = 30.0

# What makes the next provider worth a try: nothing was answered and nothing is owed.
_NEXT_ONE_HELPS: Final = (
    ProviderAway,
    ProviderBusy,
    ProgramFailedThere,
    PaymentRefused,
    # The chain did not take the opening of a channel: the provider left a moment ago.
    TransactionRefused,
    TlsKeyNotPinned,
    TlsKeyNotSignedByProvider,
    InvalidCertificate,
    GatewayClaimsUnsigned,
    SpendingUnexplained,
)


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


@dataclass(slots=True)
class Standing:
    """How a provider has done for this client, newest first in weight."""

    milliseconds: float = 0.0
    doubted_until: float = 0.0

    def answered(self, milliseconds: float) -> None:
        """An answer came."""
        self.milliseconds = (
            milliseconds if not self.milliseconds else 0.7 * self.milliseconds + 0.3 * milliseconds
        )
        self.doubted_until = 0.0

    def failed(self) -> None:
        """None came; others are asked first for a while."""
        self.doubted_until = time.monotonic() + DOUBT_SECONDS


@dataclass(slots=True)
class Exchange:
    """Holds the answer of a streamed call once it has ended."""

    answer: Answer | None = None


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
        self._desk = Desk(books, channels, directory, network, clock_ms)
        self._wires: dict[tuple[str, str, bytes], Wire] = {}
        self._standings: dict[str, Standing] = {}
        # Prices of calls that have not ended: several at once cannot pass a limit together.
        self._promised_uain = 0

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
        return Plan(choice, chosen, body, max_price_uain, deadline_seconds, ends_at, progress)

    async def call(self, plan: Plan) -> Answer:
        """Make a planned call and give its whole answer."""
        exchange = Exchange()
        async with aclosing(self.stream(plan, exchange)) as pieces:
            async for _ in pieces:
                pass
        assert exchange.answer is not None
        return exchange.answer

    async def stream(self, plan: Plan, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes; `exchange.answer` is there when it has ended.

        To cancel is to close this generator: after the first byte that costs the call's price, before it nothing.
        """
        candidates = await self._candidates(plan)
        with self._promised(max(price.total_uain for _, price in candidates[:PROVIDERS_TRIED_MAX])):
            opened = await self._opened(plan, candidates)
            if isinstance(opened, Answer):
                exchange.answer = self._heard(opened)
                if opened.body:
                    yield opened.body
                return
            try:
                while piece := await opened.next_piece():
                    yield piece
                assert opened.answer is not None
                exchange.answer = self._heard(opened.answer)
            finally:
                await opened.close()

    async def quote(self, service: str) -> tuple[Choice, list[tuple[Placement, Price]]]:
        """Who offers a service at which price, the best first."""
        choice = await self._directory.choose(service)
        return choice, await self._offers(choice)

    async def settle(self, name: str) -> dict[str, Any]:
        """Ask a channel's provider to claim and send the rest back at once."""
        held = self._channels.hold(name)
        terms = (await self._channels.refresh(held)).terms
        choice = await self._directory.choose(f"{terms.publisher}/{terms.name}@{terms.program}")
        for placement in await self._directory.all_placements(choice):
            if placement.provider == terms.provider and placement.endpoint:
                break
        else:
            raise NoProvider(service=choice.service, version=choice.version.version)
        # What became of calls whose end nobody saw is asked while their receipts are at hand.
        await ask_about_lost(self._desk, self._wire(placement), held)
        for tries_left in reversed(range(SETTLE_TRIES_MAX)):
            try:
                settled = await self._settled(held, placement)
                break
            except PaymentRefused:
                # A claim came in between: the next nonce needs a voucher of its own, if only for nothing.
                await self._channels.refresh(held)
                if not tries_left:
                    raise
        # The chain decides, not the provider's word.
        left_uain = (await self._channels.on_chain(name)).channel.value_uain
        if left_uain:
            raise NotSettled(provider=terms.provider, channel=name, left=text_from_uain(left_uain))
        self._channels.mark_closed(name)
        return settled

    async def _settled(self, held: OpenChannel, placement: Placement) -> dict[str, Any]:
        voucher = self._channels.sign(held.last_voucher())
        headers = {
            "OpenResource-Session": held.session_header(held.purse.next_sequence),
            "PAYMENT-SIGNATURE": payment_header(voucher, placement.provider, held.price_uain, self._network),
        }
        status, _, body = await self._wire(placement).request(
            "POST",
            f"/channels/{held.entry.name}/settle",
            headers=headers,
            seconds=SETTLE_SECONDS,
            bytes_max=RECEIPT_BYTES_MAX,
        )
        if status != 200:
            raise refusal_of(status, body, placement)
        settled = dict(parse_json(body, bytes_max=RECEIPT_BYTES_MAX, depth_max=8))
        if settled.get("tx_hash"):
            await self._chain.wait_final(str(settled["tx_hash"]))
        return settled

    # Choosing

    async def _candidates(self, plan: Plan) -> list[tuple[Placement, Price]]:
        """Who may be asked, within the plan's price, the best first."""
        choice = plan.choice
        offers = await self._offers(choice)
        if not offers:
            self._directory.look_again()
            raise NoProvider(service=choice.service, version=choice.version.version)
        cheapest_uain = min(price.total_uain for _, price in offers)
        per_call_uain = self._home.limits().per_call_uain
        if plan.max_price_uain is not None and cheapest_uain > plan.max_price_uain:
            raise PriceAboveMaximum(
                service=choice.service,
                price=text_from_uain(cheapest_uain),
                maximum=text_from_uain(plan.max_price_uain),
            )
        if cheapest_uain > per_call_uain:
            raise OverSpendingLimit(
                period="a single call",
                would_be=text_from_uain(cheapest_uain),
                limit=text_from_uain(per_call_uain),
                option="--per-call",
            )
        most_uain = per_call_uain if plan.max_price_uain is None else min(per_call_uain, plan.max_price_uain)
        return [offer for offer in offers if offer[1].total_uain <= most_uain]

    async def _offers(self, choice: Choice) -> list[tuple[Placement, Price]]:
        placements = await self._directory.placements(choice)
        priced = [(placement, await self._directory.price(choice, placement)) for placement in placements]
        now = time.monotonic()

        def rank(entry: tuple[Placement, Price]) -> tuple[bool, int, float, str]:
            placement, price = entry
            standing = self._standings.get(placement.provider, Standing())
            return standing.doubted_until > now, price.total_uain, standing.milliseconds, placement.provider

        return sorted(priced, key=rank)

    @contextmanager
    def _promised(self, price_uain: int) -> Iterator[None]:
        """The day's limit leaves room for a call; it is kept for it until it ends."""
        limits = self._home.limits()
        spent_uain = self._books.spent_uain(self._clock_ms() - DAY_MS)
        would_be_uain = spent_uain + self._promised_uain + price_uain
        if price_uain and would_be_uain > limits.per_day_uain:
            raise OverSpendingLimit(
                period="the last 24 hours",
                would_be=text_from_uain(would_be_uain),
                limit=text_from_uain(limits.per_day_uain),
                option="--per-day",
            )
        self._promised_uain += price_uain
        try:
            yield
        finally:
            self._promised_uain -= price_uain

    # Asking

    async def _opened(self, plan: Plan, candidates: list[tuple[Placement, Price]]) -> Answer | Streaming:
        """What the first provider answers, or where that helps the second."""
        failures: list[Refusal] = []
        for placement, price in candidates[:PROVIDERS_TRIED_MAX]:
            plan.tried.append(placement.provider)
            plan.progress(f"calling {placement.provider[:10]}… for {text_from_uain(price.total_uain)} AIN")
            try:
                attempt = Attempt(self._desk, plan, self._wire(placement), price)
                async with asyncio.timeout(plan.left_seconds()):
                    return await attempt.begin()
            except TimeoutError:
                self._standing(placement.provider).failed()
                raise plan.late() from None
            except _NEXT_ONE_HELPS as failure:
                self._standing(placement.provider).failed()
                self._directory.look_again()
                failures.append(failure)
            except AnswerNotReceipted:
                self._standing(placement.provider).failed()
                raise
        if len(failures) == 1 or all(isinstance(failure, ProgramFailedThere) for failure in failures):
            raise failures[-1]
        reasons = "; ".join(failure.message.rstrip(".") for failure in failures)
        raise NoProviderAnswered(service=plan.choice.service, reasons=reasons)

    def _heard(self, answer: Answer) -> Answer:
        self._standing(answer.provider).answered(answer.milliseconds)
        return answer

    def _wire(self, placement: Placement) -> Wire:
        key = (placement.provider, placement.endpoint, placement.tls_key)
        if key not in self._wires:
            self._wires[key] = Wire(placement, self._network)
        return self._wires[key]

    def _standing(self, provider: str) -> Standing:
        return self._standings.setdefault(provider, Standing())


class NotSettled(Refusal):
    template = "{provider} said that it settled {channel}, but {left} AIN are still in it."
    way_out = "Close it after its expiry; then nobody else is needed."


def fit_inputs(method: Method, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as the method's schema wants them; bytes become base64; what does not fit is refused here already."""
    value = {name: _plain_input(item) for name, item in inputs.items()}
    if method.input:
        check_value(method.input, value)
    return value


def _plain_input(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return value
