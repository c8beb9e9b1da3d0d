"""Claims what was earned: in batches, in time, once, and never more than the receipts add up to.

A channel is claimed when its unpaid sum is large, has waited long, before it expires, when its buyer settles, and
when the provider stops. What a claim is about is in the journal before it leaves; whether it arrived is read from the
chain, so a claim that is there is not sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openresource.client.chain import (
    BadAnswer,
    Chain,
    NodeAway,
    NodeRefused,
    Operation,
    TransactionDropped,
    TransactionNotFinal,
    TransactionRefused,
    set_value,
)
from openresource.market.accounts import channel_account
from openresource.market.fees import split_claim
from openresource.market.tabs import claim_is_due
from openresource.market.vouchers import Voucher
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey
from openresource.primitives.limits import OPERATIONS_PER_TRANSACTION_MAX
from openresource.provider.accounts import Account
from openresource.provider.admission import Admission, ClaimUnderWay
from openresource.provider.books import Books
from openresource.provider.metrics import Metrics

log = logging.getLogger("openresource.provider.claims")

TICK_SECONDS = 0.5
# Those that become ready within this time share a transaction.
GATHER_SECONDS = 0.01
# Room for everything of a transaction that is not its operations.
ENVELOPE_BYTES = 600
# Below what a node takes as one transaction.
BATCH_BYTES_MAX = 90_000
FINAL_SECONDS = 20.0
RETRY_SECONDS = 1.0
SETTLE_SECONDS = 30.0
DRAIN_SECONDS_MAX = 600.0
THRESHOLD_UAIN_DEFAULT = 1_000_000
INTERVAL_MS_DEFAULT = 10 * 60 * 1000
FORGET_MS = 10 * 60 * 1000

_UNCERTAIN = (NodeAway, BadAnswer, NodeRefused, TransactionDropped, TransactionNotFinal)


@dataclass(slots=True)
class Claim:
    """One channel's claim on its way."""

    account: Account
    voucher: Voucher
    nonce: int
    amount_uain: int
    send_back: bool

    @property
    def operation(self) -> Operation:
        """The write; its record's name follows from what is claimed, so the same claim is the same record."""
        record = keccak(f"{self.account.name}#{self.nonce}".encode()).hex()[:32]
        value: dict[str, Any] = {
            "nonce": self.nonce,
            "total_uain": self.voucher.total_uain,
            "session": "0x" + self.voucher.session.hex(),
            "acknowledged": self.voucher.acknowledged,
            "receipts": "0x" + self.voucher.receipts.hex(),
            "signature": "0x" + self.voucher.signature.hex(),
            "amount_uain": self.amount_uain,
        }
        if self.send_back:
            value["send_back"] = True
        return set_value(f"/channels/{self.account.name}/claim/{record}", value)


