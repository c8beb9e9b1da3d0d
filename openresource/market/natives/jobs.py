"""What the chain does for a job: make it from an event, lease it, settle it, and let time end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from openresource.ledger.draft import Draft, DueAction, Native, NativeCall, StateAccess
from openresource.market.accounts import HOLD_BALANCES, TREASURY, hold_account, job_account
from openresource.market.fees import split_claim
from openresource.market.fields import Fields, InvalidRecord, require_key
from openresource.market.holds import has_expired, read_hold
from openresource.market.jobs import (
    DONE,
    LEASED,
    REFUSED,
    REQUESTED,
    JobMissing,
    JobState,
    JobStepNotAllowed,
    NotTheLeaseholder,
    ProgramEntry,
    bind_path,
    check_fits_at,
    check_program_entry,
    input_digest,
    job_id,
    job_state_record,
    read_execution,
    read_job_state,
    read_program_entry,
    step,
)
from openresource.market.natives.channels import NotPlaced
from openresource.market.natives.holds import check_app_admin
from openresource.market.natives.parameters import FEE_PPM, JOB_DEADLINE_MS, JOB_LEASE_MS, parameter
from openresource.market.papers import hex_text
from openresource.market.placements import PLACED, read_placement
from openresource.market.services import read_version
from openresource.primitives.limits import OPERATIONS_PER_TRANSACTION_MAX
from openresource.primitives.paths import format_path, parse_path

JOBS = "jobs"
JOB_LEASE_OVER = "job_lease_over"
JOB_DEADLINE = "job_deadline"


def check_program(entry: Any, path: Sequence[str], setter: str, state: StateAccess) -> None:
    """Whether somebody may set a PROGRAM entry at a values path; it spends the app's hold, so admins do."""
    check_program_entry(entry, path, setter, state.rule_allows)
    check_app_admin(state.read_value, path[1], setter, "let its hold pay for a program")


def on_program_event(draft: Draft, entry: dict[str, Any], call: NativeCall) -> None:
    """A value was written where a PROGRAM entry stands: a job, with its budget set aside or refused for want of it."""
    if call.value is None:
        return
    program_entry = read_program_entry(entry)
    job = _free_job_id(draft, call)
    app = call.path[1]
    publisher, name = _service_of(draft, program_entry)
    result_path = bind_path(program_entry.result_path, call.params)
    deadline_ms = call.at + parameter(draft, JOB_DEADLINE_MS)
    request: dict[str, Any] = {
        "program": program_entry.cid,
        "publisher": publisher,
        "name": name,
        "app": app,
        "function_id": program_entry.function_id,
        "source": format_path(call.path),
        "input_digest": hex_text(input_digest(call.value)),
        "result_path": format_path(result_path),
        "requester": call.signer,
        "budget_uain": program_entry.budget_uain,
        "hold": program_entry.hold,
        "requested_at_ms": call.at,
        "deadline_ms": deadline_ms,
    }
    if program_entry.method:
        request["method"] = program_entry.method
    draft.set((JOBS, job, "request"), request)
    state = _set_budget_aside(draft, job, app, program_entry, call, publisher)
    _store(draft, job, state)
    if state.status == REQUESTED:
        draft.after(deadline_ms, JOB_DEADLINE, job)


def lease_job(draft: Draft, call: NativeCall) -> None:
    """Gives a job to the first provider that asks and has the program placed; its price holds for this job."""
    job, provider = call.params["job"], call.params["provider"]
    request, state = _load(draft, job)
    fields = Fields(call.value, "lease")
    fields.optional_integer("at_ms", 0)
    fields.finish()
    leased = step(job, state.status, "lease")
    if state.status != REQUESTED:
        raise JobStepNotAllowed(job=job, status=state.status, step="lease")
    if draft.get(JOBS, job, "executions", provider) is not None:
        raise JobStepNotAllowed(job=job, status="already tried by this provider", step="lease")
    if call.at >= request["deadline_ms"]:
        raise JobStepNotAllowed(job=job, status="past its deadline", step="lease")
    publisher, name, program = request["publisher"], request["name"], request["program"]
    record = draft.get("placements", publisher, name, program, provider)
    if record is None:
        raise NotPlaced(provider=provider, status="not announced")
    placement = read_placement(publisher, name, program, provider, record)
    if placement.status != PLACED:
        raise NotPlaced(provider=provider, status=placement.status)
    version = read_version(program, draft.get("services", publisher, name, "versions", program))
    until = min(call.at + parameter(draft, JOB_LEASE_MS), request["deadline_ms"])
    _store(
        draft,
        job,
        replace(
            state,
            status=leased,
            provider=provider,
            lease_until_ms=until,
            ask_uain=placement.ask_uain,
            royalty_uain=version.royalty_uain,
            fee_ppm=parameter(draft, FEE_PPM),
        ),
    )
    draft.after(until, JOB_LEASE_OVER, f"{job}/{until}")
    draft.set(call.path, None)


def finish_job(draft: Draft, call: NativeCall) -> None:
    """Takes the leaseholder's execution: the output goes to its path, the price to those who earned it."""
    job, provider = call.params["job"], call.params["provider"]
    request, state = _load(draft, job)
    execution = read_execution(call.value)
    settled = step(job, state.status, "finish" if execution.status == DONE else "fail")
    if provider != state.provider:
        raise NotTheLeaseholder(job=job, provider=state.provider, signer=call.signer)
    paid = 0
    if execution.status == DONE:
        paid = min(state.ask_uain + state.royalty_uain, int(request["budget_uain"]))
        split = split_claim(paid, state.ask_uain, state.royalty_uain, state.fee_ppm)
        draft.move(job_account(job), TREASURY, split.fee_uain)
        draft.move(job_account(job), request["publisher"], split.royalty_uain)
        draft.move(job_account(job), provider, split.provider_uain)
        result_path = parse_path(request["result_path"])
        check_fits_at(result_path, execution.output)
        draft.set(result_path, execution.output)
    returned = _return_budget(draft, job, request, state, call.at)
    _store(
        draft,
        job,
        replace(
            state,
            status=settled,
            paid_uain=paid,
            returned_uain=returned,
            settled_at_ms=call.at,
            reason=execution.error,
        ),
    )


