"""Jobs: a write at a developer's path asks for a run of a program, and the result returns to the path it designated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields, is_cid_text
from openresource.market.holds import DEFAULT_HOLD, is_hold_name
from openresource.market.papers import hex_text
from openresource.market.services import is_service_name
from openresource.market.tree_json import ValueNotStorable, json_value
from openresource.primitives.amounts import InvalidAmount, uain_from_text
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.limits import STATE_HEIGHT_MAX
from openresource.primitives.paths import format_path, is_variable, parse_path, valid_label
from openresource.primitives.values import object_height

PROGRAM: Final = "PROGRAM"
POLICY_ONE: Final = "one"
POLICIES: Final = (POLICY_ONE,)
APPS: Final = "apps"
ERROR_CHARACTERS_MAX: Final = 500
RESULT_PATH_LABELS_MAX: Final = 16

REQUESTED: Final = "REQUESTED"
LEASED: Final = "LEASED"
DONE: Final = "DONE"
FAILED: Final = "FAILED"
EXPIRED: Final = "EXPIRED"
REFUSED: Final = "REFUSED"

LIFE_CYCLE: Final[dict[str, dict[str, str]]] = {
    REQUESTED: {"lease": LEASED, "deadline": EXPIRED},
    LEASED: {"finish": DONE, "fail": FAILED, "lease_over": REQUESTED, "deadline": EXPIRED},
    DONE: {},
    FAILED: {},
    EXPIRED: {},
    # A job is born refused where nobody would pay for it.
    REFUSED: {},
}

_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class ProgramEntryInvalid(Refusal):
    result_code = ResultCode.PROGRAM_ENTRY_INVALID
    template = "The function entry is not valid: {member} {reason}."
    way_out = (
        'Write {{function_type: "PROGRAM", function_id, cid, policy: "one", budget: "0.01", result_path}}.'
    )


class ResultPathNotAllowed(Refusal):
    result_code = ResultCode.RESULT_PATH_NOT_ALLOWED
    template = "The result path {result_path} is not allowed: {reason}."
    way_out = "Name a path of the same app that you may write yourself, other than the entry's own."


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


class ResultDigestWrong(Refusal):
    result_code = ResultCode.RESULT_DIGEST_WRONG
    template = "The execution's digest is {offered}; its output has {computed}."
    way_out = "Send the Keccak-256 of the output's canonical JSON, as it is in the tree."


@dataclass(frozen=True, slots=True)
class ProgramEntry:
    """A function entry that names a program; publisher and name are empty if the program's own hold."""

    function_id: str
    cid: str
    policy: str
    budget_uain: int
    result_path: tuple[str, ...]
    hold: str = DEFAULT_HOLD
    method: str = ""
    publisher: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job is; the terms are the leaseholder's at the time of the lease."""

    status: str
    payer: str
    provider: str = ""
    lease_until_ms: int = 0
    ask_uain: int = 0
    royalty_uain: int = 0
    fee_ppm: int = 0
    paid_uain: int = 0
    returned_uain: int = 0
    settled_at_ms: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt, as its provider reports it."""

    status: str
    output: Any
    digest: bytes
    error: str = ""


def read_program_entry(entry: Any) -> ProgramEntry:
    """A PROGRAM entry from outside; whether its result path is allowed here is another question."""
    if not isinstance(entry, dict):
        raise _wrong("it", "must be an object")
    known = {
        "function_type",
        "function_id",
        "cid",
        "policy",
        "budget",
        "result_path",
        "hold",
        "method",
        "service",
    }
    for member in entry:
        if member not in known:
            raise _wrong(str(member), "is not a member that is known here")
    if entry.get("function_type") != PROGRAM:
        raise _wrong("function_type", "must be PROGRAM")
    function_id = entry.get("function_id")
    if not valid_label(function_id):
        raise _wrong("function_id", "must be a label")
    if not is_cid_text(entry.get("cid")):
        raise _wrong("cid", "must be a content identifier")
    policy = entry.get("policy", POLICY_ONE)
    if policy not in POLICIES:
        raise _wrong("policy", f"must be one of {', '.join(POLICIES)}")
    hold = entry.get("hold", DEFAULT_HOLD)
    if not is_hold_name(hold):
        raise _wrong("hold", "must be the name of a hold")
    method = entry.get("method", "")
    if method != "" and (not isinstance(method, str) or _METHOD.fullmatch(method) is None):
        raise _wrong("method", "must be the name of a method")
    publisher, name = _service(entry.get("service"))
    return ProgramEntry(
        function_id=str(function_id),
        cid=str(entry["cid"]),
        policy=policy,
        budget_uain=_budget(entry.get("budget")),
        result_path=_result_path(entry.get("result_path")),
        hold=hold,
        method=method,
        publisher=publisher,
        name=name,
    )


def check_program_entry(
    entry: Any, path: Sequence[str], setter: str, rule_allows: Callable[[Sequence[str], Any, str], bool]
) -> ProgramEntry:
    """Whether a PROGRAM entry may be set at a values path by somebody; `rule_allows` asks the rules about a path."""
    program_entry = read_program_entry(entry)
    result_path = program_entry.result_path
    shown = format_path(result_path)
    if len(path) < 2 or path[0] != APPS or is_variable(path[1]) or result_path[:2] != tuple(path[:2]):
        raise ResultPathNotAllowed(result_path=shown, reason="it is not in the entry's app")
    if tuple(path) == result_path:
        raise ResultPathNotAllowed(result_path=shown, reason="the result would ask for the next run")
    variables = {label for label in path if is_variable(label)}
    for label in result_path[2:]:
        if is_variable(label) and label not in variables:
            raise ResultPathNotAllowed(
                result_path=shown, reason=f"{label} is not a variable of the entry's path"
            )
    # A stand-in for what events will bind: the rules decide on the place, not on one name.
    asked = [label[1:] or "x" if is_variable(label) else label for label in result_path]
    if not rule_allows(asked, "result", setter):
        raise ResultPathNotAllowed(result_path=shown, reason=f"{setter} may not write there")
    return program_entry


def bind_path(pattern: Sequence[str], params: Mapping[str, str]) -> tuple[str, ...]:
    """A path with its variables replaced by what the event bound (names without the dollar sign)."""
    return tuple(params[label[1:]] if is_variable(label) else label for label in pattern)


def job_id(tx_hash: str, path: Sequence[str], repetition: int = 0) -> str:
    """The name of the job that a write makes; `repetition` counts writes of one path in one transaction."""
    suffix = f"#{repetition}" if repetition else ""
    return keccak((tx_hash + format_path(path) + suffix).encode()).hex()[:32]


def value_digest(value: Any) -> bytes:
    """The digest of a tree value: of its canonical JSON, as it stands in the tree."""
    return keccak(canonical_json_bytes(value))


def input_digest(value: Any) -> bytes:
    """The digest of what a program gets to read: the JSON form of the value that was written."""
    return keccak(canonical_json_bytes(json_value(value)))


def step(job: str, status: str, name: str) -> str:
    """The status after a step, or a refusal."""
    target = LIFE_CYCLE[status].get(name)
    if target is None:
        raise JobStepNotAllowed(job=job, status=status, step=name)
    return target


def read_job_state(record: Any) -> JobState:
    """A job's state from its record."""
    fields = Fields(record, "job")
    return JobState(
        status=fields.choice("status", tuple(LIFE_CYCLE)),
        payer=fields.address("payer"),
        provider=fields.address("provider") if fields.has("provider") else "",
        lease_until_ms=fields.optional_integer("lease_until_ms", 0),
        ask_uain=fields.optional_integer("ask_uain", 0),
        royalty_uain=fields.optional_integer("royalty_uain", 0),
        fee_ppm=fields.optional_integer("fee_ppm", 0),
        paid_uain=fields.optional_integer("paid_uain", 0),
        returned_uain=fields.optional_integer("returned_uain", 0),
        settled_at_ms=fields.optional_integer("settled_at_ms", 0),
        reason=fields.optional_text("reason", ERROR_CHARACTERS_MAX),
    )


