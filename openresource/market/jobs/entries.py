"""Entries that start programs: a write at a developer's path asks for a run, and the result returns to the path it designated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import is_cid_text
from openresource.market.holds import DEFAULT_HOLD, is_hold_name
from openresource.market.jobs.policies import ONE, PolicyInvalid, read_policy
from openresource.market.services import is_service_name
from openresource.primitives.amounts import InvalidAmount, uain_from_text
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.paths import format_path, is_variable, parse_path, valid_label

PROGRAM: Final = "PROGRAM"
APPS: Final = "apps"
RESULT_PATH_LABELS_MAX: Final = 16

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
    policy = entry.get("policy", ONE)
    try:
        read_policy(policy)
    except PolicyInvalid as refusal:
        raise _wrong("policy", "must be one, quorum:2/3 or audited") from refusal
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
