"""A buyer's channels: finds or opens one for a call, keeps its purse on disk, tops it up, gets the money home.

A channel belongs to one process at a time (a lock in the home), so two commands never sign over each other.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from openresource.client.books import Books, ChannelEntry
from openresource.client.chain import Chain, set_value
from openresource.client.homes import Home, HomeInUse, Lock
from openresource.client.services import Choice
from openresource.ledger.draft import NetworkDomain
from openresource.market.accounts import channel_account
from openresource.market.channels import (
    CHANNEL_LIFETIME_MS_DEFAULT,
    Channel,
    Terms,
    channel_name,
    parse_channel_name,
    read_channel,
)
from openresource.market.placements import Placement
from openresource.market.prices import Price
from openresource.market.purses import (
    CallStarted,
    GatewayState,
    Purse,
    count_receipt,
    drop_call,
    extension_is_due,
    next_nonce,
    next_voucher,
    open_purse,
    plan_addition,
    plan_deposit,
    resume,
    start_call,
)
from openresource.market.vouchers import SESSION_SECRET_BYTES, Voucher, session_hash, sign_voucher
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey

LIFETIME_PARAMETER: Final = "/blockchain_params/market/channel_lifetime_ms"


class NotEnoughCoins(Refusal):
    template = "The wallet {address} holds {balance} AIN; {required} AIN are needed for this call."
    way_out = "Ask somebody for coins, or on a local network: openresource wallet send from a funded home."


class NoSuchChannel(Refusal):
    template = "The chain has no channel {channel}."
    way_out = "List yours: openresource channel list"


@dataclass(slots=True)
class ChainChannel:
    """A channel as the chain shows it."""

    channel: Channel
    terms: Terms


class OpenChannel:
    """A channel in the hands of this process: its purse in memory and on disk."""

    def __init__(self, entry: ChannelEntry, lock: Lock, owner: Channels) -> None:
        self.entry = entry
        self._lock = lock
        self._owner = owner
        # What the gateway may have counted of calls whose end an earlier process did not see.
        self.is_unsettled = bool(entry.purse.in_flight)
        # A voucher may be signed without having reached the gateway; then it goes along once more.
        self.lacks_voucher = self.is_unsettled

    @property
    def purse(self) -> Purse:
        """What was signed, spent and received so far."""
        return self.entry.purse

    @property
    def price_uain(self) -> int:
        """The price that the channel fixed when it opened."""
        return self.entry.price_uain

    def start(self, calls_ahead: int = 1) -> tuple[CallStarted, Voucher | None]:
        """Begin a call; the voucher to send with it is signed, and written down before this returns."""
        # Each call in flight may cost its price; that and the one to come is what is risked.
        risk_uain = self.price_uain * (len(self.purse.in_flight) + max(1, calls_ahead))
        purse, started = start_call(
            self.purse, self.price_uain, risk_uain_max=risk_uain, calls_ahead=calls_ahead
        )
        self.keep(purse)
        voucher = started.voucher
        if voucher is None and self.lacks_voucher:
            voucher = next_voucher(self.purse)
        return started, None if voucher is None else self._owner.sign(voucher)

    def count(self, sequence: int, completed: int, price_uain: int, digest: bytes) -> ChannelEntry:
        """Count a checked receipt; the caller writes the entry down together with the spending."""
        purse, _ = count_receipt(self.purse, sequence, completed, price_uain, digest)
        self.entry = replace(self.entry, purse=purse)
        self.lacks_voucher = False
        return self.entry

    def drop(self, sequence: int) -> None:
        """A call ended without an answer."""
        self.lacks_voucher = True
        self.keep(drop_call(self.purse, sequence))

    def resume(self, answer: GatewayState) -> None:
        """Take the gateway's word, as far as this wallet signed."""
        risk_uain = self.price_uain * max(1, len(self.purse.in_flight) + 1) + self.purse.at_risk_uain
        self.keep(resume(self.purse, answer, risk_uain_max=risk_uain))
        self.is_unsettled = False

    def forget_unanswered(self) -> None:
        """Calls of an earlier process have no answer that anybody waits for."""
        self.keep(replace(self.purse, in_flight={}, early={}))

    def keep(self, purse: Purse) -> None:
        """Replace the purse, in memory and on disk."""
        self.entry = replace(self.entry, purse=purse)
        self._owner.save(self.entry)

    def session_header(self, sequence: int) -> str:
        """The header that says which channel pays and which call this is."""
        return f"{self.entry.name};{self.entry.secret.hex()};{sequence}"

    def close(self) -> None:
        """Let other processes use the channel."""
        self._lock.close()


