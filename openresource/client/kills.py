"""Votes about stopping a program, and what is said about one: asked for, given and read by a wallet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.client.chain import Chain
from openresource.client.content import files_of
from openresource.client.services import Directory
from openresource.market.fields import is_cid_text
from openresource.market.kills import OPEN, Ballot, Standing, read_ballot, read_standing
from openresource.market.reports import Statement, read_statement, statement_record
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey

EVIDENCE_BYTES_MAX: Final = 16 * 1024 * 1024
REPORTS_SHOWN_MAX: Final = 200
VOTES_SHOWN_MAX: Final = 1_000


class NoEvidence(Refusal):
    template = "There is no file or folder {evidence}, and it is no content identifier."
    way_out = "Name a file, a folder, or the CID of something that is in the content store."


class EvidenceTooLarge(Refusal):
    template = "The evidence {evidence} has {bytes} bytes; at most {bytes_max} are kept."
    way_out = "Leave out what does not matter, or put it elsewhere and name its CID."


class NoOpenVote(Refusal):
    template = "No vote about {program} is open."
    way_out = "Ask for one: openresource program kill {program} --reason … --evidence FILE"


class NoSuchProgram(Refusal):
    template = "No program {program} is registered on this network."
    way_out = "See what there is: openresource services"


class NoSuchReport(Refusal):
    template = "There is no report {report} about {program}."
    way_out = "See the reports: openresource program show {program}"


@dataclass(frozen=True, slots=True)
class Vote:
    """What somebody voted, and with how much."""

    voter: str
    choice: str
    weight_uain: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Report:
    """What somebody says about a program, and the answers of those who publish it, by `<publisher>/<name>`."""

    key: str
    reporter: str
    statement: Statement
    answers: Mapping[str, Statement]


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that was decided and said about a program, newest votes first."""

    program: str
    standing: Standing
    ballots: tuple[Ballot, ...]
    votes: Mapping[str, tuple[Vote, ...]]
    reports: tuple[Report, ...]

    @property
    def open_ballot(self) -> Ballot | None:
        """The vote that is open, if there is one."""
        return next((ballot for ballot in self.ballots if ballot.status == OPEN), None)


async def program_of(directory: Directory, wanted: str) -> str:
    """The program that a person names by its CID or by a service."""
    if not is_cid_text(wanted):
        return (await directory.choose(wanted)).program
    if not await directory.is_registered(wanted):
        raise NoSuchProgram(program=wanted)
    return wanted


async def standing_of(chain: Chain, program: str) -> Standing:
    """Where a program stands."""
    return read_standing(await chain.read(f"/kills/{program}/state"))


async def story_of(chain: Chain, program: str) -> Story:
    """What was decided and said about a program; of a vote in which very many took part the sums alone are read."""
    base = f"/kills/{program}"
    state, records, reports = await asyncio.gather(
        chain.read(f"{base}/state"), chain.read(f"{base}/ballots"), reports_of(chain, program)
    )
    ballots = [read_ballot(program, key, one) for key, one in (records or {}).items()]
    votes = {
        ballot.key: _votes(await chain.read(f"{base}/votes/{ballot.key}"))
        for ballot in ballots
        if 0 < ballot.voters <= VOTES_SHOWN_MAX
    }
    newest_first = sorted(ballots, key=lambda ballot: -ballot.began_at_ms)
    return Story(program, read_standing(state), tuple(newest_first), votes, reports)


async def reports_of(chain: Chain, program: str) -> tuple[Report, ...]:
    """What was reported about a program, the newest first."""
    found = []
    async for reporter in chain.children(f"/reports/{program}"):
        records = await chain.read(f"/reports/{program}/{reporter}")
        found += [report for key, one in (records or {}).items() if (report := _report(reporter, key, one))]
        if len(found) >= REPORTS_SHOWN_MAX:
            break
    return tuple(sorted(found, key=lambda report: -report.statement.at_ms))


async def put_evidence(chain: Chain, evidence: str) -> str:
    """The CID of what a person names as evidence; files are given to the node first."""
    if is_cid_text(evidence):
        return evidence
    path = Path(evidence)
    if not path.exists():
        raise NoEvidence(evidence=evidence)
    files = await asyncio.to_thread(_evidence_files, path)
    return await chain.put_files(files)


async def ask_for_vote(
    chain: Chain, key: PrivateKey, program: str, deed: str, reason: str, evidence: str
) -> tuple[str, Ballot]:
    """Begins a vote and pays its deposit; gives the transaction's hash and the ballot."""
    ballot = os.urandom(8).hex()
    record = {"deed": deed, "reason": reason, "evidence": evidence}
    tx_hash = await chain.write(f"/kills/{program}/proposals/{ballot}", record, key)
    return tx_hash, read_ballot(program, ballot, await chain.read(f"/kills/{program}/ballots/{ballot}"))


async def give_vote(
    chain: Chain, key: PrivateKey, program: str, choice: str, ballot: str = ""
) -> tuple[str, str, Vote]:
    """Votes in a ballot, the open one unless another is named; gives the hash, the ballot's key and the vote."""
    chosen = ballot or (await standing_of(chain, program)).ballot
    if not chosen:
        raise NoOpenVote(program=program)
    path = f"/kills/{program}/votes/{chosen}/{key.address}"
    tx_hash = await chain.write(path, {"choice": choice}, key)
    found = await chain.read(path)
    return tx_hash, chosen, Vote(key.address, choice, int(found["weight_uain"]), int(found["at_ms"]))


async def make_report(
    chain: Chain, key: PrivateKey, program: str, reason: str, evidence: str = ""
) -> tuple[str, str]:
    """Reports harm; gives the transaction's hash and the report's key."""
    report = os.urandom(8).hex()
    path = f"/reports/{program}/{key.address}/{report}/report"
    return await chain.write(path, statement_record(Statement(reason, evidence)), key), report


async def answer_report(
    chain: Chain, key: PrivateKey, program: str, report: str, name: str, reason: str, evidence: str = ""
) -> str:
    """Answers a report as the publisher of a service with that program; gives the transaction's hash."""
    found = next((one for one in await reports_of(chain, program) if one.key == report), None)
    if found is None:
        raise NoSuchReport(report=report, program=program)
    path = f"/reports/{program}/{found.reporter}/{report}/answers/{key.address}/{name}"
    return await chain.write(path, statement_record(Statement(reason, evidence)), key)


def _votes(records: Any) -> tuple[Vote, ...]:
    return tuple(
        Vote(voter, str(one.get("choice")), int(one.get("weight_uain", 0)), int(one.get("at_ms", 0)))
        for voter, one in (records or {}).items()
    )


def _report(reporter: str, key: str, record: Any) -> Report | None:
    try:
        answers = {
            f"{publisher}/{name}": read_statement(one, "answer to a report")
            for publisher, named in (record.get("answers") or {}).items()
            for name, one in named.items()
        }
        return Report(key, reporter, read_statement(record["report"]), answers)
    except (Refusal, KeyError, AttributeError, TypeError):
        return None  # A record in a form that this version does not know is nothing that it can show.


def _evidence_files(path: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes()} if path.is_file() else files_of(path)
    size = sum(len(content) for content in files.values())
    if size > EVIDENCE_BYTES_MAX:
        raise EvidenceTooLarge(evidence=str(path), bytes=size, bytes_max=EVIDENCE_BYTES_MAX)
    return files
