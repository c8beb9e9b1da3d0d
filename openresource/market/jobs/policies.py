"""Policies: how many run a job and when their results count, as a text that a buyer writes.

`one` trusts the provider that was first in turn; `quorum:2/3` wants two results of three to agree; `audited` checks by
lot, as often as the provider's record asks for, and `audited:0.25` exactly that often.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from openresource.market.codes import ResultCode
from openresource.market.jobs.comparators import Verification
from openresource.primitives.amounts import PPM
from openresource.primitives.errors import Refusal

ONE: Final = "one"
QUORUM: Final = "quorum"
AUDITED: Final = "audited"
KINDS: Final = (ONE, QUORUM, AUDITED)
QUORUM_SIZE_MAX: Final = 9

_QUORUM = re.compile(r"quorum:([1-9])/([1-9])")
_AUDITED = re.compile(r"audited(?::(0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?))?")


class PolicyInvalid(Refusal):
    result_code = ResultCode.POLICY_INVALID
    template = "The policy {policy} is not valid: {reason}."
    way_out = "Write one, quorum:2/3 (at most 9, more than half), audited, or audited:0.05."


class PolicyNotForClass(Refusal):
    result_code = ResultCode.POLICY_NOT_FOR_CLASS
    template = "The policy {policy} compares results, and a program that is {exactness} has {reason}."
    way_out = "Use policy one, or a version whose [verify] says how its results are compared."


@dataclass(frozen=True, slots=True)
class Policy:
    """What a buyer asks for; `audit_ppm` is None where the provider's record decides.

    A verdict also needs to know how results are compared, and of a dispute until when referees may come and how many are
    called.
    """

    kind: str = ONE
    quorum: int = 1
    size: int = 1
    audit_ppm: int | None = None
    verification: Verification = field(default_factory=Verification)
    referees_until_ms: int = 0
    referees_wanted: int = 0
    # What all of those have bonded who could have been called, and those who were.
    able_uain: int = 0
    called_uain: int = 0


def read_policy(text: object, verification: Verification | None = None) -> Policy:
    """The policy that a text names."""
    checked = verification or Verification()
    if text == ONE:
        return Policy(ONE, verification=checked)
    if isinstance(text, str):
        found = _QUORUM.fullmatch(text)
        if found is not None:
            quorum, size = int(found[1]), int(found[2])
            if not size < 2 * quorum <= 2 * size:
                raise PolicyInvalid(
                    policy=text, reason="a quorum is more than half of those who run, and no more"
                )
            return Policy(QUORUM, quorum, size, verification=checked)
        found = _AUDITED.fullmatch(text)
        if found is not None:
            rate = None if found[1] is None else int(Decimal(found[1]) * PPM)
            return Policy(AUDITED, audit_ppm=rate, verification=checked)
    raise PolicyInvalid(policy=str(text)[:40], reason="it is none of those that are known")


def policy_text(policy: Policy) -> str:
    """The text that names a policy."""
    if policy.kind == QUORUM:
        return f"{QUORUM}:{policy.quorum}/{policy.size}"
    if policy.kind == AUDITED and policy.audit_ppm is not None:
        whole, rest = divmod(policy.audit_ppm, PPM)
        decimals = f"{rest:06d}".rstrip("0")
        return f"{AUDITED}:{whole}.{decimals}" if decimals else f"{AUDITED}:{whole}"
    return policy.kind


def check_policy_fits(policy: Policy) -> None:
    """Refuses a comparison of what cannot be compared."""
    verification = policy.verification
    if policy.kind == ONE or verification.is_comparable:
        return
    reason = "no comparator" if verification.needs_outputs else "nothing that two runs must have in common"
    raise PolicyNotForClass(policy=policy_text(policy), exactness=verification.exactness, reason=reason)
