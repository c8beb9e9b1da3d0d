"""What a native function of our profile sees: a draft of the state, limited to the prefixes that the native declares.

A native gets a `Draft` and a `NativeCall`, reads anywhere, writes below its prefixes, moves money with `move`, and
refuses by raising a `Refusal` that has a `result_code`. Money changes places in `move` only, so nothing can mint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from openresource.ledger.due import DUE, DueAction, due_entry, due_label
from openresource.primitives.amounts import ASSET_AIN, ain_number, uain_of_number
from openresource.primitives.errors import Refusal

__all__ = [
    "Change",
    "Draft",
    "DueAction",
    "InsufficientBalance",
    "InvalidTransferAmount",
    "Native",
    "NativeCall",
    "NetworkDomain",
    "StateAccess",
    "UnknownAsset",
    "Value",
    "balance_labels",
]

# What the tree can hold: null, boolean, number, text, or a dict of those.
Value = Any

ACCOUNTS: Final = "accounts"
SERVICE_ACCOUNTS: Final = "service_accounts"
BALANCE: Final = "balance"

BY_USER: Final = "user"
BY_NATIVE: Final = "native"
BY_DUE: Final = "due"


class InsufficientBalance(Refusal):
    template = "{account} holds {balance_uain} µAIN; {amount_uain} µAIN are needed."
    way_out = "Put money into the account first, or ask for less."
    result_code: ClassVar[int] = 21001


class InvalidTransferAmount(Refusal):
    template = "{amount_uain} is not an amount that can be moved."
    way_out = "Name a whole number of µAIN, not negative."
    result_code: ClassVar[int] = 21003


class UnknownAsset(Refusal):
    template = "This chain keeps no balances of {asset}."
    way_out = "Use AIN."
    result_code: ClassVar[int] = 21004


@dataclass(frozen=True, slots=True)
class NetworkDomain:
    """What ties a paper to one network: its chain id and the hash of its first block."""

    chain_id: int
    genesis_hash: str


class NativeCall:
    """The write that called a native, and the context it happens in."""

    __slots__ = (
        "at",
        "height",
        "network",
        "params",
        "path",
        "previous",
        "signer",
        "tx_hash",
        "tx_timestamp",
        "value",
    )

    def __init__(
        self,
        value: Value,
        previous: Value,
        params: dict[str, str],
        path: tuple[str, ...],
        signer: str,
        at: int,
        height: int,
        tx_hash: str,
        tx_timestamp: int,
        network: NetworkDomain,
    ) -> None:
        self.value: Value = value
        self.previous: Value = previous
        self.params: dict[str, str] = params
        self.path: tuple[str, ...] = path
        self.signer: str = signer
        self.at: int = at
        self.height: int = height
        self.tx_hash: str = tx_hash
        self.tx_timestamp: int = tx_timestamp
        self.network: NetworkDomain = network


@dataclass(frozen=True, slots=True)
class Native:
    """A native function of our profile; `writes` are the only prefixes below /values that it may write."""

    name: str
    writes: tuple[tuple[str, ...], ...]
    run: Callable[[Draft, NativeCall], None]


class Change:
    """One write as events tell it: labels with the root first, and who wrote (`user`, `native` or `due`)."""

    __slots__ = ("by", "path", "value")

    def __init__(
        self,
        path: tuple[str, ...],
        value: Value,
        by: str,
    ) -> None:
        self.path: tuple[str, ...] = path
        self.value: Value = value
        self.by: str = by

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Change)
            and self.path == other.path
            and self.by == other.by
            and bool(self.value == other.value)
        )

    def __hash__(self) -> int:
        return hash((self.path, self.by))


class StateAccess(Protocol):
    """The state below /values as a draft needs it."""

    def read_value(self, labels: Sequence[str]) -> Value:
        """The value at labels below /values; None if there is none."""

    def write_value(self, labels: Sequence[str], value: Value) -> None:
        """Writes below /values without any check; None deletes."""

    def rule_allows(self, labels: Sequence[str], value: Value, signer: str) -> bool:
        """Whether the write rules would let a signer write a value there now."""


class Draft:
    """One native's or due action's view of the state."""

    __slots__ = ("_by", "_signer", "_state", "_writes", "changes")

    def __init__(
        self,
        state: StateAccess,
        writes: tuple[tuple[str, ...], ...],
        signer: str,
        changes: list[Change] | None = None,
        by: str = BY_NATIVE,
    ) -> None:
        self._state = state
        self._writes = writes
        self._signer = signer
        self._by = by
        self.changes: list[Change] = [] if changes is None else changes

    def get(self, *labels: str) -> Value:
        """The value at labels below /values; None if there is none."""
        return self._state.read_value(labels)

    def rule_allows(self, path: Sequence[str], value: Value, signer: str) -> bool:
        """Whether the write rules would let a signer write a value there now."""
        return self._state.rule_allows(path, value, signer)

    def set(self, labels: Sequence[str], value: Value) -> None:
        """Writes a value below one of the declared prefixes; None deletes."""
        path = tuple(labels)
        assert path and path[0] != ACCOUNTS and path[0] != SERVICE_ACCOUNTS, "balances change by move only"
        assert self._is_declared(path), f"{'/'.join(path)} is outside of the declared prefixes"
        self._write(path, value)

    def balance(self, account: str, asset: str = ASSET_AIN) -> int:
        """What an address or a service account (`type|service|key`) holds, in µAIN."""
        _check_asset(asset)
        number = self._state.read_value(balance_labels(account))
        return 0 if number is None else uain_of_number(number)

    def move(self, source: str, target: str, amount_uain: int, asset: str = ASSET_AIN) -> None:
        """Moves money between two accounts; the source is the signer or a service account below a declared prefix."""
        _check_asset(asset)
        source_labels = balance_labels(source)
        is_own = source_labels[0] == SERVICE_ACCOUNTS and self._is_declared(source_labels)
        assert is_own or source == self._signer, f"{source} is not this native's to spend"
        if not isinstance(amount_uain, int) or amount_uain < 0:
            raise InvalidTransferAmount(amount_uain=amount_uain)
        held_uain = self.balance(source)
        if held_uain < amount_uain:
            raise InsufficientBalance(account=source, balance_uain=held_uain, amount_uain=amount_uain)
        if amount_uain == 0 or source == target:
            return
        target_uain = self.balance(target) + amount_uain
        self._store_balance(source_labels, held_uain - amount_uain)
        self._store_balance(balance_labels(target), target_uain)

    def after(self, at_ms: int, kind: str, key: str) -> None:
        """Asks for the due action of a kind at a time; asking twice for the same is asking once."""
        self._write((DUE, due_label(at_ms, kind, key)), due_entry(kind, key))

    def no_longer(self, at_ms: int, kind: str, key: str) -> None:
        """Takes back what was asked for by `after`, if it waits still."""
        path = (DUE, due_label(at_ms, kind, key))
        if self._state.read_value(path) is not None:
            self._write(path, None)

    def parameter(self, category: str, name: str) -> Value:
        """A parameter of the chain."""
        return self._state.read_value(("blockchain_params", category, name))

    def _store_balance(self, labels: tuple[str, ...], amount_uain: int) -> None:
        # An address keeps its zero, as wallets expect; a service account that is empty is over.
        is_over = amount_uain == 0 and labels[0] == SERVICE_ACCOUNTS
        self._write(labels, None if is_over else ain_number(amount_uain))

    def _write(self, path: tuple[str, ...], value: Value) -> None:
        self._state.write_value(path, value)
        self.changes.append(Change(("values", *path), value, self._by))

    def _is_declared(self, path: tuple[str, ...]) -> bool:
        return any(path[: len(prefix)] == prefix for prefix in self._writes)


def balance_labels(account: str) -> tuple[str, ...]:
    """Where the balance of an address or of a service account is, below /values."""
    if "|" not in account:
        return (ACCOUNTS, account, BALANCE)
    kind, service, key = account.split("|", 2)
    return (SERVICE_ACCOUNTS, kind, service, key, BALANCE)


def _check_asset(asset: str) -> None:
    if asset != ASSET_AIN:
        raise UnknownAsset(asset=asset)
