"""The provider is killed in the middle of work, again and again: no paid answer is lost, none is paid twice, and every
channel can be settled afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.provider.market import Market, RawBuyer, open_market, open_raw_buyer, until, write_program
from tests.provider.support import key_of, receipt_of

pytestmark = [pytest.mark.kill, pytest.mark.journey, pytest.mark.timeout(600)]

KILLS = 6
BUYERS = 4
START_SECONDS_MAX = 120.0


class ProviderProcess:
    """A provider that can be killed and started again on the same folder."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = market.folder / "provider"
        market.keep_port(self.folder)
        self.address = key_of("provider").address

    async def start(self) -> None:
        command = [sys.executable, "-m", "tests.provider.provider_process"]
        command += ["--folder", str(self.folder), "--node", self._market.node.url]
        command += ["--publisher", self._market.publisher.address]
        with open(self._market.folder / "provider.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=dict(os.environ)
            )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), START_SECONDS_MAX)
        assert line, (self._market.folder / "provider.log").read_text()
        assert json.loads(line)["address"] == self.address

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(120)
            assert process.stdout is not None
            process.stdout.close()


def with_a_provider(folder: Path, work: Callable[[Market, ProviderProcess, str], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        async with open_market(folder) as market:
            provider = ProviderProcess(market)
            try:
                await provider.start()
                prepared, _ = await market.publish(write_program(folder / "program"))
                return await work(market, provider, prepared.program)
            finally:
                provider.kill()

    return asyncio.run(asyncio.wait_for(body(), 580))


class Shopper:
    """A buyer who calls without pause and repeats a call under its number until it is answered."""

    def __init__(self, buyer: RawBuyer) -> None:
        self.buyer = buyer
        self.answers: dict[int, tuple[bytes, str]] = {}
        self.retries = 0

    async def shop(self, is_over: asyncio.Event) -> None:
        sequence = 0
        while not is_over.is_set():
            await self._until_answered(sequence)
            sequence += 1

    async def _until_answered(self, sequence: int) -> None:
        total_uain = (sequence + 1) * self.buyer.price_uain
        async with asyncio.timeout(120):
            while True:
                try:
                    response = await self.buyer.call(
                        "shout", {"text": f"call {sequence}"}, sequence=sequence, total_uain=total_uain
                    )
                except httpx2.TransportError:
                    self.retries += 1
                    await asyncio.sleep(0.02)
                    continue
                if response.status_code == 200:
                    break
                # Right after its start the gateway listens before the program is placed again.
                assert response.status_code == 503, response.text
                self.retries += 1
                await asyncio.sleep(0.02)
        self.answers[sequence] = (response.content, response.headers["openresource-receipt"])
        assert response.json() == f"CALL {sequence}"


def test_no_kill_loses_or_doubles_a_paid_call(tmp_path: Path) -> None:
    chance = random.Random(20261122)

    async def work(market: Market, provider: ProviderProcess, program: str) -> None:
        certificate = provider.folder / "tls.pem"
        buyers = [await open_raw_buyer(market, provider.address, program, certificate) for _ in range(BUYERS)]
        shoppers = [Shopper(buyer) for buyer in buyers]
        is_over = asyncio.Event()
        shopping = [asyncio.create_task(shopper.shop(is_over)) for shopper in shoppers]
        for _ in range(KILLS):
            seen = sum(len(shopper.answers) for shopper in shoppers)
            await until(lambda seen=seen: sum(len(shopper.answers) for shopper in shoppers) > seen + 20, 120)
            await asyncio.sleep(chance.random() * 0.3)
            provider.kill()
            await provider.start()
        seen = sum(len(shopper.answers) for shopper in shoppers)
        await until(lambda: sum(len(shopper.answers) for shopper in shoppers) > seen + 20, 120)
        is_over.set()
        await asyncio.gather(*shopping)
        assert sum(shopper.retries for shopper in shoppers) >= KILLS
        for shopper in shoppers:
            buyer, calls = shopper.buyer, len(shopper.answers)
            # Every number gives the same bytes and the same receipt once more, across all the kills.
            for sequence in chance.sample(range(calls), min(calls, 10)):
                again = await buyer.call("shout", {"text": f"call {sequence}"}, sequence=sequence)
                assert (again.content, again.headers["openresource-receipt"]) == shopper.answers[sequence]
            completed = sorted(
                receipt_of(_Headers(header)).completed
                for _, header in shopper.answers.values()  # type: ignore[arg-type]
            )
            assert completed == list(range(1, calls + 1)), "each call was counted once, none was left out"
            tab = await buyer.tab()
            assert (tab["spent_uain"], tab["in_flight_uain"]) == (calls * buyer.price_uain, 0)
            settled = await buyer.settle()
            assert settled["claimed_uain"] == calls * buyer.price_uain
            await buyer.http.aclose()
        total = sum(len(shopper.answers) for shopper in shoppers)
        assert await market.chain.balance(provider.address) == total * 78

    with_a_provider(tmp_path, work)


def test_a_claim_that_was_interrupted_arrives_once(tmp_path: Path) -> None:
    async def work(market: Market, provider: ProviderProcess, program: str) -> None:
        certificate = provider.folder / "tls.pem"
        for delay_seconds in (0.0, 0.005, 0.02, 0.05):
            buyer = await open_raw_buyer(market, provider.address, program, certificate)
            before = await market.chain.balance(provider.address)
            await until(lambda buyer=buyer: _serves(buyer))
            for sequence in range(3):
                answer = await buyer.call("shout", {"text": "x"}, sequence=sequence, total_uain=300)
                assert answer.status_code == 200, answer.text
            settling = asyncio.create_task(buyer.settle())
            await asyncio.sleep(delay_seconds)
            provider.kill()
            await asyncio.gather(settling, return_exceptions=True)
            await provider.start()

            async def is_closed(buyer: RawBuyer = buyer) -> bool:
                state = await market.chain.read(f"/channels/{buyer.purse.channel}/state")
                return bool(state["expires_at_ms"] == 0)

            # If the wish to settle did not reach the disk, it is made again; if it did, this finds it settled.
            await until(lambda buyer=buyer: _serves(buyer))
            if not await is_closed():
                await buyer.settle()
            await until(is_closed)
            assert await market.chain.balance(provider.address) == before + 234
            await buyer.http.aclose()

    with_a_provider(tmp_path, work)


def test_sigterm_lets_the_call_in_flight_end_and_settles(tmp_path: Path) -> None:
    async def work(market: Market, provider: ProviderProcess, program: str) -> None:
        buyer = await open_raw_buyer(market, provider.address, program, provider.folder / "tls.pem")
        calling = asyncio.create_task(buyer.call("nap", {"seconds": 6}, sequence=0, total_uain=100))
        await until(lambda: _works(buyer))
        stopping = asyncio.create_task(asyncio.to_thread(provider.stop))
        answer = await calling
        assert (answer.status_code, answer.json()) == (200, 6)
        await stopping
        assert await market.chain.balance(provider.address) == 78
        path = f"/placements/{market.publisher.address}/shout/{program}/{provider.address}/status"
        assert await market.chain.read(path) == "GONE"
        await buyer.http.aclose()

    with_a_provider(tmp_path, work)


async def _serves(buyer: RawBuyer) -> bool:
    try:
        return (await buyer.http.get(f"{buyer.path}/interface.json")).status_code == 200
    except httpx2.TransportError:
        return False


async def _works(buyer: RawBuyer) -> bool:
    return '"in_flight":1' in (await buyer.http.get("/healthz")).text


class _Headers:
    """A response as far as `receipt_of` looks."""

    def __init__(self, receipt: str) -> None:
        self.headers = {"openresource-receipt": receipt}
