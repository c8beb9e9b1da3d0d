"""`job`: have a program run and checked; watch it, list what was asked for, compute its verdict anew."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from openresource.cli.inputs import Given, given
from openresource.cli.output import (
    DEADLINE,
    DONE,
    FAILED,
    Progress,
    dry_run_option,
    home_option,
    json_option,
    json_text,
    network_node_option,
    say,
    show,
    usage_error,
)
from openresource.cli.session import client_of, run
from openresource.cli.times import moment_text
from openresource.primitives.amounts import text_from_uain, uain_from_text

REASON_CHARACTERS_MAX = 200
# Beyond what referees may take: blocks, and the way to the node and back.
JUDGED_SPARE_SECONDS = 30.0
READ_EXIT_CODES = "\b\nExit codes: 0 done · 1 no such job · 2 wrong usage · 3 node away"


@click.group(
    epilog="""\b
Example:  openresource job run gist text=@letter.txt --policy audited
          openresource job explain 6f0c…"""
)
def job() -> None:
    """Have a program run on the chain's word, checked by others; see each run, the verdict and its reasons."""


@job.command(
    "run",
    epilog="""\b
Example:  openresource job run gist text="One line. Another line."
          openresource job run scrub text=@letter.txt --policy quorum:2/3
          openresource job run scrub text=@letter.txt --policy audited:1 --budget 0.01 --json
\b
Policies: one        the first provider in turn is trusted
          quorum:K/N N run it, and K results must agree
          audited    others run it again by lot, as often as the provider's record asks for; audited:0.25 exactly that often
Inputs:   key=value by the method's types · key=@file (@- is standard input) · key:=JSON · --input FILE
Exit codes: 0 accepted · 1 refused, failed, refuted or not resolved · 2 wrong usage or inputs · 3 node away
            4 nobody finished it in time · 5 over a spending limit · 130 interrupted; the job goes on""",
)
@click.argument("service")
@click.argument("words", nargs=-1, metavar="[METHOD] [KEY=VALUE]...")
@click.option("--policy", default="one", show_default=True, help="one, quorum:K/N, audited or audited:P.")
@click.option(
    "--budget", help="The most that the job may cost, in AIN. Default: what its policy costs at most."
)
@click.option(
    "--deadline",
    "deadline_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds until a provider must be bound to a result; so long it is waited for as well.",
)
@click.option("--input", "input_file", help="A JSON object with all inputs; - is standard input.")
@click.option(
    "--public", is_flag=True, help="Input and output lie open on the chain, as a tolerance needs them."
)
@home_option
@network_node_option
@dry_run_option
@json_option
def run_job(
    service: str,
    words: tuple[str, ...],
    policy: str,
    budget: str | None,
    deadline_seconds: float,
    input_file: str | None,
    public: bool,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask for a run of SERVICE: the first result at once, marked provisional, then the verdict and what was paid.

    What is not spent of the budget comes back. With --json: a line when the first result is there, one with the verdict.
    """
    from openresource.market.jobs.policies import read_policy

    read_policy(policy)
    asking = Asking(
        service,
        given(words, input_file),
        policy,
        None if budget is None else uain_from_text(budget),
        deadline_seconds,
        is_public=public,
        as_json=as_json,
    )
    code = run(asking.run(home, node_url, dry_run=dry_run))
    if code != DONE:
        sys.exit(code)


@job.command(
    "show",
    epilog="\b\nExample:  openresource job show 6f0c…\n          openresource job show 6f0c… --json\n"
    + READ_EXIT_CODES,
)
@click.argument("identifier", metavar="ID")
@home_option
@network_node_option
@json_option
def show_job(identifier: str, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Show the job ID: where it is, every run, the verdict with its reasons, and where the money went."""

    async def looking() -> Any:
        from openresource.client.job_stories import read_story

        async with client_of(home, node_url) as client:
            return await read_story(client.chain, identifier)

    story = run(looking())
    show(story.to_json(), as_json=as_json, text=lambda: story_text(story))


@job.command("list", epilog="\b\nExample:  openresource job list\n" + READ_EXIT_CODES)
@home_option
@network_node_option
@json_option
def list_jobs(home: str | None, node_url: str | None, as_json: bool) -> None:
    """List the jobs that this wallet asked for and that the chain still tells of in full, the newest first."""

    async def listing() -> list[dict[str, Any]]:
        async with client_of(home, node_url) as client:
            return [view_record(view) for view in await client.jobs.list()]

    found = run(listing())
    if as_json:
        show(found, as_json=True, text="")
        return
    if not found:
        say(
            "This wallet has no job that the chain still tells of.  Ask for one:  openresource job run SERVICE"
        )
    for record in found:
        paid = f"{text_from_uain(record['paid_uain'])} AIN" if record["is_final"] else ""
        say(
            f"{record['job']}  {moment_text(record['requested_at_ms'])}  {record['status']:<10} "
            f"{record['policy']:<12} {record['name']}  {paid}".rstrip()
        )


@job.command(
    "explain",
    epilog="""\b
Example:  openresource job explain 6f0c…
\b
Exit codes: 0 the verdict computed anew is the one on the chain · 1 it is not, or no such job · 2 wrong usage · 3 node away""",
)
@click.argument("identifier", metavar="ID")
@home_option
@network_node_option
@json_option
def explain_job(identifier: str, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Compute the verdict of the job ID anew from the chain alone, and say whether it is the one that stands there."""

    async def explaining() -> Any:
        async with client_of(home, node_url) as client:
            return await client.jobs.explain(identifier)

    explanation = run(explaining())
    record = {
        "job": explanation.job,
        "height": explanation.height,
        "matches": explanation.matches,
        "verdict": dict(explanation.verdict),
        "lines": list(explanation.lines),
    }
    show(record, as_json=as_json, text=lambda: "\n".join(explanation.lines))
    if not explanation.matches:
        sys.exit(FAILED)


@job.command(
    "dispute",
    epilog="""\b
Example:  openresource job dispute 6f0c… --dry-run
          openresource job dispute 6f0c… --reason "Line 3 is missing."
\b
Exit codes: 0 you were right: the result is refuted · 1 refused, or the result stands · 2 wrong usage · 3 node away
            4 not judged in time · 130 interrupted; the dispute goes on""",
)
@click.argument("identifier", metavar="ID")
@click.option("--reason", default="", help="Why, in at most 200 characters; it stands on the chain.")
@click.option(
    "--bond", help="What you lose if the result is confirmed, in AIN. Default: as little as is allowed."
)
@home_option
@network_node_option
@dry_run_option
@json_option
def dispute_job(
    identifier: str,
    reason: str,
    bond: str | None,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Doubt the accepted result of the job ID against a bond: referees run it again, and the loser pays.

    Results of exact programs can be doubted for a while after they were accepted. If the referees come to another result,
    the bond is back and the buyer has its money; if they confirm it, the bond pays them and whom you doubted. Whoever asked
    for the job should stay until it is judged, as referees who came later need its input's key.
    """
    if len(reason) > REASON_CHARACTERS_MAX:
        usage_error(f"The reason has {len(reason)} characters; {REASON_CHARACTERS_MAX} are allowed.")
    bond_uain = None if bond is None else uain_from_text(bond)
    code = run(_dispute(identifier, reason, bond_uain, home, node_url, dry_run=dry_run, as_json=as_json))
    if code != DONE:
        sys.exit(code)


async def _dispute(
    identifier: str,
    reason: str,
    bond_uain: int | None,
    home: str | None,
    node_url: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    from openresource.client.job_stories import read_story

    progress = Progress(quiet=as_json)
    began = time.monotonic()
    async with client_of(home, node_url) as client:
        terms = await client.jobs.dispute_terms(identifier)
        bonded_uain = terms.bond_uain if bond_uain is None else bond_uain
        record = {
            "job": identifier,
            "bond_uain": bonded_uain,
            "bond_needed_uain": terms.bond_uain,
            "disputable_until_ms": terms.until_ms,
            "referees_max": terms.referees_max,
            "judged_ms_max": terms.judged_ms_max,
            "dry_run": dry_run,
        }
        if dry_run:
            show(
                record,
                as_json=as_json,
                text=f"Would bond {text_from_uain(bonded_uain)} AIN against the result of job {identifier}; at most "
                f"{terms.referees_max} referees run it again, within {terms.judged_ms_max // 1000} s. If they refute it, "
                f"the bond comes back; if they confirm it, the bond is lost. It can be disputed until "
                f"{moment_text(terms.until_ms)}. Nothing was spent.",
            )
            return DONE
        await client.jobs.dispute(identifier, bond_uain=bonded_uain, reason=reason)
        progress(f"job {identifier}: disputed, {text_from_uain(bonded_uain)} AIN bonded")
        handle = client.jobs.resume(
            identifier, deadline_seconds=terms.judged_ms_max / 1000 + JUDGED_SPARE_SECONDS
        )
        async for view in handle.events():
            if not view.is_final:
                progress(_WAITS.get(view.status, view.status))
        story = await read_story(client.chain, identifier)
    progress.clear()
    took_seconds = time.monotonic() - began
    show(
        record | story.to_json() | {"milliseconds": round(took_seconds * 1000)},
        as_json=as_json,
        text=lambda: story_text(story, took_seconds),
    )
    return DONE if story.status == "REFUTED" else FAILED


class Asking:
    """One job from its words to its verdict."""

    def __init__(
        self,
        service: str,
        words: Given,
        policy: str,
        budget_uain: int | None,
        deadline_seconds: float,
        *,
        is_public: bool,
        as_json: bool,
    ) -> None:
        self._service = service
        self._method = words.method
        self._words = words
        self._policy = policy
        self._budget_uain = budget_uain
        self._deadline_seconds = deadline_seconds
        self._is_public = is_public
        self._as_json = as_json
        self._progress = Progress(quiet=as_json)
        self._began = time.monotonic()

    async def run(self, home: str | None, node_url: str | None, *, dry_run: bool) -> int:
        """Ask, show the first result, wait for the verdict; the exit code."""
        async with client_of(home, node_url) as client:
            inputs, budget_uain, record = await self._plan(client)
            if dry_run:
                show(
                    record,
                    as_json=self._as_json,
                    text=f"Would ask for {record['method']} of {record['service']} {record['version']} by policy "
                    f"{self._policy}, for {record['budget']} AIN at most; {record['providers']} providers run it now. "
                    "Nothing was spent.",
                )
                return DONE
            handle = await client.jobs.run(
                self._service,
                self._method,
                inputs,
                policy=self._policy,
                budget_uain=budget_uain,
                deadline_seconds=self._deadline_seconds,
                is_public=self._is_public,
            )
            self._progress(f"job {handle.id}: asked for, {record['budget']} AIN set aside")
            first = await self._first(handle)
            return await self._verdict(client, handle, first)

    async def _plan(self, client: Any) -> tuple[dict[str, Any], int, dict[str, Any]]:
        """The inputs, the budget, and both in words; a budget beyond the limit of one call is refused."""
        from openresource.client.channels import OverSpendingLimit
        from openresource.client.jobs import default_budget_uain

        choice = await client.directory.choose(self._service)
        method = (await client.directory.interface(choice.program)).method(self._method, choice.service)
        inputs = self._words.inputs(method.input)
        placements = await client.directory.placements(choice)
        budget_uain = self._budget_uain
        if budget_uain is None:
            budget_uain = default_budget_uain(choice, placements, self._policy)
        limit_uain = client.home.limits().per_call_uain
        if budget_uain > limit_uain:
            amount, limit = text_from_uain(budget_uain), text_from_uain(limit_uain)
            raise OverSpendingLimit(
                f"A job for {amount} AIN is more than the limit of {limit} AIN for a call.",
                amount=amount,
                limit=limit,
                remedy="Name less as --budget, or raise the limit: openresource money limit --per-call AMOUNT",
            )
        return (
            inputs,
            budget_uain,
            {
                "service": choice.service,
                "version": choice.version.version,
                "method": method.name,
                "policy": self._policy,
                "budget_uain": budget_uain,
                "budget": text_from_uain(budget_uain),
                "providers": len(placements),
                "dry_run": True,
            },
        )

    async def _first(self, handle: Any) -> Any:
        """Print the first result as soon as it is there; None where there is none before the verdict."""
        from openresource.client.job_views import JobFailed, OutputUnreadable

        try:
            output = await handle.provisional()
        except (JobFailed, OutputUnreadable):
            return None
        if output.is_final:
            return None
        took_seconds = time.monotonic() - self._began
        self._progress.clear()
        if self._as_json:
            click.echo(
                json_text(
                    {
                        "job": handle.id,
                        "provisional": True,
                        "value": output.value,
                        "provider": output.provider,
                        "milliseconds": round(took_seconds * 1000),
                    }
                )
            )
        else:
            say(f"Provisional, from {output.provider} after {took_seconds:.1f} s; nobody has checked it yet:")
            say(json_text(output.value, indent=2))
        return output

    async def _verdict(self, client: Any, handle: Any, first: Any) -> int:
        from openresource.client.job_stories import read_story

        async for view in handle.events():
            if not view.is_final:
                self._progress(_WAITS.get(view.status, view.status))
        story = await read_story(client.chain, handle.id)
        output = await _final_output(client, view)
        took_seconds = time.monotonic() - self._began
        self._progress.clear()
        if self._as_json:
            said = story.to_json() | {"provisional": False, "milliseconds": round(took_seconds * 1000)}
            click.echo(json_text(said | ({} if output is None else {"value": output.value})))
        else:
            if output is not None and (first is None or output.value != first.value):
                head = "The result:" if first is None else "The result is another one than that:"
                say(f"{head}\n{json_text(output.value, indent=2)}")
            say(f"\n{story_text(story, took_seconds)}")
        if story.is_good:
            return DONE
        return DEADLINE if story.status == "EXPIRED" else FAILED


_WAITS: Mapping[str, str] = {
    "REQUESTED": "waiting for a provider that takes it",
    "LEASED": "providers are at work",
    "COMMITTED": "a result is bound; the draw comes",
    "DRAWN": "the lot fell on it: auditors run it again",
    "REVEALING": "results come to light",
    "DISPUTED": "results differ: referees run it again",
    "JUDGING": "the referees' results come to light",
}


async def _final_output(client: Any, view: Any) -> Any:
    """What the verdict stands for: also of a refuted job, where the referees' result is the right one."""
    from openresource.client.job_views import JobFailed, OutputUnreadable

    for provider in view.winners:
        try:
            return await client.jobs.output(view, provider)
        except (JobFailed, OutputUnreadable):
            continue
    return None


def view_record(view: Any) -> dict[str, Any]:
    """A job of a list."""
    return {
        "job": view.job,
        "status": view.status,
        "is_final": view.is_final,
        "publisher": view.publisher,
        "name": view.name,
        "policy": view.policy,
        "requested_at_ms": view.requested_at_ms,
        "paid_uain": view.paid_uain,
    }


def story_text(story: Any, took_seconds: float | None = None) -> str:
    """A job as a person reads it on a terminal."""
    from openresource.client.job_stories import MOVE_WORDS, holder_words

    after = "" if took_seconds is None else f" After {took_seconds:.1f} s."
    lines = [f"{story.headline}{after}"]
    service = f"{story.publisher}/{story.name}" if story.name else ""
    about = [f"Job {story.job}", story.status, f"policy {story.policy}" if story.policy else "", service]
    lines.append("  " + " · ".join(part for part in about if part))
    if story.way:
        lines.append("  " + " → ".join(story.way))
    for one in story.runs:
        slashed = f"; it lost {text_from_uain(one.slashed_uain)} AIN of its bond" if one.slashed_uain else ""
        digest = f"  {one.digest[:12]}…" if one.digest else ""
        lines.append(f"  {one.role:<8} {one.provider}  {one.mark:<9}{digest}  {one.sentence}{slashed}")
    for move in story.moves:
        source, target = (
            " ".join(part for part in holder_words(name) if part) for name in (move.source, move.target)
        )
        why = MOVE_WORDS.get(move.why, move.why)
        lines.append(f"  {text_from_uain(move.amount_uain):>12} AIN  {source} → {target}: {why}")
    if story.is_final:
        returned = f"; {text_from_uain(story.returned_uain)} AIN came back" if story.returned_uain else ""
        lines.append(f"  Paid {text_from_uain(story.paid_uain)} AIN{returned}.")
    if story.folded_height:
        lines.append(
            f"  All of it stood there at block {story.folded_height}; what is above was read at that height."
        )
    return "\n".join(lines)
