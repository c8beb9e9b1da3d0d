"""`publish`: a folder becomes a service that strangers run; ends when one of them has answered."""

import json
from pathlib import Path
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
from openresource.cli.session import run
from openresource.client.homes import Home

SHOWN_CHARACTERS_MAX = 300


@click.command(
    epilog="""\b
Example:  openresource publish ./my-service
          openresource publish ./my-service --dry-run
          openresource publish --git ./my-service
          openresource publish https://example.org/tool.git --watch main
\b
Exit codes: 0 published and answering, or the watch was ended · 1 refused · 2 wrong usage · 3 node away
            4 published, but nobody runs it yet (the publication stays) · 130 interrupted"""
)
@click.argument("source", required=False)
@click.option(
    "--git",
    "wants_remote",
    is_flag=True,
    help="Print a git remote for the folder, or the name, SOURCE: what is pushed there goes live.",
)
@click.option(
    "--watch", metavar="BRANCH", help="Stay, and publish every new commit of this branch of SOURCE."
)
@click.option(
    "--interval",
    "interval_seconds",
    type=click.FloatRange(min=0.2),
    default=30.0,
    show_default=True,
    help="With --watch: seconds between two looks.",
)
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
def publish(
    source: str | None,
    wants_remote: bool,
    watch: str | None,
    interval_seconds: float,
    deadline_seconds: float,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish SOURCE as a service, and wait until somebody runs it and every caller gets it.

    SOURCE is a folder, or the address of a git repository (https, ssh, file, or an absolute path), whose newest commit
    is taken. It needs no coins and no server: providers pick it up, and you earn the royalty of every call. The same
    bytes published again only become the live version again.
    """
    if source is None and not wants_remote:
        usage_error("Name a folder or the address of a repository.")
    if wants_remote and (watch or dry_run):
        usage_error("--git goes without --watch and --dry-run.")
    place = Home(home)
    if wants_remote:
        from openresource.cli.remotes import make_remote, remote_text

        outcome = run(make_remote(source or ".", place, node_url, deadline_seconds))
        show(outcome, as_json=as_json, text=lambda: remote_text(outcome))
        return
    assert source is not None
    if watch is not None or _is_repository(source):
        from openresource.cli.watching import Watching

        watching = Watching(source, place, node_url, deadline_seconds, as_json=as_json)
        if watch is not None and not dry_run:
            run(watching.follow(watch, interval_seconds))
            return
        outcome = run(watching.once(watch or "HEAD", dry_run=dry_run))
    elif dry_run:
        outcome = run(tried(source, as_json=as_json))
    else:
        outcome = run(_published(source, deadline_seconds, place, node_url, as_json=as_json))
    show(outcome, as_json=as_json, text=lambda: publication_text(outcome))


def _is_repository(source: str) -> bool:
    from openresource.adapters.git.repositories import looks_like_repository

    return looks_like_repository(source)


async def _published(
    folder: str, deadline_seconds: float, place: Home, node_url: str | None, *, as_json: bool
) -> dict[str, Any]:
    from openresource.cli.publication import Publication

    progress = Progress(quiet=as_json)
    outcome = await Publication(place, node_url, progress, deadline_seconds, quiet=as_json).publish(
        Path(folder)
    )
    progress.clear()
    return outcome


async def tried(folder: str, *, as_json: bool) -> dict[str, Any]:
    """What publishing a folder would do, without doing it."""
    from openresource.cli.publication import prepare_folder, trial_record

    progress = Progress(quiet=as_json)
    prepared = await prepare_folder(Path(folder), progress, quiet=as_json)
    progress.clear()
    return {**trial_record(prepared), "dry_run": True}


def publication_text(outcome: dict[str, Any]) -> str:
    """The outcome of a trial or a publication, for people."""
    from openresource.primitives.amounts import text_from_uain

    level = outcome["tried_in"]
    held = "without a sandbox" if level == "none" else f"in a sandbox ({level})"
    lines = [
        f"{outcome['name']} {outcome['version']}: {outcome['files']} files, {outcome['bytes']} bytes, "
        f"program {outcome['program']}"
    ]
    lines.extend(
        f"  example of {one['method']}, {held}: {one['milliseconds']} ms → {_shown(one['output'])}"
        for one in outcome["examples"]
    )
    if outcome.get("dry_run"):
        if not outcome["examples"]:
            lines.append("  it starts; none of its methods has an example, so no call was tried")
        return "\n".join([*lines, f"Nothing was published. Its methods: {', '.join(outcome['methods'])}"])
    placed = outcome["placed"]
    total_uain = placed["ask_uain"] + outcome["royalty_uain"]
    state = "Published" if outcome["is_new"] else "Published before"
    lines.append(f"{state} as {outcome['service']}")
    lines.append(
        f"  runs at {placed['endpoint']} (isolation {placed['isolation']}) for {text_from_uain(total_uain)} AIN a call, "
        f"{text_from_uain(outcome['royalty_uain'])} of it yours"
    )
    test = outcome.get("test_call")
    if test is not None:
        lines.append(f"  test call through the chain: {test['milliseconds']} ms → {_shown(test['value'])}")
    else:
        lines.append("  no test call was made: none of its methods has an example")
    lines.append(f"Call it:  {outcome['call']}")
    if len(outcome["methods"]) > 1:
        lines.append(f"All of its methods:  openresource services {outcome['name']} --interface")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