def end_lease(draft: Draft, key: str, at_ms: int) -> None:
    """A lease ran out: the job is there for the next provider."""
    job, _, until = key.partition("/")
    record = draft.get(JOBS, job, "state")
    if record is None:
        return
    state = read_job_state(record)
    # A job that was settled, or leased again since, has nothing to do with this entry.
    if state.status != LEASED or state.lease_until_ms != int(until):
        return
    _store(draft, job, JobState(step(job, state.status, "lease_over"), state.payer))


def expire_job(draft: Draft, job: str, at_ms: int) -> None:
    """The deadline passed without a result: the budget goes back."""
    record = draft.get(JOBS, job, "state")
    request = draft.get(JOBS, job, "request")
    if record is None or request is None:
        return
    state = read_job_state(record)
    if state.status not in (REQUESTED, LEASED):
        return
    expired = step(job, state.status, "deadline")
    returned = _return_budget(draft, job, request, state, at_ms)
    reason = "no provider finished it before its deadline"
    _store(
        draft, job, replace(state, status=expired, returned_uain=returned, settled_at_ms=at_ms, reason=reason)
    )


def _free_job_id(draft: Draft, call: NativeCall) -> str:
    """The job's name; a path that is written twice in one transaction makes two jobs."""
    for repetition in range(OPERATIONS_PER_TRANSACTION_MAX + 1):
        job = job_id(call.tx_hash, call.path, repetition)
        if draft.get(JOBS, job, "request") is None:
            return job
    raise InvalidRecord(what="event", member="its path", reason="is written too often in one transaction")


def _service_of(draft: Draft, entry: ProgramEntry) -> tuple[str, str]:
    """Which service's placements count: the entry's own, else the one the program was registered for."""
    if entry.name:
        return entry.publisher, entry.name
    record = draft.get("programs", entry.cid)
    return (record["publisher"], record["name"]) if isinstance(record, dict) else ("", "")


def _set_budget_aside(
    draft: Draft, job: str, app: str, entry: ProgramEntry, call: NativeCall, publisher: str
) -> JobState:
    record = draft.get("holds", app, entry.hold, "state")
    if record is None:
        return JobState(REFUSED, call.signer, reason=f"the app has no hold {entry.hold} that pays for jobs")
    hold = read_hold(record)
    if has_expired(hold, call.at):
        return JobState(REFUSED, hold.owner, reason=f"the hold {entry.hold} has expired")
    if not publisher:
        return JobState(REFUSED, hold.owner, reason="the program is not registered")
    if draft.balance(hold_account(app, entry.hold)) < entry.budget_uain:
        return JobState(REFUSED, hold.owner, reason=f"the hold {entry.hold} does not cover the budget")
    draft.move(hold_account(app, entry.hold), job_account(job), entry.budget_uain)
    return JobState(REQUESTED, hold.owner)


def _return_budget(draft: Draft, job: str, request: dict[str, Any], state: JobState, at_ms: int) -> int:
    """What is left goes back to the hold, or to its owner if the hold is over."""
    rest = draft.balance(job_account(job))
    record = draft.get("holds", request["app"], request["hold"], "state")
    hold = None if record is None else read_hold(record)
    # A hold of the same name may have been begun since by somebody else.
    lives = hold is not None and hold.owner == state.payer and not has_expired(hold, at_ms)
    target = hold_account(request["app"], request["hold"]) if lives else state.payer
    draft.move(job_account(job), target, rest)
    return rest


def _load(draft: Draft, job: str) -> tuple[dict[str, Any], JobState]:
    # The tree finds a job under a second spelling of its name too, but not the job's money.
    require_key(job, "job")
    request, record = draft.get(JOBS, job, "request"), draft.get(JOBS, job, "state")
    if not isinstance(request, dict) or record is None:
        raise JobMissing(job=job)
    return request, read_job_state(record)


def _store(draft: Draft, job: str, state: JobState) -> None:
    draft.set((JOBS, job, "state"), job_state_record(state))


PROGRAM_EVENT_WRITES = ((JOBS,), HOLD_BALANCES)
NATIVES = (
    Native("_leaseJob", ((JOBS,),), lease_job),
    Native("_finishJob", ((JOBS,), ("apps",), HOLD_BALANCES), finish_job),
)
DUE_ACTIONS = (
    DueAction(JOB_LEASE_OVER, ((JOBS,),), end_lease),
    DueAction(JOB_DEADLINE, ((JOBS,), HOLD_BALANCES), expire_job),
)
FUNCTIONS = {
    "/jobs/$job/leases/$provider": "_leaseJob",
    "/jobs/$job/executions/$provider": "_finishJob",
}
_BY_PROVIDER = "auth.addr === $provider && data === null && newData !== null && util.checkValuePathLen(parsedValuePath, 4)"
RULES = {
    "/jobs": "false",
    "/jobs/$job/leases/$provider": _BY_PROVIDER,
    "/jobs/$job/executions/$provider": _BY_PROVIDER,
}