def job_state_record(state: JobState) -> dict[str, Any]:
    """The record at `/jobs/<job>/state`; what does not apply is left out."""
    members: dict[str, Any] = {"status": state.status, "payer": state.payer}
    if state.provider:
        members |= {
            "provider": state.provider,
            "lease_until_ms": state.lease_until_ms,
            "ask_uain": state.ask_uain,
            "royalty_uain": state.royalty_uain,
            "fee_ppm": state.fee_ppm,
        }
    if state.settled_at_ms:
        members |= {
            "paid_uain": state.paid_uain,
            "returned_uain": state.returned_uain,
            "settled_at_ms": state.settled_at_ms,
        }
    if state.reason:
        members["reason"] = state.reason
    return members


def read_execution(record: Any) -> Execution:
    """An execution from its record; a done one proves its output by the digest."""
    fields = Fields(record, "execution")
    status = fields.choice("status", (DONE, FAILED))
    output = fields.take("output")
    digest = value_digest(output)
    error = fields.optional_text("error", ERROR_CHARACTERS_MAX)
    if fields.has("usage"):
        usage = Fields(fields.take("usage"), "execution's usage")
        for member in ("cpu_ms", "wall_ms", "bytes_in", "bytes_out"):
            usage.optional_integer(member, 0)
        usage.finish()
    fields.take("usage")
    if status == DONE or fields.has("digest"):
        offered = fields.digest("digest")
        if offered != digest:
            raise ResultDigestWrong(offered=hex_text(offered), computed=hex_text(digest))
    fields.take("digest")
    if status == DONE and output is None:
        raise fields.wrong("output", "must be there when the execution is done")
    fields.finish()
    return Execution(status, output, digest, error)


