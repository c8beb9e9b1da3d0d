"""The pages in a real Chromium, on a desk and on a phone, by day and by night."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from openresource.primitives.keys import generate_key
from tests.cli.support import Serving, serving
from tests.support.network import NodeProcess
from tests.web.browsing import DESK, PHONE, address, assert_no_overflow, go, opened, picture
from tests.web.conftest import Market

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

STRANGER = generate_key(b"stranger".ljust(32, b".")).address


@pytest.fixture(scope="session")
def pages(market: Market) -> Iterator[Serving]:
    words = ("pages", "--json", "--port", "0", "--home", str(market.buyer.folder), "--node", market.node.url)
    with serving(*words, "--provider-home", str(market.provider_home)) as process:
        yield process


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_every_page_fits_and_nobody_complains(
    browser: Browser, pages: Serving, market: Market, width: int, scheme: str
) -> None:
    with opened(browser, pages.facts["url"], width, scheme) as page:
        expect(page.locator("#front-blocks a").first).to_be_visible()
        go(page, pages, "/blocks")
        transaction = page.locator("#transaction-rows a").first.get_attribute("href")
        block = page.locator("#block-rows a").first.get_attribute("href")
        for name, path in (
            ("front", "/"),
            ("services", "/services"),
            ("services-none", "/services?q=nothing-like-it"),
            ("service", market.service),
            ("blocks", "/blocks"),
            ("transaction", str(transaction)),
            ("block", str(block)),
            ("jobs-none", "/jobs"),
            ("providers", "/providers"),
            ("tree", "/tree"),
            ("tree-service", f"/tree{market.service}"),
            ("earnings", "/earnings"),
            ("money", "/money"),
            ("receipts", "/receipts"),
            ("missing", "/nothing/here"),
        ):
            go(page, pages, path)
            expect(page.locator("h1")).to_be_visible()
            expect(page.locator("#chain-state")).to_contain_text("local · block")
            assert_no_overflow(page)
            picture(page, name, width, scheme)


@pytest.mark.parametrize(("width", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_a_service_is_called_from_its_page_and_the_receipt_comes_with_the_answer(
    browser: Browser, pages: Serving, market: Market, width: int, scheme: str
) -> None:
    with opened(browser, pages.facts["url"], width, scheme) as page:
        go(page, pages, market.service)
        page.get_by_label("Text", exact=True).fill("Bees find flowers. Bees dance.")
        page.get_by_label("Words").fill("bees\nflowers")
        page.get_by_label("Loud").check()
        button = page.get_by_role("button", name="Call for 0.001 AIN")
        once = page.locator("#once").get_attribute("value")
        button.click()
        receipt = page.locator("#answer .receipt")
        expect(receipt).to_be_visible()
        expect(page.locator("#answer")).to_contain_text("BEES FIND FLOWERS. BEES DANCE.")
        expect(page.locator("#answer table")).to_contain_text("flowers")
        expect(receipt).to_contain_text("0.001 AIN")
        expect(receipt).to_contain_text("signed by the provider’s wallet")
        assert_no_overflow(page)
        picture(page, "answer", width, scheme)
        first = receipt.locator("a[href^='/receipts/']").get_attribute("href")
        # The page did not reload, and its form has a new number: the next click is a new call.
        expect(page.locator("#once")).not_to_have_attribute("value", str(once))
        expect(button).to_be_enabled()
        button.click()
        expect(page.locator(f"#answer .receipt a[href='{first}']")).to_have_count(0)
        expect(receipt).to_be_visible()
        go(page, pages, str(first))
        expect(page.locator("h1")).to_have_text("Receipt")
        picture(page, "receipt", width, scheme)


def test_a_stream_appears_while_the_program_still_speaks(
    browser: Browser, pages: Serving, market: Market
) -> None:
    with opened(browser, pages.facts["url"]) as page:
        go(page, pages, f"{market.service}?method=spell")
        page.get_by_label("Text", exact=True).fill("slowly, letter by letter")
        # Long enough that a page which is slow to show it still sees the program speak.
        page.get_by_label("Pause ms").fill("600")
        page.get_by_role("button", name="Call for").click()
        expect(page.locator("#stream")).to_contain_text("slow")
        assert page.locator("#answer .receipt").count() == 0
        expect(page.locator("#answer .receipt")).to_be_visible()
        expect(page.locator("#answer .stream")).to_have_text("slowly, letter by letter")


def test_an_answer_that_would_like_to_be_a_page_stays_text(
    browser: Browser, pages: Serving, market: Market
) -> None:
    with opened(browser, pages.facts["url"]) as page:
        go(page, pages, f"{market.service}?method=markup")
        page.get_by_role("button", name="Call for").click()
        expect(page.locator("#answer .receipt")).to_be_visible()
        expect(page.locator("#answer")).to_contain_text("<script>document.title='taken'</script>")
        assert page.title() == "studio · Open Resource"
        assert page.locator("#answer img, #answer script, #answer b").count() == 0


def test_a_refusal_stands_where_the_answer_would(browser: Browser, pages: Serving, market: Market) -> None:
    with opened(browser, pages.facts["url"]) as page:
        go(page, pages, f"{market.service}?method=refuse")
        page.get_by_role("button", name="Call for").click()
        expect(page.get_by_role("alert").filter(has_text="not today")).to_be_visible()
        picture(page, "refused", DESK, "light")


def test_blocks_and_transactions_appear_without_reloading(
    browser: Browser, pages: Serving, market: Market
) -> None:
    with opened(browser, pages.facts["url"]) as page:
        go(page, pages, "/blocks")
        expect(page.locator("#chain-state .dot.good")).to_be_visible()
        page.evaluate("window.stayed = true")
        # The browser's own loop runs in this thread.
        with ThreadPoolExecutor(1) as other:
            tx_hash = other.submit(lambda: asyncio.run(market.node.fund(STRANGER, 7))).result()
        row = page.locator(f"#tx-{tx_hash}")
        expect(row).to_contain_text("0.000007 AIN")
        expect(row).to_contain_text("final")
        assert page.evaluate("window.stayed") is True
        row.locator("a").click()
        expect(page.locator("h1")).to_contain_text("Transfer")


def test_a_page_follows_the_chain_although_its_scripts_come_one_long_after_the_other(
    browser: Browser, pages: Serving
) -> None:
    with opened(browser, pages.facts["url"]) as page:
        held: list[Route] = []
        page.route("**/vendor/hx-sse.min.js", lambda route: held.append(route))
        with page.expect_request("**/vendor/hx-sse.min.js"):
            page.goto(f"{address(pages)}/blocks", wait_until="commit")
        # What the first script does as soon as it can, it has done before the second one arrives.
        page.wait_for_function("window.htmx !== undefined")
        page.evaluate("new Promise(done => setTimeout(done, 100))")
        with page.expect_request("**/live/blocks"):
            held.pop().continue_()


def test_the_search_narrows_while_one_types_and_the_address_follows(
    browser: Browser, pages: Serving, market: Market
) -> None:
    with opened(browser, pages.facts["url"]) as page:
        go(page, pages, "/services")
        expect(page.locator(".card")).to_have_count(1)
        page.get_by_role("searchbox").press_sequentially("zebra")
        expect(page.locator("#service-list")).to_contain_text("Nothing matches “zebra”.")
        expect(page).to_have_url(f"{address(pages)}/services?q=zebra")
        page.get_by_role("searchbox").fill("works words")
        expect(page.locator(".card")).to_have_count(1)


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(
    browser: Browser, pages: Serving, market: Market
) -> None:
    with opened(browser, pages.facts["url"]) as page:
        go(page, pages, "/services")
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        assert page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]
        seen = []
        for _ in range(9):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")
            )
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            after = page.evaluate("getComputedStyle(document.activeElement, '::after').outlineStyle")
            assert "solid" in (outline, after), seen
        assert seen == [
            "Open Resource",
            "Services",
            "Jobs",
            "Blocks",
            "Tree",
            "Earnings",
            "Money",
            "q",
            "Search",
        ]
        page.keyboard.press("Tab")
        expect(page.locator("a.cover").first).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("studio")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "in-text":
                break
        expect(page.locator("#in-text")).to_be_focused()


def test_hashes_are_copied_whole(browser: Browser, pages: Serving, market: Market) -> None:
    with opened(browser, pages.facts["url"]) as page:
        go(page, pages, market.service)
        # The button says so for a moment only.
        page.evaluate(
            """() => new MutationObserver(() => { window.copied ||= document.querySelectorAll(".copy.copied").length; })
                .observe(document.body, {subtree: true, attributeFilter: ["class"]})"""
        )
        page.get_by_role("button", name="Copy 0x").first.click()
        page.wait_for_function("window.copied === 1")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == market.provider.facts["provider"]


def test_everything_works_without_scripts(browser: Browser, pages: Serving, market: Market) -> None:
    with opened(browser, pages.facts["url"], PHONE, java_script_enabled=False) as page:
        go(page, pages, "/services")
        page.get_by_role("searchbox").fill("words")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="studio").click()
        page.get_by_label("Text", exact=True).fill("plain and simple")
        page.get_by_role("button", name="Call for").click()
        expect(page.locator("h1")).to_have_text("Answer")
        expect(page.locator(".receipt")).to_contain_text("0.001 AIN")
        assert "/answers/" in page.url
        picture(page, "answer-without-scripts", PHONE, "light")


def test_pages_say_that_the_node_is_away_and_go_on_by_themselves(browser: Browser, tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "node")
    node.start()
    words = ("pages", "--json", "--port", "0", "--home", str(tmp_path / "home"), "--node", node.url)
    try:
        with serving(*words) as process, opened(browser, process.facts["url"]) as page:
            expect(page.locator("#chain-state")).to_contain_text("local · block 0")
            node.kill()
            expect(page.locator("#chain-state")).to_contain_text("node away")
            go(page, process, "/services")
            expect(page.locator("h1")).to_have_text("The node is away.")
            picture(page, "away", DESK, "light")
            node.start()
            expect(page.locator("h1")).to_have_text("Services")
            expect(page.locator("#chain-state")).to_contain_text("local · block 0")
            picture(page, "services-empty", DESK, "light")
            go(page, process, "/money")
            picture(page, "money-no-wallet", DESK, "light")
    finally:
        node.kill()
