"""Jobs on the chain: events and requests make them; providers lease, commit and reveal; time ends what nobody ends.

Every step is the machine's (`market/jobs/machine.py`); here a record is read, the job is loaded, and the outcome stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from openresource.ledger.beacon import beacon_of
from openresource.ledger.draft import Draft, DueAction, Native, NativeCall, StateAccess
from openresource.market.accounts import BOND_BALANCES, HOLD_BALANCES, hold_account, job_account
from openresource.market.fields import Fields, InvalidRecord, require_key
from openresource.market.holds import has_expired, read_hold
from openresource.market.jobs import machine, refusals
from openresource.market.jobs.comparators import Verification, read_verification, verification_record
from openresource.market.jobs.draws import Candidate
from openresource.market.jobs.entries import (
    ProgramEntry,
    ResultPathNotAllowed,
    bind_path,
    check_program_entry,
    read_program_entry,
)
from openresource.market.jobs.executions import read_commitment, read_finish, read_reveal, read_secret
from openresource.market.jobs.faults import NoEquivocation, check_report, read_report
from openresource.market.jobs.lifecycle import FINAL, REFUSED, JobStepNotAllowed
from openresource.market.jobs.policies import ONE, PolicyNotForClass, check_policy_fits, read_policy
from openresource.market.jobs.records import (
    ResultDigestWrong,
    check_fits_at,
    input_digest,
    job_id,
)
from openresource.market.jobs.requests import (
    JobExists,
    OutputNeeded,
    asked_job_id,
    check_output,
    job_request_record,
    read_job_request,
    salt_of,
    salted_digest,
)
from openresource.market.jobs.states import folded_text
from openresource.market.jobs.terms import Facts, Job, Offer, Outcome, Settings
from openresource.market.jobs.turns import (
    checker_turn_ms,
    checkers,
    order_known_ms,
    others_uain,
    worker_turn_ms,
)
from openresource.market.jobs.verdicts import DONE, WORKER, verdict_record
from openresource.market.kills import KILLED
from openresource.market.natives.bonds import BONDS, bond_of, record_of
from openresource.market.natives.channels import NotPlaced
from openresource.market.natives.holds import check_app_admin
from openresource.market.natives.job_records import (
    JOB_DUE,
    JOBS,
    Found,
    candidates,
    facts_of,
    last_height,
    load,
    operator_of,
    store,
)
from openresource.market.natives.kills import refuse_killed
from openresource.market.natives.parameters import (
    JOB_DEADLINE_MS,
    JOB_DEADLINE_MS_MAX,
    job_settings,
    parameter,
)
from openresource.market.natives.reputation import REPUTATION_WRITES
from openresource.market.papers import hex_text
from openresource.market.placements import PLACED, read_placement
from openresource.market.records import RECORDS
from openresource.market.services import (
    VersionNotPublished,
    check_call_permitted,
    read_permissions,
    read_version,
)
from openresource.primitives.limits import OPERATIONS_PER_TRANSACTION_MAX
from openresource.primitives.paths import format_path, parse_path

JOB_REQUESTS = "job_requests"
# A wrapped content key in base64, with room for other kinds.
KEY_CHARACTERS_MAX = 400


def check_program(entry: Any, path: Sequence[str], setter: str, state: StateAccess) -> None:
    """Whether somebody may set a PROGRAM entry at a values path; it spends the app's hold, so admins do."""
    check_program_entry(entry, path, setter, state.rule_allows)
    check_app_admin(state.read_value, path[1], setter, "let its hold pay for a program")


# -- requests ----------------------------------------------------------------------------------------------------------


def on_program_event(draft: Draft, entry: dict[str, Any], call: NativeCall) -> None:
    """A value was written where a PROGRAM entry stands: a job, with its budget set aside or refused for want of it."""
    if call.value is None:
        return
    program_entry = read_program_entry(entry)
    job = _free_job_id(draft, call)
    app = call.path[1]
    publisher, name = _service_of(draft, program_entry)
    verification = _verification(draft, publisher, name, program_entry.cid)
    result_path = bind_path(program_entry.result_path, call.params)
    request: dict[str, Any] = {
        "program": program_entry.cid,
        "publisher": publisher,
        "name": name,
        "policy": program_entry.policy,
        "app": app,
        "function_id": program_entry.function_id,
        "source": format_path(call.path),
        "input_digest": hex_text(input_digest(call.value)),
        "result_path": format_path(result_path),
        "requester": call.signer,
        "budget_uain": program_entry.budget_uain,
        "hold": program_entry.hold,
        "requested_at_ms": call.at,
        "deadline_ms": call.at + parameter(draft, JOB_DEADLINE_MS),
        "verify": verification_record(verification),
    }
    if program_entry.method:
        request["method"] = program_entry.method
    draft.set((JOBS, job, "request"), request)
    payer, reason = _payer_of(draft, app, program_entry, call, publisher)
    settings = job_settings(draft)
    asked = _asked(job, request, payer, verification)
    try:
        check_policy_fits(asked.policy)
    except PolicyNotForClass as refusal:
        reason = reason or refusal.message
    if reason:
        _refuse(draft, asked, request, reason, settings, call.at)
        return
    draft.move(hold_account(app, program_entry.hold), job_account(job), program_entry.budget_uain)
    store(draft, Found(asked, request), machine.request(asked, settings), call.at)