def check_fits_at(path: Sequence[str], output: Any) -> None:
    """Refuses an output that would make the tree higher than it may be."""
    height = len(path) + object_height(output) + 1
    if height > STATE_HEIGHT_MAX:
        raise ValueNotStorable(
            reason=f"at {format_path(path)} it would reach {height} levels of {STATE_HEIGHT_MAX}"
        )


def execution_record(output: Any, *, usage: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The record of an execution that is done; `output` is a tree value."""
    record: dict[str, Any] = {"status": DONE, "output": output, "digest": hex_text(value_digest(output))}
    if usage:
        record["usage"] = dict(usage)
    return record


def failure_record(error: str, *, usage: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The record of an execution that failed."""
    shown = "".join(character if character >= " " and character != "\x7f" else " " for character in error)
    record: dict[str, Any] = {"status": FAILED, "error": shown[:ERROR_CHARACTERS_MAX] or "no reason given"}
    if usage:
        record["usage"] = dict(usage)
    return record


def _budget(text: Any) -> int:
    try:
        return uain_from_text(text) if isinstance(text, str) else _no_budget()
    except InvalidAmount as error:
        raise _wrong("budget", "must be a decimal text of AIN such as 0.01") from error


def _no_budget() -> int:
    raise _wrong("budget", "must be a decimal text of AIN such as 0.01")


def _result_path(text: Any) -> tuple[str, ...]:
    labels = parse_path(text)
    if not 3 <= len(labels) <= RESULT_PATH_LABELS_MAX or not all(valid_label(label) for label in labels):
        raise _wrong("result_path", "must be a path such as /apps/my_app/results/$key")
    return tuple(labels)


def _service(text: Any) -> tuple[str, str]:
    if text is None:
        return "", ""
    publisher, _, name = text.partition("/") if isinstance(text, str) else ("", "", "")
    if not is_checksum_address(publisher) or not is_service_name(name):
        raise _wrong("service", "must be <publisher's address>/<name>")
    return publisher, name


def _wrong(member: str, reason: str) -> ProgramEntryInvalid:
    return ProgramEntryInvalid(member=member, reason=reason)
