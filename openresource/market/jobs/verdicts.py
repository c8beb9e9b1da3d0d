"""The verdict of a job: computed from its executions alone, by anybody, with the same outcome in every order.

Executions are appended and never overwritten. One that came late, twice, or against what its own provider said before
stays visible in the verdict's reasons and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from openresource.market.jobs.comparators import CLASS_EXACT, outputs_agree
from openresource.market.jobs.lifecycle import ACCEPTED, DISPUTED, FAILED, REFUTED, UNRESOLVED
from openresource.market.jobs.policies import AUDITED, QUORUM, Policy
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.hashing import keccak

WORKER: Final = "worker"
AUDITOR: Final = "auditor"
REFEREE: Final = "referee"
ROLES: Final = (WORKER, AUDITOR, REFEREE)

# How a run ended, as its provider says.
DONE: Final = "DONE"

# Not all that counts is there yet.
PENDING: Final = "PENDING"


@dataclass(frozen=True, slots=True)
class Execution:
    """One provider's run of a job, as far as it has come: leased, then bound by a commitment, then revealed."""

    provider: str
    role: str = WORKER
    operator: str = ""
    runtime_class: str = ""
    lease_at_ms: int = 0
    lease_until_ms: int = 0
    ask_uain: int = 0
    royalty_uain: int = 0
    # All that its provider had bonded when it leased: so much weight its word has where bonds are weighed.
    bond_uain: int = 0
    # A referee whom the lot named, not one who came when those did not.
    is_called: bool = False
    # What a proven fault in this run costs, and whether so much of the bond is bound just now.
    stake_uain: int = 0
    is_locked: bool = False
    # The lease ended before a commitment came.
    is_over: bool = False
    commitment: bytes = b""
    committed_at_ms: int = 0
    output_cid: str = ""
    # Until when the commitment must be opened; 0 as long as others may still commit.
    reveal_until_ms: int = 0
    status: str = ""
    digest: bytes = b""
    salt: bytes = b""
    output: Any = None
    error: str = ""
    usage: Mapping[str, int] | None = None
    revealed_at_ms: int = 0
    is_late: bool = False
    # When it was shown to have two results; what is shown after the verdict is fined, and changes nothing else.
    equivocated_at_ms: int = 0
    is_fined: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a job: the partition shows who agreed with whom, the reasons why, provider by provider."""

    status: str
    digest: bytes = b""
    ground: str = ""
    partition: tuple[tuple[str, ...], ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()
    winners: tuple[str, ...] = ()
    punished: tuple[tuple[str, str], ...] = ()
    # Another provider than the one that is paid has come to the same result.
    is_verified: bool = False

    @property
    def is_pending(self) -> bool:
        """Whether more executions may still change it."""
        return self.status == PENDING


def resolve(executions: Iterable[Execution], policy: Policy, at_ms: int) -> Verdict:
    """The verdict at a time; what comes later than it may, or again, changes nothing."""
    merged = _merged(executions, at_ms)
    base = _base_verdict(merged, policy, at_ms)
    referees = [run for run in merged if run.role == REFEREE and _has_committed(run)]
    if referees:
        judged = _judged(merged, referees, base, policy, at_ms)
    elif base.status == DISPUTED and 0 < policy.referees_until_ms <= at_ms:
        judged = replace(base, status=UNRESOLVED, ground="no_referee")
    else:
        judged = base
    return _with_notes(judged, merged, policy, at_ms)


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """The record at `/jobs/<job>/verdict`: lists by position, what is empty left out."""
    members: dict[str, Any] = {"status": verdict.status, "ground": verdict.ground}
    if verdict.digest:
        members["digest"] = "0x" + verdict.digest.hex()
    if verdict.partition:
        members["partition"] = {
            str(place): dict.fromkeys(group, True) for place, group in enumerate(verdict.partition)
        }
    if verdict.reasons:
        members["reasons"] = dict(verdict.reasons)
    if verdict.winners:
        members["winners"] = dict.fromkeys(verdict.winners, True)
    if verdict.punished:
        members["punished"] = dict(verdict.punished)
    if verdict.is_verified:
        members["verified"] = True
    return members


def verdict_digest(record: Mapping[str, Any]) -> bytes:
    """The digest of a verdict's record, which outlives it."""
    return keccak(canonical_json_bytes(dict(record)))


