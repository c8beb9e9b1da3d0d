"""What stands on the chain about a job: its state, and what a provider reports of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.jobs.lifecycle import FAILED, LIFE_CYCLE
from openresource.market.jobs.verdicts import DONE
from openresource.market.papers import hex_text
from openresource.market.tree_json import ValueNotStorable, json_value
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.limits import STATE_HEIGHT_MAX
from openresource.primitives.paths import format_path
from openresource.primitives.values import object_height

ERROR_CHARACTERS_MAX: Final = 500


class ResultDigestWrong(Refusal):
    result_code = ResultCode.RESULT_DIGEST_WRONG
    template = "The execution's digest is {offered}; its output has {computed}."
    way_out = "Send the Keccak-256 of the output's canonical JSON, as it is in the tree."


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
