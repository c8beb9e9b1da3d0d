"""Pages of accounts and apps: what is theirs in one place, and an app's events as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from openresource.client.chain import Chain, set_function, set_rule, set_value
from openresource.web.accounts import Accounts
from tests.support.network import NodeProcess, local_node_process
from tests.web.support import Page, Visit, visit

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with local_node_process(tmp_path_factory.mktemp("node")) as running:
        yield running


async def make_app(node: NodeProcess, name: str) -> str:
    """An app with a rule, a function's entry and a value; its administrator's address."""
    key = await node.funded_key(5_000_000)
    async with Chain(node.url) as chain:
        await chain.submit_final(
            set_value(f"/manage_app/{name}/create/1", {"admin": {key.address: True}, "is_public": True}), key
        )
        rule = {".rule": {"write": "auth.addr !== ''"}}
        function = {".function": {"_saveLastTx": {"function_id": "_saveLastTx", "function_type": "NATIVE"}}}
        await chain.submit_final(set_rule(f"/apps/{name}/notes/$key", rule), key)
        await chain.submit_final(set_function(f"/apps/{name}/notes/$key", function), key)
        await chain.submit_final(set_value(f"/apps/{name}/notes/a", HOSTILE), key)
    return key.address


def test_an_app_shows_its_rules_functions_admins_and_values(node: NodeProcess) -> None:
    async def steps() -> None:
        admin = await make_app(node, "pages_app")
        async with visit(node.home, node.url) as here:
            listed = Page.of(await here.get("/apps"))
            assert any(found["href"] == "/apps/pages_app" for found in listed.all("a"))
            answer = await here.get("/apps/pages_app")
            page = Page.of(answer)
            assert answer.status_code == 200 and not page.faults
            for text in ("auth.addr !== ''", "_saveLastTx", "/apps/pages_app/notes/$key", "public", "notes"):
                assert text in page.text, text
            assert any(found["href"] == f"/accounts/{admin}" for found in page.all("a"))
            assert (await here.get("/apps/no_such_app")).status_code == 404

    asyncio.run(steps())


def test_an_account_shows_what_it_holds(node: NodeProcess) -> None:
    async def steps(here: Visit, address: str) -> None:
        page = Page.of(await here.get(f"/accounts/{address.lower()}"))
        assert not page.faults and "0.123456" in page.text and address in page.text
        assert (await here.get("/accounts/0x12")).status_code == 404

    async def all_of_it() -> None:
        key = await node.funded_key(123_456)
        async with visit(node.home, node.url) as here:
            await steps(here, key.address)

    asyncio.run(all_of_it())


def test_writes_of_an_app_arrive_on_its_stream_and_no_value_becomes_markup(node: NodeProcess) -> None:
    async def steps() -> None:
        await make_app(node, "live_app")
        key = await node.funded_key(1_000_000)
        async with visit(node.home, node.url) as here:
            room = Accounts(here.pages.site)
            async with asyncio.timeout(60), aclosing(room._frames("live_app")) as frames:
                assert b"Each write below this app appears here." in await anext(frames)

                async def write() -> None:
                    async with Chain(node.url) as chain:
                        await chain.submit_final(set_value("/apps/live_app/notes/b", HOSTILE), key)

                writing = asyncio.create_task(write())
                seen = b""
                async for frame in frames:
                    seen = frame
                    if b"/apps/live_app/notes/b" in frame and b"state final" in frame:
                        break
                await writing
            assert b"&lt;script&gt;" in seen and b"<script>" not in seen
            assert seen.count(b"/apps/live_app/notes/b") == 1

    asyncio.run(steps())
