"""What travels through the content store for a few readers only: content under a key of its own, and that key wrapped
for each reader.

A job's input is bound to the job and its output to job and provider, so that nobody can pass off what was sealed for
one job as another's. What others send is hostile until it is read here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.papers import hex_text
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, address_of, is_checksum_address
from openresource.primitives.limits import JSON_BYTES_MAX
from openresource.primitives.sealing import (
    CONTENT_KEY_BYTES,
    CannotUnseal,
    lock_content,
    unlock_content,
    unwrap_key,
    wrap_key,
)

MAGIC: Final = b"openresource sealed 1\n"
READERS_MAX: Final = 32
HEADER_BYTES_MAX: Final = 16 * 1024
SEALED_CONTENT_BYTES_MAX: Final = JSON_BYTES_MAX + HEADER_BYTES_MAX + 1024
SALT_BYTES: Final = 32


class NotSealedForUs(Refusal):
    result_code = ResultCode.INVALID_RECORD
    template = "The sealed content has no key for {reader}."
    way_out = "Ask its writer to add the key; a job's requester does that while the job waits."


class SealedContentInvalid(Refusal):
    result_code = ResultCode.INVALID_RECORD
    template = "The sealed content cannot be read: {reason}."
    way_out = "Seal it again for this job, in the form that the client library writes."


@dataclass(frozen=True, slots=True)
class JobInput:
    """What a requester seals for those who work on a job: the input, its salt, and the key that outputs are sealed to."""

    job: str
    salt: bytes
    value: Any
    reply_key: bytes


@dataclass(frozen=True, slots=True)
class JobOutput:
    """What a provider seals for the requester: its result, before anybody else learns of it."""

    job: str
    provider: str
    status: str
    value: Any
    error: str
    digest: bytes
    # The provider's signature under the result for this lease, where it is bound to it; see `jobs/faults.py`.
    lease_at_ms: int = 0
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Chance:
    """Fresh bytes for one sealed content; each is used once."""

    content_key: bytes
    iv: bytes
    # One per reader: a key that is made for the wrapping alone, and 16 bytes.
    wraps: tuple[tuple[PrivateKey, bytes], ...]


def seal_content(content: bytes, readers: Mapping[str, bytes], chance: Chance) -> bytes:
    """Content for the readers, given by address and public key."""
    assert len(readers) <= READERS_MAX and len(chance.wraps) >= len(readers)
    keys = {
        address: wrapped_text(chance.content_key, public_key, once, iv)
        for (address, public_key), (once, iv) in zip(readers.items(), chance.wraps, strict=False)
    }
    header = json.dumps({"keys": keys}, separators=(",", ":")).encode()
    locked = lock_content(content, chance.content_key, iv=chance.iv)
    return MAGIC + len(header).to_bytes(4, "big") + header + locked


def wrapped_text(content_key: bytes, public_key: bytes, once: PrivateKey, iv: bytes) -> str:
    """A content's key for one reader, as it stands in a header or at `/jobs/<job>/keys/<provider>`."""
    return base64.b64encode(wrap_key(content_key, public_key, once=once, iv=iv)).decode()


def content_key_of(sealed: bytes, key: PrivateKey, later: str | None = None) -> bytes:
    """The content's key for one reader: from the header, or from what its writer added later."""
    keys, _ = _parts(sealed)
    wrapped = keys.get(key.address, later)
    if wrapped is None:
        raise NotSealedForUs(reader=key.address)
    try:
        return unwrap_key(base64.b64decode(wrapped, validate=True), key)
    except (binascii.Error, ValueError) as error:
        raise SealedContentInvalid(reason="the key is not base64") from error
    except CannotUnseal as error:
        raise SealedContentInvalid(reason="the key was not wrapped for this reader") from error


def readers_of(sealed: bytes) -> frozenset[str]:
    """Whose keys are in the header."""
    return frozenset(_parts(sealed)[0])


def open_content(sealed: bytes, key: PrivateKey, later: str | None = None) -> bytes:
    """The content for one of its readers."""
    return unlock(sealed, content_key_of(sealed, key, later))


