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
)
from openresource.cli.session import run
from openresource.client.homes import Home

SHOWN_CHARACTERS_MAX = 300


@click.command(
    epilog="""\b
Example:  openresource publish ./my-service
          openresource publish ./my-service --dry-run
\b
Exit codes: 0 published and answering · 1 refused · 2 wrong usage · 3 node away
            4 published, but nobody runs it yet (the publication stays) · 130 interrupted"""
)
@click.argument("folder", type=click.Path(file_okay=False))
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
    folder: str,
    deadline_seconds: float,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish FOLDER (with its openresource.toml) as a service, and wait until somebody runs it.

    It needs no coins and no server: providers pick it up, and you earn the royalty of every call. The same bytes
    published again only wait again.
    """
    if dry_run:
        outcome = run(tried(folder, as_json=as_json))
    else:
        outcome = run(_published(folder, deadline_seconds, Home(home), node_url, as_json=as_json))
    show(outcome, as_json=as_json, text=lambda: publication_text(outcome))


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
    return "\n".join(lines)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
