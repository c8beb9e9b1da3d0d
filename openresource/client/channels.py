"""A buyer's channels: finds or opens one for a call, keeps its purse on disk, tops it up, gets the money home.

A channel belongs to one process at a time (a lock in the home), so two commands never sign over each other.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openresource.client.books import Books, ChannelEntry
from openresource.client.chain import Chain, TransactionRefused, set_value
from openresource.client.homes import Home, HomeInUse
from openresource.client.purses import OpenChannel
from openresource.client.services import Choice
from openresource.ledger.draft import NetworkDomain
from openresource.market.accounts import channel_account
from openresource.market.channels import (
    CHANNEL_LIFETIME_MS_DEFAULT,
    CLAIM_MARGIN_MS_MAX,
    Channel,
    Terms,
    channel_name,
    claim_margin_ms,
    expiry_that_serves,
    parse_channel_name,
    read_channel,
)
from openresource.market.placements import PLACED, Placement
from openresource.market.prices import Price
from openresource.market.purses import (
    DEPOSIT_CALLS_DEFAULT,
    DepositTooSmall,
    next_nonce,
    open_purse,
    plan_addition,
    plan_deposit,
    unbooked_uain,
)
from openresource.market.vouchers import SESSION_SECRET_BYTES, Voucher, session_hash, sign_voucher
from openresource.primitives.amounts import UAIN_MAX, text_from_uain
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey

# A deposit that lasts no longer than this was too small.
RUSH_SECONDS: Final = 30.0
DEPOSIT_CALLS_MAX: Final = 100_000
LIFETIME_PARAMETER: Final = "/blockchain_params/market/channel_lifetime_ms"


class NotEnoughCoins(Refusal):
    template = "The wallet {address} holds {balance} AIN; {required} AIN are needed for this call."
    way_out = (
        "Ask somebody for coins, or send some from a home of yours that has them, such as the buyer's of "
        "`openresource up`: openresource wallet send {address} 1 --home FOLDER"
    )


class OverSpendingLimit(Refusal):
    template = "This call would bring {period} to {would_be} AIN; the limit is {limit} AIN."
    way_out = "Raise it if you mean it: openresource money limit {option} AMOUNT"


class ChannelNotInBooks(Refusal):
    template = "The books of this home do not know the channel {channel}."
    way_out = "Use the home that opened it, or close it after its expiry: then the wallet alone is enough."


class NoSuchChannel(Refusal):
    template = "The chain has no channel {channel}."
    way_out = "List yours: openresource channel list"


@dataclass(frozen=True, slots=True)
class ChainChannel:
    """A channel as the chain shows it."""

    channel: Channel
    terms: Terms
    opened_at_ms: int

    @property
    def serves_until_ms(self) -> int:
        """When the provider begins its last call, if it keeps to the network's margin."""
        expires_at_ms = self.channel.expires_at_ms
        return expires_at_ms - claim_margin_ms(self.opened_at_ms, expires_at_ms)


