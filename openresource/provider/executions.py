"""One run of a program for a job: what it is given, how it runs, and what came of it, sealed where the job is.

A public job's input stands in the tree. A private one's lies in the content store under a key that the requester gave
to each executor; its output goes back the same way. Whatever goes wrong with input or program is a result too: the run
failed, for this reason.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.chain import BadAnswer, Chain, NodeAway, NodeRefused
from openresource.market.jobs import DONE, ERROR_CHARACTERS_MAX, FAILED, check_fits_at, input_digest
from openresource.market.jobs.faults import sign_result
from openresource.market.jobs.requests import salt_of, salted_digest
from openresource.market.manifests import Method
from openresource.market.papers import hex_text
from openresource.market.schemas import check_value
from openresource.market.sealed_content import (
    SEALED_CONTENT_BYTES_MAX,
    Chance,
    JobOutput,
    job_output_bytes,
    open_content,
    read_job_input,
    seal_content,
)
from openresource.market.tree_json import json_value, tree_value
from openresource.primitives.encoding import canonical_json_bytes, parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, address_of, generate_key
from openresource.primitives.paths import parse_path
from openresource.provider.lanes import Place
from openresource.provider.offers import Offer
from openresource.sandbox.driver import (
    JSON_TYPE,
    Overloaded,
    ProgramCall,
    ProgramError,
    ProgramFailed,
    ProgramRefused,
    ProgramReply,
)
from openresource.sandbox.links import LinkLost
from openresource.sandbox.pool import PoolClosed

# What stands on the chain of one run; larger outputs travel sealed.
PUBLIC_RESULT_BYTES_MAX: Final = 64 * 1024
SECONDS_MIN: Final = 0.5


class ResultTooLarge(Refusal):
    template = "The result has {bytes} bytes; at most {bytes_max} go into the tree."
    way_out = (
        "Return a smaller result, or ask for the job by `openresource job run`, whose results travel sealed."
    )


class InputChanged(Refusal):
    template = "The value at {source} is not the one that the job was made for."
    way_out = "Write every request at a path of its own."


class InputNotOpened(Refusal):
    """The requester may still give the key; that is no result of the program."""

    template = "The input of job {job} cannot be opened here: {reason}."
    way_out = "The requester's client adds keys for new executors while it waits for the job."


class MethodMissing(Refusal):
    template = "The program has no method {method}."
    way_out = "Name one of its methods in the request."


@dataclass(frozen=True, slots=True)
class Given:
    """What a run is given; an empty `reply_key` means that everything about the job is public."""

    value: Any
    salt: bytes
    reply_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run; `output` is a value of the tree."""

    status: str
    output: Any = None
    error: str = ""
    usage: Mapping[str, int] | None = None
    # Whether a run of the same bytes elsewhere would end like this; a machine's own trouble says nothing of the job.
    is_certain: bool = True


async def given_for(
    chain: Chain, job: str, request: Mapping[str, Any], key: PrivateKey, later: str | None
) -> Given:
    """The input of a job, from where its request says; `later` is the key that the requester added for us."""
    if "source" in request:
        source = str(request["source"])
        value = await chain.read(source, "pending")
        if hex_text(input_digest(value)) != request.get("input_digest"):
            raise InputChanged(source=source)
        return Given(json_value(value), salt_of(job, request))
    if "input_cid" not in request:
        return Given(json_value(request.get("input")), salt_of(job, request))
    cid = str(request["input_cid"])
    try:
        sealed = await chain.get_bytes(cid, bytes_max=SEALED_CONTENT_BYTES_MAX)
    except NodeRefused as refusal:
        raise InputNotOpened(job=job, reason=refusal.message) from refusal
    try:
        found = read_job_input(open_content(sealed, key, later), job)
    except Refusal as refusal:
        raise InputNotOpened(job=job, reason=refusal.message) from refusal
    if hex_text(salted_digest(found.salt, found.value)) != request.get("input_digest"):
        raise InputChanged(source=cid)
    return Given(found.value, found.salt, found.reply_key)