# -- what counts -------------------------------------------------------------------------------------------------------


def _merged(executions: Iterable[Execution], at_ms: int) -> list[Execution]:
    """One execution for each provider: duplicates are one, two different results of one provider are none."""
    by_provider: dict[str, list[Execution]] = {}
    for run in executions:
        if run.lease_at_ms <= at_ms:
            by_provider.setdefault(run.provider, []).append(_as_of(run, at_ms))
    return [_one_of(by_provider[provider]) for provider in sorted(by_provider)]


def _as_of(run: Execution, at_ms: int) -> Execution:
    """An execution as it was known at a time."""
    if run.revealed_at_ms > at_ms:
        # Whether the commitment was late stays; whether its opening was is not known yet.
        is_late = run.is_late and (run.is_over or run.committed_at_ms >= run.lease_until_ms)
        run = replace(
            run, status="", digest=b"", salt=b"", output=None, error="", revealed_at_ms=0, is_late=is_late
        )
    if run.equivocated_at_ms > at_ms:
        run = replace(run, equivocated_at_ms=0)
    if run.committed_at_ms > at_ms:
        run = replace(run, commitment=b"", committed_at_ms=0, output_cid="")
    if not run.is_late and 0 < run.reveal_until_ms <= run.revealed_at_ms:
        run = replace(run, is_late=True)
    return run


def _one_of(runs: list[Execution]) -> Execution:
    timely = [run for run in runs if not run.is_late] or runs
    best = max(timely, key=_progress)
    digests = {(run.status, run.digest) for run in timely if run.revealed_at_ms}
    if len(digests) > 1 or any(run.equivocated_at_ms for run in runs):
        return replace(best, equivocated_at_ms=best.equivocated_at_ms or 1)
    return best


def _progress(run: Execution) -> tuple[bool, bool, int, int, bytes, str]:
    # Of two records of one run the one that is further says more; the rest only makes the choice the same everywhere.
    return (
        run.revealed_at_ms > 0,
        run.committed_at_ms > 0,
        -run.revealed_at_ms,
        -run.committed_at_ms,
        run.digest + run.commitment,
        repr(run),
    )


def _has_committed(run: Execution) -> bool:
    return bool(run.commitment) and not run.is_over and not (run.is_late and not run.revealed_at_ms)


def _counts(run: Execution) -> bool:
    """Whether a revealed result is weighed."""
    return run.revealed_at_ms > 0 and not run.is_late and not run.equivocated_at_ms and not run.is_over


def _is_awaited(run: Execution, at_ms: int) -> bool:
    """Whether a commitment may still be opened in time."""
    if not _has_committed(run) or run.equivocated_at_ms or run.is_late or run.revealed_at_ms:
        return False
    return run.reveal_until_ms == 0 or at_ms < run.reveal_until_ms


def _is_unopened(run: Execution, at_ms: int) -> bool:
    """Whether a commitment should have been opened and was not."""
    if not _has_committed(run) or run.equivocated_at_ms:
        return False
    return 0 < run.reveal_until_ms <= at_ms and (run.revealed_at_ms == 0 or run.is_late)


# -- who agrees --------------------------------------------------------------------------------------------------------


def _agree(policy: Policy, left: Execution, right: Execution) -> bool:
    verification = policy.verification
    if verification.exactness == CLASS_EXACT and left.runtime_class != right.runtime_class:
        return False
    if verification.is_exact or verification.comparator is None:
        return left.digest == right.digest
    return outputs_agree(verification.comparator, left.output, right.output)


def _groups(runs: list[Execution], policy: Policy) -> list[list[Execution]]:
    """Results that agree, the largest group first; where agreement is not transitive, all of a group agree with its centre."""
    groups: list[list[Execution]] = []
    left = [run for run in runs if run.status == DONE]
    # Each pair is compared once: comparing within a tolerance costs every node time.
    agree = {
        frozenset((run.provider, other.provider)): _agree(policy, run, other)
        for place, run in enumerate(left)
        for other in left[:place]
    }
    while left:
        stars = [
            [other for other in left if other is run or agree[frozenset((run.provider, other.provider))]]
            for run in left
        ]
        best = min(range(len(left)), key=lambda place: (-len(stars[place]), left[place].digest, place))
        # The centre first: its digest stands for the group.
        group = [left[best], *(run for run in stars[best] if run is not left[best])]
        groups.append(group)
        left = [run for run in left if all(run is not member for member in group)]
    return groups


