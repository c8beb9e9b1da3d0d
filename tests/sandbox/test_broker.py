"""The broker: one line asks, one answers; whose call it is says a secret; it keeps its bounds and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from openresource.market.allowances import AllowanceUsedUp
from openresource.sandbox.broker import CONNECTIONS_MAX, REQUEST_BYTES_MAX, REQUESTS_BURST, Broker
from openresource.sandbox.driver import InnerAnswer, InnerRequest

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Caller:
    """Whoever answers a program's requests: at once, when it is let, or with a no."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[InnerRequest] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def left(self) -> dict[str, Any]:
        return {"left_uain": 5}

    async def ask(self, request: InnerRequest) -> InnerAnswer:
        self.asked.append(request)
        if request.service != "quick":
            await self.may_answer.wait()
        if request.service == "dear":
            raise AllowanceUsedUp(service="dear", required_uain=9, left_uain=5, budget_uain=5)
        return InnerAnswer(f"{self.name} {request.service}", {"total_uain": 1})


@asynccontextmanager
async def opened(in_flight: int | None = 1) -> AsyncIterator[Broker]:
    broker = await Broker.open()
    try:
        if in_flight is not None:
            broker.serve(lambda: in_flight)
        yield broker
    finally:
        await broker.close()
    assert not broker.folder.parent.exists()


async def ask(line: Line, request: Any) -> Any:
    line[1].write(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")
    return json.loads(await asyncio.wait_for(line[0].readline(), 60))


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 120))  # type: ignore[arg-type]


def test_what_is_asked_goes_to_whoever_made_the_call_and_comes_back() -> None:
    async def main() -> None:
        async with opened() as broker:
            assert stat.S_IMODE(broker.folder.parent.stat().st_mode) == 0o700
            caller = Caller("one")
            secret = broker.grant(caller)
            line = await asyncio.open_unix_connection(broker.path)
            request = {
                "service": "search",
                "method": "find",
                "input": {"q": 1},
                "max_price": "0.5",
                "allowance": "0.25",
                "deadline_seconds": 3,
                "policy": "one",
                "call": secret,
            }
            assert await ask(line, request) == {"output": "one search", "total_uain": 1}
            assert caller.asked == [InnerRequest("search", "find", {"q": 1}, 500_000, 250_000, 3.0, "one")]
            # A program that works on one call needs no secret.
            assert (await ask(line, {"service": "search"}))["output"] == "one search"
            assert await ask(line, {"show": "allowance"}) == {"allowance": {"left_uain": 5}}
            said = (await ask(line, {"service": "dear"}))["error"]
            assert (said["code"], said["facts"]["left_uain"]) == ("allowance-used-up", 5)

    run(main)


def test_a_request_is_for_the_call_whose_secret_it_bears_and_for_no_other() -> None:
    async def main() -> None:
        async with opened(in_flight=2) as broker:
            one, two = Caller("one"), Caller("two")
            first, second = broker.grant(one), broker.grant(two)
            line = await asyncio.open_unix_connection(broker.path)
            assert (await ask(line, {"service": "a", "call": second}))["output"] == "two a"
            assert (await ask(line, {"service": "a", "call": first}))["output"] == "one a"
            codes = [
                (await ask(line, request))["error"]["code"]
                for request in (
                    {"service": "a"},
                    {"service": "a", "call": "0" * 32},
                    {"service": "a", "call": first[:-1]},
                    {"service": "a", "call": "é" * 32},
                )
            ]
            assert codes == ["call-not-named", "call-over", "call-over", "call-over"]
            broker.revoke(first)
            assert (await ask(line, {"service": "a", "call": first}))["error"]["code"] == "call-over"
            assert [len(one.asked), len(two.asked)] == [1, 1]

    run(main)


@pytest.mark.parametrize(
    ("in_flight", "code"), [(None, "broker-closed"), (1, "no-allowance"), (3, "no-allowance")]
)
def test_without_an_allowance_a_program_calls_nobody(in_flight: int | None, code: str) -> None:
    async def main() -> None:
        async with opened(in_flight) as broker:
            line = await asyncio.open_unix_connection(broker.path)
            said = (await ask(line, {"service": "search"}))["error"]
            assert said["code"] == code and said["facts"]["service"] == "search" and said["remedy"]

    run(main)