class Claims:
    """Decides when to claim, prepares claims, sends them in batches and sees them through."""

    def __init__(
        self,
        *,
        admission: Admission,
        chain: Chain,
        key: PrivateKey,
        books: Books,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        threshold_uain: int = THRESHOLD_UAIN_DEFAULT,
        interval_ms: int = INTERVAL_MS_DEFAULT,
    ) -> None:
        self._admission = admission
        self._chain = chain
        self._key = key
        self._books = books
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._threshold_uain = threshold_uain
        self._interval_ms = interval_ms
        self._ready: list[Claim] = []
        self._has_ready = asyncio.Event()
        self._under_way: dict[str, asyncio.Future[str]] = {}
        self._preparing: set[asyncio.Task[None]] = set()
        self._waits_for = ""

    @property
    def waits_for(self) -> str:
        """What keeps claims from being made at present; empty if nothing does."""
        return self._waits_for

    # ── When ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Looks for due claims and sends what is ready, until cancelled."""
        self._take_up()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_ready())
            while True:
                self._look()
                await asyncio.sleep(TICK_SECONDS)

    def _look(self) -> None:
        now = self._clock_ms()
        for account in self._admission.accounts:
            if account.name in self._under_way:
                continue
            tab = account.tab
            if tab.spent_uain and not account.unclaimed_since_ms:
                account.unclaimed_since_ms = now
            waited_ms = now - account.unclaimed_since_ms if tab.spent_uain else 0
            if (
                claim_is_due(
                    tab,
                    expires_at_ms=account.channel.expires_at_ms,
                    at_ms=now,
                    margin_ms=account.claim_margin_ms,
                    spent_uain_max=self._threshold_uain,
                )
                or waited_ms >= self._interval_ms
            ):
                self._begin(account, send_back=False)
            elif _is_history(account, now):
                self._admission.forget(account)

    def _take_up(self) -> None:
        """Claims that may have been on their way when the last process, or the last run of this part, ended."""
        waiting = {claim.account.name for claim in self._ready}
        for account in self._admission.accounts:
            if account.is_open or account.claim_amount_uain is None or account.name in waiting:
                continue
            assert account.tab.voucher is not None
            if account.name not in self._under_way:
                self._under_way[account.name] = asyncio.get_running_loop().create_future()
            self._put(
                Claim(
                    account,
                    account.tab.voucher,
                    account.tab.nonce,
                    account.claim_amount_uain,
                    account.send_back,
                )
            )

    async def settle(self, account: Account) -> str:
        """Claims at once with the rest sent back; gives the transaction's hash when it is final."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while (future := self._under_way.get(account.name)) is not None:
                    tx_hash = await asyncio.shield(future)
                    if account.channel.value_uain == 0:
                        return tx_hash
                    # It was a claim for the sum alone; to send the rest back takes another one, with a voucher.
                if account.tab.voucher is None:
                    raise ClaimUnderWay(channel=account.name, next_nonce=account.tab.nonce)
                return await asyncio.shield(self._begin(account, send_back=True))
        except TimeoutError:
            raise ClaimUnderWay(channel=account.name, next_nonce=account.tab.nonce + 1) from None

    async def settle_all(self, deadline_seconds: float) -> list[Account]:
        """Settles every channel with a voucher, as the provider leaves; gives those that could not be settled."""
        owed = [account for account in self._admission.accounts if account.tab.voucher is not None]
        futures = [
            self._under_way.get(account.name) or self._begin(account, send_back=True) for account in owed
        ]
        if futures:
            await asyncio.wait(futures, timeout=deadline_seconds)
        return [
            account
            for account, future in zip(owed, futures, strict=True)
            if not future.done() or future.cancelled() or future.exception() is not None
        ]

    # ── Preparing ────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, account: Account, *, send_back: bool) -> asyncio.Future[str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        # Whoever is interested asks for the outcome; an outcome that nobody asks for is in the log.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._under_way[account.name] = future
        task = asyncio.create_task(self._prepare(account, send_back=send_back))
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)
        return future

    async def _prepare(self, account: Account, *, send_back: bool) -> None:
        """Lets the calls in flight end, then writes the claim down."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await self._admission.stop_admitting(account)
            planned = await self._admission.begin_claim(account, send_back=send_back)
            if planned is None:
                await self._admission.claim_failed(account)
                self._ended(account, "")
                return
        except (Refusal, TimeoutError) as error:
            log.warning("channel %s cannot be claimed at present: %s", account.name, error)
            if not account.is_open and account.claim_amount_uain is None:
                await self._admission.claim_failed(account)
            self._failed(account, error)
            return
        self._put(Claim(account, planned.voucher, planned.voucher.nonce, planned.amount_uain, send_back))

    def _put(self, claim: Claim) -> None:
        self._ready.append(claim)
        self._has_ready.set()

    # ── Sending ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _send_ready(self) -> None:
        while True:
            await self._has_ready.wait()
            await asyncio.sleep(GATHER_SECONDS)
            batch = self._take_batch()
            if not self._ready:
                self._has_ready.clear()
            try:
                await self._send(batch)
                self._waits_for = ""
            except _UNCERTAIN as refusal:
                # It may or may not have arrived: the chain will tell, once it can be asked.
                self._waits_for = f"claims wait for the node: {refusal.message}"
                log.warning("%d claims wait: %s", len(batch), refusal.message)
                for claim in batch:
                    # Those that were decided before the node went away are not asked for a second time.
                    if not claim.account.is_open and claim.account.tab.nonce == claim.nonce:
                        self._put(claim)
                await asyncio.sleep(RETRY_SECONDS)

    def _take_batch(self) -> list[Claim]:
        """As many claims as one transaction holds."""
        size, count = ENVELOPE_BYTES, 0
        for claim in self._ready[:OPERATIONS_PER_TRANSACTION_MAX]:
            size += len(canonical_json_bytes(claim.operation.to_json())) + 1
            if size > BATCH_BYTES_MAX and count:
                break
            count += 1
        batch, self._ready = self._ready[:count], self._ready[count:]
        return batch

    async def _send(self, batch: list[Claim]) -> None:
        open_claims = []
        for claim in batch:
            record, value_uain = await self._read(claim.account)
            if record["nonce"] > claim.nonce:
                await self._arrived(claim, "", record, value_uain)
            else:
                open_claims.append(claim)
        if not open_claims:
            return
        operations = [claim.operation for claim in open_claims]
        try:
            info = await self._chain.submit_final(operations, self._key, deadline_seconds=FINAL_SECONDS)
        except TransactionRefused as refusal:
            await self._refused(open_claims, refusal)
            return
        for claim in open_claims:
            record, value_uain = await self._read(claim.account)
            await self._arrived(claim, info.tx_hash, record, value_uain)

    async def _refused(self, claims: list[Claim], refusal: TransactionRefused) -> None:
        """A transaction is taken whole or not at all: one bad claim must not hold up the others."""
        if len(claims) > 1:
            for claim in claims:
                await self._send([claim])
            return
        claim = claims[0]
        record, value_uain = await self._read(claim.account)
        if record["nonce"] > claim.nonce:
            await self._arrived(claim, "", record, value_uain)
            return
        log.error("the chain refused the claim of %s: %s", claim.account.name, refusal.message)
        self._metrics.count("openresource_claims_refused_total")
        await self._admission.claim_failed(claim.account)
        self._failed(claim.account, refusal)

    async def _arrived(self, claim: Claim, tx_hash: str, record: dict[str, Any], value_uain: int) -> None:
        account, terms = claim.account, claim.account.terms
        if account.is_open or account.tab.nonce != claim.nonce:
            # It was counted before.
            self._ended(account, tx_hash)
            return
        claimed_uain = int(record["claimed_uain"]) - account.channel.claimed_uain
        split = split_claim(claimed_uain, terms.ask_uain, terms.royalty_uain, terms.fee_ppm)
        await self._admission.claim_final(account, tx_hash, claimed_uain, record, value_uain)
        account.unclaimed_since_ms = 0
        self._books.write(
            "INSERT OR IGNORE INTO claims (channel, nonce, amount_uain, provider_uain, tx_hash, at_ms) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (account.name, claim.nonce, claimed_uain, split.provider_uain, tx_hash, self._clock_ms()),
        )
        self._metrics.count("openresource_claimed_uain_total", by=claimed_uain)
        log.info("claimed %d µAIN of channel %s, %d for us", claimed_uain, account.name, split.provider_uain)
        self._ended(account, tx_hash)

    async def _read(self, account: Account) -> tuple[dict[str, Any], int]:
        record = await self._chain.read(f"/channels/{account.name}/state")
        if not isinstance(record, dict) or not isinstance(record.get("nonce"), int):
            raise BadAnswer(url=self._chain.url, reason=f"it has no channel {account.name}")
        return record, await self._chain.balance(channel_account(account.buyer, account.channel_id))

    def _ended(self, account: Account, tx_hash: str) -> None:
        future = self._under_way.pop(account.name, None)
        if future is not None and not future.done():
            future.set_result(tx_hash)

    def _failed(self, account: Account, error: BaseException) -> None:
        future = self._under_way.pop(account.name, None)
        if future is not None and not future.done():
            future.set_exception(
                error
                if isinstance(error, Refusal)
                else ClaimUnderWay(channel=account.name, next_nonce=account.tab.nonce + 1)
            )


def _is_history(account: Account, now_ms: int) -> bool:
    """Whether a channel is over and nobody will ask for it."""
    if account.waiting or not account.is_open or account.tab.spent_uain:
        return False
    return now_ms - max(account.read_at_ms, account.channel.expires_at_ms) > FORGET_MS
