"""A buyer is killed with calls open, and their provider claims for them and leaves: the books say what the chain says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openresource.client import AsyncClient, calls
from openresource.client.homes import Home
from tests.client.street import PRICE_UAIN, Service, Shop, Slowly, Street, channel_names, purse_of, until

pytestmark = pytest.mark.journey

ANSWERED, OPEN = 3, 2


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start looks back to the end, whatever else the machine has to do."""
    monkeypatch.setattr(calls, "LOOK_BACK_SECONDS_MAX", 60.0)


async def killed_with_calls_open(street: Street, service: Service, home: Home) -> Shop:
    """A shop that did calls whose answers reached nobody, as their buyer had ended; what is on its disk remains."""
    slowly = Slowly()
    slowly.go.set()
    shop = await street.open(service, slowly)
    async with AsyncClient(home, street.node.url) as buyer:
        for _ in range(ANSWERED):
            await buyer.call(service.name, text="a")
        slowly.go.clear()
        asked = len(shop.runner.calls)
        waiting = [asyncio.ensure_future(buyer.call(service.name, text="lost")) for _ in range(OPEN)]
        await until(lambda: len(shop.runner.calls) == asked + OPEN)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len((await purse_of(buyer)).in_flight) == OPEN
    slowly.go.set()
    await shop.has_earned((ANSWERED + OPEN) * PRICE_UAIN)
    return shop


async def claim_and_send_back(shop: Shop) -> None:
    (account,) = shop.admission.accounts
    await shop.claims._begin(account, send_back=True)


async def assert_books_agree(street: Street, buyer: AsyncClient, receipts: int) -> None:
    assert await street.claimed_uain(buyer) == (ANSWERED + OPEN) * PRICE_UAIN
    assert buyer.books.spent_uain(0) == (ANSWERED + OPEN) * PRICE_UAIN
    assert len(buyer.books.receipts()) == receipts


def test_what_was_open_is_counted_at_the_next_start_although_nobody_calls_there_again(
    on_a_street: Any,
) -> None:
    async def story(street: Street) -> None:
        service, home = await street.publish(), await street.home()
        shop = await killed_with_calls_open(street, service, home)
        await claim_and_send_back(shop)
        async with AsyncClient(home, street.node.url) as buyer:
            await buyer.calls()
            await assert_books_agree(street, buyer, ANSWERED + OPEN)
            assert not (await purse_of(buyer)).is_doubtful
            # It was only looked at: another process may pay from it.
            (name,) = await channel_names(buyer)
            home.channel_lock(name.partition("/")[2]).close()

    on_a_street(story)


def test_a_claim_of_a_provider_that_is_gone_is_spent_and_its_receipts_take_its_place_once_it_is_back(
    on_a_street: Any,
) -> None:
    async def story(street: Street) -> None:
        service, home = await street.publish(), await street.home()
        shop = await killed_with_calls_open(street, service, home)
        await claim_and_send_back(shop)
        await shop.stop()
        # Killed after every step: what a start found out is on the disk, and no later one counts it again.
        for _ in range(2):
            async with AsyncClient(home, street.node.url) as buyer:
                await buyer.calls()
                await assert_books_agree(street, buyer, ANSWERED)
                assert len((await purse_of(buyer)).behind) == OPEN
        await shop.start()
        await shop.announce("PLACED")
        for _ in range(2):
            async with AsyncClient(home, street.node.url) as buyer:
                await buyer.calls()
                await assert_books_agree(street, buyer, ANSWERED + OPEN)
                assert not (await purse_of(buyer)).is_doubtful

    on_a_street(story)


def test_a_call_that_its_provider_denied_and_did_afterwards_is_spent_with_its_claim(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service, home = await street.publish(), await street.home()
        shop = await killed_with_calls_open(street, service, home)

        async def denied(account: Any, call: Any) -> bytes:
            from openresource.provider.admission import CallNotAnswered

            raise CallNotAnswered(sequence=call.sequence)

        shop.admission.receipt_of = denied  # type: ignore[method-assign]
        async with AsyncClient(home, street.node.url) as buyer:
            await buyer.calls()
            assert buyer.books.spent_uain(0) == ANSWERED * PRICE_UAIN
            (name,) = await channel_names(buyer)
            await (await buyer.calls()).settle(name)
            await assert_books_agree(street, buyer, ANSWERED)
            assert not (await purse_of(buyer)).is_doubtful

    on_a_street(story)
