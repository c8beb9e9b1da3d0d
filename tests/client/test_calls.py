"""A client and gateways on a real chain: whatever breaks in between, an answer is paid once and no coin is lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openresource.client import AsyncClient, Client
from openresource.client.attempts import AnswerNotReceipted
from openresource.client.calls import (
    AnswerLost,
    DeadlinePassed,
    Exchange,
    NoProvider,
    NoProviderAnswered,
    OutcomeUnknown,
    OverSpendingLimit,
    PriceAboveMaximum,
    ProgramFailedThere,
    ProviderBusy,
)
from openresource.client.channels import NotEnoughCoins
from openresource.client.homes import Limits
from openresource.client.services import (
    NoSuchMethod,
    NoSuchService,
    NoSuchVersion,
    ServiceNameAmbiguous,
)
from openresource.client.wires import ProviderAway, TlsKeyNotPinned
from openresource.market.prices import Price
from openresource.market.schemas import InvalidValue
from openresource.market.services import Permissions
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Overloaded, ProgramCall, ProgramFailed, ProgramReply
from tests.client.street import (
    FEE_PPM,
    PRICE_UAIN,
    ROYALTY_UAIN,
    Chunks,
    CuttingProxy,
    Shop,
    Street,
    change_receipts,
    new_key,
    open_street,
    shout,
    until,
)
from tests.support.network import NodeProcess, local_node_process

pytestmark = pytest.mark.journey

START_UAIN = 5_000_000


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with local_node_process() as node:
        yield node


@pytest.fixture
def on_a_street(node: NodeProcess, tmp_path: Path) -> Callable[..., Any]:
    def run(story: Callable[[Street], Awaitable[Any]], seconds: float = 120) -> Any:
        async def body() -> Any:
            async with open_street(node, tmp_path) as street:
                return await story(street)

        return asyncio.run(asyncio.wait_for(body(), seconds))

    return run


async def crash(call: ProgramCall) -> ProgramReply:
    raise ProgramFailed(reason="it fell over", stderr="secret words")


class Slowly:
    """A program whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, call: ProgramCall) -> ProgramReply:
        self.begun.set()
        await self.go.wait()
        return await shout(call)


async def purse_of(buyer: AsyncClient, name: str = "") -> Any:
    """The purse of the only channel, or of a named one, as it lies on the disk."""
    network = await buyer.network()
    entries = buyer.books.channels(network.genesis_hash, with_closed=True)
    found = [entry for entry in entries if not name or entry.name == name]
    assert len(found) == 1
    return found[0].purse


async def channel_names(buyer: AsyncClient, *, with_closed: bool = True) -> list[str]:
    network = await buyer.network()
    return [entry.name for entry in buyer.books.channels(network.genesis_hash, with_closed=with_closed)]


# ── The usual way ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_is_paid_receipted_and_the_next_one_needs_no_transaction(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            said: list[str] = []
            answer = await buyer.call(service.name, text="hello", progress=said.append)
            assert (answer.value, answer.price_uain, answer.price) == ("HELLO", PRICE_UAIN, "0.0001")
            assert (answer.provider, answer.isolation) == (shop.key.address, "confined")
            assert "opening a payment channel" in said
            height = (await street.chain.status()).height
            again = await buyer.call(service.full_name, "shout", text="again")
            assert again.value == "AGAIN" and again.receipt_id != answer.receipt_id
            assert (await street.chain.status()).height == height
            assert len(await channel_names(buyer)) == 1
            purse = await purse_of(buyer)
            assert (purse.earned_uain, purse.acknowledged, dict(purse.in_flight)) == (200, 2, {})
            assert buyer.books.spent_uain(0) == 200
            assert buyer.books.receipt(answer.receipt_id) == answer.receipt
            async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
                shown = await http.get(f"{shop.endpoint}/receipts/{answer.receipt_id}")
            assert shown.json() == answer.receipt
        assert shop.spent_uain == 200
        assert not list((buyer.home.folder / "locks").iterdir())

    on_a_street(story)


