"""Gateways that lie: an answer whose receipt does not fit is not used, and what is signed for them ends."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.client.attempts import AnswerNotReceipted
from openresource.primitives.errors import Refusal
from tests.client.street import (
    PRICE_UAIN,
    Shop,
    Street,
    change_receipts,
    channel_names,
    new_key,
    purse_of,
)

pytestmark = pytest.mark.journey


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
