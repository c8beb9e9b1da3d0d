"""Calls from forms against a real provider: priced before, paid once, receipted after."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openresource.client.chain import Chain
from openresource.client.homes import Limits
from tests.web.conftest import Market
from tests.web.support import BASE, Page, Visit, visit

pytestmark = pytest.mark.journey

PRICE = "0.001"


def look(market: Market, steps: Callable[[Visit], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with visit(market.buyer.folder, market.node.url, **options) as here:
            await here.let_in()
            await steps(here)

    asyncio.run(run())


async def spent_uain(here: Visit) -> int:
    return here.pages.site.client.books.spent_uain(0)


def once_of(page: Page) -> str:
    return page.all("input", name="once")[0]["value"]


def test_a_form_is_made_from_the_method_and_says_its_price_before(market: Market) -> None:
    async def steps(here: Visit) -> None:
        page = Page.of(await here.get(market.service))
        page.check()
        assert f"Call for {PRICE} AIN" in page.text
        assert page.all("input", name="max_price")[0]["value"] == PRICE
        # The text may come from a file as well, so the browser must not insist on it.
        assert (
            page.all("input", name="file.text") and "required" not in page.all("textarea", name="in.text")[0]
        )
        assert page.all("input", name="in.times")[0]["type"] == "number"
        assert page.all("input", name="in.loud")[0]["type"] == "checkbox"
        assert [found["value"] for found in page.all("option")] == ["", "glad", "sober"]
        assert page.all("textarea", name="in.words")
        assert "Bees dance." in page.text and "unaudited" in page.text and "bit-exact" in page.text
        files = Page.of(await here.get(f"{market.service}?method=size"))
        assert files.all("input", name="file.data")[0]["type"] == "file"

    look(market, steps)


def test_a_call_without_scripts_is_answered_and_paid_once_however_often_the_form_is_sent(
    market: Market,
) -> None:
    async def steps(here: Visit) -> None:
        page = Page.of(await here.get(market.service))
        form = {
            "method": "work",
            "once": once_of(page),
            "max_price": PRICE,
            "in.text": "Bees <dance>",
            "in.times": "2",
            "in.loud": "on",
            "in.mood": "sober",
            "in.words": "bees\r\ndance",
        }
        before = await spent_uain(here)
        answer = await here.post(f"{market.service}/call", form)
        assert answer.status_code == 303
        shown = Page.of(await here.get(answer.headers["location"]))
        shown.check()
        assert "BEES <DANCE> BEES <DANCE>" in shown.text and "sober" in shown.text
        assert "signed by the provider’s wallet" in shown.text and f"{PRICE} AIN" in shown.text
        again = await here.post(f"{market.service}/call", form)
        assert again.headers["location"] == answer.headers["location"]
        assert await spent_uain(here) - before == 1_000
        receipt = next(
            found["href"] for found in shown.all("a") if found.get("href", "").startswith("/receipts/0x")
        )
        paper = Page.of(await here.get(receipt))
        paper.check()
        assert "studio 1.0.0, work" in paper.text and market.provider.facts["provider"] in paper.text
        assert receipt in {found.get("href") for found in Page.of(await here.get("/receipts")).all("a")}

    look(market, steps)


def test_a_form_of_another_method_cannot_be_sent_in_the_name_of_the_first(market: Market) -> None:
    async def steps(here: Visit) -> None:
        form = {"once": "same", "max_price": PRICE, "in.text": "a"}
        assert (await here.post(f"{market.service}/call", {**form, "method": "work"})).status_code == 303
        other = await here.post(f"{market.service}/call", {**form, "method": "spell"})
        assert other.status_code == 400 and "another service already" in other.text

    look(market, steps)


def test_a_stream_comes_piece_by_piece_and_ends_with_its_receipt(market: Market) -> None:
    async def steps(here: Visit) -> None:
        text = "a\n<b>"
        answer = await here.post(
            f"{market.service}/call",
            {"method": "spell", "once": "", "max_price": PRICE, "in.text": text},
            headers={"hx-request": "true"},
        )
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = ["\n".join(re.findall(r"^data: (.*)$", block, re.M)) for block in answer.text.split("\n\n")]
        pieces = re.findall(r'<span class="piece">([^<]*)</span>', "".join(events))
        assert "".join(pieces) == "a\n&lt;b&gt;"
        assert 'hx-target="#stream" hx-swap="beforeend"' in "".join(events)
        assert 'class="receipt"' in events[-2] and 'id="once"' in events[-2]

    look(market, steps)


def test_a_file_is_sent_as_its_bytes(market: Market) -> None:
    async def steps(here: Visit) -> None:
        answer = await here.http.post(
            f"{market.service}/call",
            data={"method": "size", "once": "file", "max_price": PRICE},
            files={"file.data": ("x.bin", bytes(range(256)) * 40)},
            headers={"origin": BASE},
        )
        assert answer.status_code == 303, answer.text
        assert "10240" in Page.of(await here.get(answer.headers["location"])).text

    look(market, steps)


def test_an_answer_full_of_markup_is_shown_as_text(market: Market) -> None:
    async def steps(here: Visit) -> None:
        form = {"method": "markup", "once": "markup", "max_price": PRICE}
        answer = await here.get((await here.post(f"{market.service}/call", form)).headers["location"])
        assert "<script>document" not in answer.text and "<img src=x" not in answer.text
        assert "<b>bold</b>" in Page.of(answer).text

    look(market, steps)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"method": "refuse"}, "not today"),
        ({"method": "work", "in.text": "a", "in.times": "many"}, "Times is not understood"),
        ({"method": "work", "in.text": "a", "in.mood": "odd"}, "must be one of"),
        ({"method": "work", "in.text": "a", "max_price": "0.0001"}, "you allowed 0.0001"),
        ({"method": "work", "in.text": "a", "max_price": "a lot"}, "not an amount"),
        ({"method": "nothing"}, "has no method nothing"),
    ],
)
def test_a_refusal_is_shown_with_its_way_out_and_costs_nothing(
    market: Market, form: dict[str, str], said: str
) -> None:
    async def steps(here: Visit) -> None:
        before = await spent_uain(here)
        answer = await here.post(f"{market.service}/call", {"max_price": PRICE, "once": "", **form})
        if answer.status_code == 303:
            answer = await here.get(answer.headers["location"])
        page = Page.of(answer)
        page.check()
        assert said in page.text
        assert await spent_uain(here) == before

    look(market, steps)


def test_the_limits_of_the_home_hold_for_the_pages_too(market: Market) -> None:
    async def steps(here: Visit) -> None:
        form = {"method": "work", "once": "limited", "max_price": PRICE, "in.text": "a"}
        answer = await here.get((await here.post(f"{market.service}/call", form)).headers["location"])
        page = Page.of(answer)
        assert "the limit is 0.0005 AIN" in page.text and "openresource money limit" in page.text

    market.buyer.write_limits(Limits(per_call_uain=500))
    try:
        look(market, steps)
    finally:
        market.buyer.write_limits(Limits())


def test_money_and_earnings_are_those_of_the_chain(market: Market) -> None:
    async def steps(here: Visit) -> None:
        form = {"method": "work", "once": "money", "max_price": PRICE, "in.text": "a"}
        assert (await here.post(f"{market.service}/call", form)).status_code == 303
        money = Page.of(await here.get("/money"))
        money.check()
        assert "In the wallet" in money.text and "In a payment channel" in money.text
        async with Chain(market.node.url) as chain:
            balance_uain = await chain.balance(market.buyer.address())
        assert f"{balance_uain / 1_000_000:g} AIN" in money.text
        earned = Page.of(await here.get("/earnings"))
        earned.check()
        assert "answering" in earned.text and "Not yet claimed" in earned.text and "studio" in earned.text

    look(market, steps, provider_homes=[market.provider_home])
