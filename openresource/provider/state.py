"""The payment state as the sum of the journal's records: channels with their tabs, and the test calls that were used.

`apply` takes one record and is the only way in which old state comes back; `as_records` says the present state in as
few records as it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from openresource.market import tabs
from openresource.market.channels import Channel, parse_channel_name, read_channel
from openresource.market.tabs import CallKey, Tab, open_tab
from openresource.provider.accounts import Account
from openresource.provider.records import (
    CallPaid,
    ChannelForgotten,
    ChannelRead,
    ClaimBegun,
    ClaimFailed,
    ClaimFinal,
    Record,
    TabKept,
    TestCallUsed,
    VoucherTaken,
    sessions_of,
    tab_kept,
    voucher_of,
    voucher_taken,
)

SESSIONS_CARRIED_MAX = 16


class PaymentState:
    """What admission owns; nothing here asks or tells anybody."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self.accounts: dict[str, Account] = {}
        self.test_calls: dict[str, TestCallUsed] = {}
        self._clock_ms = clock_ms

    def set_channel(self, name: str, record: dict[str, Any], value_uain: int) -> Account:
        buyer, _ = parse_channel_name(name)
        channel, terms = read_channel(buyer, record, value_uain)
        account = self.accounts.get(name)
        if account is None:
            tab = open_tab(name, channel.nonce, buyer, channel.signer, value_uain)
            account = Account(name, record, channel, terms, tab)
            self.accounts[name] = account
        elif channel.nonce > account.tab.nonce:
            account.tab = next_tab(account.tab, channel)
            account.header = b""
        else:
            account.tab = tabs.set_cover(account.tab, value_uain)
        account.record, account.channel, account.terms = record, channel, terms
        account.read_at_ms = self._clock_ms()
        return account

    def as_records(self, recent: list[CallPaid]) -> list[Record]:
        records: list[Record] = list(self.test_calls.values())
        for account in self.accounts.values():
            records.append(ChannelRead(account.name, account.record, account.channel.value_uain))
            records.append(tab_kept(account.tab))
            if account.tab.voucher is not None:
                records.append(voucher_taken(account.tab.voucher))
            if account.claim_amount_uain is not None:
                records.append(
                    ClaimBegun(account.name, account.tab.nonce, account.claim_amount_uain, account.send_back)
                )
        records.extend(_kept(paid) for paid in recent)
        return records

    def apply(self, record: Record) -> None:
        """One record of the journal becomes state; answers are for whoever keeps them."""
        match record:
            case ChannelRead():
                self.set_channel(record.name, record.record, record.value_uain)
            case VoucherTaken():
                account = self.accounts[record.name]
                voucher = voucher_of(record)
                sessions = account.tab.sessions
                if voucher.session not in sessions:
                    sessions = {**sessions, voucher.session: tabs.SessionWindow()}
                acknowledged = max(account.tab.acknowledged, voucher.acknowledged)
                account.tab = replace(
                    account.tab, voucher=voucher, sessions=sessions, acknowledged=acknowledged
                )
            case CallPaid():
                if not record.is_kept:
                    account = self.accounts[record.name]
                    call = CallKey(record.session, record.sequence)
                    account.tab = tabs.replay(account.tab, call, record.price_uain, record.receipt_id)
            case ClaimBegun():
                account = self.accounts[record.name]
                if account.is_open:
                    account.tab = tabs.stop_admitting(account.tab)
                account.claim_amount_uain, account.send_back = record.amount_uain, record.send_back
            case ClaimFailed():
                account = self.accounts[record.name]
                account.tab = tabs.claim_failed(account.tab)
                account.claim_amount_uain, account.send_back = None, False
            case ClaimFinal():
                # The record of the channel that follows opens the next tab.
                account = self.accounts[record.name]
                account.claim_amount_uain, account.send_back = None, False
            case TabKept():
                account = self.accounts[record.name]
                account.tab = replace(
                    account.tab,
                    nonce=record.nonce,
                    spent_uain=record.spent_uain,
                    completed=record.completed,
                    acknowledged=record.acknowledged,
                    hashes=tuple(record.hashes),
                    sessions=sessions_of(record),
                )
            case TestCallUsed():
                self.test_calls[record.program] = record
            case ChannelForgotten():
                self.accounts.pop(record.name, None)


def next_tab(tab: Tab, channel: Channel) -> Tab:
    """The tab of the next nonce; it still knows the newest sessions, so that no call runs a second time."""
    fresh = open_tab(tab.channel, channel.nonce, tab.buyer, channel.signer, channel.value_uain)
    newest = list(tab.sessions.items())[-SESSIONS_CARRIED_MAX:]
    return replace(fresh, sessions=dict(newest))


def _kept(paid: CallPaid) -> CallPaid:
    values = {name: getattr(paid, name) for name in paid.__struct_fields__}
    return CallPaid(**{**values, "is_kept": True})
