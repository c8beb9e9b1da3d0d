"""One channel as the provider knows it: terms and cover from the chain, the tab from its own journal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from openresource.market.channels import Channel, Terms, claim_margin_ms
from openresource.market.tabs import OPEN, CallKey, Tab


@dataclass(slots=True)
class WaitingCall:
    """A call in flight: retries of it wait for the same outcome, which is true when it was answered."""

    fingerprint: bytes
    outcome: asyncio.Future[bool]


@dataclass(slots=True)
class Account:
    """Everything about one channel; `Admission` alone changes it."""

    name: str
    record: dict[str, Any]
    channel: Channel
    terms: Terms
    tab: Tab
    # The last voucher header that was checked: the same bytes need no second look.
    header: bytes = b""
    # Resolves when the newest voucher is on disk.
    voucher_safe: asyncio.Future[None] | None = None
    waiting: dict[CallKey, WaitingCall] = field(default_factory=dict)
    read_at_ms: int = 0
    refreshed_at_ms: int = 0
    # Since when an unpaid sum waits for its claim; 0 while there is none.
    unclaimed_since_ms: int = 0
    send_back: bool = False
    claim_amount_uain: int | None = None
    # Resolves when the claim that is under way is decided.
    claim_decided: asyncio.Future[None] | None = None
    drained: asyncio.Future[None] | None = None

    # The header that confirms a payment, the same for every call of the channel.
    payment_response: bytes = b""

    @property
    def price_uain(self) -> int:
        """What one call costs under the channel's terms."""
        return self.terms.ask_uain + self.terms.royalty_uain

    @property
    def buyer(self) -> str:
        return self.channel.buyer

    @property
    def channel_id(self) -> str:
        return self.name.partition("/")[2]

    @property
    def is_open(self) -> bool:
        return self.tab.status == OPEN

    @property
    def claim_margin_ms(self) -> int:
        """How long before the expiry the claim goes out and no new call begins."""
        return claim_margin_ms(int(self.record.get("opened_at_ms", 0)), self.channel.expires_at_ms)

    @property
    def serves_until_ms(self) -> int:
        """When the last new call may begin."""
        return self.channel.expires_at_ms - self.claim_margin_ms
