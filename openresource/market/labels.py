"""Trust labels of a program: what the chain saw of its jobs, and never what somebody claims.

A label says what happened, not that it will happen again: how often results that were subject to a lot were really run
again, how many providers agreed at once, and whether bytes that were declared exact have always been the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openresource.market.fields import Fields
from openresource.primitives.limits import SAFE_INTEGER_MAX

VERIFIED: Final = "verified"
UNAUDITED: Final = "unaudited"
AUDITED: Final = "audited"
QUORUM: Final = "quorum"
BIT_EXACT: Final = "bit_exact"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was seen of a program: results under the lot and those drawn, comparisons that agreed, faults, quorums by size.

    `differed` counts jobs whose results differ while nobody could be held to have the wrong one.
    """

    audited: int = 0
    drawn: int = 0
    agreed: int = 0
    faults: int = 0
    differed: int = 0
    quorums: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Label:
    """One label: its kind, its text, and the facts behind it."""

    kind: str
    text: str
    why: str


NOTHING_SEEN: Final = Verified()


def labels_of(exactness: str, verified: Verified) -> tuple[Label, ...]:
    """The labels that a program's facts give it; exactness is what its publisher declared."""
    labels = []
    if verified.audited:
        rate = _percent(verified.drawn, verified.audited)
        why = f"of {_counted(verified.audited, 'result')} under the lot {verified.drawn} were run again by others"
        if verified.differed:
            why += f"; {verified.differed} differed, and nobody could be held to it"
        labels.append(Label(AUDITED, f"audited at {rate} %", why))
    if verified.quorums:
        size = max(verified.quorums)
        why = f"{_counted(verified.quorums[size], 'result')} came out alike at {size} providers at once"
        labels.append(Label(QUORUM, f"quorum {size}", why))
    if exactness == BIT_EXACT and verified.agreed and not (verified.faults or verified.differed):
        why = f"declared, and {_counted(verified.agreed, 'comparison')} found the same bytes without a fault"
        labels.append(Label(BIT_EXACT, "bit-exact", why))
    if not labels:
        labels.append(Label(UNAUDITED, UNAUDITED, "nobody has run a job of it a second time"))
    return tuple(labels)


def count_audited(verified: Verified, *, is_drawn: bool) -> Verified:
    """One more result that was subject to the lot."""
    return replace(
        verified, audited=_more(verified.audited), drawn=_more(verified.drawn) if is_drawn else verified.drawn
    )


def count_quorum(verified: Verified, size: int) -> Verified:
    """One more result on which so many providers agreed."""
    return replace(verified, quorums={**verified.quorums, size: _more(verified.quorums.get(size, 0))})


def count_comparison(verified: Verified, *, agreed: bool, faults: int, differed: bool = False) -> Verified:
    """What a comparison of several runs brought."""
    return replace(
        verified,
        agreed=_more(verified.agreed) if agreed else verified.agreed,
        faults=min(verified.faults + faults, SAFE_INTEGER_MAX),
        differed=_more(verified.differed) if differed else verified.differed,
    )


def read_verified(record: Any) -> Verified:
    """What was seen of a program, from its record; none means nothing."""
    if record is None:
        return NOTHING_SEEN
    fields = Fields(record, "what was seen of a program")
    quorums = fields.take("quorums") or {}
    return Verified(
        audited=fields.optional_integer("audited", 0),
        drawn=fields.optional_integer("drawn", 0),
        agreed=fields.optional_integer("agreed", 0),
        faults=fields.optional_integer("faults", 0),
        differed=fields.optional_integer("differed", 0),
        quorums={int(size): int(count) for size, count in quorums.items()},
    )


def verified_record(verified: Verified) -> dict[str, Any]:
    """What the chain writes at `/verified/<program>`; what is nothing is left out."""
    members: dict[str, Any] = {
        "audited": verified.audited,
        "drawn": verified.drawn,
        "agreed": verified.agreed,
        "faults": verified.faults,
        "differed": verified.differed,
        "quorums": {str(size): count for size, count in verified.quorums.items()},
    }
    return {name: value for name, value in members.items() if value}


def _more(count: int) -> int:
    return min(count + 1, SAFE_INTEGER_MAX)


def _percent(part: int, whole: int) -> str:
    """A share with one digit after the point, rounded down: a label never promises more than there was."""
    tenths = part * 1000 // whole
    return f"{tenths // 10}" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
