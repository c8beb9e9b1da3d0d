"""A buyer's channels in use: topped up, extended, claimed, settled, and never signed for by two."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openresource.client import AsyncClient
from openresource.client.homes import Limits
from tests.client.street import (
    FEE_PPM,
    PRICE_UAIN,
    ROYALTY_UAIN,
    START_UAIN,
    Slowly,
    Street,
    channel_names,
    open_street,
    until,
)
from tests.support.network import local_node_process

pytestmark = pytest.mark.journey


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
        parameters = {"market": {"channel_lifetime_ms": 16_000}}
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
                choice, *offers[0], deposit_uain=1_000, lifetime_ms=5_000
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
            await shop.has_earned(PRICE_UAIN)
            for number in range(9):
                assert (await buyer.call(service.name, text=f"n{number}")).value == f"N{number}"
            assert len(await channel_names(buyer)) > 1
            assert len(await channel_names(buyer, with_closed=False)) == 1
            # Nobody has the receipt of the lost one; a claim took its price all the same.
            assert buyer.books.spent_uain(0) == 10 * PRICE_UAIN == await street.claimed_uain(buyer)

    on_a_street(story)