class Channels:
    """All channels of a home on one network."""

    def __init__(
        self,
        home: Home,
        chain: Chain,
        books: Books,
        key: Callable[[], PrivateKey],
        network: NetworkDomain,
        *,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._home = home
        self._chain = chain
        self._books = books
        self._key = key
        self._network = network
        self._clock_ms = clock_ms
        self._held: dict[str, OpenChannel] = {}
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}
        self._lifetime_ms: int | None = None

    def close(self) -> None:
        """Give all channels back to other processes; the money stays where it is."""
        for held in self._held.values():
            held.close()
        self._held.clear()

    def sign(self, voucher: Voucher) -> Voucher:
        """Sign with the wallet."""
        return sign_voucher(voucher, self._key(), self._network)

    def save(self, entry: ChannelEntry) -> None:
        """Write a channel down."""
        self._books.save_channel(entry, self._clock_ms())

    async def ready(
        self,
        choice: Choice,
        placement: Placement,
        price: Price,
        *,
        calls: int = 20,
        progress: Callable[[str], None] = lambda _: None,
    ) -> OpenChannel:
        """A channel that covers the next call at this placement: one that is there, topped up, or a new one."""
        where = self._opening.setdefault((placement.provider, choice.program), asyncio.Lock())
        async with where:
            held = self._find(placement.provider, choice.program, price.total_uain)
            if held is None:
                progress("opening a payment channel")
                return await self._open(choice, placement, price, calls)
            if not await self._is_covered(held, calls, progress):
                progress("opening a payment channel")
                return await self._open(choice, placement, price, calls)
            return held

    def find_held(self, name: str) -> OpenChannel | None:
        """A channel that this process holds."""
        return self._held.get(name)

    async def on_chain(self, name: str) -> ChainChannel:
        """A channel as the final state shows it."""
        buyer, identifier = parse_channel_name(name)
        record, value_uain = await asyncio.gather(
            self._chain.read(f"/channels/{buyer}/{identifier}/state"),
            self._chain.balance(channel_account(buyer, identifier)),
        )
        if record is None:
            raise NoSuchChannel(channel=name)
        channel, terms = read_channel(buyer, record, value_uain)
        return ChainChannel(channel, terms)

    async def refresh(self, held: OpenChannel) -> None:
        """Bring the purse to what the chain shows: another nonce, another deposit, another expiry."""
        shown = (await self.on_chain(held.entry.name)).channel
        purse = held.purse
        if shown.nonce != purse.nonce:
            held.keep(next_nonce(purse, shown.nonce, shown.value_uain, shown.expires_at_ms))
        else:
            held.keep(replace(purse, deposit_uain=shown.value_uain, expires_at_ms=shown.expires_at_ms))

    async def add(self, name: str, amount_uain: int) -> str:
        """Put money into a channel; final when this returns."""
        return await self._write(name, "add", {"amount_uain": amount_uain})

    async def extend(self, name: str, expires_at_ms: int) -> str:
        """Let a channel live longer; final when this returns."""
        return await self._write(name, "extend", {"expires_at_ms": expires_at_ms})

    async def take_back(self, name: str) -> str:
        """After its expiry: the rest of a channel returns to the wallet."""
        tx_hash = await self._write(name, "close", {"close": True})
        self.mark_closed(name)
        return tx_hash

    def mark_closed(self, name: str) -> None:
        """Nothing more is paid from this channel."""
        held = self._held.pop(name, None)
        if held is not None:
            held.close()
        entry = self._books.channel(name)
        if entry is not None:
            self.save(replace(entry, is_closed=True))

    async def open(
        self,
        choice: Choice,
        placement: Placement,
        price: Price,
        *,
        deposit_uain: int,
        lifetime_ms: int | None = None,
    ) -> OpenChannel:
        """Open a channel with a given deposit; final when this returns."""
        key = self._key()
        balance_uain = await self._chain.balance(key.address)
        if balance_uain < deposit_uain:
            raise NotEnoughCoins(
                address=key.address,
                balance=text_from_uain(balance_uain),
                required=text_from_uain(deposit_uain),
            )
        name = channel_name(key.address, secrets.token_hex(8))
        expires_at_ms = self._clock_ms() + (lifetime_ms or await self.lifetime_ms())
        secret = secrets.token_bytes(SESSION_SECRET_BYTES)
        purse = open_purse(name, 0, deposit_uain, expires_at_ms, session_hash(secret))
        entry = ChannelEntry(
            self._network.genesis_hash,
            placement.provider,
            choice.publisher,
            choice.name,
            choice.program,
            price.total_uain,
            purse,
            secret,
        )
        # Known to the books before it is on the chain: a channel that nobody remembers is money that sleeps.
        self.save(entry)
        record = {
            "publisher": choice.publisher,
            "name": choice.name,
            "program": choice.program,
            "provider": placement.provider,
            "deposit_uain": deposit_uain,
            "expires_at_ms": expires_at_ms,
        }
        try:
            await self._chain.submit_final(set_value(f"/channels/{name}/open", record), key)
        except Refusal as refusal:
            if refusal.code == "transaction-refused":
                self.save(replace(entry, is_closed=True))
            raise
        shown = await self.on_chain(name)
        settled = replace(entry, price_uain=shown.terms.price.total_uain)
        held = OpenChannel(settled, self._home.lock(_lock_name(name)), self)
        self.save(settled)
        self._held[name] = held
        return held

    async def lifetime_ms(self) -> int:
        """How long a channel lives unless somebody says otherwise."""
        if self._lifetime_ms is None:
            found = await self._chain.read(LIFETIME_PARAMETER)
            self._lifetime_ms = found if isinstance(found, int) and found > 0 else CHANNEL_LIFETIME_MS_DEFAULT
        return self._lifetime_ms

    async def _open(self, choice: Choice, placement: Placement, price: Price, calls: int) -> OpenChannel:
        limits = self._home.limits()
        plan = plan_deposit(
            price.total_uain,
            at_ms=self._clock_ms(),
            lifetime_ms=await self.lifetime_ms(),
            calls=calls,
            deposit_uain_max=limits.channel_deposit_uain,
        )
        balance_uain = await self._chain.balance(self._key().address)
        deposit_uain = max(price.total_uain, min(plan.amount_uain, balance_uain))
        return await self.open(choice, placement, price, deposit_uain=deposit_uain)

    def _find(self, provider: str, program: str, price_uain: int) -> OpenChannel | None:
        """A channel that this process holds or can take; a cheaper offer than the channel's price opens a new one."""
        for entry in self._books.channels_to(self._network.genesis_hash, provider, program):
            if entry.price_uain > price_uain:
                continue
            held = self._held.get(entry.name) or self._take(entry)
            if held is not None:
                return held
        return None

    def _take(self, entry: ChannelEntry) -> OpenChannel | None:
        try:
            lock = self._home.lock(_lock_name(entry.name))
        except HomeInUse:
            return None  # Another process pays from it just now.
        current = self._books.channel(entry.name)
        assert current is not None
        # The same session goes on: its numbers are on disk before a call is sent, so none is used twice.
        held = OpenChannel(current, lock, self)
        self._held[entry.name] = held
        return held

    async def _is_covered(self, held: OpenChannel, calls: int, progress: Callable[[str], None]) -> bool:
        """Tops a channel up and extends it where needed; False if it cannot serve any more."""
        at_ms = self._clock_ms()
        missing_uain = plan_addition_within(held, calls, self._home.limits().channel_deposit_uain)
        late = extension_is_due(held.purse, at_ms=at_ms, margin_ms=await self._margin_ms())
        if not late and missing_uain == 0:
            return True
        try:
            # The chain may know more than the purse: an addition, a claim, a close.
            await self.refresh(held)
        except NoSuchChannel:
            self.mark_closed(held.entry.name)
            return False
        if held.purse.expires_at_ms <= at_ms:
            return False
        missing_uain = plan_addition_within(held, calls, self._home.limits().channel_deposit_uain)
        if extension_is_due(held.purse, at_ms=at_ms, margin_ms=await self._margin_ms()):
            progress("extending the payment channel")
            await self.extend(held.entry.name, at_ms + await self.lifetime_ms())
        if missing_uain:
            balance_uain = await self._chain.balance(self._key().address)
            if balance_uain == 0:
                raise NotEnoughCoins(
                    address=self._key().address, balance="0", required=text_from_uain(missing_uain)
                )
            progress("adding to the payment channel")
            await self.add(held.entry.name, min(missing_uain, balance_uain))
        await self.refresh(held)
        return True

    async def _margin_ms(self) -> int:
        # A tenth of a life, so that short-lived channels of tests and long ones are treated alike.
        return min(10 * 60 * 1000, await self.lifetime_ms() // 10)

    async def _write(self, name: str, verb: str, record: dict[str, Any]) -> str:
        path = f"/channels/{name}/{verb}/{secrets.token_hex(8)}"
        info = await self._chain.submit_final(set_value(path, record), self._key())
        return info.tx_hash


def plan_addition_within(held: OpenChannel, calls: int, deposit_uain_max: int) -> int:
    """What to add for the next call; the cap of one channel counts what is in it now, not what went through it."""
    cap_uain = max(deposit_uain_max, held.purse.earned_uain + deposit_uain_max)
    return plan_addition(held.purse, held.price_uain, calls=calls, deposit_uain_max=cap_uain)


def _lock_name(name: str) -> str:
    return "channel-" + name.rpartition("/")[2]
