"""`program`: what was decided and said about a program; votes that stop it and give it back; giving it up, forking it."""

from typing import Any

import click

from openresource.cli.output import (
    Progress,
    dry_run_option,
    home_option,
    json_option,
    network_node_option,
    show,
    usage_error,
)
from openresource.cli.ownership import fork_service, fork_text, renounce_service, renounced_text
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home
from openresource.market.kills import APPEAL, CHOICES, KILL
from openresource.primitives.amounts import text_from_uain

VOTE_EXIT_CODES = "\b\nExit codes: 0 done · 1 refused · 2 wrong usage · 3 node away"


@click.group(
    epilog="""\b
Example:  openresource program show sentiment
          openresource program fork sentiment my-sentiment
          openresource program kill sentiment --reason "it leaks what it reads" --evidence ./proof.txt"""
)
def program() -> None:
    """Where a program comes from and stands; give it up, fork it, stop it by a vote, give it back."""


@program.command(
    "show",
    epilog="""\b
Example:  openresource program show sentiment
          openresource program show bafy… --json
"""
    + VOTE_EXIT_CODES,
)
@click.argument("wanted", metavar="SERVICE|CID")
@home_option
@network_node_option
@json_option
def show_program(wanted: str, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Show where SERVICE (or a program by its CID) stands: votes, reports and their answers."""
    place = Home(home)

    async def looking() -> dict[str, Any]:
        from openresource.client.kills import program_of, story_of
        from openresource.client.services import Directory

        async with chain_of(place, node_url) as chain:
            return story_record(await story_of(chain, await program_of(Directory(chain), wanted)))

    outcome = run(looking())
    show(outcome, as_json=as_json, text=lambda: story_text(outcome))


_reason_option = click.option("--reason", required=True, help="What it does wrong, or why that was wrong.")
_evidence_option = click.option(
    "--evidence", required=True, metavar="CID|FILE", help="What shows it: a file, a folder, or its CID."
)


@program.command(
    epilog="""\b
Example:  openresource program kill sentiment --reason "it leaks what it reads" --evidence ./proof.txt
          openresource program kill bafy… --reason "…" --evidence bafy… --dry-run
"""
    + VOTE_EXIT_CODES
)
@click.argument("wanted", metavar="SERVICE|CID")
@_reason_option
@_evidence_option
@home_option
@network_node_option
@dry_run_option
@json_option
def kill(
    wanted: str,
    reason: str,
    evidence: str,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask the stake of the network to stop a program.

    It costs a deposit, which comes back unless hardly anybody agrees. When the vote passes, and its delay is over, no
    new channel, placement or job of the program is taken; its bytes and its history stay.
    """
    _ask(KILL, wanted, reason, evidence, home, node_url, dry_run=dry_run, as_json=as_json)


@program.command(
    epilog="""\b
Example:  openresource program appeal bafy… --reason "the proof was forged" --evidence ./answer.txt
"""
    + VOTE_EXIT_CODES
)
@click.argument("wanted", metavar="SERVICE|CID")
@_reason_option
@_evidence_option
@home_option
@network_node_option
@dry_run_option
@json_option
def appeal(
    wanted: str,
    reason: str,
    evidence: str,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask the stake of the network to give a stopped program back; it is served again when the vote has passed."""
    _ask(APPEAL, wanted, reason, evidence, home, node_url, dry_run=dry_run, as_json=as_json)


@program.command(
    epilog="""\b
Example:  openresource program vote sentiment yes
          openresource program vote bafy… no --ballot 8f3a51c2b7d94e60
"""
    + VOTE_EXIT_CODES
)
@click.argument("wanted", metavar="SERVICE|CID")
@click.argument("choice", type=click.Choice(CHOICES))
@click.option("--ballot", default="", help="Which vote; by default the one that is open.")
@home_option
@network_node_option
@json_option
def vote(
    wanted: str, choice: str, ballot: str, home: str | None, node_url: str | None, as_json: bool
) -> None:
    """Vote yes or no, with what you had staked before the vote began and have staked still. A vote is given once."""
    place = Home(home)

    async def voting() -> dict[str, Any]:
        from openresource.client.kills import give_vote, program_of
        from openresource.client.services import Directory

        async with chain_of(place, node_url) as chain:
            cid = await program_of(Directory(chain), wanted)
            tx_hash, chosen, given = await give_vote(chain, key_of(place), cid, choice, ballot)
            return {
                "program": cid,
                "ballot": chosen,
                "voter": given.voter,
                "choice": given.choice,
                "weight_uain": given.weight_uain,
                "tx_hash": tx_hash,
            }

    outcome = run(voting())
    weight = text_from_uain(outcome["weight_uain"])
    show(
        outcome,
        as_json=as_json,
        text=f"Voted {choice} with {weight} AIN in the vote {outcome['ballot']} about {outcome['program']}.",
    )


@program.command(
    epilog="""\b
Example:  openresource program renounce my-service --dry-run
          openresource program renounce my-service --for-good
"""
    + VOTE_EXIT_CODES
)
@click.argument("service")
@click.option("--for-good", is_flag=True, help="Say that you know: nobody can ever change it again.")
@home_option
@network_node_option
@dry_run_option
@json_option
def renounce(
    service: str, for_good: bool, home: str | None, node_url: str | None, dry_run: bool, as_json: bool
) -> None:
    """Give your SERVICE up for good: no new version, choice, permission or price, by nobody. It still runs."""
    if not for_good and not dry_run:
        usage_error("This cannot be undone. Look with --dry-run, then say --for-good.")
    outcome = run(renounce_service(service, Home(home), node_url, dry_run=dry_run))
    show(outcome, as_json=as_json, text=lambda: renounced_text(outcome))


@program.command(
    epilog="""\b
Example:  openresource program fork sentiment my-sentiment
          openresource program fork 0xAb…12/sentiment@1.2.0 my-sentiment --no-publish
\b
Exit codes: 0 done · 1 refused · 2 wrong usage · 3 node away
            4 published, but nobody runs it yet (the publication stays) · 130 interrupted"""
)
@click.argument("service")
@click.argument("name", metavar="NEW_NAME")
@click.option(
    "--into", "folder", type=click.Path(), help="Where its files go; by default a folder NEW_NAME here."
)
@click.option("--no-publish", is_flag=True, help="Only fetch it, to change it before it is published.")
@click.option(
    "--deadline",
    "deadline_seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for a provider.",
)
@home_option
@network_node_option
@dry_run_option
@json_option
def fork(
    service: str,
    name: str,
    folder: str | None,
    no_publish: bool,
    deadline_seconds: float,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch SERVICE at its exact version and publish it as NEW_NAME of your own.

    Where it comes from stands in its openresource.toml and, checked, on the chain; each later version that you publish
    from the folder keeps it. The royalty of your service is yours; what the source's license asks stays as it is.
    """
    progress = Progress(quiet=as_json)
    outcome = run(
        fork_service(
            service,
            name,
            folder or name,
            Home(home),
            node_url,
            progress,
            deadline_seconds,
            is_published=not no_publish,
            dry_run=dry_run,
            quiet=as_json,
        )
    )
    progress.clear()
    show(outcome, as_json=as_json, text=lambda: fork_text(outcome))


@program.command(
    epilog="""\b
Example:  openresource program answer my-service 8f3a51c2b7d94e60 "mended in 1.2.1"
"""
    + VOTE_EXIT_CODES
)
@click.argument("service")
@click.argument("report")
@click.argument("answer", metavar="TEXT")
@click.option("--evidence", default="", metavar="CID|FILE", help="What shows it.")
@home_option
@network_node_option
@json_option
def answer(
    service: str,
    report: str,
    answer: str,
    evidence: str,
    home: str | None,
    node_url: str | None,
    as_json: bool,
) -> None:
    """Answer a REPORT about a program of your SERVICE; the answer stands beside it for everybody."""
    place = Home(home)

    async def answering() -> dict[str, Any]:
        from openresource.client.kills import answer_report, program_of, put_evidence
        from openresource.client.services import Directory

        async with chain_of(place, node_url) as chain:
            key = key_of(place)
            name = service.rpartition("/")[2]
            cid = await program_of(Directory(chain), f"{key.address}/{name}")
            proof = await put_evidence(chain, evidence) if evidence else ""
            tx_hash = await answer_report(chain, key, cid, report, name.partition("@")[0], answer, proof)
            return {"program": cid, "report": report, "answer": answer, "tx_hash": tx_hash}

    outcome = run(answering())
    show(outcome, as_json=as_json, text=f"Your answer stands beside the report {report}.")


@click.command(
    epilog="""\b
Example:  openresource report sentiment "it answers with other people's texts"
          openresource report bafy… "it answers with other people's texts" --evidence ./proof.txt
"""
    + VOTE_EXIT_CODES
)
@click.argument("wanted", metavar="CID|SERVICE")
@click.argument("reason")
@click.option("--evidence", default="", metavar="CID|FILE", help="What shows it: a file, a folder, or a CID.")
@home_option
@network_node_option
@json_option
def report(
    wanted: str, reason: str, evidence: str, home: str | None, node_url: str | None, as_json: bool
) -> None:
    """Report harm by a program: a public record that stays, for its publisher to answer and for voters to read."""
    place = Home(home)

    async def reporting() -> dict[str, Any]:
        from openresource.client.kills import make_report, program_of, put_evidence
        from openresource.client.services import Directory

        async with chain_of(place, node_url) as chain:
            cid = await program_of(Directory(chain), wanted)
            proof = await put_evidence(chain, evidence) if evidence else ""
            tx_hash, key = await make_report(chain, key_of(place), cid, reason, proof)
            return {"program": cid, "report": key, "reason": reason, "evidence": proof, "tx_hash": tx_hash}

    outcome = run(reporting())
    show(
        outcome,
        as_json=as_json,
        text=f"Reported as {outcome['report']}. See what is said and answered:  "
        f"openresource program show {outcome['program']}",
    )


def _ask(
    deed: str,
    wanted: str,
    reason: str,
    evidence: str,
    home: str | None,
    node_url: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    place = Home(home)

    async def asking() -> dict[str, Any]:
        from openresource.client.kills import ask_for_vote, program_of, put_evidence, standing_of
        from openresource.client.services import Directory
        from openresource.market.natives.parameters import KILL_DEPOSIT_UAIN, KILL_VOTE_MS, PARAMETERS

        async with chain_of(place, node_url) as chain:
            cid = await program_of(Directory(chain), wanted)
            terms = await chain.read("/blockchain_params/market") or {}
            if dry_run:
                return {
                    "program": cid,
                    "deed": deed,
                    "status": (await standing_of(chain, cid)).status,
                    "deposit_uain": terms.get(KILL_DEPOSIT_UAIN, PARAMETERS[KILL_DEPOSIT_UAIN]),
                    "vote_ms": terms.get(KILL_VOTE_MS, PARAMETERS[KILL_VOTE_MS]),
                    "dry_run": True,
                }
            proof = await put_evidence(chain, evidence)
            tx_hash, ballot = await ask_for_vote(chain, key_of(place), cid, deed, reason, proof)
            return {**ballot_json(ballot), "program": cid, "tx_hash": tx_hash}

    outcome = run(asking())
    show(outcome, as_json=as_json, text=lambda: _asked_text(outcome))


def _asked_text(outcome: dict[str, Any]) -> str:
    from openresource.cli.times import span_text, until_text

    deposit = text_from_uain(outcome["deposit_uain"])
    if outcome.get("dry_run"):
        return (
            f"Would ask for a vote of {span_text(outcome['vote_ms'] / 1000)} about {outcome['program']}, "
            f"which is {outcome['status']}, and leave a deposit of {deposit} AIN."
        )
    return "\n".join(
        (
            f"The vote {outcome['ballot']} on {outcome['deed']} of {outcome['program']} is open until "
            f"{until_text(outcome['closes_at_ms'])}; your deposit is {deposit} AIN.",
            f"  It needs {text_from_uain(outcome['quorum_uain'])} AIN of stake to be cast, and more than "
            f"{outcome['majority_ppm'] / 10_000:g} % of that to agree.",
            f"Vote:  openresource program vote {outcome['program']} yes",
        )
    )


def ballot_json(ballot: Any) -> dict[str, Any]:
    """A ballot for --json and pages."""
    from openresource.market.kills import ballot_record

    return {"ballot": ballot.key, **ballot_record(ballot), "quorum_uain": ballot.quorum_uain}


def story_record(story: Any) -> dict[str, Any]:
    """Everything that was decided and said about a program, for --json."""
    from openresource.market.kills import standing_record

    return {
        "program": story.program,
        "standing": standing_record(story.standing),
        "ballots": [
            {
                **ballot_json(ballot),
                "votes": [
                    {"voter": one.voter, "choice": one.choice, "weight_uain": one.weight_uain}
                    for one in story.votes.get(ballot.key, ())
                ],
            }
            for ballot in story.ballots
        ],
        "reports": [
            {
                "report": one.key,
                "reporter": one.reporter,
                "reason": one.statement.reason,
                "evidence": one.statement.evidence,
                "at_ms": one.statement.at_ms,
                "answers": [
                    {"service": service, "reason": said.reason, "evidence": said.evidence}
                    for service, said in one.answers.items()
                ],
            }
            for one in story.reports
        ],
    }


def story_text(record: dict[str, Any]) -> str:
    """The same for people."""
    from openresource.cli.times import moment_text, until_text

    standing = record["standing"]
    lines = [f"{record['program']}: {standing['status']}"]
    if standing.get("reason"):
        lines.append(f"  {standing['reason']}  (evidence {standing['evidence']})")
    if standing["status"] == "DOOMED":
        lines.append(f"  it is stopped {until_text(standing['effective_at_ms'])} unless an appeal passes")
    for one in record["ballots"]:
        ends = "open until" if one["status"] == "OPEN" else "closed"
        lines.append(
            f"  vote {one['ballot']} on {one['deed']}: {one['status']}, {ends} {moment_text(one['closes_at_ms'])}"
        )
        lines.append(
            f"    {one['reason']}  (asked by {one['proposer']}, evidence {one['evidence']})\n"
            f"    yes {text_from_uain(one['yes_uain'])} AIN, no {text_from_uain(one['no_uain'])} AIN by {one['voters']} "
            f"of {text_from_uain(one['stake_uain'])} AIN; {text_from_uain(one['quorum_uain'])} AIN must be cast"
        )
    for one in record["reports"]:
        lines.append(f"  report {one['report']} of {moment_text(one['at_ms'])} by {one['reporter']}")
        lines.append(f"    {one['reason']}" + (f"  (evidence {one['evidence']})" if one["evidence"] else ""))
        lines += [f"    {said['service']} answers: {said['reason']}" for said in one["answers"]]
    if not record["ballots"] and not record["reports"]:
        lines.append("  nobody has reported it or asked for a vote about it")
    return "\n".join(lines)