async def run_for(
    offer: Offer, request: Mapping[str, Any], given: Given, place: Place, seconds: float
) -> Result:
    """Runs the program; every way in which it ends is a result. Cancelling this stops the program's work.

    Whoever promised the place lets it go afterwards.
    """
    usage: dict[str, int] | None = None
    try:
        method = method_of(offer, request.get("method"))
        body = _body(given.value, method)
        reply = await _reply(offer, method, body, place, seconds)
        usage = {
            "cpu_ms": reply.cpu_ms,
            "wall_ms": reply.wall_ms,
            "bytes_in": len(body),
            "bytes_out": len(reply.body) if isinstance(reply.body, bytes) else 0,
        }
        output = await _output(reply)
        if "result_path" in request:
            check_fits_at(parse_path(str(request["result_path"])), output)
        if not given.reply_key and (size := len(canonical_json_bytes(output))) > PUBLIC_RESULT_BYTES_MAX:
            raise ResultTooLarge(bytes=size, bytes_max=PUBLIC_RESULT_BYTES_MAX)
        return Result(DONE, output, usage=usage)
    except (NodeAway, BadAnswer, Overloaded, PoolClosed, LinkLost):
        raise
    except Refusal as refusal:
        is_certain = not isinstance(refusal, ProgramError) or isinstance(
            refusal, ProgramFailed | ProgramRefused
        )
        return Result(FAILED, error=plain_text(refusal.message), usage=usage, is_certain=is_certain)


async def sealed_for(
    chain: Chain,
    job: str,
    key: PrivateKey,
    given: Given,
    result: Result,
    digest: bytes,
    *,
    lease_at_ms: int = 0,
) -> bytes:
    """A result that only the requester can read. With a lease it carries our signature under it."""
    signature = b""
    if lease_at_ms:
        signature = sign_result(job, lease_at_ms, digest, key, await chain.domain()).signature
    output = JobOutput(
        job,
        key.address,
        result.status,
        json_value(result.output),
        result.error,
        digest,
        lease_at_ms,
        signature,
    )
    return seal_content(
        job_output_bytes(output), {address_of(given.reply_key): given.reply_key}, fresh_chance(1)
    )


def execution_digest(salt: bytes, status: str, output: Any) -> bytes:
    """The digest of what came of a run; that a program failed is the same result wherever it does."""
    return salted_digest(salt, output if status == DONE else {"status": status})


def fresh_chance(readers: int, *, random_bytes: Callable[[int], bytes] = os.urandom) -> Chance:
    """Fresh bytes for one sealed content."""
    wraps = tuple((generate_key(random_bytes(32)), random_bytes(16)) for _ in range(readers))
    return Chance(random_bytes(32), random_bytes(16), wraps)


def fresh_salt() -> bytes:
    """What hides a digest until it is revealed."""
    return secrets.token_bytes(32)


def plain_text(error: str) -> str:
    """A reason as it may stand on the chain."""
    shown = "".join(character if character >= " " and character != "\x7f" else " " for character in error)
    return shown[:ERROR_CHARACTERS_MAX] or "no reason given"


def method_of(offer: Offer, wanted: Any) -> Method:
    """The method that a request names; the first if it names none."""
    for method in offer.methods:
        if wanted in (None, "", method.name):
            return method
    raise MethodMissing(method=wanted or "")


def _body(given: Any, method: Method) -> bytes:
    """The input as JSON; a bare value becomes the method's one parameter."""
    schema = method.input if isinstance(method.input, Mapping) else None
    if schema is not None and not isinstance(given, dict):
        names = list(schema.get("required", ())) or list(schema.get("properties", {}))
        if len(names) >= 1:
            given = {names[0]: given}
    if schema is not None:
        check_value(schema, given)
    return json.dumps(given).encode()


async def _reply(offer: Offer, method: Method, body: bytes, place: Place, seconds: float) -> ProgramReply:
    await place.enter()
    return await offer.runner.call(
        ProgramCall(
            method.name,
            method.path,
            body,
            JSON_TYPE,
            deadline_seconds=max(SECONDS_MIN, min(seconds, offer.limits.call_seconds)),
            ends_with_caller=True,
        )
    )


async def _output(reply: ProgramReply) -> Any:
    """The answer as a value of the tree."""
    body = reply.body
    if not isinstance(body, bytes):
        parts = []
        async for chunk in body:
            parts.append(chunk)
        body = b"[" + b",".join(part.strip() for part in parts if part.strip()) + b"]"
    if reply.status >= 400:
        raise ProgramFailed(reason=body[:300].decode("utf-8", "replace"))
    if reply.content_type.partition(";")[0] != JSON_TYPE and isinstance(reply.body, bytes):
        raise ProgramFailed(reason=f"its answer is {reply.content_type}, and jobs answer in JSON")
    output = tree_value(parse_json(body))
    if output is None:
        raise ProgramFailed(reason="its answer is empty, and the tree keeps nothing empty")
    return output