def unlock(sealed: bytes, content_key: bytes) -> bytes:
    """The content for whoever holds its key."""
    _, locked = _parts(sealed)
    if len(content_key) != CONTENT_KEY_BYTES:
        raise SealedContentInvalid(reason=f"a key has {CONTENT_KEY_BYTES} bytes")
    try:
        return unlock_content(locked, content_key)
    except CannotUnseal as error:
        raise SealedContentInvalid(reason="it was changed on its way") from error


def job_input_bytes(given: JobInput) -> bytes:
    """A job's input as it is sealed."""
    record = {
        "job": given.job,
        "salt": hex_text(given.salt),
        "input": given.value,
        "reply_key": hex_text(given.reply_key),
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def read_job_input(content: bytes, job: str) -> JobInput:
    """A job's input; what was sealed for another job is refused."""
    record = _record(content, job)
    reply_key = _bytes_of(record, "reply_key", 64)
    try:
        address_of(reply_key)
    except Refusal as error:
        raise SealedContentInvalid(reason="the key for the answer is no key") from error
    return JobInput(job, _bytes_of(record, "salt", SALT_BYTES), record.get("input"), reply_key)


def job_output_bytes(output: JobOutput) -> bytes:
    """A job's output as it is sealed."""
    record = {
        "job": output.job,
        "provider": output.provider,
        "status": output.status,
        "output": output.value,
        "error": output.error,
        "digest": hex_text(output.digest),
        "lease_at_ms": output.lease_at_ms,
        "signature": hex_text(output.signature),
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def read_job_output(content: bytes, job: str, provider: str) -> JobOutput:
    """A job's output; what was sealed for another job or by somebody else is refused."""
    record = _record(content, job)
    if record.get("provider") != provider or not is_checksum_address(provider):
        raise SealedContentInvalid(reason=f"it is not of {provider}")
    status, error = record.get("status"), record.get("error")
    if not isinstance(status, str) or not isinstance(error, str):
        raise SealedContentInvalid(reason="it says no status")
    lease_at_ms = record.get("lease_at_ms")
    if not isinstance(lease_at_ms, int) or lease_at_ms < 0:
        raise SealedContentInvalid(reason="it does not say for which lease it is")
    signature = record.get("signature")
    return JobOutput(
        job,
        provider,
        status,
        record.get("output"),
        error,
        _bytes_of(record, "digest", 32),
        lease_at_ms,
        b"" if signature == "0x" else _bytes_of(record, "signature", 65),
    )


def _record(content: bytes, job: str) -> dict[str, Any]:
    record = parse_json(content)
    if not isinstance(record, dict) or record.get("job") != job:
        raise SealedContentInvalid(reason=f"it was not sealed for job {job}")
    return record


def _bytes_of(record: Mapping[str, Any], member: str, length: int) -> bytes:
    text = record.get(member)
    try:
        data = bytes.fromhex(text[2:]) if isinstance(text, str) and text.startswith("0x") else b""
    except ValueError:
        data = b""
    if len(data) != length:
        raise SealedContentInvalid(reason=f"its {member} must be 0x and {2 * length} hex digits")
    return data


def _parts(sealed: bytes) -> tuple[dict[str, str], bytes]:
    if not sealed.startswith(MAGIC):
        raise SealedContentInvalid(reason="it does not begin as sealed content does")
    start = len(MAGIC) + 4
    length = int.from_bytes(sealed[len(MAGIC) : start], "big")
    if length > HEADER_BYTES_MAX or len(sealed) < start + length:
        raise SealedContentInvalid(reason="its header is too long")
    header = parse_json(sealed[start : start + length])
    keys = header.get("keys") if isinstance(header, dict) else None
    if (
        not isinstance(keys, dict)
        or len(keys) > READERS_MAX
        or not all(isinstance(one, str) for one in keys.values())
    ):
        raise SealedContentInvalid(reason="its header has no keys")
    return keys, sealed[start + length :]
