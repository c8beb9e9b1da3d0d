"""What kind of chain this is: a profile's named habits, and the network that runs by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from openresource.ledger.draft import Draft, Native, NativeCall, StateAccess
from openresource.ledger.due import DueAction
from openresource.ledger.tree import Shape

REPLAY_WINDOW_MS: Final = 5 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Profile:
    """The habits in which chains differ; each is read at exactly one place."""

    name: str
    # A SET whose limits, budgets or fee fail counts as a success: its writes stay, its nonce does not move.
    list_ignores_own_code: bool
    # What a failed transaction pays is given back when its writes are undone.
    failed_pay_nothing: bool
    # A native that throws leaves no entry and does not fail the operation.
    native_exceptions_are_swallowed: bool
    # The lock-up of a stake is compared with the executing node's clock, not with block time.
    unstake_reads_wall_clock: bool
    # A transaction may leave out its gas price, which is then 0.
    gas_price_may_be_absent: bool
    # A subtree may be switched over to another chain, and is not writable then.
    has_shards: bool
    # The shape of the tree: `canonical`, or `ain`, where nodes that another version shares are not joined.
    tree_shape: Shape
    # Function entries may name a program.
    has_programs: bool
    # A label that the tree would file in the place of another text, or that holds a line break, is no path of a write.
    labels_have_one_spelling: bool
    # An unordered transaction is valid only this close to block time and only once; 0 means for ever and often.
    replay_window_ms: int
    # Blocks leave a chained hash in the state, from which lots are drawn.
    has_beacon: bool


# A native of the kernel, which writes through operations: it gets the call and returns a function code.
KernelNative = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class ProgramHook:
    """PROGRAM entries: `run` when a value is written where one stands, `check` when one is set.

    `check` gets the entry, the values path where it is to stand, who sets it, and the state; it refuses by raising.
    """

    writes: tuple[tuple[str, ...], ...]
    run: Callable[[Draft, dict[str, Any], NativeCall], None]
    check: Callable[[Any, Sequence[str], str, StateAccess], object]


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
    producers: tuple[str, ...] = ()
    natives: dict[str, Native] = field(default_factory=dict)
    kernel_natives: dict[str, KernelNative] = field(default_factory=dict)
    due_actions: dict[str, DueAction] = field(default_factory=dict)
    programs: ProgramHook | None = None
    flags: tuple[TimerFlag, ...] = ()

    def enabled_at(self, height: int) -> frozenset[str]:
        """The changes of the protocol that are in force at a block."""
        return frozenset(
            flag.name
            for flag in self.flags
            if height >= flag.enabled_block and (flag.disabled_block is None or height < flag.disabled_block)
        )

    def enabled_block(self, name: str) -> int | None:
        """The block from which a change of the protocol is in force; None if it never is."""
        for flag in self.flags:
            if flag.name == name:
                return flag.enabled_block
        return None

    def configured(self, category: str, name: str) -> Any:
        """A parameter from the network's configuration."""
        return self.parameters.get(category, {}).get(name)
