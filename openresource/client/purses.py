"""A buyer's purse for one channel in the hands of one process: what it signs is on the disk before it is sent.

The arithmetic is `market/purses.py`. Here is the memory of calls: those that this process waits for, and those whose
end nobody saw, about which the gateway is asked before the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from openresource.client.books import ChannelEntry
from openresource.client.homes import Lock
from openresource.market.purses import (
    GatewayState,
    Purse,
    count_receipt,
    drop_call,
    forget_behind,
    next_voucher,
    resume,
    start_call,
)
from openresource.market.receipts import CallReceipt
from openresource.market.vouchers import Voucher


@dataclass(frozen=True, slots=True)
class StartedCall:
    """A call with its number, under the nonce at which it began; the voucher goes along if there is one."""

    sequence: int
    nonce: int
    session: bytes
    price_uain: int
    voucher: Voucher | None
    session_header: str


class OpenChannel:
    """A channel in the hands of this process: its purse in memory and on disk."""

    def __init__(
        self,
        entry: ChannelEntry,
        lock: Lock,
        *,
        save: Callable[[ChannelEntry, bool], None],
        sign: Callable[[Voucher], Voucher],
    ) -> None:
        self.entry = entry
        # When the provider begins its last call; 0 until the chain was read.
        self.serves_until_ms = 0
        self._lock = lock
        self._save = save
        self._sign = sign
        self._waited_for: set[int] = set()
        # Calls whose end nobody saw, of this process or of one before it, with their prices.
        self.lost: dict[int, int] = {**entry.purse.behind, **entry.purse.in_flight}
        # The largest total that the gateway is known to have a voucher for.
        self._delivered_uain = -1
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def purse(self) -> Purse:
        """What was signed, spent and received so far."""
        return self.entry.purse

    @property
    def price_uain(self) -> int:
        """The price that the channel fixed when it opened."""
        return self.entry.price_uain

    def start(self, calls_ahead: int = 1) -> StartedCall:
        """Begin a call; what is signed for it is in the books, which are to be synced before it is sent."""
        # Each call in flight may cost its price; that and the one to come is what is risked.
        risk_uain = self.price_uain * (len(self.purse.in_flight) + max(1, calls_ahead))
        purse, started = start_call(
            self.purse, self.price_uain, risk_uain_max=risk_uain, calls_ahead=calls_ahead
        )
        self.keep(purse, is_synced=False)
        voucher = started.voucher
        if voucher is None and purse.signed_uain > self._delivered_uain:
            # Signed before, for a call that may not have arrived: it goes along once more.
            voucher = next_voucher(purse)
        self._waited_for.add(started.sequence)
        self._ended.clear()
        return StartedCall(
            started.sequence,
            purse.nonce,
            purse.session,
            self.price_uain,
            None if voucher is None else self._sign(voucher),
            self.session_header(started.sequence),
        )

    def count(self, sequence: int, receipt: CallReceipt, digest: bytes) -> ChannelEntry | None:
        """Count a checked receipt; the caller writes the entry down together with the spending.

        None if it was counted or given up before: then the purse is past it.
        """
        self._end(sequence)
        self.lost.pop(sequence, None)
        purse = self.purse
        if sequence in purse.behind:
            price_uain = purse.behind[sequence]
            purse = forget_behind(purse, sequence)
            if receipt.nonce == purse.nonce:
                # Sent before a claim and done after it.
                purse = replace(purse, in_flight={**purse.in_flight, sequence: price_uain})
        elif receipt.nonce != purse.nonce or sequence not in purse.in_flight:
            return None
        if sequence in purse.in_flight:
            purse, _ = count_receipt(purse, sequence, receipt.completed, receipt.price_uain, digest)
        self.entry = replace(self.entry, purse=purse)
        return self.entry

    def delivered(self, started: StartedCall) -> None:
        """The gateway answered a call: it has the voucher that went along."""
        if started.voucher is not None and started.nonce == self.purse.nonce:
            self._delivered_uain = max(self._delivered_uain, started.voucher.total_uain)

    def refused(self, sequence: int) -> None:
        """The gateway said that a call was not done: nothing is owed for it."""
        self._end(sequence)
        self.lost.pop(sequence, None)
        self.keep(drop_call(self.purse, sequence))

    def lose(self, sequence: int) -> None:
        """A call ended without a word from the gateway; it is asked before the next call."""
        self._end(sequence)
        for calls in (self.purse.in_flight, self.purse.behind):
            if sequence in calls:
                self.lost[sequence] = calls[sequence]

    def give_up(self, sequence: int) -> None:
        """Nobody can say what became of a lost call; the gateway may count it yet."""
        self.lost.pop(sequence, None)
        self.keep(drop_call(self.purse, sequence, gives_up=True))

    def resume(self, answer: GatewayState) -> None:
        """Take the gateway's word, as far as calls without a receipt explain it."""
        self._delivered_uain = min(self._delivered_uain, answer.total_uain)
        self.keep(resume(self.purse, answer, risk_uain_max=self.purse.given_up_uain))

    def deliver_again(self) -> None:
        """The gateway may not have what was signed: it goes along with the next call."""
        self._delivered_uain = -1

    async def others_ended(self) -> None:
        """Returns when no call of this process waits for an answer."""
        await self._ended.wait()

    def keep(self, purse: Purse, *, is_synced: bool = True) -> None:
        """Replace the purse, in memory and on disk."""
        self.entry = replace(self.entry, purse=purse)
        self._save(self.entry, is_synced)

    def begin_nonce(self, purse: Purse, save: Callable[[ChannelEntry], None]) -> None:
        """A claim is final: the purse under the next nonce, written down together with what the claim took."""
        self._delivered_uain = -1
        self.entry = replace(self.entry, purse=purse)
        save(self.entry)

    def last_voucher(self) -> Voucher:
        """What is promised so far, unsigned; nothing at all after a claim."""
        return next_voucher(self.purse)

    def session_header(self, sequence: int) -> str:
        """The header that says which channel pays and which call this is."""
        return f"{self.entry.name};{self.entry.secret.hex()};{sequence}"

    def close(self) -> None:
        """Let other processes use the channel."""
        self._lock.close()

    def _end(self, sequence: int) -> None:
        self._waited_for.discard(sequence)
        if not self._waited_for:
            self._ended.set()
