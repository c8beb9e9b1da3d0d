"""Reports of harm about a program, and the answers of those who publish it: public records, and nothing more.

A report decides nothing. It says what somebody saw, with evidence where there is some; a vote of the stake decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.primitives.errors import Refusal

REASON_CHARACTERS_MAX: Final = 500
# Of one reporter about one program.
REPORTS_MAX: Final = 16


class ReportMissing(Refusal):
    result_code = ResultCode.REPORT_MISSING
    template = "{reporter} has made no report {report} about {program}."
    way_out = "See the reports: openresource program show {program}"


class TooManyReports(Refusal):
    result_code = ResultCode.TOO_MANY_REPORTS
    template = "{reporter} has made {count} reports about {program}, as many as there may be."
    way_out = "Take one back by deleting it, or ask for a vote: openresource program kill {program}"


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody says about a program, or answers; evidence is empty where there is none."""

    reason: str
    evidence: str = ""
    at_ms: int = 0


def read_statement(record: Any, what: str = "report") -> Statement:
    """A report or an answer from its record."""
    fields = Fields(record, what)
    statement = Statement(
        reason=fields.text("reason", REASON_CHARACTERS_MAX),
        evidence=fields.cid("evidence") if fields.has("evidence") else "",
        at_ms=fields.optional_integer("at_ms", 0),
    )
    fields.take("evidence")
    fields.finish()
    return statement


def statement_record(statement: Statement) -> dict[str, Any]:
    """What a reporter writes at `/reports/<program>/<reporter>/<key>/report`; an answer has the same form."""
    members = {"reason": statement.reason}
    if statement.evidence:
        members["evidence"] = statement.evidence
    return members
