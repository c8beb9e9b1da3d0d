"""Requests: what somebody writes to have a program run, and the job that the chain makes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.jobs.comparators import OUTPUT_BYTES_MAX, Verification, read_verification
from openresource.market.jobs.policies import AUDITED, Policy, check_policy_fits, policy_text, read_policy
from openresource.market.papers import hex_text
from openresource.market.services import require_service_name
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.paths import parse_path, valid_label

INPUT_BYTES_MAX: Final = 16 * 1024
EXECUTORS_MAX: Final = 64
RESULT_PATH_LABELS_MAX: Final = 16

_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class JobExists(Refusal):
    result_code = ResultCode.JOB_EXISTS
    template = "The job {job} was asked for already under this key."
    way_out = "Read /jobs/{job}; draw a new key for another run."


class InputWrong(Refusal):
    result_code = ResultCode.INPUT_WRONG
    template = "The request's input is not accepted: {reason}."
    way_out = "Give either input (at most 16 KiB, public) or input_cid (sealed), and the digest of what executors read."


class OutputNeeded(Refusal):
    result_code = ResultCode.OUTPUT_NEEDED
    template = (
        "The result of job {job} is compared within a tolerance, and its output is not there: {reason}."
    )
    way_out = "Put the output itself into the report, at most 16 KiB of JSON."


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a requester asks for; a job of an entry is made from this too."""

    publisher: str
    name: str
    program: str
    policy: Policy
    budget_uain: int
    input_digest: bytes
    deadline_ms: int = 0
    method: str = ""
    input: Any = None
    input_cid: str = ""
    secret_hash: bytes = b""
    executors: frozenset[str] = frozenset()
    result_path: tuple[str, ...] = ()
    max_price_uain: int | None = None


def asked_job_id(requester: str, key: str) -> str:
    """The name of the job that a request makes: the same request again is the same job."""
    return keccak(f"job{requester}/{key}".encode()).hex()[:32]


def public_salt(job: str) -> bytes:
    """What salts digests of inputs and outputs that lie open on the chain."""
    return job.encode()


def salted_digest(salt: bytes, value: Any) -> bytes:
    """The digest of a value behind a salt: it proves the value to who has it, and tells others nothing."""
    return keccak(salt + canonical_json_bytes(value))


def read_job_request(record: Any, job: str, verification: Verification) -> JobRequest:
    """A request from outside, for a version whose results are compared in this way."""
    fields = Fields(record, "job request")
    publisher, name = fields.address("publisher"), fields.text("name")
    require_service_name(name)
    policy = read_policy(fields.text("policy"), verification)
    check_policy_fits(policy)
    method = fields.optional_text("method")
    if method and _METHOD.fullmatch(method) is None:
        raise fields.wrong("method", "must be the name of a method")
    request = JobRequest(
        publisher=publisher,
        name=name,
        program=fields.cid("program"),
        policy=policy,
        budget_uain=fields.amount("budget_uain"),
        input_digest=fields.digest("input_digest"),
        deadline_ms=fields.optional_integer("deadline_ms", 0),
        method=method,
        input=fields.take("input"),
        input_cid=fields.cid("input_cid") if fields.has("input_cid") else "",
        secret_hash=fields.digest("secret_hash") if fields.has("secret_hash") else b"",
        executors=_executors(fields),
        result_path=_result_path(fields),
        max_price_uain=fields.amount("max_price_uain") if fields.has("max_price_uain") else None,
    )
    for member in ("input_cid", "secret_hash", "max_price_uain"):
        fields.take(member)
    fields.finish()
    if policy.kind == AUDITED and not request.secret_hash:
        raise fields.wrong(
            "secret_hash", "must be there: an audited job is drawn with its requester's secret"
        )
    _check_input(request, job)
    return request


