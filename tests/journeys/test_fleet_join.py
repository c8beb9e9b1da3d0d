"""Several machines behind one provider: they join by a key, take instances and calls, and may die at any time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openresource.client import AsyncClient
from openresource.provider.join_keys import KEY_FILE, JoinKeyInvalid, load_or_make_secret, read_join_key
from openresource.provider.joined import UNPROVEN_MAX
from openresource.provider.service import Provider
from openresource.provider.spread import JoinSettings
from tests.cli.support import environment
from tests.provider.market import Market, open_market, until, write_program
from tests.support.pipes import Lines

pytestmark = pytest.mark.journey
READY_SECONDS_MAX = 60.0

WHERE = '''
import os
import time
from collections.abc import Iterator


class Service:
    """Tells one instance from another."""

    def __init__(self) -> None:
        self.born = os.urandom(8).hex()

    def shout(self, text: str) -> str:
        """In capitals."""
        return text.upper()

    def nap(self, seconds: float) -> str:
        """Takes its time, and says who it is."""
        time.sleep(seconds)
        return self.born

    def count(self, to: int) -> Iterator[int]:
        """One after the other."""
        yield from range(1, to + 1)
'''


class Joined:
    """A machine that works for the provider, as a process of its own."""

    def __init__(self, folder: Path, key: str, *words: str) -> None:
        self._log = folder.with_suffix(".log")
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "openresource",
                    "provide",
                    "--join",
                    key,
                    "--home",
                    str(folder),
                    "--json",
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment({"OPENRESOURCE_CACHE": str(folder / "cache")}),
            )
        assert self._process.stdout is not None
        self._out = Lines(self._process.stdout)

    def said(self, member: str, text: str = "", seconds: float = READY_SECONDS_MAX) -> dict[str, Any]:
        """The next line with this member that contains the text."""
        ends = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while line := self._out.next(ends - time.monotonic()):
                facts = json.loads(line)
                if member in facts and text in str(facts[member]):
                    return dict(facts)
        raise AssertionError(f"it did not say {member} {text}: {self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        """kill -9."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(60)

    def stop(self) -> int:
        """SIGTERM."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def exit_code(self) -> int:
        """Waits for its own end."""
        return self._process.wait(READY_SECONDS_MAX)


@contextmanager
def joined(folder: Path, key: str, *words: str) -> Iterator[Joined]:
    """A machine that joins for a while."""
    machine = Joined(folder, key, *words)
    try:
        yield machine
    finally:
        machine.stop()


def with_a_pool(
    folder: Path,
    work: Callable[[Market, Provider, AsyncClient], Awaitable[Any]],
    *,
    instances: int = 1,
    seconds: float = 150.0,
) -> None:
    """A provider that others may join, its program placed, and a buyer."""

    async def body() -> None:
        async with open_market(folder) as market:
            provider = await market.provide(
                instances=instances, warm=instances, joins=JoinSettings(), idle_seconds=600.0
            )
            await market.publish(write_program(folder / "program", source=WHERE))
            async with await market.buyer() as buyer:
                await work(market, provider, buyer)

    asyncio.run(asyncio.wait_for(body(), seconds))


async def names_of(buyer: AsyncClient, count: int, seconds: float = 0.3) -> set[str]:
    """Which instances answer, when so many calls run at once."""
    answers = await asyncio.gather(*(buyer.call("shout", "nap", seconds=seconds) for _ in range(count)))
    return {str(answer.value) for answer in answers}


async def use_all(buyer: AsyncClient, provider: Provider, count: int = 1) -> None:
    """Calls until instances have started over there."""
    ends = time.monotonic() + 60
    while sum(one["instances"] for one in provider.machines) < count:
        assert time.monotonic() < ends, "no instance has started on another machine"
        await names_of(buyer, 3)


def test_fleet_join_spreads_calls_over_the_machines(tmp_path: Path) -> None:
    async def work(market: Market, provider: Provider, buyer: AsyncClient) -> None:
        assert oct((provider.settings.folder / "join.key").stat().st_mode & 0o777) == "0o600"
        with joined(tmp_path / "second", f"@{provider.join_key_file}") as machine:
            await asyncio.to_thread(machine.said, "join", "Joined")
            await until(lambda: _true(len(provider.machines) == 1))
            await use_all(buyer, provider)
            # Every kind of answer comes from over there as it does from here.
            for _ in range(6):
                answers, values = await asyncio.gather(names_of(buyer, 3, 0.2), _values(buyer, 50))
                assert answers and values == list(range(1, 51))
            large = "x" * 400_000
            found = await asyncio.gather(*(buyer.call("shout", "shout", text=large) for _ in range(6)))
            assert all(answer.value == large.upper() for answer in found)
            assert not (tmp_path / "second" / "wallet.json").exists()
        # It said goodbye: what it had starts elsewhere, and nobody notices.
        await until(lambda: _true(not provider.machines))
        assert await names_of(buyer, 3)
        assert provider.health()[1]["machines"] == 0

    with_a_pool(tmp_path, work)


async def _values(buyer: AsyncClient, to: int) -> list[Any]:
    return [value async for value in buyer.stream("shout", "count", to=to)]


async def _true(value: bool) -> bool:
    return value


def test_fleet_join_a_machine_that_is_killed_loses_no_call(tmp_path: Path) -> None:
    async def work(market: Market, provider: Provider, buyer: AsyncClient) -> None:
        for round_number in range(2):
            with joined(tmp_path / f"doomed-{round_number}", provider.join_key) as machine:
                await asyncio.to_thread(machine.said, "join", "Joined")
                await use_all(buyer, provider)
                before = sum(account.tab.spent_uain for account in provider.admission.accounts)
                calls = asyncio.gather(*(buyer.call("shout", "nap", seconds=1.5) for _ in range(3)))
                await asyncio.sleep(0.5)
                machine.kill()
                # Calls that were over there are done again here; nothing is paid twice.
                answers = await calls
                assert len(answers) == 3 and all(len(str(answer.value)) == 16 for answer in answers)
                after = sum(account.tab.spent_uain for account in provider.admission.accounts)
                assert after - before == 300
                await until(lambda: _true(not provider.machines))

    with_a_pool(tmp_path, work)


def test_fleet_join_needs_the_key_of_this_provider(tmp_path: Path) -> None:
    async def work(market: Market, provider: Provider, buyer: AsyncClient) -> None:
        good = read_join_key(provider.join_key)
        wrong = {
            "secret": replace(good, secret="0" * 64),
            "pin": replace(good, pin="0x" + "0" * 64),
        }
        for name, key in wrong.items():
            machine = Joined(tmp_path / name, key.text())
            assert await asyncio.to_thread(machine.exit_code) == 1
            machine.stop()
            said = (tmp_path / name).with_suffix(".log").read_text()
            assert "Traceback" not in said
        assert provider.machines == []
        with joined(tmp_path / "good", provider.join_key) as machine:
            await asyncio.to_thread(machine.said, "join", "Joined")
            await until(lambda: _true(len(provider.machines) == 1))
            # A key that is taken back lets go of who joined with it, and opens nothing any more.
            load_or_make_secret(provider.settings.folder, renew=True)
            await until(lambda: _true(not provider.machines))
            assert await asyncio.to_thread(machine.exit_code) == 1

    with_a_pool(tmp_path, work)


def test_fleet_join_a_flood_of_strangers_is_bounded(tmp_path: Path) -> None:
    async def work(market: Market, provider: Provider, buyer: AsyncClient) -> None:
        key = read_join_key(provider.join_key)
        held = []
        for _ in range(100):
            held.append(await asyncio.open_connection(key.host, key.port))
        hub = provider._fleet.hub
        assert hub is not None
        for garbage in (b"\x16\x03\x01" + os.urandom(500), b"GET / HTTP/1.1\r\n\r\n", os.urandom(5_000)):
            for _, writer in held[:30]:
                writer.write(garbage)
        await asyncio.sleep(0.5)
        assert hub._unproven <= UNPROVEN_MAX and not hub.machines and len(hub._serving) <= UNPROVEN_MAX
        assert (await buyer.call("shout", "shout", text="still here")).value == "STILL HERE"
        for _, writer in held:
            writer.transport.abort()
        with joined(tmp_path / "late", provider.join_key) as machine:
            await asyncio.to_thread(machine.said, "join", "Joined")

    with_a_pool(tmp_path, work)


@pytest.mark.parametrize(
    "text", ["", "orjoin1.", "orjoin1.!!!!", "orjoin1.W10", "other", "orjoin1." + "A" * 2_000]
)
def test_fleet_join_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(JoinKeyInvalid):
        read_join_key(text)


def test_fleet_join_a_secret_is_kept_and_renewed(tmp_path: Path) -> None:
    first = load_or_make_secret(tmp_path)
    assert load_or_make_secret(tmp_path) == first
    assert oct((tmp_path / KEY_FILE).stat().st_mode & 0o777) == "0o600"
    assert load_or_make_secret(tmp_path, renew=True) != first
