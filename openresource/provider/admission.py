"""Owns the payment state: decides which calls may begin, counts what they cost, and forgets nothing.

All state is in memory and changes within one turn of the event loop; every change that matters is a record of the
journal, and the state is what the records add up to. The chain is asked when a channel is first seen, when a voucher
promises more than is known, and when an expiry comes near: never otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from openresource.ledger.draft import NetworkDomain
from openresource.market import tabs
from openresource.market.accounts import channel_account
from openresource.market.channels import parse_channel_name, read_channel
from openresource.market.tabs import (
    CallAdmitted,
    CallAnswered,
    CallKey,
    ClaimPlanned,
    Tab,
    TabEvent,
    VoucherAccepted,
)
from openresource.market.vouchers import Voucher, VoucherAhead, recover_voucher_signer
from openresource.primitives.errors import Refusal
from openresource.provider.accounts import Account, WaitingCall
from openresource.provider.answers import (
    Answer,
    AnswerForgotten,
    Answers,
    CallKeyReused,
    check_same_call,
)
from openresource.provider.books import Books
from openresource.provider.journal import Journal
from openresource.provider.payments import decode_voucher
from openresource.provider.records import (
    CallPaid,
    ChannelForgotten,
    ChannelRead,
    ClaimBegun,
    ClaimFailed,
    ClaimFinal,
    TestCallUsed,
    pack,
    unpack,
    voucher_taken,
)
from openresource.provider.state import PaymentState, next_tab

log = logging.getLogger("openresource.provider.admission")

ACCOUNTS_MAX = 100_000
CHAIN_READS_AT_ONCE = 8
CHAIN_READS_WAITING_MAX = 64
# The same channel is not read again sooner, whatever its buyer sends.
REREAD_MS = 100
UNKNOWN_MS = 1_000
UNKNOWN_KEPT_MAX = 10_000
CLAIM_WAIT_SECONDS = 10.0
RESUME_SECONDS = 1.0
SNAPSHOT_BYTES = 8 * 1024 * 1024


class ChannelReader(Protocol):
    """The part of the chain that admission reads."""

    async def read(self, path: str) -> Any: ...

    async def balance(self, account: str) -> int: ...


class ChannelUnknown(Refusal):
    template = "There is no channel {channel} on the final state of the chain."
    way_out = "Open it with a deposit and wait until that is final, then send the call again."


class ChannelOfOtherProvider(Refusal):
    template = "The channel {channel} pays {provider}, not this provider."
    way_out = "Open a channel to this provider, or call the provider that the channel names."


class ChannelForOtherService(Refusal):
    template = "The channel {channel} was opened for the program {program}, not for this one."
    way_out = "Open a channel for the program that you call; prices are fixed per program."


class ChannelExpiresSoon(Refusal):
    template = "The channel {channel} expires at {expires_at_ms}; no new call begins after {serves_until_ms}."
    way_out = "Extend the channel and wait until that is final, or open a new one."


class ClaimUnderWay(Refusal):
    template = "A claim of the channel {channel} is on its way to the chain and not final yet."
    way_out = "Nothing was charged. Try again in a moment, then sign for nonce {next_nonce}."


class CallUndone(Refusal):
    template = "The provider could not write down that it answered this call."
    way_out = "Nothing was charged. Send the call again, with the same number if you like."


class CallInFlight(Refusal):
    template = "The call with the number {sequence} is being worked on."
    way_out = "Ask again in a moment, or send the call once more under its number and wait for its answer."


class CallNotAnswered(Refusal):
    template = "No answer is kept of a call with the number {sequence}."
    way_out = "Nothing is owed for a call without an answer; send it anew."


class TooManyNewChannels(Refusal):
    template = "Too many new channels are being looked up at once."
    way_out = "Nothing was charged. Try again in a moment."


class TooManyChannels(Refusal):
    template = "This provider keeps {accounts_max} channels and takes no more at present."
    way_out = "Choose another provider, or try again later."


class Admission:
    """The one owner of channels, tabs and the answers to paid calls."""

    def __init__(
        self,
        *,
        chain: ChannelReader,
        journal: Journal,
        books: Books,
        answers: Answers,
        provider: str,
        network: NetworkDomain,
        clock_ms: Callable[[], int],
    ) -> None:
        self._chain = chain
        self._journal = journal
        self._books = books
        self._answers = answers
        self._provider = provider
        self._network = network
        self._clock_ms = clock_ms
        self._state = PaymentState(clock_ms)
        self._reading: dict[str, asyncio.Future[Account]] = {}
        self._unknown: dict[str, int] = {}
        self._reads = asyncio.Semaphore(CHAIN_READS_AT_ONCE)
        self._reads_waiting = 0
        self._since_flush: list[CallPaid] | None = None
        self._resuming: asyncio.TimerHandle | None = None
        self._snapshot: asyncio.Task[None] | None = None

    # ── Life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, payloads: Iterable[bytes]) -> None:
        """Takes up where the journal's records end."""
        for payload in payloads:
            record = unpack(payload)
            self._state.apply(record)
            if isinstance(record, CallPaid):
                self._answers.keep(record, payload)
        self._journal.start(self._go_back)

    async def close(self) -> None:
        """Waits for a snapshot that is being written."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self._snapshot is not None:
            await asyncio.wait([self._snapshot])

    @property
    def accounts(self) -> list[Account]:
        """All channels that are known."""
        return list(self._state.accounts.values())

    def known_account(self, name: str) -> Account | None:
        """A channel that was seen before."""
        return self._state.accounts.get(name)

    # ── Channels ─────────────────────────────────────────────────────────────────────────────────────────────

    async def account(self, name: str) -> Account:
        """A channel by its name, read from the chain when it is first seen."""
        account = self._state.accounts.get(name)
        if account is not None:
            return account
        reading = self._reading.get(name)
        if reading is None:
            parse_channel_name(name)
            now = self._clock_ms()
            if self._unknown.get(name, 0) > now:
                raise ChannelUnknown(channel=name)
            if self._reads_waiting >= CHAIN_READS_WAITING_MAX:
                raise TooManyNewChannels()
            if len(self._state.accounts) >= ACCOUNTS_MAX:
                raise TooManyChannels(accounts_max=ACCOUNTS_MAX)
            reading = asyncio.ensure_future(self._first_read(name))
            self._reading[name] = reading
            reading.add_done_callback(lambda done: self._reading.pop(name, None))
        return await asyncio.shield(reading)

    async def refresh(self, account: Account) -> bool:
        """Reads a channel again, a few times a second at most; says whether anything changed."""
        if self._clock_ms() - account.refreshed_at_ms < REREAD_MS:
            return False
        account.refreshed_at_ms = self._clock_ms()
        record, value_uain = await self._read(account.name)
        return self.channel_changed(account, record, value_uain)

    def channel_changed(self, account: Account, record: dict[str, Any] | None, value_uain: int) -> bool:
        """Takes a channel as the final state shows it now."""
        if record is None or not account.is_open:
            # While a claim is under way its own outcome says how the channel goes on.
            return False
        channel, _ = read_channel(account.buyer, record, value_uain)
        if channel == account.channel:
            return False
        if channel.nonce == account.tab.nonce:
            self._journal.append(pack(ChannelRead(account.name, record, value_uain)))
        elif channel.nonce > account.tab.nonce and not account.tab.in_flight:
            # Not by a claim of ours: the buyer took the rest after the expiry.
            if account.tab.spent_uain:
                log.warning("channel %s ended with %d µAIN unclaimed", account.name, account.tab.spent_uain)
            self._journal.append(pack(ClaimFinal(account.name, account.tab.nonce, "", 0)))
            self._journal.append(pack(ChannelRead(account.name, record, value_uain)))
        else:
            return False
        self._state.set_channel(account.name, record, value_uain)
        return True

    async def _first_read(self, name: str) -> Account:
        self._reads_waiting += 1
        try:
            async with self._reads:
                record, value_uain = await self._read(name)
        finally:
            self._reads_waiting -= 1
        if record is None:
            if len(self._unknown) >= UNKNOWN_KEPT_MAX:
                self._unknown.clear()
            self._unknown[name] = self._clock_ms() + UNKNOWN_MS
            raise ChannelUnknown(channel=name)
        self._check_own(name, record)
        # What comes of it is written after it, and so is safe no sooner than it is.
        self._journal.append(pack(ChannelRead(name, record, value_uain)), is_urgent=False)
        return self._state.set_channel(name, record, value_uain)

    def channel_opened(self, name: str, record: dict[str, Any], value_uain: int) -> None:
        """Takes a channel that an event announced, so that its first call finds it here."""
        has_room = len(self._state.accounts) < ACCOUNTS_MAX
        if name not in self._state.accounts and has_room and record.get("provider") == self._provider:
            self._journal.append(pack(ChannelRead(name, record, value_uain)))
            self._state.set_channel(name, record, value_uain)

    async def _read(self, name: str) -> tuple[dict[str, Any] | None, int]:
        buyer, channel_id = parse_channel_name(name)
        record = await self._chain.read(f"/channels/{buyer}/{channel_id}/state")
        if not isinstance(record, dict):
            return None, 0
        return record, await self._chain.balance(channel_account(buyer, channel_id))

    def _check_own(self, name: str, record: dict[str, Any]) -> None:
        provider = record.get("provider")
        if provider != self._provider:
            raise ChannelOfOtherProvider(channel=name, provider=provider)

    # ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(
        self, account: Account, program: str, call: CallKey, fingerprint: bytes, header: bytes
    ) -> Answer | None:
        """Admits a call whose voucher is on its way to the disk, or gives the answer that this very call got before."""
        has_refreshed = False
        self._books.check_backlog()
        while True:
            known = self._answers.find(call)
            if known is not None:
                check_same_call(known, fingerprint)
                return known
            waiting = account.waiting.get(call)
            if waiting is not None:
                if waiting.fingerprint != fingerprint:
                    raise CallKeyReused(sequence=call.sequence)
                await asyncio.shield(waiting.outcome)
                continue
            try:
                if account.terms.program != program:
                    raise ChannelForOtherService(channel=account.name, program=account.terms.program)
                tab, events, voucher = self._paid(account, call, header)
                self._check_expiry(account, events)
            except (tabs.VoucherPastDeposit, VoucherAhead, ChannelExpiresSoon):
                if has_refreshed or not await self.refresh(account):
                    raise
                has_refreshed = True
                continue
            except tabs.ChannelIsClaiming as refusal:
                await self._claim_decided(account, refusal)
                continue
            if any(isinstance(event, CallAnswered) for event in events):
                answer = await self._answers.recall(call)
                check_same_call(answer, fingerprint)
                return answer
            assert isinstance(events[-1], CallAdmitted)
            self._admitted(account, call, fingerprint, tab, voucher, header)
            return None

    async def take_voucher(self, account: Account, header: bytes) -> None:
        """Takes a voucher that comes without a call, where there is none yet: a claim needs one, if only for nothing."""
        has_refreshed = False
        voucher = decode_voucher(header)
        signer = recover_voucher_signer(voucher, self._network)
        while True:
            if account.is_open and account.tab.voucher is not None:
                return
            try:
                tab, events = tabs.accept(account.tab, voucher, signer)
                break
            except (tabs.VoucherPastDeposit, VoucherAhead):
                if has_refreshed or not await self.refresh(account):
                    raise
                has_refreshed = True
            except tabs.ChannelIsClaiming as refusal:
                await self._claim_decided(account, refusal)
        if any(isinstance(event, VoucherAccepted) for event in events):
            account.voucher_safe = self._journal.append(pack(voucher_taken(voucher)))
            account.header, account.tab = header, tab
            await asyncio.shield(account.voucher_safe)

    async def secure(self, account: Account) -> None:
        """Returns when the channel's newest voucher is on disk; before that nothing of an answer may leave."""
        safe = account.voucher_safe
        if safe is not None and not safe.done():
            await asyncio.shield(safe)

    async def receipt_of(self, account: Account, call: CallKey) -> bytes:
        """The receipt of a call by its number, for a buyer who lost the answer on its way."""
        if call in account.waiting:
            raise CallInFlight(sequence=call.sequence)
        try:
            return (await self._answers.recall(call)).receipt_json
        except AnswerForgotten:
            raise CallNotAnswered(sequence=call.sequence) from None

    def complete(self, account: Account, call: CallKey, paid: CallPaid) -> asyncio.Future[bool]:
        """Counts an answered call; the future resolves when its receipt and answer are on disk, or refuses."""
        if call not in account.tab.in_flight:
            raise CallUndone()
        waiting = account.waiting[call]
        payload = pack(paid)
        done = self._journal.append(payload)
        account.tab, _ = tabs.complete(account.tab, call, paid.receipt_id)
        if self._since_flush is not None:
            self._since_flush.append(paid)

        def written(done: asyncio.Future[None]) -> None:
            failure = done.exception()
            if failure is None:
                self._answers.keep(paid, payload)
            self._ended(account, call, failure)

        done.add_done_callback(written)
        return waiting.outcome

    def release(self, account: Account, call: CallKey) -> None:
        """A call ended without an answer: its cover is free again and a retry may run it anew."""
        if call in account.tab.in_flight:
            account.tab, _ = tabs.release(account.tab, call)
        if call in account.waiting:
            self._ended(account, call, None, was_answered=False)

    def _paid(
        self, account: Account, call: CallKey, header: bytes
    ) -> tuple[Tab, tuple[TabEvent, ...], Voucher | None]:
        price_uain = account.price_uain
        if not header or header == account.header:
            tab, events = tabs.admit(account.tab, call, price_uain, is_replay=bool(header))
            return tab, events, None
        voucher = decode_voucher(header)
        signer = recover_voucher_signer(voucher, self._network)
        tab, events = tabs.pay(account.tab, voucher, signer, call, price_uain)
        is_new = any(isinstance(event, VoucherAccepted) for event in events)
        return tab, events, voucher if is_new else None

    def _check_expiry(self, account: Account, events: tuple[TabEvent, ...]) -> None:
        if isinstance(events[-1], CallAdmitted) and self._clock_ms() >= account.serves_until_ms:
            raise ChannelExpiresSoon(
                channel=account.name,
                expires_at_ms=account.channel.expires_at_ms,
                serves_until_ms=account.serves_until_ms,
            )

    def _admitted(
        self,
        account: Account,
        call: CallKey,
        fingerprint: bytes,
        tab: Tab,
        voucher: Voucher | None,
        header: bytes,
    ) -> None:
        if voucher is not None:
            # Nothing is told to anybody before the receipt is on disk, and the voucher goes down before it: one sync.
            account.voucher_safe = self._journal.append(pack(voucher_taken(voucher)), is_urgent=False)
            account.header = header
        else:
            # When its receipt could not be written either: better no work than work for nothing.
            self._journal.check()
        account.tab = tab
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        account.waiting[call] = WaitingCall(fingerprint, outcome)

    def _ended(
        self, account: Account, call: CallKey, failure: BaseException | None, *, was_answered: bool = True
    ) -> None:
        waiting = account.waiting.pop(call, None)
        if waiting is not None and not waiting.outcome.done():
            if failure is not None:
                waiting.outcome.set_exception(failure)
                waiting.outcome.exception()
            else:
                waiting.outcome.set_result(was_answered)
        if account.drained is not None and not account.waiting and not account.drained.done():
            account.drained.set_result(None)

    async def _claim_decided(self, account: Account, refusal: tabs.ChannelIsClaiming) -> None:
        """Waits for the claim to be decided: then the buyer hears at once for which nonce to sign."""
        decided = account.claim_decided
        if decided is not None:
            try:
                async with asyncio.timeout(CLAIM_WAIT_SECONDS):
                    await asyncio.shield(decided)
                return
            except TimeoutError:
                pass
        raise ClaimUnderWay(channel=account.name, next_nonce=account.tab.nonce + 1) from refusal

    # ── Claims ───────────────────────────────────────────────────────────────────────────────────────────────

    async def stop_admitting(self, account: Account) -> None:
        """Lets the calls in flight end and admits no more under this nonce."""
        loop = asyncio.get_running_loop()
        account.tab = tabs.stop_admitting(account.tab)
        account.claim_decided = loop.create_future()
        if account.waiting:
            account.drained = loop.create_future()
            await account.drained

    async def begin_claim(self, account: Account, *, send_back: bool) -> ClaimPlanned | None:
        """What to claim, written down before it may reach the chain; None when there is no voucher to claim with."""
        tab, events = tabs.begin_claim(account.tab)
        if not events:
            return None
        planned = events[0]
        assert isinstance(planned, ClaimPlanned)
        await self._journal.append(
            pack(ClaimBegun(account.name, account.tab.nonce, planned.amount_uain, send_back))
        )
        account.tab, account.send_back, account.claim_amount_uain = tab, send_back, planned.amount_uain
        return planned

    async def claim_failed(self, account: Account) -> None:
        """The claim is certainly not on the chain: calls go on under the same nonce."""
        if account.claim_amount_uain is not None:
            await self._journal.append(pack(ClaimFailed(account.name, account.tab.nonce)))
        account.tab = tabs.claim_failed(account.tab)
        self._claim_ended(account)

    async def claim_final(
        self, account: Account, tx_hash: str, amount_uain: int, record: dict[str, Any], value_uain: int
    ) -> None:
        """The claim is final: what was spent is paid, and the next nonce begins with what is left."""
        self._journal.append(pack(ClaimFinal(account.name, account.tab.nonce, tx_hash, amount_uain)))
        await self._journal.append(pack(ChannelRead(account.name, record, value_uain)))
        account.tab = tabs.claim_final(account.tab)
        self._state.set_channel(account.name, record, value_uain)
        self._claim_ended(account)

    def _claim_ended(self, account: Account) -> None:
        account.claim_amount_uain, account.send_back, account.drained = None, False, None
        decided, account.claim_decided = account.claim_decided, None
        if decided is not None and not decided.done():
            decided.set_result(None)

    def forget(self, account: Account) -> None:
        """Drops a channel that is over and owes nothing."""
        if not account.waiting and account.is_open and not account.tab.spent_uain:
            self._journal.append(pack(ChannelForgotten(account.name)))
            del self._state.accounts[account.name]

    # ── Test calls ───────────────────────────────────────────────────────────────────────────────────────────

    def test_calls(self, program: str) -> TestCallUsed:
        """How many of a program's free test calls were used, and the newest one's time."""
        return self._state.test_calls.get(program) or TestCallUsed(program, 0, 0)

    async def count_test_call(self, program: str, timestamp_ms: int) -> None:
        """Uses up one test call."""
        used = TestCallUsed(program, timestamp_ms, self.test_calls(program).used + 1)
        done = self._journal.append(pack(used))
        self._state.test_calls[program] = used
        await done

    # ── The journal ──────────────────────────────────────────────────────────────────────────────────────────

    async def compact(self, *, bytes_max: int = SNAPSHOT_BYTES) -> None:
        """Replaces a journal that has grown long by one that says the same, once the books have its answers."""
        if self._journal.size_bytes <= bytes_max or self._snapshot is not None or self._journal.refusal:
            return
        self._snapshot = asyncio.ensure_future(self._compact())
        try:
            await asyncio.shield(self._snapshot)
        finally:
            self._snapshot = None

    async def _compact(self) -> None:
        self._since_flush = []
        try:
            await self._books.flush()
            recent = self._since_flush
            await self._journal.replace([pack(record) for record in self._state.as_records(recent)])
        finally:
            self._since_flush = None

    def _go_back(self) -> None:
        """The disk refused: everything that is not on it never happened, and is not told to anybody."""
        log.error("journal refused a write; going back to what is on disk")
        before, self._state = self._state.accounts, PaymentState(self._clock_ms)
        for payload in self._journal.reread():
            self._state.apply(unpack(payload))
        for name, account in before.items():
            fresh = self._state.accounts.get(name)
            if fresh is None:
                account.tab = next_tab(account.tab, account.channel)
                continue
            # Whoever holds the account goes on with it; its calls in flight do not count any more.
            account.tab, account.channel, account.record = fresh.tab, fresh.channel, fresh.record
            account.claim_amount_uain, account.send_back = fresh.claim_amount_uain, fresh.send_back
            account.header, account.voucher_safe = b"", None
            self._state.accounts[name] = account
        if self._resuming is None:
            self._resuming = asyncio.get_running_loop().call_later(RESUME_SECONDS, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._journal.resume()
