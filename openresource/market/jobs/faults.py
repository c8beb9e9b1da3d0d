"""Faults that prove themselves: two results that one provider signed for one lease.

A provider signs a paper with each early result that it hands out. Whoever holds two of them that differ, or one that
differs from what was revealed on the chain, shows them there; nobody has to run anything again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.papers import hex_text, paper_digest, paper_signer, sign_paper
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey

RESULT_TYPE: Final = "Result(bytes32 job,uint64 lease,bytes32 digest)"


class NoEquivocation(Refusal):
    result_code = ResultCode.NO_EQUIVOCATION
    template = "This proves no fault of {provider} in job {job}: {reason}."
    way_out = "Show two papers of one provider for one lease with different digests, or one that differs from the reveal."


@dataclass(frozen=True, slots=True)
class ResultPaper:
    """What a provider signs when it hands out a result: for which job and lease, and the result's digest."""

    job: str
    lease_at_ms: int
    digest: bytes
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Report:
    """What somebody shows: a paper and a second one, or None where the chain itself has the other result."""

    provider: str
    first: ResultPaper
    second: ResultPaper | None = None


def result_paper_digest(paper: ResultPaper, network: NetworkDomain) -> bytes:
    """What the provider signs."""
    values = {"job": keccak(paper.job.encode()), "lease": paper.lease_at_ms, "digest": paper.digest}
    return paper_digest(RESULT_TYPE, values, network)


def sign_result(
    job: str, lease_at_ms: int, digest: bytes, key: PrivateKey, network: NetworkDomain
) -> ResultPaper:
    """The paper about a result, signed."""
    paper = ResultPaper(job, lease_at_ms, digest)
    return ResultPaper(job, lease_at_ms, digest, sign_paper(result_paper_digest(paper, network), key))


def result_paper_signer(paper: ResultPaper, network: NetworkDomain) -> str:
    """Whose paper it is."""
    return paper_signer(result_paper_digest(paper, network), paper.signature)


def read_report(record: Any, job: str) -> Report:
    """A report from its record: `{provider, first: {lease_at_ms, digest, signature}, second?}`."""
    fields = Fields(record, "report of a fault")
    report = Report(
        fields.address("provider"),
        _paper(fields.take("first"), job),
        _paper(fields.take("second"), job) if fields.has("second") else None,
    )
    fields.take("second")
    fields.finish()
    return report


def report_record(report: Report) -> dict[str, Any]:
    """What a reporter writes at `/jobs/<job>/faults/<reporter>/<key>`."""
    members: dict[str, Any] = {"provider": report.provider, "first": _paper_record(report.first)}
    if report.second is not None:
        members["second"] = _paper_record(report.second)
    return members


def check_report(report: Report, revealed: bytes, lease_at_ms: int, network: NetworkDomain) -> None:
    """Refuses what proves nothing; `revealed` is the digest that the provider revealed on the chain, if it did."""
    papers = [report.first] if report.second is None else [report.first, report.second]
    for paper in papers:
        if paper.lease_at_ms != lease_at_ms:
            raise NoEquivocation(
                provider=report.provider, job=paper.job, reason="a paper is about another lease"
            )
        if result_paper_signer(paper, network) != report.provider:
            raise NoEquivocation(
                provider=report.provider, job=paper.job, reason="it did not sign these papers"
            )
    digests = {paper.digest for paper in papers} | ({revealed} if len(papers) == 1 and revealed else set())
    if len(digests) < 2:
        raise NoEquivocation(
            provider=report.provider, job=report.first.job, reason="there is only one result"
        )


def _paper(record: Any, job: str) -> ResultPaper:
    fields = Fields(record, "result paper")
    paper = ResultPaper(
        job, fields.integer("lease_at_ms"), fields.digest("digest"), fields.signature("signature")
    )
    fields.finish()
    return paper


def _paper_record(paper: ResultPaper) -> Mapping[str, Any]:
    return {
        "lease_at_ms": paper.lease_at_ms,
        "digest": hex_text(paper.digest),
        "signature": hex_text(paper.signature),
    }
