"""Jobs: runs that are asked for on the chain, raced by nobody, checked by lot, and judged by one pure function.

It never does I/O, reads a clock or draws chance: blocks and secrets are arguments. Open `lifecycle.py` first, then
`machine.py`, which takes a job and an event and gives the job after it with the moves of money that follow.

`policies.py` reads what a buyer asks for, `draws.py` is who may work and whom the lot falls on, `verdicts.py` decides from
executions alone, `comparators.py` whether two outputs agree. `entries.py`, `requests.py`, `records.py` and `faults.py` are what stands on the
chain.
"""

from __future__ import annotations

from openresource.market.jobs.entries import (
    APPS,
    POLICIES,
    POLICY_ONE,
    PROGRAM,
    ProgramEntry,
    ProgramEntryInvalid,
    ResultPathNotAllowed,
    bind_path,
    check_program_entry,
    read_program_entry,
)
from openresource.market.jobs.lifecycle import (
    ACCEPTED,
    EXPIRED,
    FAILED,
    FINAL,
    LEASED,
    LIFE_CYCLE,
    REFUSED,
    REQUESTED,
    JobMissing,
    JobStepNotAllowed,
    NotTheLeaseholder,
    step,
)
from openresource.market.jobs.records import (
    ERROR_CHARACTERS_MAX,
    JobState,
    Report,
    ResultDigestWrong,
    check_fits_at,
    execution_record,
    failure_record,
    input_digest,
    job_id,
    job_state_record,
    read_execution,
    read_job_state,
    value_digest,
)
from openresource.market.jobs.verdicts import DONE, PENDING, Execution, Verdict, resolve

__all__ = [
    "ACCEPTED",
    "APPS",
    "DONE",
    "ERROR_CHARACTERS_MAX",
    "EXPIRED",
    "FAILED",
    "FINAL",
    "LEASED",
    "LIFE_CYCLE",
    "PENDING",
    "POLICIES",
    "POLICY_ONE",
    "PROGRAM",
    "REFUSED",
    "REQUESTED",
    "Execution",
    "JobMissing",
    "JobState",
    "JobStepNotAllowed",
    "NotTheLeaseholder",
    "ProgramEntry",
    "ProgramEntryInvalid",
    "Report",
    "ResultDigestWrong",
    "ResultPathNotAllowed",
    "Verdict",
    "bind_path",
    "check_fits_at",
    "check_program_entry",
    "execution_record",
    "failure_record",
    "input_digest",
    "job_id",
    "job_state_record",
    "read_execution",
    "read_job_state",
    "read_program_entry",
    "resolve",
    "step",
    "value_digest",
]
