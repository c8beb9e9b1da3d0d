"""A provider on a real chain: it takes what was published, sells calls, is paid, and leaves in good order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.market.accounts import channel_account
from openresource.primitives.errors import Refusal
from openresource.provider.server import PortTaken
from openresource.provider.service import clock_ms
from tests.provider.market import Market, open_market, open_raw_buyer, until, write_program

pytestmark = pytest.mark.journey


def on_a_market(folder: Path, work: Callable[[Market], Awaitable[Any]], seconds: float = 170) -> Any:
    async def body() -> Any:
        async with open_market(folder) as market:
            return await work(market)

    return asyncio.run(asyncio.wait_for(body(), seconds))


def test_from_publication_to_the_last_coin(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        record = await market.chain.read(
            f"/placements/{market.publisher.address}/shout/{prepared.program}/{provider.address}"
        )
        assert (record["status"], record["ask_uain"], record["endpoint"]) == ("PLACED", 80, provider.endpoint)
        assert await market.chain.balance(provider.address) == 0
        buyer = await market.buyer()
        async with buyer:
            for number in range(5):
                answer = await buyer.call("shout", "shout", text=f"number {number}")
                assert answer.value == f"NUMBER {number}"
            channels = [account for account in provider.admission.accounts if account.tab.spent_uain]
            assert [account.tab.spent_uain for account in channels] == [500]
            tx_hash = await provider.claims.settle(channels[0])
            assert tx_hash.startswith("0x")
        # 2 % fee, a fifth royalty, the rest to the provider, and the deposit went home.
        assert await market.chain.balance("treasury|market|fees") == 10
        assert await market.chain.balance(market.publisher.address) == 100
        assert await market.chain.balance(provider.address) == 390
        assert await market.chain.balance(buyer.home.address()) == 5_000_000 - 500
        earned = await provider.earnings()
        assert (earned["claims"], earned["paid_out_uain"], earned["unclaimed_uain"]) == (1, 390, 0)

    on_a_market(tmp_path, work)


def test_a_stream_comes_piece_by_piece_and_is_paid_once(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        await market.publish(write_program(tmp_path / "program"))
        async with await market.buyer() as buyer:
            values = [value async for value in buyer.stream("shout", "count", to=5)]
            assert values == [1, 2, 3, 4, 5]
            assert provider.admission.accounts[0].tab.spent_uain == 100

    on_a_market(tmp_path, work)


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        port = int(provider.endpoint.rpartition(":")[2])
        with pytest.raises(PortTaken):
            await market.provide("other", port=port)
        again = await market.provide("other")
        assert again.endpoint != provider.endpoint

    on_a_market(tmp_path, work)


def test_a_provider_that_stops_settles_and_says_that_it_is_gone(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        async with await market.buyer() as buyer:
            assert (await buyer.call("shout", "shout", text="a")).value == "A"
            await provider.stop()
            path = (
                f"/placements/{market.publisher.address}/shout/{prepared.program}/{provider.address}/status"
            )
            assert await market.chain.read(path) == "GONE"
            assert await market.chain.balance(provider.address) == 78
            assert await buyer.balance() == 5_000_000 - 100
            # It comes back under the same key and place, and is found again.
            again = await market.provide()
            await until(lambda: len(again.offers) == 1)
            assert again.endpoint == provider.endpoint
            assert await market.chain.read(path) == "PLACED"
            assert (await buyer.call("shout", "shout", text="b")).value == "B"

    on_a_market(tmp_path, work)


def test_large_sums_are_claimed_while_calls_go_on(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide(claim_threshold_uain=500)
        await market.publish(write_program(tmp_path / "program"))
        async with await market.buyer() as buyer:
            for number in range(30):
                assert (await buyer.call("shout", "shout", text=str(number))).value == str(number)
            await until(lambda: provider.metrics.value("openresource_claimed_uain_total") >= 500)
            account = provider.admission.accounts[0]
            assert account.tab.nonce >= 1
            await provider.stop()
            # Right after a claim there is no voucher yet that a send-back could stand on; the rest waits for the expiry.
            identifier = account.name.rpartition("/")[2]
            rest = await market.chain.balance(channel_account(account.buyer, identifier))
            assert await buyer.balance() + rest == 5_000_000 - 30 * 100

    on_a_market(tmp_path, work)


def test_calls_go_on_while_the_node_is_away(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        certificate = provider.settings.folder / "tls.pem"
        buyer = await open_raw_buyer(market, provider.address, prepared.program, certificate)
        async with buyer.http:
            assert (await buyer.call("shout", {"text": "a"}, sequence=0, total_uain=100)).json() == "A"
            market.node.kill()
            for number in range(1, 20):
                answer = await buyer.call(
                    "shout", {"text": f"a{number}"}, sequence=number, total_uain=100 * (number + 1)
                )
                assert answer.json() == f"A{number}"
            await until(lambda: "away" in provider.health()[1]["node"])
            assert provider.health()[0], "calls are still taken"
            market.node.start()
            await until(lambda: provider.health()[1]["node"] == "ok")
            settled = await buyer.settle()
            assert settled["claimed_uain"] == 2_000
            assert await market.chain.balance(provider.address) == 1_560

    on_a_market(tmp_path, work)


def test_a_channel_is_claimed_before_it_expires(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        certificate = provider.settings.folder / "tls.pem"
        buyer = await open_raw_buyer(
            market, provider.address, prepared.program, certificate, lifetime_ms=200_000
        )
        async with buyer.http:
            assert (await buyer.call("shout", {"text": "a"}, sequence=0, total_uain=100)).status_code == 200
            assert provider.metrics.value("openresource_claimed_uain_total") == 0
            # For whoever decides about claims, it is three minutes later.
            provider.claims._clock_ms = lambda: clock_ms() + 190_000
            await until(lambda: provider.metrics.value("openresource_claimed_uain_total") == 100)
            state = await market.chain.read(f"/channels/{buyer.purse.channel}/state")
            assert (await market.chain.status()).time_ms < state["expires_at_ms"]
            late = await buyer.call("shout", {"text": "b"}, sequence=1, total_uain=200)
            assert late.status_code == 402

    on_a_market(tmp_path, work)


def test_many_channels_are_settled_in_few_transactions(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        certificate = provider.settings.folder / "tls.pem"
        key = await market.node.funded_key(5_000_000)
        buyers = [
            await open_raw_buyer(
                market, provider.address, prepared.program, certificate, key=key, deposit_uain=10_000
            )
            for _ in range(12)
        ]
        for buyer in buyers:
            assert (await buyer.call("shout", {"text": "a"}, sequence=0, total_uain=500)).status_code == 200
        # The first transaction waits until all have asked, however long their requests take.
        claims, submit = provider.claims, provider.claims._chain.submit_final

        async def submit_later(*arguments: Any, **options: Any) -> Any:
            await until(lambda: len(asked) == len(buyers) and not claims._preparing)
            return await submit(*arguments, **options)

        asked: set[str] = set()
        begin = claims._begin

        def begin_and_count(account: Any, **options: Any) -> Any:
            asked.add(account.name)
            return begin(account, **options)

        claims._begin = begin_and_count  # type: ignore[method-assign]
        claims._chain.submit_final = submit_later  # type: ignore[method-assign]
        settled = await asyncio.gather(*[buyer.settle() for buyer in buyers])
        assert len({one["tx_hash"] for one in settled}) <= 3
        assert await market.chain.balance(provider.address) == 12 * 78
        assert await market.chain.balance(key.address) == 5_000_000 - 12 * 100
        for buyer in buyers:
            await buyer.http.aclose()

    on_a_market(tmp_path, work)


def test_what_cannot_run_is_refused_with_a_reason_on_the_chain(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide(ask_uain=5_000)
        prepared, _ = await market.publish(write_program(tmp_path / "program"), wait_seconds=0)
        path = f"/placements/{market.publisher.address}/shout/{prepared.program}/{provider.address}"

        async def record() -> Any:
            return await market.chain.read(path)

        found = await until(record)
        assert found["status"] == "REFUSED"
        assert "cap" in found["reason"]
        assert not len(provider.offers)

    on_a_market(tmp_path, work)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"service.py": "class Service:\n    def shout(self, text: str) -> str:\n        return 'no'\n"},
            "shout",
        ),
        ({"service.py": "raise RuntimeError('not today')\n"}, "did not start"),
        ({"openresource.toml": "name = 'shout'"}, "run"),
    ],
)
def test_a_release_that_does_not_work_is_refused_and_never_called(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    """Such a release is put on the chain by hand, as the publisher's own tools would not let it pass."""

    async def work(market: Market) -> None:
        provider = await market.provide()
        folder = write_program(tmp_path / "program")
        for name, text in changes.items():
            (folder / name).write_text(text)
        program = await publish_by_hand(market, folder)
        path = f"/placements/{market.publisher.address}/shout/{program}/{provider.address}"

        async def refused() -> Any:
            record = await market.chain.read(path)
            return record if isinstance(record, dict) and record["status"] == "REFUSED" else None

        record = await until(refused)
        assert words in record["reason"]
        assert not len(provider.offers)

    on_a_market(tmp_path, work)