def request_job(draft: Draft, call: NativeCall) -> None:
    """Takes the budget of who asks and makes the job; the same request again names the job that is there."""
    requester, key = call.params["requester"], require_key(call.params["key"], "job request")
    job = asked_job_id(requester, key)
    if draft.get(JOBS, job) is not None:
        raise JobExists(job=job)
    fields = Fields(call.value, "job request")
    verification = _verification(
        draft, fields.address("publisher"), fields.text("name"), fields.cid("program"), is_published=True
    )
    asked = read_job_request(call.value, job, verification)
    refuse_killed(draft, asked.program)
    permissions = read_permissions(draft.get("services", asked.publisher, asked.name, "permissions"))
    check_call_permitted(permissions, asked.publisher, asked.name, requester)
    if asked.result_path and not draft.rule_allows(asked.result_path, "result", requester):
        raise ResultPathNotAllowed(
            result_path=format_path(asked.result_path), reason=f"{requester} may not write there"
        )
    latest = call.at + parameter(draft, JOB_DEADLINE_MS_MAX)
    deadline_ms = asked.deadline_ms or call.at + parameter(draft, JOB_DEADLINE_MS)
    if not call.at < deadline_ms <= latest:
        raise InvalidRecord(
            what="job request", member="deadline_ms", reason=f"must be from {call.at + 1} to {latest}"
        )
    request = job_request_record(asked) | {
        "requester": requester,
        "requested_at_ms": call.at,
        "deadline_ms": deadline_ms,
        "verify": verification_record(verification),
        "key": key,
    }
    draft.set((JOBS, job, "request"), request)
    # What is left of the request tells its requester's jobs apart from others until they are folded.
    draft.set(call.path, True)
    draft.move(call.signer, job_account(job), asked.budget_uain)
    begun = _asked(job, request, requester, verification)
    store(draft, Found(begun, request), machine.request(begun, job_settings(draft)), call.at)


# -- providers ---------------------------------------------------------------------------------------------------------


def lease_job(draft: Draft, call: NativeCall) -> None:
    """Gives a provider that has the program placed the right to work, audit or referee; its price holds for this job."""
    job, provider = call.params["job"], call.params["provider"]
    found = load(draft, job)
    fields = Fields(call.value, "lease")
    fields.optional_integer("at_ms", 0)
    fields.finish()
    refuse_killed(draft, str(found.request["program"]))
    settings = job_settings(draft)
    offer = _offer(draft, found, provider, settings)
    store(draft, found, machine.lease(found.job, offer, settings, call.at), call.at)
    draft.set(call.path, None)


def commit_job(draft: Draft, call: NativeCall) -> None:
    """Binds a provider to its result."""
    found = load(draft, call.params["job"])
    commitment, output_cid = read_commitment(call.value)
    outcome = machine.commit(
        found.job,
        call.params["provider"],
        commitment,
        output_cid,
        call.height,
        job_settings(draft),
        call.at,
    )
    store(draft, found, outcome, call.at)
    draft.set(call.path, None)


def reveal_job(draft: Draft, call: NativeCall) -> None:
    """Opens a commitment; the last one settles the job."""
    found, settings = load(draft, call.params["job"]), job_settings(draft)
    report = read_reveal(call.value)
    _check_report(found, report)
    facts = facts_of(draft, found.job, settings, found.request)
    outcome = machine.reveal(found.job, call.params["provider"], report, settings, facts, call.at)
    store(draft, found, outcome, call.at)
    draft.set(call.path, None)


def finish_job(draft: Draft, call: NativeCall) -> None:
    """Takes the leaseholder's result of a job that one provider runs: the output to its path, the price to those who earned it."""
    job, provider = call.params["job"], call.params["provider"]
    found, settings = load(draft, job, {provider: call.previous}), job_settings(draft)
    report = read_finish(call.value)
    _check_report(found, report)
    if report["status"] == DONE and report["output"] is None and "output_cid" not in report:
        raise InvalidRecord(
            what="execution", member="output", reason="must be there when the execution is done"
        )
    facts = Facts()
    outcome = machine.finish(found.job, provider, report, settings, facts, call.at)
    store(draft, found, outcome, call.at, is_written=provider)


