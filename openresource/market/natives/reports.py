"""Keeping reports of harm and the answers of publishers, for everybody to read."""

from __future__ import annotations

from openresource.ledger.draft import Draft, Native, NativeCall
from openresource.market.fields import InvalidRecord, require_key
from openresource.market.programs import ProgramNotRegistered
from openresource.market.reports import REPORTS_MAX, ReportMissing, TooManyReports, read_statement
from openresource.market.services import VersionNotPublished
from openresource.primitives.keys import is_checksum_address

REPORTS = "reports"


def make_report(draft: Draft, call: NativeCall) -> None:
    """Keeps what somebody says about a program; who takes a report back takes its answers along."""
    program, reporter, key = _names(call)
    if call.value is None:
        draft.set((REPORTS, program, reporter, key), None)
        return
    read_statement(call.value)
    if draft.get("programs", program) is None:
        raise ProgramNotRegistered(program=program)
    reports = draft.get(REPORTS, program, reporter) or {}
    if len(reports) > REPORTS_MAX:
        raise TooManyReports(reporter=reporter, program=program, count=len(reports) - 1)
    draft.set((*call.path, "at_ms"), call.at)


def answer_report(draft: Draft, call: NativeCall) -> None:
    """Keeps the answer of somebody who publishes the program."""
    program, reporter, key = _names(call)
    if call.value is None:
        return
    read_statement(call.value, "answer to a report")
    publisher, name = call.params["publisher"], call.params["name"]
    if draft.get(REPORTS, program, reporter, key, "report") is None:
        raise ReportMissing(reporter=reporter, report=key, program=program)
    if draft.get("services", publisher, name, "versions", program) is None:
        raise VersionNotPublished(publisher=publisher, name=name, program=program)
    draft.set((*call.path, "at_ms"), call.at)


def _names(call: NativeCall) -> tuple[str, str, str]:
    reporter = call.params["reporter"]
    if not is_checksum_address(reporter):
        raise InvalidRecord(
            what="report", member="its reporter", reason="must be an address in its checksum form"
        )
    return call.params["cid"], reporter, require_key(call.params["report"], "report")


NATIVES = (
    Native("_makeReport", ((REPORTS,),), make_report),
    Native("_answerReport", ((REPORTS,),), answer_report),
)
FUNCTIONS = {
    "/reports/$cid/$reporter/$report/report": "_makeReport",
    "/reports/$cid/$reporter/$report/answers/$publisher/$name": "_answerReport",
}
RULES = {
    "/reports": "false",
    # A report is made or taken back; what was answered must not change afterwards.
    "/reports/$cid/$reporter/$report/report": "auth.addr === $reporter"
    " && (data === null || newData === null)"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/reports/$cid/$reporter/$report/answers/$publisher/$name": "auth.addr === $publisher"
    " && util.checkValuePathLen(parsedValuePath, 7)",
}
