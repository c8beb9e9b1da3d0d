"""A call from its words to its answer: find the service, check inputs and price, try providers, best first.

A provider that is away or fails costs nothing and the next one is tried, once. `standings.py` knows how providers did,
`attempts.py` is one call at one provider, `envelopes.py` what travels on the wire.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from openresource.client.attempts import Attempt
from openresource.client.books import Books, ChannelEntry
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
from openresource.client.inner_calls import (
    Charge,
    InnerCalls,
    InnerJob,
    InnerPolicyNotServed,
    Promise,
    used_up,
)
from openresource.client.outcomes import AnswerLost, OutcomeUnknown, ask_about_lost
from openresource.client.purses import OpenChannel
from openresource.client.replies import Answer, DeadlinePassed, Desk, FailedTry, Plan, Streaming
from openresource.client.services import Choice, Directory, Method
from openresource.client.standings import Standings
from openresource.client.wires import InvalidCertificate, ProviderAway, TlsKeyNotPinned, Wire
from openresource.ledger.draft import NetworkDomain
from openresource.market.allowances import Allowance, Link
from openresource.market.choices import Chance, Considered, askable
from openresource.market.placements import Placement, TlsKeyNotSignedByProvider
from openresource.market.prices import Price
from openresource.market.purses import DepositTooSmall, GatewayClaimsUnsigned, SpendingUnexplained
from openresource.market.schemas import check_value
from openresource.market.services import Permissions
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

if TYPE_CHECKING:
    from openresource.client.inner_jobs import InnerJobs

__all__ = [
    "ANSWER_BYTES_MAX",
    "CALL_SECONDS",
    "EVENTS_TYPE",
    "RECEIPT_HEADER",
    "Answer",
    "AnswerLost",
    "AnswerNotReceipted",
    "Calls",
    "DeadlinePassed",
    "Exchange",
    "NoProvider",
    "NoProviderAnswered",
    "OutcomeUnknown",
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
# A start waits no longer than this for what became of the calls of a process that was killed.
LOOK_BACK_SECONDS_MAX: Final = 5.0
LOOK_BACK_CHANNELS_MAX: Final = 32
# When everybody is full, a call waits for room at most so long, and never less than a moment between two looks.
FULL_SECONDS_MAX: Final = 10.0
REST_SECONDS_MIN: Final = 0.05
FAILURES_KEPT_MAX: Final = 20
DRAINING: Final = "draining"

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
    # The channel was settled from the other side in this very moment.
    DepositTooSmall,
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
class Exchange:
    """Holds the answer of a streamed call once it has ended, and before that whom it went to."""

    answer: Answer | None = None
    plan: Plan | None = None


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
        chance: Chance | None = None,
        inner_jobs: Callable[[], InnerJobs] | None = None,
    ) -> None:
        self._inner_jobs = inner_jobs
        self._home = home
        self._chain = chain
        self._books = books
        self._channels = channels
        self._directory = directory
        self._network = network
        self._clock_ms = clock_ms
        self._chance = chance or random.Random()
        self._standings = Standings(books, network.genesis_hash, self._chance, clock_ms=clock_ms)
        self._desk = Desk(books, channels, directory, network, clock_ms, self._standings)
        self._wires: dict[tuple[str, str, bytes], Wire] = {}
        # Prices of calls that have not ended: several at once cannot pass a limit together.
        self._promised_uain = 0

    async def close(self) -> None:
        """Close all connections, and write down how providers did."""
        self._standings.close()
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
        choice: Choice | None = None,
        insists: bool = False,
        allowance: Allowance | None = None,
        within: InnerCalls | None = None,
        allowance_uain: int | None = None,
        body: bytes | None = None,
    ) -> Plan:
        """Find the service and check the inputs against its interface; nothing is spent.

        A version that was found already is given as `choice`; `service` still says what was asked for. With an
        `allowance` its program may call other services. A call that a program asks for is planned `within` the call of
        that program, with the very `body` that it asked.
        """
        ends_at = time.monotonic() + deadline_seconds
        if choice is None:
            choice = await self._directory.choose(service)
        interface = await self._directory.interface(choice.program)
        chosen = interface.method(method, choice.service)
        value = fit_inputs(chosen, inputs)
        inner = None
        if within is not None or allowance is not None:
            link = Link(choice.service, choice.program)
            given = within.allowance if within is not None else allowance
            assert given is not None
            inner = InnerCalls(self, given, link, interface.calls, within, allowance_uain)
        return Plan(
            choice,
            chosen,
            json.dumps(value, ensure_ascii=False).encode() if body is None else body,
            max_price_uain,
            deadline_seconds,
            ends_at,
            progress,
            service,
            inputs,
            insists,
            inner=inner,
            within=within,
        )

    async def run_job(
        self,
        node: InnerCalls,
        choice: Choice,
        method: str,
        inputs: dict[str, Any],
        policy: str,
        *,
        max_price_uain: int | None,
        deadline_seconds: float,
        charge: Charge,
    ) -> InnerJob:
        """A job that a program asks for, requested by this wallet within the allowance of its call."""
        if self._inner_jobs is None:
            raise InnerPolicyNotServed(policy=policy[:40])
        return await self._inner_jobs().run(
            node,
            choice,
            method,
            inputs,
            policy,
            max_price_uain=max_price_uain,
            deadline_seconds=deadline_seconds,
            charge=charge,
        )

    async def choice_of(self, service: str) -> Choice:
        """The version that a text means."""
        return await self._directory.choose(service)

    async def permissions_of(self, choice: Choice) -> Permissions:
        """Who may call it."""
        return await self._directory.permissions(choice)

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
        exchange.plan = plan
        with ExitStack() as promise:
            async with _inner_ended(plan.inner):
                try:
                    opened, key = await self._begun(plan, promise)
                except (NoProvider, NoProviderAnswered, *_NEXT_ONE_HELPS) as failure:
                    moved = await self._moved(plan, failure)
                    if moved is None:
                        raise
                    promise.close()
                    exchange.plan = plan = moved
                    opened, key = await self._begun(moved, promise)
                try:
                    if isinstance(opened, Answer):
                        answer: Answer | None = opened
                        if opened.body:
                            yield opened.body
                    else:
                        while piece := await opened.next_piece():
                            yield piece
                        answer = opened.answer
                    assert answer is not None
                    plan.charged_uain = answer.price_uain
                finally:
                    self._standings.left(key)
                    if isinstance(opened, Streaming):
                        await opened.close()
            exchange.answer = answer if plan.inner is None else replace(answer, inner=plan.inner.results)

    async def quote(self, service: str) -> tuple[Choice, list[tuple[Placement, Price]]]:
        """Who offers a service at which price, the best first."""
        choice = await self._directory.choose(service)
        offers, _ = await asyncio.gather(self._offers(choice), self._directory.check_runs(choice.program))
        cost = {one.provider: (bool(one.reason), one.cost) for one in self.considered(choice, offers)}
        return choice, sorted(offers, key=lambda offer: cost[offer[0].provider])

    def considered(self, choice: Choice, offers: list[tuple[Placement, Price]]) -> tuple[Considered, ...]:
        """Whom a call would ask now, in order, with the figures behind it; nothing is asked."""
        return self._standings.choose(choice, offers)

    async def look_back(self) -> None:
        """Bring the books to what the chain and the providers say of calls whose end an earlier process did not see.

        A provider may have claimed for them and left; then nobody would ask before the next call that goes there.
        """
        channels = self._books.channels(self._network.genesis_hash, with_closed=True)
        doubtful = [entry for entry in channels if entry.purse.is_doubtful][:LOOK_BACK_CHANNELS_MAX]
        if doubtful:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_BACK_SECONDS_MAX):
                    await asyncio.gather(*(self._look_at(entry) for entry in doubtful))

    async def _look_at(self, entry: ChannelEntry) -> None:
        # Another process pays from it, or somebody is away: it stays doubtful, and the next start looks again.
        with suppress(Refusal), self._channels.borrowed(entry.name) as held:
            await self._channels.refresh(held)
            if held.lost:
                await self._ask_about_lost(held)

    async def _ask_about_lost(self, held: OpenChannel) -> Placement:
        """What became of calls whose end nobody saw, from the channel's provider wherever it is now."""
        entry = held.entry
        choice = await self._directory.choose(f"{entry.publisher}/{entry.service}@{entry.program}")
        for placement in await self._directory.all_placements(choice):
            if placement.provider == entry.provider and placement.endpoint:
                await ask_about_lost(self._desk, self._wire(placement), held)
                return placement
        raise NoProvider(service=choice.service, version=choice.version.version)

    async def settle(self, name: str) -> dict[str, Any]:
        """Ask a channel's provider to claim and send the rest back at once."""
        held = self._channels.hold(name)
        await self._channels.refresh(held)
        # What became of calls whose end nobody saw is asked while their receipts are at hand.
        placement = await self._ask_about_lost(held)
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
        left_uain = (await self._channels.refresh(held)).channel.value_uain
        if left_uain:
            raise NotSettled(provider=placement.provider, channel=name, left=text_from_uain(left_uain))
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
        """Who may be asked, within the plan's price."""
        choice = plan.choice
        offers, _ = await asyncio.gather(self._offers(choice), self._directory.check_runs(choice.program))
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
        return offers

    async def _offers(self, choice: Choice) -> list[tuple[Placement, Price]]:
        placements = await self._directory.placements(choice)
        return [(placement, await self._directory.price(choice, placement)) for placement in placements]

    def _most_uain(self, plan: Plan) -> int:
        """What a call may cost, by its plan and by the home's limit."""
        per_call_uain = self._home.limits().per_call_uain
        return per_call_uain if plan.max_price_uain is None else min(per_call_uain, plan.max_price_uain)

    @contextmanager
    def _promised(self, price_uain: int) -> Iterator[Promise]:
        """The day's limit leaves room for a call and those below it; it is kept for them until they end."""
        limits = self._home.limits()
        spent_uain = self._books.spent_lately_uain(self._clock_ms())
        would_be_uain = spent_uain + self._promised_uain + price_uain
        if price_uain and would_be_uain > limits.per_day_uain:
            raise OverSpendingLimit(
                period="the last 24 hours",
                would_be=text_from_uain(would_be_uain),
                limit=text_from_uain(limits.per_day_uain),
                option="--per-day",
            )
        self._promised_uain += price_uain
        promise = Promise(price_uain)
        try:
            yield promise
        finally:
            self._promised_uain -= promise.left_uain

    def was_spent(self, promise: Promise, cost_uain: int) -> None:
        """A call below one has its end: what it cost is in the books from now on, and no longer kept free."""
        cost_uain = min(cost_uain, promise.left_uain)
        promise.left_uain -= cost_uain
        self._promised_uain -= cost_uain

    # Asking

    async def _begun(self, plan: Plan, promise: ExitStack) -> tuple[Answer | Streaming, tuple[str, str]]:
        """The answer, or the stream whose first bytes are here, with its price set aside until `promise` is closed."""
        offers = await self._candidates(plan)
        most_uain = self._most_uain(plan)
        affordable = [price.total_uain for _, price in offers if price.total_uain <= most_uain]
        if plan.within is None:
            below_uain = 0 if plan.inner is None else plan.inner.left_uain
            kept = promise.enter_context(self._promised(max(affordable) + below_uain))
            if plan.inner is not None:
                plan.inner.promise = kept
            return await self._opened(plan, offers)
        left_uain = plan.within.left_uain
        if min(affordable) > left_uain:
            raise used_up(plan.choice.service, min(affordable), plan.within)
        plan.max_price_uain = max(price_uain for price_uain in affordable if price_uain <= left_uain)
        aside = plan.within.set_aside(plan.max_price_uain, plan.choice.service, plan)
        promise.enter_context(aside)
        return await self._opened(plan, offers)

    async def _moved(self, plan: Plan, failure: Refusal) -> Plan | None:
        """The same call of the version that the name stands for by now; None if it is still the one that was asked.

        One that nobody ran a moment ago is asked again if somebody has begun to.
        """
        self._directory.look_again()
        choice = await self._directory.choose(plan.asked)
        has_begun = isinstance(failure, NoProvider) and bool(await self._directory.placements(choice))
        if choice.program == plan.choice.program and not has_begun:
            # What refused a moment ago is not worth keeping.
            self._directory.look_again()
            return None
        moved = await self.plan(
            plan.asked,
            plan.method.name,
            plan.inputs,
            max_price_uain=plan.max_price_uain,
            deadline_seconds=plan.left_seconds(),
            progress=plan.progress,
            choice=choice,
            insists=plan.insists,
            body=plan.body if plan.within is not None else None,
        )
        moved.failed, moved.within, moved.inner = plan.failed, plan.within, plan.inner
        if moved.inner is not None:
            moved.inner.moved(
                Link(choice.service, choice.program),
                (await self._directory.interface(choice.program)).calls,
            )
        return moved

    async def _opened(
        self, plan: Plan, offers: list[tuple[Placement, Price]]
    ) -> tuple[Answer | Streaming, tuple[str, str]]:
        """What the provider that was chosen answers, or where that helps another one; and who it was.

        When all of them are full, nothing was paid: they are asked again when they said, within bounds.
        """
        patient_until = time.monotonic() + FULL_SECONDS_MAX
        while True:
            by_provider = {placement.provider: (placement, price) for placement, price in offers}
            plan.considered = self._standings.choose(
                plan.choice, offers, price_uain_max=self._most_uain(plan)
            )
            order = askable(plan.considered)[:PROVIDERS_TRIED_MAX]
            failures: list[Refusal] = []
            for one in order:
                opened = await self._tried(plan, *by_provider[one.provider], failures)
                if opened is not None:
                    return opened, (one.provider, plan.choice.program)
            self._directory.look_again()
            rest_seconds = max(self._standings.rest_seconds(order, plan.choice.program), REST_SECONDS_MIN)
            # Nobody comes back in the same instant as all the others.
            rest_seconds *= 1 + self._chance.randrange(1_000) / 1_000
            left_seconds = min(patient_until, plan.ends_at) - time.monotonic()
            if rest_seconds >= left_seconds or not all(_is_full(failure) for failure in failures):
                raise _told_together(plan, failures)
            await asyncio.sleep(rest_seconds)
            # Others may have come, and those who leave are no longer offered.
            offers = await self._candidates(plan)

    async def _tried(
        self, plan: Plan, placement: Placement, price: Price, failures: list[Refusal]
    ) -> Answer | Streaming | None:
        """One provider's answer; None if it has none and the next one may be asked."""
        key = (placement.provider, plan.choice.program)
        plan.progress(f"calling {placement.provider[:10]}… for {text_from_uain(price.total_uain)} AIN")
        self._standings.begun(key)
        opened: Answer | Streaming | None = None
        try:
            attempt = Attempt(self._desk, plan, self._wire(placement), price)
            async with asyncio.timeout(plan.left_seconds()):
                opened = await attempt.begin()
            # Of a stream the time until its first byte counts; its end is the program's business.
            self._standings.answered(key, (time.monotonic() - attempt.sent_at) * 1000)
        except TimeoutError:
            self._standings.failed(key, is_away=False)
            raise plan.late() from None
        except _NEXT_ONE_HELPS as failure:
            if isinstance(failure, ProviderBusy) and "retry_ms" in failure.facts:
                self._standings.full(key, int(failure.facts["retry_ms"]))
            else:
                self._standings.failed(key, is_away=not isinstance(failure, ProgramFailedThere))
            at_risk_uain = int(failure.facts.get("at_risk_uain", 0))
            if len(plan.failed) < FAILURES_KEPT_MAX:
                plan.failed.append(FailedTry(placement.provider, failure.message, at_risk_uain))
            failures.append(failure)
        except (AnswerNotReceipted, OutcomeUnknown, AnswerLost):
            self._standings.failed(key, is_away=True)
            raise
        finally:
            if opened is None:
                self._standings.left(key)
        return opened

    def _wire(self, placement: Placement) -> Wire:
        key = (placement.provider, placement.endpoint, placement.tls_key)
        if key not in self._wires:
            self._wires[key] = Wire(placement, self._network)
        return self._wires[key]


@asynccontextmanager
async def _inner_ended(inner: InnerCalls | None) -> AsyncGenerator[None, None]:
    """Whatever becomes of a call, those below it have ended afterwards, and a failure says what they cost."""
    if inner is None:
        yield
        return
    try:
        yield
    except Refusal as refusal:
        await inner.end()
        if inner.spending.spent_uain:
            refusal.facts["inner_uain"] = inner.spending.spent_uain
        raise
    except BaseException:
        await inner.abort()
        raise
    await inner.end()


def _is_full(failure: Refusal) -> bool:
    """Whether a provider only has no room now: it took no payment and said when to come again."""
    return isinstance(failure, ProviderBusy) and "retry_ms" in failure.facts and failure.code != DRAINING


def _told_together(plan: Plan, failures: list[Refusal]) -> Refusal:
    if len(failures) == 1 or all(isinstance(failure, ProgramFailedThere) for failure in failures):
        return failures[-1]
    reasons = "; ".join(failure.message.rstrip(".") for failure in failures)
    return NoProviderAnswered(service=plan.choice.service, reasons=reasons)


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
