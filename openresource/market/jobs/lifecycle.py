"""The life cycle of a job as one table: where it is, what may happen, where it is then, and what each wait ends with.

A job is settled with its last status: money never waits for another step. The only way back out of a final status is a
dispute of an accepted result within its window.
"""

from __future__ import annotations

from typing import Final

from openresource.market.codes import ResultCode
from openresource.primitives.errors import Refusal

REQUESTED: Final = "REQUESTED"
LEASED: Final = "LEASED"
# The work is bound by a commitment; the buyer's secret is awaited.
COMMITTED: Final = "COMMITTED"
# The lot fell on this job: auditors lease, run and commit.
DRAWN: Final = "DRAWN"
# Every commitment that counts is there; outputs' digests come to light.
REVEALING: Final = "REVEALING"
# Referees lease, run and commit.
DISPUTED: Final = "DISPUTED"
# Referees' digests come to light.
JUDGING: Final = "JUDGING"

ACCEPTED: Final = "ACCEPTED"
FAILED: Final = "FAILED"
EXPIRED: Final = "EXPIRED"
REFUSED: Final = "REFUSED"
REFUTED: Final = "REFUTED"
UNRESOLVED: Final = "UNRESOLVED"

FINAL: Final = (ACCEPTED, FAILED, EXPIRED, REFUSED, REFUTED, UNRESOLVED)

LIFE_CYCLE: Final[dict[str, dict[str, str]]] = {
    REQUESTED: {"lease": LEASED, "deadline": EXPIRED},
    LEASED: {
        "lease": LEASED,
        "commit": LEASED,
        "work_committed": COMMITTED,
        "all_committed": REVEALING,
        "finish": ACCEPTED,
        "fail": FAILED,
        "one_lease_over": LEASED,
        "lease_over": REQUESTED,
        "deadline": EXPIRED,
    },
    COMMITTED: {"drawn": DRAWN, "not_drawn": REVEALING, "secret_over": DRAWN},
    DRAWN: {
        "lease": DRAWN,
        "commit": DRAWN,
        "lease_over": DRAWN,
        "all_committed": REVEALING,
        "audit_over": REVEALING,
    },
    REVEALING: {
        "reveal": REVEALING,
        "accept": ACCEPTED,
        "fail": FAILED,
        "disagree": DISPUTED,
        "not_resolved": UNRESOLVED,
    },
    DISPUTED: {
        "lease": DISPUTED,
        "commit": DISPUTED,
        "lease_over": DISPUTED,
        "all_committed": JUDGING,
        "dispute_over": JUDGING,
    },
    JUDGING: {"reveal": JUDGING, "accept": ACCEPTED, "refute": REFUTED, "not_resolved": UNRESOLVED},
    ACCEPTED: {"dispute": DISPUTED},
    FAILED: {},
    EXPIRED: {},
    # A job is born refused where nobody would pay for it.
    REFUSED: {},
    REFUTED: {},
    UNRESOLVED: {},
}

# What ends each wait: the due step, the parameter that says after how long, and the reason that is written down.
WAITS: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    REQUESTED: (("deadline", "job_deadline_ms", "not_in_time"),),
    LEASED: (("lease", "job_lease_ms", "lease_over"), ("deadline", "job_deadline_ms", "not_in_time")),
    COMMITTED: (("secret", "job_secret_ms", "no_secret"),),
    DRAWN: (("lease", "job_lease_ms", "lease_over"), ("audit", "job_audit_ms", "no_auditor")),
    REVEALING: (("reveal", "job_reveal_ms", "no_reveal"),),
    DISPUTED: (("lease", "job_lease_ms", "lease_over"), ("dispute", "job_referee_ms", "no_referee")),
    JUDGING: (("judge", "job_reveal_ms", "no_reveal"),),
    ACCEPTED: (("fold", "job_keep_ms", "kept_long_enough"),),
    FAILED: (("fold", "job_keep_ms", "kept_long_enough"),),
    EXPIRED: (("fold", "job_keep_ms", "kept_long_enough"),),
    REFUSED: (("fold", "job_keep_ms", "kept_long_enough"),),
    REFUTED: (("fold", "job_keep_ms", "kept_long_enough"),),
    UNRESOLVED: (("fold", "job_keep_ms", "kept_long_enough"),),
}

# Every reason that a verdict, an execution or a job's state names, in a sentence for people.
REASONS: Final[dict[str, str]] = {
    "agrees": "its result is the one that the verdict accepts",
    "differs": "its result is not the one that the verdict accepts",
    "failed": "the program failed there",
    "not_in_time": "nobody finished it before its deadline",
    "lease_over": "the lease ended before a commitment came",
    "late": "it came when nothing could be changed any more",
    "no_secret": "the buyer kept the secret, so the job counts as drawn",
    "drawn": "the lot fell on this job, so auditors ran it again",
    "not_drawn": "the lot did not fall on this job",
    "no_auditor": "nobody who could audit came in time, so it stands unaudited",
    "no_reveal": "a commitment was never opened",
    "no_quorum": "too few results agree",
    "no_referee": "nobody who could referee came in time",
    "referees_split": "the referees do not agree among themselves",
    "outweighed": "those who came to another result have less bonded than who they speak against",
    "wrong_digest": "the referees' runs show that its result is wrong",
    "equivocation": "it signed two different results for one lease",
    "dispute_lost": "the referees' runs confirm the result that was disputed",
    "no_hold": "nobody set money aside that pays for it",
    "kept_long_enough": "it was settled long ago and is kept in short",
}

# Grounds of verdicts over results that differ, where nobody could be found wrong.
UNPROVEN: Final = ("no_referee", "referees_split", "outweighed")


class JobMissing(Refusal):
    result_code = ResultCode.JOB_MISSING
    template = "There is no job {job}."
    way_out = "Watch /jobs for requests; a job is named by the event that made it."


class JobStepNotAllowed(Refusal):
    result_code = ResultCode.JOB_STEP_NOT_ALLOWED
    template = "The job {job} is {status}; it cannot take the step {step}."
    way_out = "Read /jobs/{job}/state and leave it to whoever holds it."


class NotTheLeaseholder(Refusal):
    result_code = ResultCode.NOT_THE_LEASEHOLDER
    template = "The lease of job {job} belongs to {provider}; {signer} signed."
    way_out = "Lease a job before working on it."


def step(job: str, status: str, name: str) -> str:
    """The status after a step, or a refusal."""
    target = LIFE_CYCLE[status].get(name)
    if target is None:
        raise JobStepNotAllowed(job=job, status=status, step=name)
    return target