def test_many_calls_at_once_share_a_channel_and_each_is_paid_once(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chance = random.Random(7)

        async def sometimes(call: ProgramCall) -> ProgramReply:
            await asyncio.sleep(chance.random() / 50)
            return await shout(call)

        shop = await street.open(service, sometimes)
        async with await street.buyer() as buyer:
            answers = await asyncio.gather(*(buyer.call(service.name, text=f"n{n}") for n in range(60)))
            assert [answer.value for answer in answers] == [f"N{n}" for n in range(60)]
            assert len({answer.receipt_id for answer in answers}) == 60
            assert len(await channel_names(buyer)) == 1
            purse = await purse_of(buyer)
            assert (purse.earned_uain, purse.acknowledged, purse.at_risk_uain) == (6_000, 60, 0)
            assert shop.spent_uain == 6_000
            assert len(shop.runner.calls) == 60

    on_a_street(story)


def test_a_free_service_needs_no_wallet(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish(royalty_uain=0)
        await street.open(service, price=Price(0, 0, FEE_PPM))
        async with AsyncClient(street.folder / "nobody", street.node.url) as buyer:
            answer = await buyer.call(service.name, text="free")
            assert (answer.value, answer.price_uain) == ("FREE", 0)
            assert not buyer.home.has_wallet()

    on_a_street(story)


def test_who_may_not_be_everybody_is_known_by_a_channel(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish(royalty_uain=0)
        buyer, stranger = await street.buyer(), await street.buyer()
        allowed = {buyer.home.address(): True}
        path = f"/services/{service.full_name}/permissions"
        await street.chain.write(path, {"call": allowed}, service.publisher)
        await street.open(service, price=Price(0, 0, FEE_PPM), permissions=Permissions(call=allowed))
        async with buyer, stranger:
            assert (await buyer.call(service.name, text="me")).value == "ME"
            assert (await buyer.call(service.name, text="again")).value == "AGAIN"
            with pytest.raises(Refusal):
                await stranger.call(service.name, text="me too")
            assert await stranger.balance() == START_UAIN

    on_a_street(story)


def test_the_plain_client_calls_and_streams_from_any_thread(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chunks = Chunks()
        await street.open(service, streaming(chunks))
        home = await street.home()

        def work() -> tuple[Any, list[Any], Any]:
            with Client(home, street.node.url) as client:
                exchange = Exchange()
                values = []
                for value in client.stream(service.name, "count", exchange=exchange, to=2):
                    values.append(value)
                    chunks.put(b"2\n", None)
                return client.call(service.name, text="x").value, values, exchange.answer

        chunks.put(b"1\n")
        value, values, answer = await asyncio.to_thread(work)
        assert value == "X" and values == [1, 2]
        assert answer.price_uain == PRICE_UAIN

    on_a_street(story)


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────


def streaming(chunks: Chunks, content_type: str = "application/x-ndjson") -> Any:
    async def stream(call: ProgramCall) -> ProgramReply:
        if call.method != "count":
            return await shout(call)
        return ProgramReply(200, content_type, chunks)

    return stream


def test_a_streams_values_come_as_they_are_made_and_its_receipt_is_not_one_of_them(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chunks = Chunks()
        shop = await street.open(service, streaming(chunks))
        async with await street.buyer() as buyer:
            exchange = Exchange()
            values = buyer.stream(service.name, "count", exchange=exchange, to=3)
            for number in range(3):
                chunks.put(json.dumps({"n": number}).encode() + b"\n")
                assert await anext(values) == {"n": number}
            assert exchange.answer is None
            chunks.put(None)
            with pytest.raises(StopAsyncIteration):
                await anext(values)
            answer = exchange.answer
            assert answer is not None and answer.value == [{"n": 0}, {"n": 1}, {"n": 2}]
            assert b"receipt" not in answer.body
            assert shop.spent_uain == buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_a_stream_of_bytes_gets_its_receipt_under_its_number(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chunks = Chunks()
        shop = await street.open(service, streaming(chunks, "audio/ogg"))
        async with await street.buyer() as buyer:
            calls = await buyer.calls()
            plan = await calls.plan(service.name, "count", {})
            chunks.put(b"event: receipt\n", b"\x00\x01", None)
            answer = await calls.call(plan)
            assert (answer.value, answer.content_type) == (b"event: receipt\n\x00\x01", "audio/ogg")
            assert shop.spent_uain == buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_a_stream_that_is_cancelled_costs_its_price_after_the_first_byte_and_nothing_before(
    on_a_street: Any,
) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chunks = Chunks()
        shop = await street.open(service, streaming(chunks))
        async with await street.buyer() as buyer:
            values = buyer.stream(service.name, "count")
            waiting = asyncio.ensure_future(anext(values))
            await until(lambda: len(shop.runner.calls) == 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await values.aclose()
            await until(lambda: chunks.is_closed and not shop.tabs[0].in_flight)
            assert shop.spent_uain == 0
            assert (await buyer.call(service.name, text="a")).value == "A"
            assert buyer.books.spent_uain(0) == shop.spent_uain == PRICE_UAIN

            values = buyer.stream(service.name, "count")
            chunks.put(b"1\n")
            assert await anext(values) == 1
            await values.aclose()
            await until(lambda: shop.spent_uain == 2 * PRICE_UAIN)
            # The receipt was on its way when we left; it is counted before the next call.
            assert (await buyer.call(service.name, text="b")).value == "B"
            purse = await purse_of(buyer)
            assert (purse.earned_uain, purse.acknowledged, purse.inherited_uain) == (300, 3, 0)
            assert buyer.books.spent_uain(0) == shop.spent_uain == 3 * PRICE_UAIN

    on_a_street(story)


@pytest.mark.parametrize("kind", ["application/x-ndjson", "audio/ogg"])
def test_a_stream_whose_program_fails_costs_nothing(on_a_street: Any, kind: str) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()

        class Failing(Chunks):
            async def __anext__(self) -> bytes:
                if self.is_closed:
                    raise ProgramFailed(reason="it fell over")
                self.is_closed = True
                return b"1\n"

        shop = await street.open(service, lambda call: streaming(Failing(), kind)(call))
        async with await street.buyer() as buyer:
            calls = await buyer.calls()
            pieces = calls.stream(await calls.plan(service.name, "count", {}), Exchange())
            assert b"1" in await anext(pieces)
            with pytest.raises(ProgramFailedThere):
                while True:
                    assert not (await anext(pieces)).strip()
            assert len(await channel_names(buyer, with_closed=False)) == 1
            assert shop.spent_uain == 0
            assert (await buyer.call(service.name, text="a")).value == "A"
            assert buyer.books.spent_uain(0) == shop.spent_uain == PRICE_UAIN

    on_a_street(story)


# ── Channels ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deposit_that_is_used_up_is_topped_up(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            buyer.home.write_limits(Limits(channel_deposit_uain=300))
            for number in range(8):
                assert (await buyer.call(service.name, text=str(number))).price_uain == PRICE_UAIN
            (name,) = await channel_names(buyer)
            assert shop.spent_uain == 800
            shown = await (await buyer.channels()).on_chain(name)
            assert 800 <= shown.channel.value_uain <= 1_100

    on_a_street(story)


def test_a_channel_near_its_end_is_extended_again_and_again(tmp_path: Path) -> None:
    async def story() -> None:
        parameters = {"market": {"channel_lifetime_ms": 4_000}}
        with local_node_process(tmp_path / "node", parameters=parameters) as node:
            async with open_street(node, tmp_path) as street:
                service = await street.publish()
                shop = await street.open(service)
                async with await street.buyer() as buyer:
                    assert (await buyer.call(service.name, text="a")).value == "A"
                    (name,) = await channel_names(buyer)
                    channels = await buyer.channels()
                    first = (await channels.on_chain(name)).channel.expires_at_ms
                    while (await street.chain.status()).time_ms < first + 1_000:
                        assert (await buyer.call(service.name, text="b")).value == "B"
                        await asyncio.sleep(0.1)
                    assert await channel_names(buyer) == [name]
                    shown = await channels.on_chain(name)
                    assert shown.channel.expires_at_ms > first
                    assert shown.channel.claimed_uain + shop.spent_uain == buyer.books.spent_uain(0)

    asyncio.run(asyncio.wait_for(story(), 120))


def test_what_is_left_in_an_expired_channel_comes_home_with_the_next_call(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        await street.open(service)
        async with await street.buyer(amount_uain=1_000) as buyer:
            choice, offers = await buyer.quote(service.name)
            held = await (await buyer.channels()).open(
                choice, *offers[0], deposit_uain=1_000, lifetime_ms=1_200
            )
            assert await buyer.balance() == 0
            expires_at_ms = held.purse.expires_at_ms

            async def is_over() -> bool:
                await street.fund_somebody()
                return (await street.chain.status()).time_ms > expires_at_ms

            await until(is_over)
            assert (await buyer.call(service.name, text="a")).value == "A"
            names = await channel_names(buyer)
            assert len(names) == 2
            assert await channel_names(buyer, with_closed=False) == [n for n in names if n != held.entry.name]

    on_a_street(story)


def test_a_claim_between_two_calls_only_moves_the_nonce(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            for number in range(3):
                await asyncio.gather(*(buyer.call(service.name, text="a") for _ in range(5)))
                (account,) = shop.admission.accounts
                claim = shop.claims._begin(account, send_back=False)
                # Some calls begin while the claim is on its way.
                await asyncio.gather(claim, *(buyer.call(service.name, text="b") for _ in range(5)))
                assert account.channel.nonce == number + 1
            assert len(await channel_names(buyer)) == 1
            assert buyer.books.spent_uain(0) == 30 * PRICE_UAIN
            assert account.channel.claimed_uain + shop.spent_uain == 30 * PRICE_UAIN
            assert (await buyer.call(service.name, text="c")).value == "C"

    on_a_street(story)


@pytest.mark.parametrize("calls", [0, 3])
@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_settled_channel_gives_the_money_back_at_once(
    on_a_street: Any, calls: int, is_claimed: bool
) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        supply_uain = await street.supply_uain()
        treasury_uain = await street.chain.balance("treasury|market|fees")
        async with await street.buyer() as buyer:
            choice, offers = await buyer.quote(service.name)
            channels = await buyer.channels()
            held = await channels.open(choice, *offers[0], deposit_uain=1_000)
            for _ in range(calls):
                await buyer.call(service.name, text="a")
            if is_claimed and calls:
                await shop.claims._begin(shop.admission.accounts[0], send_back=False)
            await (await buyer.calls()).settle(held.entry.name)
            assert await buyer.balance() == START_UAIN - calls * PRICE_UAIN
            assert await channel_names(buyer, with_closed=False) == []
            assert (await buyer.call(service.name, text="b")).value == "B"
        fee_uain = calls * PRICE_UAIN * FEE_PPM // 1_000_000
        assert await street.chain.balance("treasury|market|fees") - treasury_uain == fee_uain
        assert await street.chain.balance(service.publisher.address) == calls * ROYALTY_UAIN
        assert await street.chain.balance(shop.key.address) == calls * (PRICE_UAIN - ROYALTY_UAIN) - fee_uain
        assert await street.supply_uain() == supply_uain

    on_a_street(story)


def test_two_processes_with_one_home_never_sign_over_each_other(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        home = await street.home()
        async with AsyncClient(home, street.node.url) as one, AsyncClient(home, street.node.url) as two:
            for number in range(4):
                answers = await asyncio.gather(
                    one.call(service.name, text=f"one {number}"), two.call(service.name, text=f"two {number}")
                )
                assert [answer.value for answer in answers] == [f"ONE {number}", f"TWO {number}"]
            assert len(await channel_names(one)) == 2
        assert shop.spent_uain == 8 * PRICE_UAIN
        # Whoever comes next takes one of them up where it was left.
        async with AsyncClient(home, street.node.url) as three:
            assert (await three.call(service.name, text="three")).value == "THREE"
            assert len(await channel_names(three)) == 2
            assert three.books.spent_uain(0) == shop.spent_uain == 9 * PRICE_UAIN

    on_a_street(story)


def test_unacknowledged_receipts_that_nobody_has_are_settled_away(
    on_a_street: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openresource.market import tabs
    from openresource.provider.admission import CallNotAnswered

    monkeypatch.setattr(tabs, "UNACKNOWLEDGED_MAX", 4)

    async def story(street: Street) -> None:
        service = await street.publish()
        slowly = Slowly()
        shop = await street.open(service, slowly)

        async def forget(account: Any, call: Any) -> bytes:
            raise CallNotAnswered(sequence=call.sequence)

        shop.admission.receipt_of = forget  # type: ignore[method-assign]
        async with await street.buyer() as buyer:
            waiting = asyncio.ensure_future(buyer.call(service.name, text="lost"))
            await slowly.begun.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            slowly.go.set()
            await until(lambda: shop.spent_uain == PRICE_UAIN)
            for number in range(9):
                assert (await buyer.call(service.name, text=f"n{number}")).value == f"N{number}"
            assert len(await channel_names(buyer)) > 1
            assert len(await channel_names(buyer, with_closed=False)) == 1
            assert buyer.books.spent_uain(0) == 9 * PRICE_UAIN

    on_a_street(story)


# ── What is refused before anything is spent ─────────────────────────────────────────────────────────────────────


def test_a_wallet_without_coins_is_told_what_is_missing(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        await street.open(service)
        async with await street.buyer(amount_uain=50) as buyer:
            with pytest.raises(NotEnoughCoins) as refusal:
                await buyer.call(service.name, text="a")
            assert (refusal.value.balance, refusal.value.required) == ("0.00005", "0.0001")
        async with await street.buyer(amount_uain=PRICE_UAIN) as buyer:
            assert (await buyer.call(service.name, text="a")).value == "A"
            with pytest.raises(NotEnoughCoins):
                await buyer.call(service.name, text="b")

    on_a_street(story)


def test_spending_limits_hold_for_calls_at_once_too(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            with pytest.raises(PriceAboveMaximum):
                await buyer.call(service.name, text="a", max_price="0.000099")
            buyer.home.write_limits(Limits(per_call_uain=99))
            with pytest.raises(OverSpendingLimit) as refusal:
                await buyer.call(service.name, text="a")
            assert "--per-call" in refusal.value.remedy
            buyer.home.write_limits(Limits(channel_deposit_uain=99))
            with pytest.raises(OverSpendingLimit) as refusal:
                await buyer.call(service.name, text="a")
            assert "--channel" in refusal.value.remedy
            assert await channel_names(buyer) == []
            buyer.home.write_limits(Limits(per_day_uain=3 * PRICE_UAIN))
            outcomes = await asyncio.gather(
                *(buyer.call(service.name, text="a", max_price="0.0001") for _ in range(6)),
                return_exceptions=True,
            )
            refusals = [one for one in outcomes if isinstance(one, OverSpendingLimit)]
            assert len(refusals) == 3 and "--per-day" in refusals[0].remedy
            assert shop.spent_uain == buyer.books.spent_uain(0) == 3 * PRICE_UAIN

    on_a_street(story)


def test_words_that_name_nothing_are_refused_and_nothing_is_spent(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish(version="1.0.0")
        shop = await street.open(service)
        other = await street.publish(service.name)
        newer = await street.publish(service.name, version="2.0.0", publisher=other.publisher)
        async with await street.buyer() as buyer:
            for kind, name, method, inputs in (
                (NoSuchService, "there-is-no-such-service", None, {"text": "a"}),
                (ServiceNameAmbiguous, service.name, None, {"text": "a"}),
                (NoSuchVersion, service.full_name + "@3.0.0", None, {"text": "a"}),
                (NoSuchMethod, service.full_name, "whisper", {"text": "a"}),
                (InvalidValue, service.full_name, "shout", {"text": 5}),
                (InvalidValue, service.full_name, "shout", {"words": "a"}),
                (NoProvider, newer.full_name, None, {"text": "a"}),
            ):
                with pytest.raises(kind) as refusal:
                    await buyer.call(name, method, **inputs)
                assert refusal.value.remedy
            assert await buyer.balance() == START_UAIN and not shop.requests
            assert (await buyer.call(service.full_name + "@1.0.0", text="a")).value == "A"

    on_a_street(story)


def test_a_placement_that_drains_or_is_gone_is_not_asked(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            await shop.announce("DRAINING")
            with pytest.raises(NoProvider):
                await buyer.call(service.name, text="a")
            await shop.announce("GONE")
            with pytest.raises(NoProvider):
                await buyer.call(service.name, text="a")
            assert not shop.requests

    on_a_street(story)


def test_a_provider_that_leaves_before_the_channel_opens_is_passed_by(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        leaving = await street.open(service)
        other = await street.open(service, price=Price(100, ROYALTY_UAIN, FEE_PPM))
        async with await street.buyer() as buyer:
            _, offers = await buyer.quote(service.name)
            assert offers[0][0].provider == leaving.key.address
            await leaving.announce("DRAINING")
            # What was read a moment ago still says that it runs there.
            assert (await buyer.call(service.name, text="a")).provider == other.key.address
            assert await buyer.balance() == START_UAIN - 20 * 120

    on_a_street(story)


# ── Providers that fail ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_program_that_fails_is_not_paid_and_the_next_provider_answers(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        broken = await street.open(service, crash)
        async with await street.buyer() as buyer:
            with pytest.raises(ProgramFailedThere) as refusal:
                await buyer.call(service.name, text="a")
            assert "secret words" not in str(refusal.value)
            assert broken.spent_uain == buyer.books.spent_uain(0) == 0
            good = await street.open(service, price=Price(100, ROYALTY_UAIN, FEE_PPM))
            async with await street.buyer() as other:
                answer = await other.call(service.name, text="a")
                assert (answer.provider, answer.price_uain) == (good.key.address, 120)
                # Whoever failed is asked last for a while.
                asked = len(broken.runner.calls)
                assert (await other.call(service.name, text="b")).provider == good.key.address
                assert len(broken.runner.calls) == asked
                assert other.books.spent_uain(0) == good.spent_uain == 240
            assert broken.spent_uain == 0

    on_a_street(story)


def test_two_failures_are_told_together(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shops = [await street.open(service, crash) for _ in range(2)]
        away = await street.open(service, price=Price(70, ROYALTY_UAIN, FEE_PPM))
        await away.server.stop(1)
        async with await street.buyer() as buyer:
            with pytest.raises(NoProviderAnswered) as refusal:
                await buyer.call(service.name, text="a")
            assert "does not answer" in refusal.value.reasons
            # At most two are tried.
            assert sum(len(shop.runner.calls) for shop in shops) == 1
            assert buyer.books.spent_uain(0) == 0

    on_a_street(story)


def test_a_provider_that_dies_in_the_middle_is_not_paid_and_the_next_one_answers(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        slowly = Slowly()
        first = await street.open(service, slowly)
        second = await street.open(service, price=Price(100, ROYALTY_UAIN, FEE_PPM))
        async with await street.buyer() as buyer:
            calling = asyncio.ensure_future(buyer.call(service.name, insists=True, text="a"))
            await slowly.begun.wait()
            await first.stop()
            answer = await calling
            assert answer.provider == second.key.address
            # Who insists is told what may be charged for the first try all the same.
            (vanished,) = answer.failed
            assert (vanished.provider, vanished.at_risk_uain) == (first.key.address, PRICE_UAIN)
            assert buyer.books.spent_uain(0) == second.spent_uain == 120
            await first.start()
            assert first.spent_uain == 0
            slowly.go.set()
            # The provider that came back is asked what became of the call, and is paid for the next one alone.
            await second.stop()
            answer = await buyer.call(service.name, text="b")
            assert (answer.value, answer.provider) == ("B", first.key.address)
            assert first.spent_uain == PRICE_UAIN
            assert buyer.books.spent_uain(0) == 220

    on_a_street(story)


def test_no_room_is_said_as_such(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        async def full(call: ProgramCall) -> ProgramReply:
            raise Overloaded(concurrency=1)

        service = await street.publish()
        shop = await street.open(service, full)
        async with await street.buyer() as buyer:
            # It is asked again as long as there is time, and nothing is paid meanwhile.
            with pytest.raises(ProviderBusy) as refusal:
                await buyer.call(service.name, text="a", deadline_seconds=4)
            assert (refusal.value.code, refusal.value.status) == ("overloaded", 503)
            assert len(shop.runner.calls) > 1
            assert shop.spent_uain == 0

    on_a_street(story)


def test_a_deadline_ends_a_call_and_its_late_answer_is_counted_before_the_next(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        slowly = Slowly()
        shop = await street.open(service, slowly)
        async with await street.buyer() as buyer:
            with pytest.raises(DeadlinePassed):
                await buyer.call(service.name, text="a", deadline_seconds=3)
            assert slowly.begun.is_set() and shop.spent_uain == 0
            # It still runs there; the next call does not wait for it.
            calling = asyncio.ensure_future(buyer.call(service.name, text="b"))
            await until(lambda: len(shop.runner.calls) == 2)
            slowly.go.set()
            assert (await calling).value == "B"
            await until(lambda: shop.spent_uain == 2 * PRICE_UAIN)
            assert (await buyer.call(service.name, text="c")).value == "C"
            purse = await purse_of(buyer)
            assert (purse.acknowledged, purse.earned_uain, purse.at_risk_uain) == (3, 300, 0)
            assert buyer.books.spent_uain(0) == shop.spent_uain == 300

    on_a_street(story)


def test_a_client_that_is_cut_off_counts_what_was_answered_when_it_comes_back(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        slowly = Slowly()
        shop = await street.open(service, slowly)
        home = await street.home()
        async with AsyncClient(home, street.node.url) as buyer:
            calls = [asyncio.ensure_future(buyer.call(service.name, text=f"n{n}")) for n in range(5)]
            await until(lambda: len(shop.runner.calls) == 5)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        slowly.go.set()
        await until(lambda: shop.spent_uain == 5 * PRICE_UAIN)
        async with AsyncClient(home, street.node.url) as again:
            assert (await again.call(service.name, text="b")).value == "B"
            purse = await purse_of(again)
            assert (purse.acknowledged, purse.earned_uain, purse.inherited_uain) == (6, 600, 0)
            assert again.books.spent_uain(0) == shop.spent_uain == 600

    on_a_street(story)


# ── Connections that break ───────────────────────────────────────────────────────────────────────────────────────


async def behind(street: Street, proxy: CuttingProxy, shop: Shop) -> None:
    """Announces a shop at its proxy's address."""
    await shop.announce("PLACED", endpoint=f"https://127.0.0.1:{proxy.port}")


def test_an_answer_that_was_cut_off_is_sent_again_and_paid_once(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with CuttingProxy(shop.port) as proxy, await street.buyer() as buyer:
            await behind(street, proxy, shop)
            proxy.cut(times=2, after=200)
            answer = await buyer.call(service.name, text="x" * 20_000)
            assert answer.value == "X" * 20_000
            assert proxy.cuts == 2
            assert len(shop.runner.calls) == 1 and shop.spent_uain == PRICE_UAIN
            assert buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_an_answer_that_never_arrives_is_known_by_its_receipt(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with CuttingProxy(shop.port) as proxy, await street.buyer() as buyer:
            await behind(street, proxy, shop)
            proxy.cut(times=1_000, after=200)
            with pytest.raises(AnswerLost):
                await buyer.call(service.name, text="x" * 20_000)
            assert len(shop.runner.calls) == 1 and shop.spent_uain == PRICE_UAIN
            proxy.cut(times=0, after=0)
            assert (await buyer.call(service.name, text="b")).value == "B"
            purse = await purse_of(buyer)
            assert (purse.acknowledged, purse.earned_uain, purse.at_risk_uain) == (2, 200, 0)
            assert buyer.books.spent_uain(0) == shop.spent_uain == 200

    on_a_street(story)


def test_connections_break_at_random_places_and_the_sums_still_agree(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        chance = random.Random(11)
        async with CuttingProxy(shop.port) as proxy, await street.buyer() as buyer:
            await behind(street, proxy, shop)
            answered = 0
            for number in range(40):
                proxy.cut(times=chance.randrange(5), after=chance.randrange(1_500))
                outcomes = await asyncio.gather(
                    *(buyer.call(service.name, text=f"{number}.{n}") for n in range(3)),
                    return_exceptions=True,
                )
                for outcome in outcomes:
                    assert not isinstance(outcome, BaseException) or isinstance(
                        outcome, ProviderAway | OutcomeUnknown
                    )
                    answered += not isinstance(outcome, BaseException)
            proxy.cut(times=0, after=0)
            assert (await buyer.call(service.name, text="end")).value == "END"
            assert answered > 30
            assert buyer.books.spent_uain(0) == shop.spent_uain
            assert (await purse_of(buyer)).inherited_uain == 0
            assert len(await channel_names(buyer)) == 1
            (name,) = await channel_names(buyer)
            await (await buyer.calls()).settle(name)
            assert await buyer.balance() == START_UAIN - buyer.books.spent_uain(0)

    on_a_street(story)


def test_a_provider_that_restarts_with_a_fresh_certificate_is_known_by_its_key(on_a_street: Any) -> None:
    import datetime

    from openresource.provider.tls import load_or_make_identity

    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            assert (await buyer.call(service.name, text="a")).value == "A"
            await shop.stop()
            before = (shop.folder / "tls.pem").read_bytes()
            later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=360)
            load_or_make_identity(shop.folder / "tls.pem", "127.0.0.1", now=later)
            assert (shop.folder / "tls.pem").read_bytes() != before
            # Made for a year from then, so it would not be good yet; what counts is made for now, of the same key.
            pem = (shop.folder / "tls.pem").read_text()
            (shop.folder / "tls.pem").write_text(
                pem[: pem.index("-----BEGIN CERTIFICATE")] + certificate(pem)
            )
            await shop.start()
            assert (await buyer.call(service.name, text="b")).value == "B"
            assert shop.spent_uain == 200

    on_a_street(story)


def certificate(pem: str) -> str:
    """A fresh certificate, good from now on, for the key in a PEM text."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key: Any = serialization.load_pem_private_key(pem.encode(), None)
    known = x509.load_pem_x509_certificate(pem[pem.index("-----BEGIN CERTIFICATE") :].encode())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(extensions=list(known.extensions))
        .subject_name(known.subject)
        .issuer_name(known.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=300))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_another_key_than_the_chain_names_is_never_spoken_to(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        await shop.announce("PLACED", tls_key=bytes(32))
        async with await street.buyer() as buyer:
            with pytest.raises(TlsKeyNotPinned):
                await buyer.call(service.name, text="a")
            assert not shop.requests
            other = await street.open(service, price=Price(100, ROYALTY_UAIN, FEE_PPM))
            assert (await buyer.call(service.name, text="a")).provider == other.key.address
            assert not shop.requests

    on_a_street(story)


# ── Gateways that lie ────────────────────────────────────────────────────────────────────────────────────────────


def price_raised(shop: Shop) -> Any:
    from openresource.market.receipts import receipt_from_json, receipt_to_json, sign_receipt

    def change(receipt: dict[str, Any]) -> dict[str, Any]:
        from dataclasses import replace

        dearer = replace(receipt_from_json(receipt), price_uain=PRICE_UAIN + 1)
        signed = sign_receipt(dearer, shop.key, shop.street.network)
        return receipt_to_json(signed, shop.street.network)

    return change_receipts(change)


def always_the_first(shop: Shop) -> Any:
    kept: list[dict[str, Any]] = []

    def change(receipt: dict[str, Any]) -> dict[str, Any]:
        kept.append(receipt)
        return kept[0]

    return change_receipts(change)


def other_answer(shop: Shop) -> Any:
    def change(message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] == "http.response.body" and message.get("body") == b'"SECOND"':
            return {**message, "body": b'"SECOUD"'}
        return message

    return change


def no_receipt(shop: Shop) -> Any:
    def change(message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] == "http.response.start":
            headers = [(n, b"{}" if n == b"openresource-receipt" else v) for n, v in message["headers"]]
            return {**message, "headers": headers}
        return message

    return change


@pytest.mark.parametrize("lie", [price_raised, always_the_first, other_answer, no_receipt])
def test_an_answer_whose_receipt_does_not_fit_is_not_used_and_ends_the_channel(
    on_a_street: Any, lie: Any
) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            first = lie(shop)
            if lie is always_the_first:
                shop.change = first
            assert (await buyer.call(service.name, text="first")).value == "FIRST"
            shop.change = first
            with pytest.raises(AnswerNotReceipted) as refusal:
                await buyer.call(service.name, text="second")
            assert refusal.value.remedy
            purse = await purse_of(buyer)
            assert purse.signed_uain - purse.earned_uain == PRICE_UAIN, "one price is at risk and no more"
            assert await channel_names(buyer, with_closed=False) == []
            assert buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_a_receipt_that_another_key_signed_is_none(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        await street.open(service, signs_with=new_key())
        async with await street.buyer() as buyer:
            with pytest.raises(AnswerNotReceipted):
                await buyer.call(service.name, text="a")
            assert buyer.books.spent_uain(0) == 0

    on_a_street(story)


def test_a_gateway_that_counts_more_than_was_called_gets_no_further_signature(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            assert (await buyer.call(service.name, text="a")).value == "A"
            account = shop.admission.accounts[0]
            from dataclasses import replace

            # As if it had answered a second call that was never made.
            account.tab = replace(account.tab, spent_uain=150)
            with pytest.raises(Refusal) as refusal:
                await buyer.call(service.name, text="b")
            assert refusal.value.code in ("spending-unexplained", "gateway-claims-unsigned")
            purse = await purse_of(buyer)
            assert purse.signed_uain <= 2 * PRICE_UAIN
            assert await channel_names(buyer, with_closed=False) == []
            assert buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_bytes_without_end_do_not_fill_the_memory(on_a_street: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from openresource.client import attempts

    monkeypatch.setattr(attempts, "ANSWER_BYTES_MAX", 10_000)

    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            with pytest.raises(Refusal):
                await buyer.call(service.name, text="x" * 20_000)
            assert shop.spent_uain == PRICE_UAIN and buyer.books.spent_uain(0) == 0

    on_a_street(story)