# -- requesters and everybody ------------------------------------------------------------------------------------------


def reveal_secret(draft: Draft, call: NativeCall) -> None:
    """Takes the requester's secret and draws."""
    found, settings = load(draft, call.params["job"]), job_settings(draft)
    _check_requester(found, call)
    beacon = beacon_of(draft.get, found.job.committed_height, call.height)
    facts = facts_of(draft, found.job, settings, found.request)
    outcome = machine.reveal_secret(found.job, read_secret(call.value), beacon, settings, facts, call.at)
    store(draft, found, outcome, call.at)
    draft.set(call.path, None)


def give_key(draft: Draft, call: NativeCall) -> None:
    """Keeps the key of sealed content for an executor who came after the request."""
    found = load(draft, call.params["job"])
    if call.params["provider"] not in {run.provider for run in found.job.executions}:
        raise InvalidRecord(what="key", member="its provider", reason="holds no lease of this job")
    _check_requester(found, call)
    if not isinstance(call.value, str) or not 1 <= len(call.value) <= KEY_CHARACTERS_MAX:
        raise InvalidRecord(
            what="key", member="the key", reason=f"must be a text of at most {KEY_CHARACTERS_MAX} characters"
        )


def dispute_job(draft: Draft, call: NativeCall) -> None:
    """Doubts an accepted result against a bond."""
    found, settings = load(draft, call.params["job"]), job_settings(draft)
    require_key(call.params["key"], "dispute")
    fields = Fields(call.value, "dispute")
    bond_uain = fields.amount("bond_uain", 1)
    fields.optional_text("reason", 200)
    fields.finish()
    facts = facts_of(draft, found.job, settings, found.request, call.signer)
    outcome = machine.dispute(found.job, call.signer, bond_uain, settings, facts, call.at)
    store(draft, found, outcome, call.at)


def report_fault(draft: Draft, call: NativeCall) -> None:
    """Takes papers that prove two results of one provider, and its bond."""
    found, settings = load(draft, call.params["job"]), job_settings(draft)
    require_key(call.params["key"], "report of a fault")
    report = read_report(call.value, found.job.job)
    run = found.job.of(report.provider)
    if run is None:
        raise NoEquivocation(provider=report.provider, job=found.job.job, reason="it holds no lease of it")
    check_report(report, run.digest, run.lease_at_ms, call.network)
    facts = facts_of(draft, found.job, settings, found.request)
    outcome = machine.report_equivocation(found.job, report.provider, call.signer, settings, facts, call.at)
    store(draft, found, outcome, call.at)


# -- time --------------------------------------------------------------------------------------------------------------


def job_is_due(draft: Draft, key: str, at_ms: int) -> None:
    """A wait of a job is over; what was overtaken does nothing."""
    job, _, name = key.partition("/")
    record = draft.get(JOBS, job)
    if not isinstance(record, dict) or "state" not in record:
        return
    found, settings = load(draft, job), job_settings(draft)
    if name == "fold":
        if found.job.status in FINAL and at_ms >= _settled_last_ms(found.job) + settings.keep_ms:
            _fold(draft, found, record)
        return
    facts = facts_of(draft, found.job, settings, found.request)
    outcome = machine.on_deadline(found.job, name, settings, facts, at_ms)
    if outcome.job != found.job:
        store(draft, found, outcome, at_ms)


# -- parts -------------------------------------------------------------------------------------------------------------


def _free_job_id(draft: Draft, call: NativeCall) -> str:
    """The job's name; a path that is written twice in one transaction makes two jobs."""
    for repetition in range(OPERATIONS_PER_TRANSACTION_MAX + 1):
        job = job_id(call.tx_hash, call.path, repetition)
        if draft.get(JOBS, job) is None:
            return job
    raise InvalidRecord(what="event", member="its path", reason="is written too often in one transaction")


def _service_of(draft: Draft, entry: ProgramEntry) -> tuple[str, str]:
    """Which service's placements count: the entry's own, else the one the program was registered for."""
    if entry.name:
        return entry.publisher, entry.name
    record = draft.get("programs", entry.cid)
    return (record["publisher"], record["name"]) if isinstance(record, dict) else ("", "")


