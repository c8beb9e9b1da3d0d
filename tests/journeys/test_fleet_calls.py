"""Calls over several providers: who is asked, who after them, what is paid when one is full, slow, away or vanishes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openresource.client import AsyncClient, outcomes
from openresource.client.calls import OutcomeUnknown
from openresource.client.connect import Connect
from openresource.market.breakers import CLOSED, OPEN
from openresource.market.choices import CHOSEN
from openresource.market.prices import Price
from openresource.provider.service import clock_ms
from openresource.sandbox.driver import ProgramCall, ProgramFailed, ProgramReply
from tests.client.street import (
    FEE_PPM,
    PRICE_UAIN,
    ROYALTY_UAIN,
    Chunks,
    Shop,
    Street,
    open_street,
    shout,
    until,
)
from tests.support.network import NodeProcess, local_node_process

pytestmark = pytest.mark.journey

DEARER = Price(100, ROYALTY_UAIN, FEE_PPM)


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


class Held:
    """A program whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0

    async def __call__(self, call: ProgramCall) -> ProgramReply:
        self.begun += 1
        await self.go.wait()
        return await shout(call)


async def fails(call: ProgramCall) -> ProgramReply:
    raise ProgramFailed(reason="it fell over", stderr="")


def asked(shop: Shop) -> int:
    return sum(request.startswith("POST /services/") for request in shop.requests)


