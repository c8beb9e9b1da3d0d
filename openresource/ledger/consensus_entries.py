"""Blocks that are not final yet, as the consensus keeps them: with their proposals, votes, and what executing gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openresource.ledger.execution import Execution, Executor
from openresource.ledger.state import State

Wire = dict[str, Any]


class Entry:
    """A block that is not dropped yet: with its proposal, its votes, and the state after it."""

    __slots__ = (
        "block",
        "executions",
        "executor",
        "hash",
        "proposal",
        "proposal_execution",
        "state",
        "tally",
        "vote_executions",
        "votes",
    )

    def __init__(self, block: dict[str, Any], executor: Executor, proposal: Wire | None) -> None:
        self.block: dict[str, Any] = block
        self.hash: str = block.get("hash", "")
        self.executor: Executor = executor
        self.state: State = executor.state
        self.proposal: Wire | None = proposal
        self.votes: list[Wire] = []
        self.tally: Any = 0
        # What executing gave: of the last votes, the transactions, and the proposal on trial.
        self.vote_executions: list[Execution] = []
        self.executions: list[Execution] = []
        self.proposal_execution: Execution | None = None

    @property
    def number(self) -> int:
        """The block's number."""
        number: int = self.block["number"]
        return number

    @property
    def epoch(self) -> int:
        """The block's epoch."""
        epoch: int = self.block["epoch"]
        return epoch


class Offence:
    """A block that was refused, with its proposal and the votes against it: evidence for a later block."""

    __slots__ = ("block", "proposal", "votes")

    def __init__(self, block: dict[str, Any], proposal: Wire | None) -> None:
        self.block: dict[str, Any] = block
        self.proposal: Wire | None = proposal
        self.votes: list[Wire] = []


def recorded_offences(entry: Entry) -> set[str]:
    """Hashes of the refused blocks that a block carries as evidence."""
    hashes: set[str] = set()
    for entries in entry.block["evidence"].values():
        for one in entries:
            hashes.add(one["block"]["hash"])
    return hashes


def is_consecutive(entries: Sequence[Entry]) -> bool:
    """Whether blocks come from one epoch after the other."""
    first = entries[0].epoch
    return all(entry.epoch == first + place for place, entry in enumerate(entries))
