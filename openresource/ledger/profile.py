"""What kind of chain this is: a profile's named habits, and the network that runs by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from openresource.ledger.draft import Native
from openresource.ledger.due import DueAction

REPLAY_WINDOW_MS: Final = 5 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Profile:
    """The habits in which chains differ; each is read at exactly one place."""

    name: str
    # A SET whose limits, budgets or fee fail counts as a success: its writes stay, its nonce does not move.
    list_ignores_own_code: bool
    # What a failed transaction pays is given back when its writes are undone.
    failed_pay_nothing: bool
    # On a balance below the fee, the smaller of AIN held and gas used is charged as gas.
    shortage_charges_balance_as_gas: bool
    # A native that throws leaves no entry and does not fail the operation.
    native_exceptions_are_swallowed: bool
    # The lock-up of a stake is compared with the executing node's clock, not with block time.
    unstake_reads_wall_clock: bool
    # Natives write through operations with rules, as AI Network's do; otherwise they get a draft.
    natives_write_by_rules: bool
    # Nodes of the tree that another version shares are not merged.
    shared_nodes_keep_apart: bool
    # Function entries may name a program.
    has_programs: bool
    # The state has a due-queue that is worked when a block opens.
    has_due_queue: bool
    # An unordered transaction is valid only this close to block time and only once; 0 means for ever and often.
    replay_window_ms: int


@dataclass(frozen=True, slots=True)
class TimerFlag:
    """A change of the protocol that is in force from a block on."""

    name: str
    enabled_block: int
    disabled_block: int | None = None
    bandages: tuple[tuple[tuple[str, ...], Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """One chain: its profile, its identity, and what its state cannot tell before the genesis has run."""

    name: str
    profile: Profile
    chain_id: int
    parameters: dict[str, Any]
    natives: dict[str, Native] = field(default_factory=dict)
    due_actions: dict[str, DueAction] = field(default_factory=dict)
    flags: tuple[TimerFlag, ...] = ()

    def is_enabled(self, name: str, height: int) -> bool:
        """Whether a change of the protocol is in force at a block."""
        for flag in self.flags:
            if flag.name == name:
                return height >= flag.enabled_block and (flag.disabled_block is None or height < flag.disabled_block)
        return False

    def configured(self, category: str, name: str) -> Any:
        """A parameter from the network's configuration."""
        return self.parameters.get(category, {}).get(name)
