"""Executions as they stand on the chain: one record for each provider of a job, which grows step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openresource.market.fields import Fields
from openresource.market.jobs.lifecycle import FAILED
from openresource.market.jobs.records import ERROR_CHARACTERS_MAX
from openresource.market.jobs.verdicts import DONE, ROLES, WORKER, Execution
from openresource.market.papers import hex_text

SALT_BYTES: Final = 32
USAGE_MEMBERS: Final = ("cpu_ms", "wall_ms", "bytes_in", "bytes_out", "fuel")

_NUMBERS: Final = (
    "lease_at_ms",
    "lease_until_ms",
    "ask_uain",
    "royalty_uain",
    "bond_uain",
    "stake_uain",
    "committed_at_ms",
    "reveal_until_ms",
    "revealed_at_ms",
    "equivocated_at_ms",
)
_FLAGS: Final = ("is_locked", "is_called", "is_over", "is_late", "is_fined")
_TEXTS: Final = ("operator", "runtime_class", "output_cid", "status", "error")
_BYTES: Final = ("commitment", "digest", "salt")


def execution_of(provider: str, record: Mapping[str, Any]) -> Execution:
    """An execution from what the chain wrote; what is missing was not there yet."""
    members: dict[str, Any] = {name: int(record.get(name) or 0) for name in _NUMBERS}
    members |= {name: record.get(name) is True for name in _FLAGS}
    members |= {name: str(record.get(name) or "") for name in _TEXTS}
    members |= {name: _bytes(record.get(name)) for name in _BYTES}
    role = record.get("role")
    return Execution(
        provider=provider,
        role=role if role in ROLES else WORKER,
        output=record.get("output"),
        usage=record.get("usage"),
        **members,
    )


def execution_members(run: Execution) -> dict[str, Any]:
    """The record at `/jobs/<job>/executions/<provider>`; what is empty is left out."""
    members: dict[str, Any] = {"role": run.role}
    for name in (*_NUMBERS, *_FLAGS, *_TEXTS):
        value = getattr(run, name)
        if value:
            members[name] = value
    for name in _BYTES:
        value = getattr(run, name)
        if value:
            members[name] = hex_text(value)
    if run.output is not None:
        members["output"] = run.output
    if run.usage:
        members["usage"] = dict(run.usage)
    return members


def executions_of(records: Any) -> tuple[Execution, ...]:
    """All executions of a job, from its records; anybody asks `resolve` about these."""
    if not isinstance(records, Mapping):
        return ()
    return tuple(
        execution_of(provider, record)
        for provider, record in sorted(records.items())
        if isinstance(record, Mapping)
    )


def read_commitment(record: Any) -> tuple[bytes, str]:
    """A commitment and, where the output is sealed, its content identifier."""
    fields = Fields(record, "commitment")
    commitment = fields.digest("commitment")
    cid = fields.cid("output_cid") if fields.has("output_cid") else ""
    fields.take("output_cid")
    fields.finish()
    return commitment, cid


def read_reveal(record: Any) -> dict[str, Any]:
    """What a provider reveals: members of an execution."""
    fields = Fields(record, "reveal")
    report = _report(fields)
    report["salt"] = fields.digest("salt")
    fields.finish()
    return report


def read_finish(record: Any) -> dict[str, Any]:
    """What a provider reports of a job that one provider runs, with its digest where the output is sealed."""
    fields = Fields(record, "execution")
    report = _report(fields)
    fields.finish()
    return report


def read_secret(record: Any) -> bytes:
    """A buyer's secret."""
    fields = Fields(record, "secret")
    secret = fields.digest("secret")
    fields.finish()
    return secret


def _report(fields: Fields) -> dict[str, Any]:
    status = fields.choice("status", (DONE, FAILED))
    report: dict[str, Any] = {
        "status": status,
        "digest": fields.digest("digest") if status == DONE or fields.has("digest") else b"",
        "output": fields.take("output"),
        "error": fields.optional_text("error", ERROR_CHARACTERS_MAX),
    }
    fields.take("digest")
    if fields.has("output_cid"):
        report["output_cid"] = fields.cid("output_cid")
    fields.take("output_cid")
    if fields.has("usage"):
        usage = Fields(fields.take("usage"), "execution's usage")
        report["usage"] = {
            member: usage.optional_integer(member, 0) for member in USAGE_MEMBERS if usage.has(member)
        }
        usage.finish()
    fields.take("usage")
    return report


def _bytes(text: Any) -> bytes:
    return bytes.fromhex(text[2:]) if isinstance(text, str) and text.startswith("0x") else b""


__all__ = [
    "execution_members",
    "execution_of",
    "executions_of",
    "read_commitment",
    "read_finish",
    "read_reveal",
    "read_secret",
]