async def publish_by_hand(market: Market, folder: Path) -> str:
    from openresource.client.chain import set_value

    program = await market.chain.put_folder(folder)
    publisher = market.publisher.address
    version = {
        "version": "1.0.0",
        "unit": "call",
        "royalty_uain": 20,
        "price_cap_uain": 1000,
        "license": "MIT",
        "summary": "Says it again, louder.",
        "exactness": "bit_exact",
        "bytes": 1000,
    }
    await market.chain.submit_final(
        [
            set_value(f"/programs/{program}", {"publisher": publisher, "name": "shout", "bytes": 1000}),
            set_value(f"/services/{publisher}/shout/versions/{program}", version),
        ],
        market.publisher,
    )
    return program


def test_who_may_not_run_it_any_more_withdraws_and_settles(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        buyer = await open_raw_buyer(
            market, provider.address, prepared.program, provider.settings.folder / "tls.pem"
        )
        assert (await buyer.call("shout", {"text": "a"}, sequence=0, total_uain=100)).status_code == 200
        base = f"/services/{market.publisher.address}/shout/permissions"
        await market.chain.write(base, {"run": {buyer.key.address: True}}, market.publisher)
        path = f"/placements/{market.publisher.address}/shout/{prepared.program}/{provider.address}/status"

        async def is_gone() -> bool:
            return bool(await market.chain.read(path) == "GONE")

        await until(is_gone)
        assert await market.chain.balance(provider.address) == 78
        assert await market.chain.balance(buyer.key.address) == 2_000_000 - 100
        assert (await buyer.call("shout", {"text": "b"}, sequence=1)).status_code in (404, 503)
        await buyer.http.aclose()

    on_a_market(tmp_path, work)


def test_nothing_is_announced_for_what_the_operator_does_not_want(tmp_path: Path) -> None:
    from openresource.provider.policies import Policy

    async def work(market: Market) -> None:
        provider = await market.provide(policy=Policy("own"))
        await market.publish(write_program(tmp_path / "program"), wait_seconds=0)
        await market.chain.wait_ready(60)
        provider.placements.look_again()
        await asyncio.sleep(0.5)
        assert await market.chain.read(f"/placements/{market.publisher.address}") is None

    on_a_market(tmp_path, work)


def test_a_machine_that_is_too_weak_does_not_start(tmp_path: Path) -> None:
    from openresource.provider.policies import IsolationTooLow, Policy
    from openresource.provider.service import Provider, Settings
    from openresource.sandbox.driver import Capabilities
    from openresource.sandbox.drivers import Drivers
    from tests.provider.support import key_of

    class Weak:
        def probe(self) -> Capabilities:
            return Capabilities(level="confined", available=True)

        async def start(self, release: Any, limits: Any) -> Any:
            raise AssertionError("never started")

    async def work() -> None:
        settings = Settings(folder=tmp_path, policy=Policy("all", min_level="bubblewrap"))
        provider = Provider(settings, key=key_of("p"), chain=None, drivers=Drivers([Weak()]))  # type: ignore[arg-type]
        with pytest.raises(IsolationTooLow) as caught:
            await provider.start()
        assert isinstance(caught.value, Refusal)

    asyncio.run(work())