# -- the policies ------------------------------------------------------------------------------------------------------


def _base_verdict(runs: list[Execution], policy: Policy, at_ms: int) -> Verdict:
    workers = [run for run in runs if run.role == WORKER]
    if policy.kind == QUORUM:
        return _by_quorum(workers, policy, at_ms)
    if policy.kind == AUDITED:
        return _by_audit(workers, [run for run in runs if run.role == AUDITOR], policy, at_ms)
    return _by_first(workers)


def _by_first(workers: list[Execution]) -> Verdict:
    """One provider is trusted: the first in time whose result counts."""
    counted = sorted(
        (run for run in workers if _counts(run)), key=lambda run: (run.revealed_at_ms, run.provider)
    )
    if not counted:
        return Verdict(PENDING)
    first = counted[0]
    if first.status != DONE:
        return Verdict(FAILED, ground="failed")
    return Verdict(ACCEPTED, first.digest, "agrees", winners=(first.provider,))


def _by_quorum(workers: list[Execution], policy: Policy, at_ms: int) -> Verdict:
    """More than half of all seats must agree, so that there is never more than one such group."""
    bound = [run for run in workers if _has_committed(run)]
    if len(bound) < policy.quorum or any(_is_awaited(run, at_ms) for run in bound):
        return Verdict(PENDING)
    counted = [run for run in bound if _counts(run)]
    groups = _groups(counted, policy)
    if groups and len(groups[0]) >= policy.quorum:
        winners = tuple(sorted(run.provider for run in groups[0]))
        return Verdict(ACCEPTED, groups[0][0].digest, "agrees", winners=winners, is_verified=True)
    if sum(run.status != DONE for run in counted) >= policy.quorum:
        return Verdict(FAILED, ground="failed")
    return Verdict(UNRESOLVED, ground="no_quorum")


def _by_audit(workers: list[Execution], auditors: list[Execution], policy: Policy, at_ms: int) -> Verdict:
    """The worker's result stands unless an auditor came to another one; then referees decide."""
    bound = [run for run in workers if _has_committed(run)]
    if not bound:
        return Verdict(PENDING)
    worker = min(bound, key=lambda run: (run.committed_at_ms, run.provider))
    checks = [run for run in auditors if _has_committed(run)]
    if any(_is_awaited(run, at_ms) for run in (worker, *checks)):
        return Verdict(PENDING)
    if not _counts(worker):
        ground = "equivocation" if worker.equivocated_at_ms else "no_reveal"
        return Verdict(UNRESOLVED, ground=ground)
    if worker.status != DONE:
        return Verdict(FAILED, ground="failed")
    # A run that failed proves nothing about the result, and neither does one of another runtime class.
    comparable = [
        run
        for run in checks
        if _counts(run)
        and run.status == DONE
        and (policy.verification.exactness != CLASS_EXACT or run.runtime_class == worker.runtime_class)
    ]
    if any(not _agree(policy, worker, run) for run in comparable):
        return Verdict(DISPUTED, worker.digest, "differs")
    return Verdict(
        ACCEPTED,
        worker.digest,
        "agrees",
        winners=tuple(sorted([worker.provider, *(run.provider for run in comparable)])),
        is_verified=bool(comparable),
    )


# -- referees ----------------------------------------------------------------------------------------------------------