def test_who_has_no_room_is_passed_by_and_paid_nothing(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        held = Held()
        full = await street.open(service, held, capacity=1)
        other = await street.open(service, price=DEARER)
        async with await street.buyer() as crowd, await street.buyer() as buyer:
            lane = next(iter(full.offers)).lane
            crowding = [asyncio.ensure_future(crowd.call(service.name, text="x")) for _ in range(1)]
            await until(lambda: held.begun == 1)
            # Calls take long there, so one more would wait longer than anybody may.
            lane.call_seconds = 30.0
            answer = await buyer.call(service.name, text="a")
            assert (answer.value, answer.provider) == ("A", other.key.address)
            (passed,) = answer.failed
            assert passed.provider == full.key.address and "30000 ms" in passed.reason
            # The next call knows that already.
            before = asked(full)
            again = await buyer.call(service.name, text="b")
            assert again.provider == other.key.address and not again.failed
            assert asked(full) == before
            assert [one["verdict"] for one in again.why["considered"]] == [CHOSEN, "resting"]
            held.go.set()
            await asyncio.gather(*crowding)
            assert full.spent_uain == PRICE_UAIN
            assert buyer.books.spent_uain(0) == other.spent_uain == 240

    on_a_street(story)


def test_when_everybody_is_full_a_call_waits_for_room(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        held = Held()
        shop = await street.open(service, held, capacity=1)
        async with await street.buyer() as crowd, await street.buyer() as buyer:
            crowding = asyncio.ensure_future(crowd.call(service.name, text="x"))
            await until(lambda: held.begun == 1)
            # A bit more than a call may wait, so the gateway says when it will be less.
            next(iter(shop.offers)).lane.call_seconds = 10.3
            calling = asyncio.ensure_future(buyer.call(service.name, text="a", deadline_seconds=60))
            await until(lambda: asked(shop) >= 3)
            assert not calling.done()
            held.go.set()
            assert (await calling).value == "A"
            await crowding
            assert shop.spent_uain == 2 * PRICE_UAIN

    on_a_street(story)


def test_one_buyer_with_many_calls_does_not_keep_another_one_out(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()

        go = asyncio.Event()
        go.set()

        async def slowly(call: ProgramCall) -> ProgramReply:
            await go.wait()
            return await shout(call)

        shop = await street.open(service, slowly, capacity=1)
        async with await street.buyer() as greedy, await street.buyer() as modest:
            await modest.call(service.name, text="first")
            await greedy.call(service.name, text="first")
            ended: list[str] = []

            async def one(buyer: AsyncClient, name: str) -> None:
                await buyer.call(service.name, text=name, deadline_seconds=60)
                ended.append(name)

            def queue(buyer: AsyncClient) -> int:
                return len(next(iter(shop.offers)).lane._queues.get(buyer.home.address(), ()))

            # However fast it works and however slowly they come, they wait.
            go.clear()
            calls = [asyncio.ensure_future(one(greedy, "greedy")) for _ in range(40)]
            await until(lambda: queue(greedy) > 8)
            calls.append(asyncio.ensure_future(one(modest, "modest")))
            await until(lambda: queue(modest) > 0)
            before = len(ended)
            go.set()
            await asyncio.gather(*calls)
            # Of all those who waited longer only a few are served before it: who is at work, and whose turn it is.
            assert ended.index("modest") <= before + 3

    on_a_street(story)


def test_a_provider_that_dies_with_a_call_and_comes_back_is_paid_once_and_nobody_else_is_called(
    on_a_street: Any,
) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        held = Held()
        first = await street.open(service, held)
        second = await street.open(service, price=DEARER)
        async with await street.buyer() as buyer:
            calling = asyncio.ensure_future(buyer.call(service.name, text="a"))
            await until(lambda: held.begun == 1)
            await first.stop()
            held.go.set()
            await asyncio.sleep(1.0)
            assert not calling.done() and asked(second) == 0
            await first.start()
            answer = await calling
            # It says that it did not do it, and then one of the two does.
            assert answer.value == "A"
            assert first.spent_uain + second.spent_uain == answer.price_uain == buyer.books.spent_uain(0)

    on_a_street(story)


def test_a_provider_that_vanishes_with_a_call_is_told_and_only_who_insists_calls_another_one(
    on_a_street: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is not waited for as long as usual.
    monkeypatch.setattr(outcomes, "VANISHED_SECONDS_MAX", 2.0)

    async def story(street: Street) -> None:
        service = await street.publish()
        held = Held()
        first = await street.open(service, held)
        second = await street.open(service, price=DEARER)
        async with await street.buyer() as buyer:
            calling = asyncio.ensure_future(buyer.call(service.name, text="a"))
            await until(lambda: held.begun == 1)
            # Breakers open for a second at first, and here the buyer's clock stands still.
            now_ms = clock_ms()
            (await buyer.calls())._standings._clock_ms = lambda: now_ms
            await first.stop()
            with pytest.raises(OutcomeUnknown) as refusal:
                await calling
            assert (refusal.value.provider, refusal.value.price) == (first.key.address, "0.0001")
            assert asked(second) == 0
            # Its breaker is open, so the next call does not go there.
            answer = await buyer.call(service.name, text="b")
            assert (answer.provider, answer.failed) == (second.key.address, ())
            states = {one.provider: one.breaker for one in answer.considered}
            assert states == {first.key.address: OPEN, second.key.address: CLOSED}

    on_a_street(story)


def test_what_was_learnt_of_providers_is_known_to_the_next_process(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        broken = await street.open(service, fails)
        good = await street.open(service, price=DEARER)
        home = await street.home()
        async with AsyncClient(home, street.node.url) as buyer:
            answer = await buyer.call(service.name, text="a")
            assert answer.provider == good.key.address
            assert [one.provider for one in answer.failed] == [broken.key.address]
        before = asked(broken)
        async with AsyncClient(home, street.node.url) as again:
            answer = await again.call(service.name, text="b")
            assert answer.provider == good.key.address and not answer.failed
            assert asked(broken) == before
            figures = {one.provider: one for one in answer.considered}
            assert figures[good.key.address].latency_ms > 0
            assert figures[broken.key.address].cost > figures[good.key.address].cost

    on_a_street(story)


def test_every_answer_tells_the_load(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service, capacity=7)
        async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
            path = f"/services/{service.full_name}/{service.version.program}/shout"
            unpaid = await http.post(f"{shop.endpoint}{path}", json={"text": "a"})
            assert (unpaid.status_code, unpaid.headers["openresource-load"]) == (402, "0/7;wait_ms=0")
            unfit = await http.post(f"{shop.endpoint}{path}", json={"text": 1})
            assert (unfit.status_code, unfit.headers["openresource-load"]) == (422, "0/7;wait_ms=0")

    on_a_street(story)


# ── connect ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Door:
    """One request to `connect`, whose client may hang up."""

    def __init__(self, path: str, body: Any) -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(b"host", b"127.0.0.1:8082")],
        }
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return await self._messages.get()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def hang_up(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


def test_connect_says_whom_it_chose_and_why(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shops = [await street.open(service), await street.open(service, price=DEARER)]
        async with await street.buyer() as buyer:
            door = Door(f"/{service.full_name}/shout", {"text": "a"})
            await Connect(buyer)(door.scope, door.receive, door.send)
            assert door.sent[0]["status"] == 200
            told = json.loads(door.headers["openresource-chosen"])
            assert told["candidates"] == 2 and told["failed"] == []
            assert [one["provider"] for one in told["considered"]] == [shop.key.address for shop in shops]
            assert told["considered"][0]["verdict"] == "chosen"

    on_a_street(story)


def test_a_client_of_connect_that_hangs_up_ends_the_stream_at_the_provider(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        chunks = Chunks()

        async def count(call: ProgramCall) -> ProgramReply:
            return ProgramReply(200, "application/x-ndjson", chunks)

        service = await street.publish()
        shop = await street.open(service, count)
        async with await street.buyer() as buyer:
            application = Connect(buyer)
            door = Door(f"/{service.full_name}/count", {})
            asking = asyncio.ensure_future(application(door.scope, door.receive, door.send))
            chunks.put(b"1\n")
            await until(lambda: any(b"data: 1" in one.get("body", b"") for one in door.sent))
            assert json.loads(door.headers["openresource-chosen"])["considered"]
            door.hang_up()
            await asyncio.wait_for(asking, 60)
            await until(lambda: chunks.is_closed)
            # What was sent is paid for, here and there, and no more than that.
            await until(lambda: shop.spent_uain == PRICE_UAIN)
            assert application.allowance.spent_uain == PRICE_UAIN

    on_a_street(story)
