"""Claims on their way: what was decided is not sent a second time when the node goes away in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openresource.client.answers import NodeAway, TransactionInfo, TransactionRefused
from openresource.provider import admission, claims
from openresource.provider.claims import Claims
from openresource.provider.metrics import Metrics
from tests.provider.support import (
    BUYER,
    PROGRAM,
    PROVIDER,
    Clock,
    Desk,
    MemoryLedger,
    Purse,
    open_desk,
    paid_call,
)

PRICE = 100


class MoodyChain(MemoryLedger):
    """Refuses everything that names the first channel, is away once for the second alone, then takes it."""

    url = "http://moody"
    refused_id = "aa" * 8
    was_away = False

    async def submit_final(
        self, operations: list[Any], key: Any, *, deadline_seconds: float
    ) -> TransactionInfo:
        paths = [operation.ref for operation in operations]
        self.sent.append(paths)
        if any(self.refused_id in path for path in paths):
            raise TransactionRefused(result_code=1, reason="it is not liked")
        if not self.was_away:
            self.was_away = True
            raise NodeAway(url=self.url, doing="claiming", waited_seconds=0, reason="it sleeps")
        for operation in operations:
            _, _, buyer, channel_id, *_ = operation.ref.split("/")
            self.change(f"{buyer}/{channel_id}", nonce=1, claimed_uain=PRICE, value_uain=0)
        return TransactionInfo("0x12", "FINALIZED", 1, 0, True, None, {})

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[list[str]] = []


async def used_channel(desk: Desk, channel_id: str) -> str:
    name = desk.ledger.open(channel_id, deposit_uain=1_000, at_ms=desk.clock.now_ms)
    purse = Purse(name, secret=channel_id.encode().ljust(32))
    account = await desk.admission.account(name)
    call = purse.call(1)
    await desk.admission.begin(account, PROGRAM, call, b"f" * 16, purse.header(PRICE))
    await desk.admission.complete(account, call, paid_call(desk, name, call, PRICE))
    return name


def test_a_claim_that_was_refused_is_not_sent_again_with_those_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RETRY_SECONDS", 0.01)

    async def body() -> None:
        chain = MoodyChain()
        desk = open_desk(tmp_path, chain, Clock())
        bad, good = await used_channel(desk, "aa" * 8), await used_channel(desk, "bb" * 8)
        sender = Claims(
            admission=desk.admission,
            chain=chain,  # type: ignore[arg-type]
            key=PROVIDER,
            books=desk.books,
            metrics=Metrics(),
            clock_ms=desk.clock,
        )
        running = asyncio.ensure_future(sender.run())
        left = await sender.settle_all(60)
        assert [account.name for account in left] == [bad]
        account = desk.admission.known_account(good)
        assert account is not None and account.tab.nonce == 1
        assert [len(paths) for paths in chain.sent] == [2, 1, 1, 1]
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
        await desk.close()

    asyncio.run(asyncio.wait_for(body(), 60))


def test_channels_that_events_announce_are_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "ACCOUNTS_MAX", 1)

    async def body() -> None:
        desk = open_desk(tmp_path, MemoryLedger(), Clock())
        for channel_id in ("aa" * 8, "bb" * 8):
            name = desk.ledger.open(channel_id, deposit_uain=1_000, at_ms=desk.clock.now_ms)
            desk.admission.channel_opened(name, desk.ledger.values[f"/channels/{name}/state"], 1_000)
        assert [account.name for account in desk.admission.accounts] == [f"{BUYER.address}/{'aa' * 8}"]
        await desk.close()

    asyncio.run(asyncio.wait_for(body(), 60))