def _judged(
    runs: list[Execution], referees: list[Execution], base: Verdict, policy: Policy, at_ms: int
) -> Verdict:
    """What two thirds of the referees found is the result; where they do not agree, nobody is found wrong.

    Of an exact program nobody is found wrong either who has bonded more than speaks against it.
    """
    if any(_is_awaited(run, at_ms) for run in referees):
        return Verdict(PENDING)
    parties = [run for run in runs if run.role != REFEREE and _counts(run) and run.status == DONE]
    groups = _groups([run for run in referees if _counts(run)], policy)
    # Two thirds of those who were called: the few who happened to come may all be friends of one party.
    called = max(len(referees), policy.referees_wanted)
    if not groups or 3 * len(groups[0]) < 2 * called:
        if base.status == DISPUTED:
            return Verdict(UNRESOLVED, ground="referees_split")
        # An accepted result stands where nothing was proven against it.
        return base
    centre = groups[0][0]
    right = [run for run in parties if _agree(policy, centre, run)]
    wrong = [
        run
        for run in parties
        if run not in right
        and (policy.verification.exactness != CLASS_EXACT or run.runtime_class == centre.runtime_class)
    ]
    agreeing = tuple(sorted(run.provider for run in [*right, *groups[0]]))
    stands = any(run.role == WORKER and run.digest == base.digest for run in right)
    punished: tuple[tuple[str, str], ...] = ()
    if policy.verification.is_exact:
        accused = [*wrong, *(run for group in groups[1:] for run in group)]
        against_uain = _weight(right) + _weight(groups[0]) + _uncalled_uain(groups[0], policy)
        light = [run for run in accused if _outweighs(against_uain, _side(accused, run, policy))]
        if not stands and any(run.role == WORKER and run not in light for run in accused):
            # Whoever is few and new could else take the bond of the only one that has always been there.
            # A result that was accepted stands, as nothing is proven; one that is not yet is paid to nobody.
            status = UNRESOLVED if base.status == DISPUTED else base.status
            return replace(base, status=status, ground="outweighed")
        punished = tuple(sorted((run.provider, "wrong_digest") for run in light))
    return Verdict(
        ACCEPTED if stands else REFUTED,
        base.digest if stands else centre.digest,
        "agrees" if stands else "wrong_digest",
        winners=agreeing,
        punished=punished,
        is_verified=True,
    )


def _side(accused: list[Execution], run: Execution, policy: Policy) -> int:
    """What those have bonded who came to the same wrong result as one of them."""
    return _weight([other for other in accused if _agree(policy, run, other)])


def _uncalled_uain(agreeing: list[Execution], policy: Policy) -> int:
    """The part of the bonds of those whom the lot did not name that referees stand for whom it did name.

    As many parts as they are of all that were called, and no more than what they have bonded is of what these have: few small
    ones beside a large one that did not come speak for few coins.
    """
    named = [run for run in agreeing if run.is_called]
    others_uain = (
        policy.able_uain - policy.called_uain - _weight([run for run in agreeing if run not in named])
    )
    if others_uain <= 0 or policy.called_uain <= 0 or policy.referees_wanted <= 0:
        return 0
    by_bonds = others_uain * _weight(named) // policy.called_uain
    return min(by_bonds, others_uain * len(named) // policy.referees_wanted, others_uain)


def _weight(runs: list[Execution]) -> int:
    return sum(run.bond_uain for run in runs)


def _outweighs(against_uain: int, own_uain: int) -> bool:
    """Whether more coins speak against somebody than it has bonded itself; who has bonded nothing has no weight."""
    return against_uain > own_uain or own_uain == 0


# -- what is written down ----------------------------------------------------------------------------------------------


def _with_notes(verdict: Verdict, runs: list[Execution], policy: Policy, at_ms: int) -> Verdict:
    """The verdict with its partition, everybody's reason, and faults that prove themselves."""
    if verdict.is_pending:
        return verdict
    counted = [run for run in runs if _counts(run)]
    groups = [tuple(sorted(run.provider for run in group)) for group in _groups(counted, policy)]
    failed = tuple(sorted(run.provider for run in counted if run.status != DONE))
    punished = dict(verdict.punished)
    reasons: dict[str, str] = {}
    for run in runs:
        reason = punished.get(run.provider) or _reason(run, verdict, at_ms)
        if reason in ("no_reveal", "equivocation"):
            punished[run.provider] = reason
        if reason:
            reasons[run.provider] = reason
    return replace(
        verdict,
        partition=(*groups, failed) if failed else tuple(groups),
        reasons=tuple(sorted(reasons.items())),
        punished=tuple(sorted(punished.items())),
    )


def _reason(run: Execution, verdict: Verdict, at_ms: int) -> str:
    if run.equivocated_at_ms:
        return "equivocation"
    if run.is_over:
        return "lease_over"
    if _is_unopened(run, at_ms):
        return "no_reveal"
    if run.is_late:
        return "late"
    if not run.revealed_at_ms:
        return ""
    if run.status != DONE:
        return "failed"
    return "agrees" if run.provider in verdict.winners else "differs"
