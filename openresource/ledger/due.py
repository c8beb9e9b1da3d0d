"""The due-queue: what the chain promised to do at a time, in one ordered place of its own state.

An entry is `/due/<ms, zero-padded>_<digest>` = {kind, key}. Radix order is time order, so the opening of a block takes
entries from the front up to a bound and never looks at the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak

if TYPE_CHECKING:
    from openresource.ledger.draft import Draft

DUE: Final = "due"
DUE_ACTIONS_PER_BLOCK_MAX: Final = 100
DUE_TIME_DIGITS: Final = 15
DUE_TIME_MS_MAX: Final = 10**DUE_TIME_DIGITS - 1


class DueTimeOutOfRange(Refusal):
    template = "{at_ms} ms is not a time that something can be due at (0 to {at_ms_max})."
    way_out = "Name a time in milliseconds since 1970."
    result_code: ClassVar[int] = 21002


@dataclass(frozen=True, slots=True)
class DueAction:
    """What happens when an entry of one kind is due; `writes` are the only prefixes it may write."""

    kind: str
    writes: tuple[tuple[str, ...], ...]
    run: Callable[[Draft, str, int], None]


def due_label(at_ms: int, kind: str, key: str) -> str:
    """The label of an entry: ordered by time, and the same for the same thing at the same time."""
    if not 0 <= at_ms <= DUE_TIME_MS_MAX:
        raise DueTimeOutOfRange(at_ms=at_ms, at_ms_max=DUE_TIME_MS_MAX)
    return f"{at_ms:0{DUE_TIME_DIGITS}d}_{keccak(f'{kind}|{key}'.encode('utf-8', 'replace')).hex()[:16]}"


def due_time_ms(label: str) -> int:
    """When an entry is due, from its label."""
    return int(label[:DUE_TIME_DIGITS])


def due_entry(kind: str, key: str) -> dict[str, Any]:
    """The value of an entry."""
    return {"kind": kind, "key": key}