def _verification(
    draft: Draft, publisher: str, name: str, program: str, *, is_published: bool = False
) -> Verification:
    """How results of a version are compared, as its publisher said."""
    record = draft.get("services", publisher, name, "versions", program) if publisher else None
    if record is None:
        if is_published:
            raise VersionNotPublished(publisher=publisher, name=name, program=program)
        return Verification()
    return read_verification(record.get("verify"), str(record["exactness"]))


def _asked(job: str, request: dict[str, Any], payer: str, verification: Verification) -> Job:
    secret = request.get("secret_hash")
    return Job(
        job=job,
        payer=payer,
        requester=str(request["requester"]),
        publisher=str(request["publisher"]),
        policy=read_policy(request["policy"], verification),
        budget_uain=int(request["budget_uain"]),
        requested_at_ms=int(request["requested_at_ms"]),
        deadline_ms=int(request["deadline_ms"]),
        secret_hash=bytes.fromhex(secret[2:]) if isinstance(secret, str) else b"",
        pays_up_to_budget="app" in request and request["policy"] == ONE,
    )


def _payer_of(
    draft: Draft, app: str, entry: ProgramEntry, call: NativeCall, publisher: str
) -> tuple[str, str]:
    """Who pays for an entry's job, and why nobody does if that is so."""
    record = draft.get("holds", app, entry.hold, "state")
    if record is None:
        return call.signer, f"the app has no hold {entry.hold} that pays for jobs"
    hold = read_hold(record)
    if has_expired(hold, call.at):
        return hold.owner, f"the hold {entry.hold} has expired"
    if not publisher:
        return hold.owner, "the program is not registered"
    if draft.get("kills", entry.cid, "state", "status") == KILLED:
        return hold.owner, "the program was stopped by a vote"
    if draft.balance(hold_account(app, entry.hold)) < entry.budget_uain:
        return hold.owner, f"the hold {entry.hold} does not cover the budget"
    return hold.owner, ""


def _refuse(
    draft: Draft, asked: Job, request: dict[str, Any], reason: str, settings: Settings, at_ms: int
) -> None:
    """A job that nobody would pay for: the write that asked for it stands all the same."""
    refused = replace(asked, status=REFUSED, reason=reason, settled_at_ms=at_ms)
    kept = Outcome(refused, due=((at_ms + settings.keep_ms, "fold"),))
    store(draft, Found(asked, request), kept, at_ms)


def _offer(draft: Draft, found: Found, provider: str, settings: Settings) -> Offer:
    """A provider as it asks for a lease: what its placement says, and what the chain knows of it."""
    request = found.request
    publisher, name, program = request["publisher"], request["name"], request["program"]
    record = draft.get("placements", publisher, name, program, provider)
    if record is None:
        raise NotPlaced(provider=provider, status="not announced")
    placement = read_placement(publisher, name, program, provider, record)
    if placement.status != PLACED:
        raise NotPlaced(provider=provider, status=placement.status)
    version = read_version(program, draft.get("services", publisher, name, "versions", program))
    bond = bond_of(draft, provider)
    # An entry's job that one provider runs goes to whoever is there first.
    is_free = found.job.pays_up_to_budget and machine.role_wanted(found.job) == WORKER
    known_ms = order_known_ms(found.job)
    who = [] if is_free else candidates(draft, request, settings, known_ms)
    return Offer(
        provider=provider,
        ask_uain=placement.ask_uain,
        royalty_uain=version.royalty_uain,
        operator=operator_of(draft, provider),
        runtime_class=placement.runtime_class or placement.runtime,
        free_bond_uain=bond.free_uain,
        bond_uain=bond.counted_at(known_ms),
        others_uain=others_uain(found.job, who, provider),
        leases=len(bond.locks),
        streak=record_of(draft, provider).streak,
        turn_at_ms=0 if is_free else _turn_ms(draft, found, provider, settings, who),
    )


def _turn_ms(draft: Draft, found: Found, provider: str, settings: Settings, who: Sequence[Candidate]) -> int:
    job = found.job
    if machine.role_wanted(job) == WORKER:
        return worker_turn_ms(job, who, provider, settings)
    turn = checker_turn_ms(job, checkers(job, who), provider, settings)
    if turn is not None:
        return turn
    own = job.of(provider)
    if own is not None:
        raise JobStepNotAllowed(job=job.job, status="already tried by this provider", step="lease")
    bond = bond_of(draft, provider)
    if bond.counted_uain < settings.bond_per_seat_uain:
        raise refusals.BondNeeded(
            job=job.job,
            provider=provider,
            free_uain=bond.free_uain,
            needed_uain=settings.bond_per_seat_uain,
        )
    if bond.counted_at(order_known_ms(job)) < settings.bond_per_seat_uain:
        raise JobStepNotAllowed(job=job.job, status="drawn from bonds that were there before", step="lease")
    raise refusals.SameOperator(job=job.job, provider=provider, operator=operator_of(draft, provider))


