"""Pages over a real node: what they say, what they refuse, and that no text of a stranger becomes markup."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openresource.client.chain import Chain, set_value
from openresource.client.homes import Home
from openresource.client.proofs import verify_state_proof
from openresource.market.papers import hex_text
from openresource.market.placements import sign_tls_key
from openresource.market.services import Version, version_record
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, generate_key
from openresource.web.feed import Feed
from openresource.web.security import HEADERS
from tests.support.network import NodeProcess, local_node_process
from tests.web.support import BASE, TOKEN, Page, Visit, visit

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"
PAGES = ("/", "/services", "/blocks", "/tree", "/earnings")
PRIVATE = ("/money", "/receipts", "/answers/abc", "/receipts/0x00")
STRANGER = generate_key(b"stranger".ljust(32, b".")).address
ENDPOINT = "https://127.0.0.1:9"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with local_node_process(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture(scope="module")
def published(node: NodeProcess) -> dict[str, str]:
    """A service whose every text is hostile, offered by somebody who is away."""
    return asyncio.run(publish_hostile(node))


async def publish_hostile(node: NodeProcess) -> dict[str, str]:
    publisher, provider = generate_key(os.urandom(32)), generate_key(os.urandom(32))
    method = {
        "name": HOSTILE,
        "path": "/x",
        "summary": HOSTILE,
        "input": {
            "type": "object",
            "properties": {HOSTILE: {"type": "string", "description": HOSTILE, "default": HOSTILE}},
            "title": HOSTILE,
        },
        "output": {"enum": [HOSTILE]},
        "example": {"input": {HOSTILE: HOSTILE}},
    }
    async with Chain(node.url) as chain:
        program = await chain.put_files({"interface.json": json.dumps({"methods": [method]}).encode()})
        version = Version(
            program, "1.0.0", "call", 10, 5_000, HOSTILE[:100], HOSTILE, HOSTILE[:40], "subjective", 700
        )
        record = {"publisher": publisher.address, "name": "hostile", "bytes": 700}
        path = f"/services/{publisher.address}/hostile/versions/{program}"
        operations = [set_value(f"/programs/{program}", record), set_value(path, version_record(version))]
        info = await chain.submit_final(operations, publisher)
        place = f"/placements/{publisher.address}/hostile/{program}/{provider.address}"
        await chain.write(place, {"status": "OFFERED", "reason": HOSTILE}, provider)
        key = os.urandom(32)
        placed = {
            "status": "PLACED",
            "reason": HOSTILE,
            "endpoint": ENDPOINT,
            "tls_key": hex_text(key),
            "tls_signature": hex_text(sign_tls_key(ENDPOINT, key, provider, await chain.domain())),
            "capacity": 1,
            "ask_uain": 90,
            "isolation": "confined",
            "runtime": HOSTILE[:100],
        }
        await chain.write(place, placed, provider)
    return {
        "service": f"/services/{publisher.address}/hostile",
        "program": program,
        "transaction": info.tx_hash,
        "block": str(info.height),
        "publisher": publisher.address,
    }


def look(home: Path, node_url: str, steps: Callable[[Visit], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with visit(home, node_url, **options) as here:
            await steps(here)

    asyncio.run(run())


def wallet(folder: Path) -> PrivateKey:
    return Home(folder).create_wallet()


def test_every_page_is_whole_and_has_the_headers_of_the_guard(
    node: NodeProcess, published: dict[str, str], tmp_path: Path
) -> None:
    wallet(tmp_path)

    async def steps(here: Visit) -> None:
        await here.let_in()
        service = published["service"]
        others = (
            f"/blocks/{published['block']}",
            f"/transactions/{published['transaction']}",
            f"/tree{service}",
            "/tree/services?tree=rules",
            "/tree/nothing/here",
            service,
            f"{service}?version={published['program']}",
            "/services?q=hostile",
            "/services?q=zzz",
            "/money",
            "/receipts",
        )
        for path in (*PAGES, *others):
            answer = await here.get(path)
            assert answer.status_code == 200, (path, answer.text[:500])
            Page.of(answer).check()
            for name, value in HEADERS.items():
                assert answer.headers[name] == value
            assert answer.headers["cache-control"] == "no-store"
        for path in (
            "/static/pages.css",
            "/static/pages.js",
            "/vendor/htmx.min.js",
            "/favicon.ico",
            "/healthz",
        ):
            answer = await here.get(path)
            assert answer.status_code == 200 and answer.headers["content-security-policy"], path

    look(tmp_path, node.url, steps)


def test_nothing_that_a_stranger_wrote_becomes_markup(
    node: NodeProcess, published: dict[str, str], tmp_path: Path
) -> None:
    wallet(tmp_path)

    async def steps(here: Visit) -> None:
        await here.let_in()
        service = published["service"]
        record = f"/tree{service}/versions/{published['program']}"
        shows = 0
        for path in (
            "/",
            "/services",
            service,
            record,
            f"{record}/summary",
            f"/transactions/{published['transaction']}",
            f"/blocks/{published['block']}",
            f"/tree/programs/{published['program']}",
            f"/services?q={HOSTILE[:20]}",
            "/find?q=%3Cscript%3Ealert(1)",
            "/nothing/%3Cscript%3Ealert(1)",
        ):
            text = (await here.get(path)).text
            shows += text.count("&lt;script&gt;alert(1)")
            assert "<script>alert" not in text and "<img src=x" not in text, path
            assert "7*7" in text or "alert(2)" not in text, path
        assert shows > 10

    look(tmp_path, node.url, steps)


def test_an_empty_network_says_what_to_do(tmp_path: Path) -> None:
    async def steps(here: Visit) -> None:
        await here.let_in()
        front = Page.of(await here.get("/"))
        front.check()
        assert "No service is published yet." in front.text
        assert "700 000 000 AIN" in front.text
        assert "No service is published on this network yet." in Page.of(await here.get("/services")).text
        assert "No provider is known on this machine." in Page.of(await here.get("/earnings")).text
        assert "This home has no wallet yet." in Page.of(await here.get("/money")).text

    with local_node_process(tmp_path / "node") as fresh:
        look(tmp_path / "home", fresh.url, steps)


def test_what_is_private_needs_the_token(
    node: NodeProcess, published: dict[str, str], tmp_path: Path
) -> None:
    wallet(tmp_path)

    async def steps(here: Visit) -> None:
        for path in PRIVATE:
            answer = await here.get(path)
            assert answer.status_code == 403, path
            page = Page.of(answer)
            page.check()
            assert "token that was printed" in page.text
        call = await here.post(f"{published['service']}/call", {"max_price": "1"})
        assert call.status_code == 403
        # Who only looks sees the price, and how to be let in.
        text = Page.of(await here.get(published["service"])).text
        assert "0.0001" in text and "open the link with the token" in text and "Call for" not in text

    look(tmp_path, node.url, steps)


def test_the_link_becomes_a_strict_cookie_and_leaves_the_address(node: NodeProcess, tmp_path: Path) -> None:
    wallet(tmp_path)

    async def steps(here: Visit) -> None:
        wrong = await here.get("/money?token=guess&x=1")
        assert wrong.status_code == 303 and wrong.headers["location"] == "/money?x=1"
        assert "set-cookie" not in wrong.headers
        right = await here.get(f"/money?token={TOKEN}&x=a%20b")
        assert right.headers["location"] == "/money?x=a+b"
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "_8081=" in cookie
        assert (await here.get("/money")).status_code == 200
        away = await here.get(f"{BASE}//evil.example/?token={TOKEN}")
        assert away.headers["location"] == "/evil.example/"

    look(tmp_path, node.url, steps)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "", "[::1"])
def test_foreign_names_are_not_answered(node: NodeProcess, tmp_path: Path, host: str) -> None:
    async def steps(here: Visit) -> None:
        answer = await here.get(f"/?token={TOKEN}", headers={"host": host})
        assert answer.status_code == 421 and "set-cookie" not in answer.headers

    look(tmp_path, node.url, steps)


@pytest.mark.parametrize(
    "origin",
    ["", "null", "http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8081.evil.example"],
)
def test_foreign_pages_cannot_post(
    node: NodeProcess, published: dict[str, str], tmp_path: Path, origin: str
) -> None:
    wallet(tmp_path)

    async def steps(here: Visit) -> None:
        await here.let_in()
        headers = {"origin": origin} if origin else {}
        answer = await here.http.post(
            f"{published['service']}/call", data={"max_price": "1"}, headers=headers
        )
        assert answer.status_code == 403 and "may not act here" in answer.text

    look(tmp_path, node.url, steps)


def test_what_is_not_there_is_said_with_a_way_out(node: NodeProcess, tmp_path: Path) -> None:
    wallet(tmp_path)
    address = "0x" + "00" * 20

    async def steps(here: Visit) -> None:
        await here.let_in()
        for path, said in (
            ("/nothing", "There is no page at /nothing."),
            ("/blocks/999999", "There is no block 999999."),
            ("/blocks/0x" + "ab" * 32, "There is no block"),
            ("/blocks/seven", "There is no block seven."),
            ("/transactions/0x" + "ab" * 32, "knows no transaction"),
            ("/transactions/x", "knows no transaction x."),
            (f"/services/{address}/none", "No service is called"),
            ("/services/x/y", "No service is called"),
            ("/receipts/0x12", "no receipt 0x12"),
            ("/answers/zzz", "not kept here any more"),
            ("/find?q=what", "Nothing here is called what."),
            ("/find?q=0x" + "cd" * 32, "Nothing here is called"),
            ("/proofs/not/there", "There is nothing at /not/there"),
        ):
            answer = await here.get(path)
            assert answer.status_code == 404, (path, answer.status_code)
            page = Page.of(answer)
            page.check()
            assert said in page.text, path
        for path in ("/tree/x?tree=other", "/tree/x?at=-1", "/tree/" + "a/" * 70):
            assert (await here.get(path)).status_code == 400, path
        assert (await here.post("/blocks", {})).status_code == 405
        assert (await here.get("/services?q=" + "a" * 9_000)).status_code == 403

    look(tmp_path, node.url, steps)


def test_a_number_a_hash_an_address_and_a_path_lead_to_their_pages(
    node: NodeProcess, published: dict[str, str], tmp_path: Path
) -> None:
    async def steps(here: Visit) -> None:
        async with Chain(node.url) as chain:
            block = await chain.rpc("ain_getBlockByNumber", {"number": 1})
        for text, there in (
            ("1", "/blocks/1"),
            (block["hash"], f"/blocks/{block['hash']}"),
            (published["transaction"], f"/transactions/{published['transaction']}"),
            (published["publisher"].lower(), f"/accounts/{published['publisher']}"),
            ("/apps/some thing/é", "/tree/apps/some%20thing/%C3%A9"),
            ("//evil.example", "/tree/evil.example"),
        ):
            answer = await here.get("/find", params={"q": text})
            assert answer.status_code == 303 and answer.headers["location"] == there

    look(tmp_path, node.url, steps)


def test_the_tree_goes_page_by_page_and_back_in_time(node: NodeProcess, tmp_path: Path) -> None:
    async def fill() -> str:
        key = await node.funded_key(1_000_000)
        async with Chain(node.url) as chain:
            for number in range(3):
                operations = [
                    set_value(f"/transfer/{key.address}/{STRANGER}/{number}{index:02}a/value", 0.000001)
                    for index in range(45)
                ]
                await chain.submit_final(operations, key)
        return key.address

    sender = asyncio.run(fill())

    async def steps(here: Visit) -> None:
        path = f"/tree/transfer/{sender}/{STRANGER}"
        first = await here.get(path)
        labels = [found["href"] for found in Page.of(first).all("a", **{"class": "branch"})]
        more = next(found["href"] for found in Page.of(first).all("a") if "after=" in found.get("href", ""))
        second = [found["href"] for found in Page.of(await here.get(more)).all("a", **{"class": "branch"})]
        assert len(labels) == 100 and len(second) == 35 and not set(labels) & set(second)
        assert "There is nothing at this path." in Page.of(await here.get(f"{path}?at=0")).text
        assert "pending" in Page.of(await here.get(f"{path}?at=pending")).text
        leaf = Page.of(await here.get(f"/tree/accounts/{sender}/balance"))
        assert "0.999865" in leaf.text

    look(tmp_path, node.url, steps)


def test_a_saved_proof_convinces_who_knows_the_genesis_hash(
    node: NodeProcess, published: dict[str, str], tmp_path: Path
) -> None:
    async def steps(here: Visit) -> None:
        page = Page.of(await here.get(f"/tree{published['service']}/latest"))
        link = next(found["href"] for found in page.all("a") if found.get("href", "").startswith("/proofs/"))
        answer = await here.get(link)
        assert answer.headers["content-disposition"].startswith("attachment")
        proven = verify_state_proof(answer.json(), node.genesis_hash)
        assert proven.value == published["program"]

    look(tmp_path, node.url, steps)


def test_a_form_that_is_too_large_is_not_read(
    node: NodeProcess, published: dict[str, str], tmp_path: Path
) -> None:
    wallet(tmp_path)

    async def steps(here: Visit) -> None:
        await here.let_in()
        headers = {"origin": BASE, "content-type": "application/x-www-form-urlencoded"}
        answer = await here.http.post(
            f"{published['service']}/call", content=b"in.a=" + b"x" * (17 * 1024 * 1024), headers=headers
        )
        assert answer.status_code == 413
        Page.of(answer).check()

    look(tmp_path, node.url, steps)


def test_a_call_that_cannot_be_paid_or_answered_says_why(
    node: NodeProcess, published: dict[str, str], tmp_path: Path
) -> None:
    wallet(tmp_path)

    async def steps(here: Visit) -> None:
        await here.let_in()
        address = f"{published['service']}/call"
        sent = {"method": HOSTILE, f"in.{HOSTILE}": "x"}
        unpriced = await here.post(address, sent)
        assert unpriced.status_code == 400 and "which price was shown" in unpriced.text
        # The wallet is empty, so nothing can be opened; the same form sent again tells the same.
        for _ in range(2):
            answer = await here.post(address, {**sent, "max_price": "0.0001", "once": "one"})
            assert answer.status_code == 303
            page = Page.of(await here.get(answer.headers["location"]))
            page.check()
            assert "No answer" in page.text and "holds 0 AIN" in page.text
        cheap = await here.post(address, {**sent, "max_price": "0.00005", "once": "two"})
        assert "you allowed 0.00005" in Page.of(await here.get(cheap.headers["location"])).text
        streamed = await here.post(
            address, {**sent, "max_price": "0.0001", "once": "three"}, headers={"hx-request": "true"}
        )
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert "holds 0 AIN" in streamed.text and 'id="once" value="' in streamed.text

    look(tmp_path, node.url, steps)


def test_pages_wait_for_a_node_that_is_away_and_go_on(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "node")
    node.start()

    async def until(here: Visit, path: str, status: int) -> Any:
        async with asyncio.timeout(60):
            while True:
                answer = await here.get(path)
                if answer.status_code == status:
                    return answer
                await asyncio.sleep(0.1)

    async def steps(here: Visit) -> None:
        assert (await here.get("/")).status_code == 200
        node.kill()
        away = await until(here, "/services", 503)
        page = Page.of(away)
        page.check()
        assert "The node is away." in page.text and "node away" in page.text
        assert page.all("div", hx_get="/node-state")
        assert (await here.get("/node-state", headers={"hx-request": "true"})).status_code == 204
        node.start()
        back = await until(here, "/node-state", 303)
        assert back.headers["location"] == "/"
        told = await here.get("/node-state", headers={"hx-request": "true"})
        assert told.headers["hx-refresh"] == "true"
        Page.of(await until(here, "/services", 200)).check()

    try:
        look(tmp_path / "home", node.url, steps)
    finally:
        node.kill()


def test_the_feed_shows_what_is_pending_as_pending_and_what_is_final_as_final(tmp_path: Path) -> None:
    async def run(node: NodeProcess) -> None:
        async with Chain(node.url) as chain:
            feed = Feed(chain)
            seen: list[tuple[str, str]] = []

            async def follow() -> None:
                async for _ in feed.changes():
                    for line in feed.transactions:
                        if (line.hash, line.state) not in seen:
                            seen.append((line.hash, line.state))

            task = asyncio.create_task(follow())
            tx_hash = await node.fund(STRANGER, 5)
            async with asyncio.timeout(60):
                while (tx_hash, "final") not in seen or feed.height < 1:
                    await asyncio.sleep(0.02)
            feed.end()
            await asyncio.wait_for(task, 60)
            assert [line.deed.title for line in feed.transactions if line.hash == tx_hash] == ["Transfer"]
            await feed.close()

    with local_node_process(tmp_path) as node:
        asyncio.run(run(node))


def test_more_open_pages_than_the_limit_are_refused(
    node: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openresource.web.feed.READERS_MAX", 1)

    async def run() -> None:
        async with Chain(node.url) as chain:
            feed = Feed(chain)
            first = feed.changes()
            await anext(first)
            with pytest.raises(Refusal, match="the limit"):
                await anext(feed.changes())
            await first.aclose()
            await anext(feed.changes())
            await feed.close()

    asyncio.run(run())


def test_the_feed_rests_when_nobody_looks_and_catches_up_when_somebody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openresource.web.feed.IDLE_SECONDS", 0.05)

    async def run(node: NodeProcess) -> None:
        async with Chain(node.url) as chain:
            feed = Feed(chain)
            version = feed.market_version
            await feed.begin()
            async with asyncio.timeout(60):
                while feed._task is not None:
                    await asyncio.sleep(0.02)
            # What changes while it rests is not seen, so lists are made anew.
            assert feed.market_version > version
            tx_hash = await node.fund(STRANGER, 5)
            assert tx_hash not in {line.hash for line in feed.transactions}
            async with asyncio.timeout(60):
                async for _ in feed.changes():
                    if tx_hash in {line.hash for line in feed.transactions}:
                        break
            await feed.close()

    with local_node_process(tmp_path) as node:
        asyncio.run(run(node))


def test_a_feed_that_is_far_behind_goes_to_the_newest_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openresource.web.feed.EVENTS_PER_LOOK", 1)
    monkeypatch.setattr("openresource.web.feed.BLOCKS_BEHIND_MAX", 2)
    monkeypatch.setattr("openresource.web.feed.BLOCKS_AT_START", 2)

    async def run(node: NodeProcess) -> None:
        for _ in range(8):
            await node.fund(STRANGER, 5)
        async with Chain(node.url) as chain:
            feed = Feed(chain)
            feed_position = await feed._follow_from("0")
            assert feed_position.startswith("0:")
            async with asyncio.timeout(60):
                async for _ in feed.changes():
                    if feed.height == 8:
                        break
            # From the first look at block 0 it went straight to the last two blocks.
            assert [block.number for block in feed.blocks] == [8, 7, 0]
            await feed.close()

    with local_node_process(tmp_path) as node:
        asyncio.run(run(node))
