"""Jobs: runs that are asked for on the chain, raced by nobody, checked by lot, and judged by one pure function.

It never does I/O, reads a clock or draws chance: blocks and secrets are arguments. Open `lifecycle.py` first, then
`machine.py`, which takes a job and an event and gives the job after it with the moves of money that follow.

`policies.py` reads what a buyer asks for, `draws.py` and `turns.py` are who may work and whom the lot falls on, `verdicts.py`
decides from executions alone, `comparators.py` whether two outputs agree, `settlement.py` where the money goes. What stands
on the chain is in `entries.py`, `requests.py`, `executions.py` and `states.py`; papers that prove a fault in `faults.py`,
and why a step is not taken in `refusals.py`.
"""

from __future__ import annotations

from openresource.market.jobs.comparators import Verification, read_verification, verification_record
from openresource.market.jobs.draws import secret_hash
from openresource.market.jobs.entries import (
    APPS,
    PROGRAM,
    ProgramEntry,
    ProgramEntryInvalid,
    ResultPathNotAllowed,
    bind_path,
    check_program_entry,
    read_program_entry,
)
from openresource.market.jobs.executions import execution_members, execution_of, executions_of
from openresource.market.jobs.lifecycle import (
    ACCEPTED,
    COMMITTED,
    DISPUTED,
    DRAWN,
    EXPIRED,
    FAILED,
    FINAL,
    JUDGING,
    LEASED,
    LIFE_CYCLE,
    REASONS,
    REFUSED,
    REFUTED,
    REQUESTED,
    REVEALING,
    UNRESOLVED,
    WAITS,
    JobMissing,
    JobStepNotAllowed,
    NotTheLeaseholder,
    step,
)
from openresource.market.jobs.machine import commitment
from openresource.market.jobs.policies import Policy, policy_text, read_policy
from openresource.market.jobs.records import (
    ERROR_CHARACTERS_MAX,
    JobState,
    ResultDigestWrong,
    check_fits_at,
    execution_record,
    failure_record,
    input_digest,
    job_id,
    read_job_state,
    value_digest,
)
from openresource.market.jobs.requests import (
    JobExists,
    JobRequest,
    asked_job_id,
    job_request_record,
    policy_of,
    public_salt,
    salted_digest,
)
from openresource.market.jobs.states import job_of, read_folded, read_verdict, remade_verdict
from openresource.market.jobs.turns import worker_turn_ms
from openresource.market.jobs.verdicts import (
    AUDITOR,
    DONE,
    PENDING,
    REFEREE,
    WORKER,
    Execution,
    Verdict,
    resolve,
    verdict_record,
)

__all__ = [
    "ACCEPTED",
    "APPS",
    "AUDITOR",
    "COMMITTED",
    "DISPUTED",
    "DONE",
    "DRAWN",
    "ERROR_CHARACTERS_MAX",
    "EXPIRED",
    "FAILED",
    "FINAL",
    "JUDGING",
    "LEASED",
    "LIFE_CYCLE",
    "PENDING",
    "PROGRAM",
    "REASONS",
    "REFEREE",
    "REFUSED",
    "REFUTED",
    "REQUESTED",
    "REVEALING",
    "UNRESOLVED",
    "WAITS",
    "WORKER",
    "Execution",
    "JobExists",
    "JobMissing",
    "JobRequest",
    "JobState",
    "JobStepNotAllowed",
    "NotTheLeaseholder",
    "Policy",
    "ProgramEntry",
    "ProgramEntryInvalid",
    "ResultDigestWrong",
    "ResultPathNotAllowed",
    "Verdict",
    "Verification",
    "asked_job_id",
    "bind_path",
    "check_fits_at",
    "check_program_entry",
    "commitment",
    "execution_members",
    "execution_of",
    "execution_record",
    "executions_of",
    "failure_record",
    "input_digest",
    "job_id",
    "job_of",
    "job_request_record",
    "policy_of",
    "policy_text",
    "public_salt",
    "read_folded",
    "read_job_state",
    "read_policy",
    "read_program_entry",
    "read_verdict",
    "read_verification",
    "remade_verdict",
    "resolve",
    "salted_digest",
    "secret_hash",
    "step",
    "value_digest",
    "verdict_record",
    "verification_record",
    "worker_turn_ms",
]