def test_requests_with_an_id_are_answered_side_by_side_and_those_without_in_their_order() -> None:
    async def main() -> None:
        async with opened() as broker:
            caller = Caller("one")
            broker.grant(caller)
            caller.may_answer.clear()
            reader, writer = line = await asyncio.open_unix_connection(broker.path)
            writer.write(b'{"service": "slow", "id": 1}\n')
            assert (await ask(line, {"service": "quick", "id": "b"}))["id"] == "b"
            caller.may_answer.set()
            assert json.loads(await reader.readline())["id"] == 1
            caller.may_answer.clear()
            writer.write(b'{"service": "slow"}\n{"service": "quick"}\n')
            while len(caller.asked) < 3:
                await asyncio.sleep(0.01)
            caller.may_answer.set()
            outputs = [json.loads(await reader.readline())["output"] for _ in range(2)]
            assert outputs == ["one slow", "one quick"]

    run(main)


@pytest.mark.parametrize(
    "request_line",
    [
        b"[1]\n",
        b"{not json\n",
        b"[" * 5_000 + b"\n",
        b'{"service": 5}\n',
        b'{"service": "a", "unknown": 1}\n',
        b'{"service": "../a"}\n',
        b'{"service": "a", "input": [1]}\n',
        b'{"service": "a", "deadline_seconds": -1}\n',
        b'{"service": "a", "id": [1]}\n',
        b'{"service": "a", "show": "keys"}\n',
        b'{"service": "a", "input": "\xff"}\n',
    ],
)
def test_nonsense_is_explained_and_the_next_line_is_read(request_line: bytes) -> None:
    async def main() -> None:
        async with opened() as broker:
            broker.grant(Caller("one"))
            line = await asyncio.open_unix_connection(broker.path)
            said = (await ask(line, request_line))["error"]
            assert said["code"] == "broker-request-invalid" and said["remedy"]
            assert (await ask(line, {"service": "a"}))["output"] == "one a"

    run(main)


@pytest.mark.parametrize("amount", ["-1", "0.0000001", "x", "1e9", "99999999999999999999"])
def test_amounts_are_texts_of_ain(amount: str) -> None:
    async def main() -> None:
        async with opened() as broker:
            caller = Caller("one")
            broker.grant(caller)
            line = await asyncio.open_unix_connection(broker.path)
            assert "error" in await ask(line, {"service": "a", "max_price": amount})
            assert not caller.asked

    run(main)


def test_a_line_without_an_end_is_cut_off() -> None:
    async def main() -> None:
        async with opened() as broker:
            reader, writer = await asyncio.open_unix_connection(broker.path)
            writer.write(b"x" * (REQUEST_BYTES_MAX + 2))
            assert json.loads(await reader.readline())["error"]["code"] == "broker-request-invalid"
            assert await reader.read() == b""
            writer.close()

    run(main)


def test_connections_are_bounded() -> None:
    async def main() -> None:
        async with opened() as broker:
            lines = [await asyncio.open_unix_connection(broker.path) for _ in range(CONNECTIONS_MAX)]
            for line in lines:
                assert "error" in await ask(line, {"service": "a"})
            reader, writer = await asyncio.open_unix_connection(broker.path)
            assert await reader.read() == b""
            writer.close()
            for _, writer in lines:
                writer.close()

    run(main)


def test_a_program_that_floods_the_broker_is_answered_ever_later() -> None:
    async def main() -> None:
        async with opened() as broker:
            reader, writer = await asyncio.open_unix_connection(broker.path)
            loop = asyncio.get_running_loop()
            began = loop.time()
            writer.write(b"{}\n" * (REQUESTS_BURST + 50))
            for _ in range(REQUESTS_BURST + 50):
                assert b"no-allowance" in await reader.readline()
            assert loop.time() - began > 0.4

    run(main)


def test_who_hangs_up_or_is_closed_leaves_nothing_running() -> None:
    async def main() -> None:
        before = len(asyncio.all_tasks())
        broker = await Broker.open()
        broker.serve(lambda: 1)
        caller = Caller("one")
        broker.grant(caller)
        caller.may_answer.clear()
        _, writer = await asyncio.open_unix_connection(broker.path)
        _, other = await asyncio.open_unix_connection(broker.path)
        writer.write(b'{"service": "slow", "id": 1}\n')
        other.write(b'{"service": "slow"}\n')
        while len(caller.asked) < 2:
            await asyncio.sleep(0.01)
        writer.close()
        await broker.close()
        deadline = asyncio.get_running_loop().time() + 60
        while len(asyncio.all_tasks()) > before:
            assert asyncio.get_running_loop().time() < deadline, "something still runs"
            await asyncio.sleep(0.01)
        other.close()

    run(main)
