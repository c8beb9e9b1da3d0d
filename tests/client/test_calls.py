"""Calls as they usually go, and those that are refused before anything is spent."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx2
import pytest

from openresource.client import AsyncClient, Client
from openresource.client.calls import (
    Exchange,
    NoProvider,
    OverSpendingLimit,
    PriceAboveMaximum,
)
from openresource.client.channels import NotEnoughCoins
from openresource.client.homes import Limits
from openresource.client.services import (
    NoSuchMethod,
    NoSuchService,
    NoSuchVersion,
    ServiceNameAmbiguous,
)
from openresource.market.prices import Price
from openresource.market.schemas import InvalidValue
from openresource.market.services import Permissions
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import ProgramCall, ProgramReply
from tests.client.street import (
    FEE_PPM,
    PRICE_UAIN,
    ROYALTY_UAIN,
    START_UAIN,
    Chunks,
    Street,
    channel_names,
    purse_of,
    shout,
    streaming,
)

pytestmark = pytest.mark.journey


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