def job_request_record(request: JobRequest) -> dict[str, Any]:
    """What a requester writes at `/job_requests/<requester>/<key>`."""
    members: dict[str, Any] = {
        "publisher": request.publisher,
        "name": request.name,
        "program": request.program,
        "policy": policy_text(request.policy),
        "budget_uain": request.budget_uain,
        "input_digest": hex_text(request.input_digest),
    }
    if request.secret_hash:
        members["secret_hash"] = hex_text(request.secret_hash)
    if request.executors:
        members["executors"] = dict.fromkeys(sorted(request.executors), True)
    if request.result_path:
        members["result_path"] = "/" + "/".join(request.result_path)
    if request.max_price_uain is not None:
        members["max_price_uain"] = request.max_price_uain
    more = {
        "deadline_ms": request.deadline_ms,
        "method": request.method,
        "input": request.input,
        "input_cid": request.input_cid,
    }
    return members | {
        name: value for name, value in more.items() if value not in (0, "", None) or value is False
    }


def policy_of(request: Mapping[str, Any]) -> Policy:
    """The policy of a job from its request on the chain, with how its results are compared."""
    return read_policy(request.get("policy", "one"), read_verification(request.get("verify")))


def executors_of(request: Mapping[str, Any]) -> frozenset[str]:
    """Whom a request on the chain lets run it; nobody named is everybody."""
    named = request.get("executors")
    return frozenset(named) if isinstance(named, Mapping) else frozenset()


def salt_of(job: str, request: Mapping[str, Any]) -> bytes:
    """The salt of outputs of a job that lie open on the chain; entries of programs have none."""
    return b"" if "app" in request else public_salt(job)


def check_output(job: str, request: Mapping[str, Any], policy: Policy, output: Any) -> None:
    """Refuses a result that is compared by its output and comes without, or with too large a one."""
    if policy.kind == "one" or not policy.verification.needs_outputs:
        return
    if output is None:
        raise OutputNeeded(job=job, reason="only its digest came")
    size = len(canonical_json_bytes(output))
    if size > OUTPUT_BYTES_MAX:
        raise OutputNeeded(job=job, reason=f"it has {size} bytes of {OUTPUT_BYTES_MAX}")


def _check_input(request: JobRequest, job: str) -> None:
    if (request.input is None) == (request.input_cid == ""):
        raise InputWrong(reason="it has both or neither of input and input_cid")
    if request.input is None:
        return
    size = len(canonical_json_bytes(request.input))
    if size > INPUT_BYTES_MAX:
        raise InputWrong(
            reason=f"{size} bytes are more than the {INPUT_BYTES_MAX} that lie open on the chain"
        )
    if salted_digest(public_salt(job), request.input) != request.input_digest:
        raise InputWrong(reason="its digest is not keccak(the job's name ‖ its canonical JSON)")


def _executors(fields: Fields) -> frozenset[str]:
    named = fields.take("executors")
    if named is None:
        return frozenset()
    if not isinstance(named, Mapping) or not 1 <= len(named) <= EXECUTORS_MAX:
        raise fields.wrong("executors", f"must name 1 to {EXECUTORS_MAX} addresses")
    for address, value in named.items():
        if not is_checksum_address(address) or value is not True:
            raise fields.wrong("executors", "must say true for addresses in their checksum form")
    return frozenset(named)


def _result_path(fields: Fields) -> tuple[str, ...]:
    if not fields.has("result_path"):
        fields.take("result_path")
        return ()
    labels = parse_path(fields.text("result_path", 1_000))
    if not 3 <= len(labels) <= RESULT_PATH_LABELS_MAX or labels[0] != "apps":
        raise fields.wrong("result_path", "must be a path below an app, such as /apps/my_app/results/first")
    if not all(valid_label(label) and not label.startswith("$") for label in labels):
        raise fields.wrong("result_path", "must have no variables")
    return tuple(labels)


__all__ = [
    "InputWrong",
    "JobExists",
    "JobRequest",
    "OutputNeeded",
    "asked_job_id",
    "check_output",
    "executors_of",
    "job_request_record",
    "policy_of",
    "public_salt",
    "read_job_request",
    "salt_of",
    "salted_digest",
]