@dataclass(slots=True)
class Pace:
    """How quickly money goes to one provider for one program, and who waits for it."""

    calls: int
    waiting: int = 0
    topped_up_at: float = -RUSH_SECONDS
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def next_calls(self) -> int:
        """For how many calls the next deposit is: more, the sooner it comes after the one before."""
        now = time.monotonic()
        if now - self.topped_up_at < RUSH_SECONDS:
            self.calls *= 2
        self.topped_up_at = now
        # Whoever waits for this deposit has a call to pay from it.
        self.calls = min(max(self.calls, 2 * self.waiting), DEPOSIT_CALLS_MAX)
        return self.calls


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
        self._paces: dict[tuple[str, str], Pace] = {}
        self._lifetime_ms: int | None = None

    def close(self) -> None:
        """Give all channels back to other processes; the money stays where it is."""
        for held in self._held.values():
            held.close()
        self._held.clear()

    def sign(self, voucher: Voucher) -> Voucher:
        """Sign with the wallet."""
        return sign_voucher(voucher, self._key(), self._network)

    def save(self, entry: ChannelEntry, is_synced: bool = True) -> None:
        """Write a channel down; without a sync it is safe when the books say so."""
        self._books.save_channel(entry, self._clock_ms(), is_synced=is_synced)

    async def ready(
        self,
        choice: Choice,
        placement: Placement,
        price: Price,
        *,
        calls: int = DEPOSIT_CALLS_DEFAULT,
        progress: Callable[[str], None] = lambda _: None,
    ) -> OpenChannel:
        """A channel that covers the next call at this placement: one that is there, topped up, or a new one.

        A channel that is used up quickly gets twice as much each time, within the home's limit.
        """
        pace = self._paces.setdefault((placement.provider, choice.program), Pace(calls))
        pace.waiting += 1
        try:
            async with pace.lock:
                for held in self._found(placement.provider, choice.program, price.total_uain):
                    if await self._is_covered(held, pace, progress):
                        return held
                progress("opening a payment channel")
                return await self._open(choice, placement, price, pace.next_calls())
        finally:
            pace.waiting -= 1

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
        opened_at_ms = record.get("opened_at_ms")
        return ChainChannel(channel, terms, opened_at_ms if isinstance(opened_at_ms, int) else 0)

    async def refresh(self, held: OpenChannel) -> ChainChannel:
        """Bring the purse to what the chain shows: another nonce, another deposit, another expiry."""
        found = await self.on_chain(held.entry.name)
        shown, purse = found.channel, held.purse
        held.serves_until_ms = found.serves_until_ms
        if shown.nonce != purse.nonce:
            amount_uain, at_ms = unbooked_uain(purse, shown.claimed_uain), self._clock_ms()
            held.begin_nonce(
                next_nonce(purse, shown.nonce, shown.value_uain, shown.expires_at_ms, shown.claimed_uain),
                # The chain's word is the last one: what it took is spent, with a receipt or without.
                lambda entry: self._books.save_claim(
                    entry, nonce=purse.nonce, amount_uain=amount_uain, at_ms=at_ms
                ),
            )
        else:
            fresh = replace(purse, deposit_uain=shown.value_uain, expires_at_ms=shown.expires_at_ms)
            # A mere look does not make a channel the one that was paid from last.
            if fresh != purse:
                held.keep(fresh)
        return found

    async def prolong(self, held: OpenChannel) -> None:
        """Let a channel live for another life: its provider begins no more calls under its present expiry."""
        shown = await self.refresh(held)
        at_ms, lifetime_ms = self._clock_ms(), await self.lifetime_ms()
        expires_at_ms = expiry_that_serves(shown.opened_at_ms, at_ms, lifetime_ms)
        await self.extend(held.entry.name, max(expires_at_ms, shown.channel.expires_at_ms + lifetime_ms))
        await self.refresh(held)

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
        entry = self._books.channel(name) if held is None else held.entry
        if entry is not None:
            closed = replace(entry, is_closed=True)
            self.save(closed)
            if held is not None:
                held.entry = closed  # Calls in flight still write their ends down.
                held.close()

    def hold(self, name: str) -> OpenChannel:
        """A channel of the books for this process alone; refused while another one pays from it."""
        held = self._held.get(name)
        if held is not None:
            return held
        if self._books.channel(name) is None:
            raise ChannelNotInBooks(channel=name)
        return self._take(name)

    @contextmanager
    def borrowed(self, name: str) -> Iterator[OpenChannel]:
        """A channel for a look at it; given back afterwards unless this process pays from it anyway."""
        is_ours = name in self._held
        held = self.hold(name)
        try:
            yield held
        finally:
            if not is_ours:
                self._held.pop(name, None)
                held.close()

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
        # Ours before it is known to the books, and known to the books before it is on the chain: a channel that
        # nobody remembers is money that sleeps.
        lock = self._home.channel_lock(_channel_id(name))
        held = OpenChannel(entry, lock, save=self.save, sign=self.sign)
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
            shown = await self.refresh(held)
        except BaseException as failure:
            if isinstance(failure, TransactionRefused):
                self.save(replace(entry, is_closed=True))
            lock.close()
            raise
        held.entry = replace(held.entry, price_uain=shown.terms.price.total_uain)
        self.save(held.entry)
        self._held[name] = held
        return held

    async def lifetime_ms(self) -> int:
        """How long a channel lives unless somebody says otherwise."""
        if self._lifetime_ms is None:
            found = await self._chain.read(LIFETIME_PARAMETER)
            self._lifetime_ms = found if isinstance(found, int) and found > 0 else CHANNEL_LIFETIME_MS_DEFAULT
        return self._lifetime_ms

    async def _open(self, choice: Choice, placement: Placement, price: Price, calls: int) -> OpenChannel:
        cap_uain = self._home.limits().channel_deposit_uain
        if price.total_uain > cap_uain:
            raise OverSpendingLimit(
                period="the deposit of a channel",
                would_be=text_from_uain(price.total_uain),
                limit=text_from_uain(cap_uain),
                option="--channel",
            )
        plan = plan_deposit(
            price.total_uain,
            at_ms=self._clock_ms(),
            lifetime_ms=await self.lifetime_ms(),
            calls=calls,
            deposit_uain_max=cap_uain,
        )
        balance_uain = await self._chain.balance(self._key().address)
        deposit_uain = max(price.total_uain, min(plan.amount_uain, balance_uain))
        return await self.open(choice, placement, price, deposit_uain=deposit_uain)

    def _found(self, provider: str, program: str, price_uain: int) -> Iterator[OpenChannel]:
        """Channels that this process holds or can take; a cheaper offer than a channel's price opens a new one."""
        for held in list(self._held.values()):
            entry = held.entry
            if (entry.provider, entry.program) == (provider, program) and entry.price_uain <= price_uain:
                yield held
        for entry in self._books.channels_to(self._network.genesis_hash, provider, program):
            if entry.price_uain <= price_uain and entry.name not in self._held:
                try:
                    yield self._take(entry.name)
                except HomeInUse:
                    continue  # Another process pays from it just now.

    def _take(self, name: str) -> OpenChannel:
        lock = self._home.channel_lock(_channel_id(name))
        # Read under the lock: its last holder may have paid since.
        entry = self._books.channel(name)
        assert entry is not None, "books forget no channel"
        # The same session goes on: its numbers are on disk before a call is sent, so none is used twice.
        held = OpenChannel(entry, lock, save=self.save, sign=self.sign)
        self._held[name] = held
        return held

    async def _is_covered(self, held: OpenChannel, pace: Pace, progress: Callable[[str], None]) -> bool:
        """Tops a channel up and extends it where needed; False if it cannot serve any more."""
        if not self._is_due(held, await self.lifetime_ms()) and self._missing_uain(held, 1) == 0:
            return True
        try:
            # The chain may know more than the purse: an addition, a claim, a close.
            shown = await self.refresh(held)
        except NoSuchChannel:
            self._leave(held)
            return False
        if held.purse.expires_at_ms <= self._clock_ms():
            await self._end_channel(held, progress)
            return False
        missing_uain = self._missing_uain(held, 1) and self._missing_uain(held, pace.next_calls())
        is_late = self._is_due(held, await self.lifetime_ms())
        if is_late:
            progress("extending the payment channel")
            expires_at_ms = expiry_that_serves(shown.opened_at_ms, self._clock_ms(), await self.lifetime_ms())
            await self.extend(held.entry.name, max(expires_at_ms, held.purse.expires_at_ms))
        if missing_uain:
            balance_uain = await self._chain.balance(self._key().address)
            needed_uain = plan_addition_within(held, 1, UAIN_MAX)
            if balance_uain < needed_uain:
                raise NotEnoughCoins(
                    address=self._key().address,
                    balance=text_from_uain(balance_uain),
                    required=text_from_uain(needed_uain),
                )
            if not await self._is_placed(held.entry):
                # Whoever is on the way out has settled; what came after that would lie there until the expiry.
                return False
            progress("adding to the payment channel")
            await self.add(held.entry.name, min(missing_uain, balance_uain))
        if is_late or missing_uain:
            await self.refresh(held)
        return True

    async def _is_placed(self, entry: ChannelEntry) -> bool:
        service = f"{entry.publisher}/{entry.service}"
        path = f"/placements/{service}/{entry.program}/{entry.provider}/status"
        return bool(await self._chain.read(path) == PLACED)

    def _is_due(self, held: OpenChannel, lifetime_ms: int) -> bool:
        """Whether a channel must live longer before the next call; a tenth of a life is left to make it so."""
        return held.serves_until_ms - self._clock_ms() < min(CLAIM_MARGIN_MS_MAX, lifetime_ms // 10)

    def _missing_uain(self, held: OpenChannel, calls: int) -> int:
        return plan_addition_within(held, calls, self._home.limits().channel_deposit_uain)

    def _leave(self, held: OpenChannel) -> None:
        """A channel that the chain does not know: its opening was never sent, or is not final yet."""
        if held.purse.expires_at_ms <= self._clock_ms():
            self.mark_closed(held.entry.name)
        else:
            self._held.pop(held.entry.name, None)
            held.close()

    async def _end_channel(self, held: OpenChannel, progress: Callable[[str], None]) -> None:
        """A channel that has expired or was settled serves no more; what is left in it comes home."""
        name = held.entry.name
        if held.purse.deposit_uain == 0:
            self.mark_closed(name)
            return
        progress("taking the rest of an expired channel back")
        try:
            await self.take_back(name)
        except TransactionRefused:
            # By the chain's clock it has not expired yet; it stays in the books for a later look.
            self._held.pop(name, None)
            held.close()

    async def _write(self, name: str, verb: str, record: dict[str, Any]) -> str:
        path = f"/channels/{name}/{verb}/{secrets.token_hex(8)}"
        info = await self._chain.submit_final(set_value(path, record), self._key())
        return info.tx_hash


def plan_addition_within(held: OpenChannel, calls: int, deposit_uain_max: int) -> int:
    """What to add for the next call; the cap of one channel counts what is left in it, not what went through it."""
    cap_uain = min(UAIN_MAX, held.purse.earned_uain + deposit_uain_max)
    try:
        return plan_addition(held.purse, held.price_uain, calls=calls, deposit_uain_max=cap_uain)
    except DepositTooSmall as small:
        raise OverSpendingLimit(
            period="the deposit of a channel",
            would_be=text_from_uain(small.required_uain - held.purse.earned_uain),
            limit=text_from_uain(deposit_uain_max),
            option="--channel",
        ) from small


def _channel_id(name: str) -> str:
    return parse_channel_name(name)[1]