def _check_report(found: Found, report: dict[str, Any]) -> None:
    """Refuses an output that is not what its digest says, does not fit where it goes, or is missing where it is compared."""
    if report["status"] != DONE:
        return
    job, request, output = found.job, found.request, report["output"]
    check_output(job.job, request, job.policy, output)
    result_path = request.get("result_path")
    if output is None:
        if result_path is not None:
            raise OutputNeeded(job=job.job, reason=f"it belongs at {result_path}")
        return
    computed = salted_digest(salt_of(job.job, request), output)
    if computed != report["digest"]:
        raise ResultDigestWrong(offered=hex_text(report["digest"]), computed=hex_text(computed))
    if result_path is not None:
        check_fits_at(parse_path(result_path), output)


def _check_requester(found: Found, call: NativeCall) -> None:
    if call.signer != found.job.requester:
        raise InvalidRecord(
            what="record", member="its signer", reason=f"must be the requester {found.job.requester}"
        )


def _settled_last_ms(job: Job) -> int:
    judged_at_ms = 0 if job.dispute is None else job.dispute.judged_at_ms
    return max(job.settled_at_ms, judged_at_ms)


def _fold(draft: Draft, found: Found, record: dict[str, Any]) -> None:
    """Leaves one short text of a settled job; what there was is in the history until this height."""
    job = found.job
    verdict = None if job.verdict is None else verdict_record(job.verdict)
    draft.set((JOBS, job.job), {"folded": folded_text(job, verdict, last_height(draft))})
    if "key" in found.request:
        draft.set((JOB_REQUESTS, job.requester, str(found.request["key"])), None)


PROGRAM_EVENT_WRITES = ((JOBS,), (BONDS,), (RECORDS,), *REPUTATION_WRITES, HOLD_BALANCES)
_STEP = ((JOBS,), (BONDS,), (RECORDS,), *REPUTATION_WRITES)
_SETTLING = (*_STEP, ("apps",), HOLD_BALANCES, BOND_BALANCES)
NATIVES = (
    Native("_requestJob", (*_STEP, (JOB_REQUESTS,), HOLD_BALANCES), request_job),
    Native("_leaseJob", _STEP, lease_job),
    Native("_commitJob", _STEP, commit_job),
    Native("_revealJob", _SETTLING, reveal_job),
    Native("_finishJob", _SETTLING, finish_job),
    Native("_revealSecret", _SETTLING, reveal_secret),
    Native("_giveJobKey", (), give_key),
    Native("_disputeJob", _SETTLING, dispute_job),
    Native("_reportFault", _SETTLING, report_fault),
)
DUE_ACTIONS = (DueAction(JOB_DUE, (*_SETTLING, (JOB_REQUESTS,)), job_is_due),)
FUNCTIONS = {
    "/job_requests/$requester/$key": "_requestJob",
    "/jobs/$job/leases/$provider": "_leaseJob",
    "/jobs/$job/commits/$provider": "_commitJob",
    "/jobs/$job/reveals/$provider": "_revealJob",
    "/jobs/$job/executions/$provider": "_finishJob",
    "/jobs/$job/secret/$requester": "_revealSecret",
    "/jobs/$job/keys/$provider": "_giveJobKey",
    "/jobs/$job/disputes/$disputer/$key": "_disputeJob",
    "/jobs/$job/faults/$reporter/$key": "_reportFault",
}
_DEPTH_4 = "newData !== null && util.checkValuePathLen(parsedValuePath, 4)"
_BY_PROVIDER = f"auth.addr === $provider && data === null && {_DEPTH_4}"
RULES = {
    "/job_requests": "false",
    "/job_requests/$requester/$key": "auth.addr === $requester && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 3)",
    "/jobs": "false",
    "/jobs/$job/leases/$provider": _BY_PROVIDER,
    "/jobs/$job/commits/$provider": _BY_PROVIDER,
    "/jobs/$job/reveals/$provider": _BY_PROVIDER,
    # The record of the lease is there already; what is settled is protected by the life cycle.
    "/jobs/$job/executions/$provider": f"auth.addr === $provider && {_DEPTH_4}",
    "/jobs/$job/secret/$requester": f"auth.addr === $requester && data === null && {_DEPTH_4}",
    "/jobs/$job/keys/$provider": f"data === null && {_DEPTH_4}",
    "/jobs/$job/disputes/$disputer/$key": "auth.addr === $disputer && data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/jobs/$job/faults/$reporter/$key": "auth.addr === $reporter && data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
}
