"""`publish`: a folder becomes a service that strangers run; ends when one of them has answered."""

import asyncio
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from openresource.cli.output import (
    Progress,
    dry_run_option,
    home_option,
    json_option,
    network_node_option,
    note,
    show,
)
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home
from openresource.primitives.errors import Refusal

SHOWN_CHARACTERS_MAX = 300
CALL_LINE_CHARACTERS_MAX = 160
WORDS_LINES_MAX = 30


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
    outcome = run(_publish(folder, deadline_seconds, home, node_url, dry_run, as_json))
    show(outcome, as_json=as_json, text=lambda: publication_text(outcome))


async def _publish(
    folder: str,
    deadline_seconds: float,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> dict[str, Any]:
    from openresource.client.publishing import Publisher
    from openresource.client.services import Directory

    if dry_run:
        return await tried(folder, as_json=as_json)
    progress = Progress(quiet=as_json)
    place = Home(home)
    key = key_of(place)
    prepared = await _prepared(folder, progress, as_json=as_json)
    manifest = prepared.manifest
    outcome = _trial_record(prepared)
    async with chain_of(place, node_url) as chain:
        publisher = Publisher(chain, Directory(chain), key, progress=progress)
        publication = await publisher.publish(prepared)
        outcome["service"] = publication.choice.service
        outcome["is_new"] = publication.is_new
        if publication.is_new:
            outcome["tx_hash"] = publication.tx_hash
            progress(f"published {publication.choice.service} {manifest.version}")
        else:
            progress("these bytes were published before; nothing to do but wait for a provider")
        placed = await publisher.wait_placed(prepared, publication, deadline_seconds=deadline_seconds)
    progress.clear()
    outcome["placed"] = {
        "provider": placed.placement.provider,
        "endpoint": placed.placement.endpoint,
        "isolation": placed.placement.isolation,
        "ask_uain": placed.placement.ask_uain,
    }
    if placed.receipt:
        outcome["test_call"] = {
            "value": placed.value,
            "milliseconds": placed.milliseconds,
            "receipt": placed.receipt.get("id", ""),
        }
    return outcome


async def tried(folder: str, *, as_json: bool) -> dict[str, Any]:
    """What publishing a folder would do, without doing it."""
    progress = Progress(quiet=as_json)
    prepared = await _prepared(folder, progress, as_json=as_json)
    progress.clear()
    return {**_trial_record(prepared), "dry_run": True}


async def _prepared(folder: str, progress: Progress, *, as_json: bool) -> Any:
    from openresource.client.publishing import prepare

    try:
        return await prepare(Path(folder), await asyncio.to_thread(choose_bench), progress)
    except Refusal as refusal:
        _quote_program(refusal, quiet=as_json)
        raise


def call_line(manifest: Any) -> str:
    """A command that calls the program's first method, with its example as input where that fits on a line."""
    method = manifest.methods[0]
    words = ["openresource", "call", manifest.name, *([method.name] if len(manifest.methods) > 1 else [])]
    example = method.example.get("input") if isinstance(method.example, Mapping) else None
    if not isinstance(example, Mapping):
        return " ".join(words) + " …"
    for name, value in example.items():
        words.append(
            f"{name}={value}"
            if isinstance(value, str)
            else f"{name}:={json.dumps(value, ensure_ascii=False)}"
        )
    line = shlex.join(words)
    return line if len(line) <= CALL_LINE_CHARACTERS_MAX else " ".join(words[:3]) + " --input example.json"


def _trial_record(prepared: Any) -> dict[str, Any]:
    manifest = prepared.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "program": prepared.program,
        "bytes": prepared.release.bytes,
        "files": len(prepared.release.files),
        "royalty_uain": manifest.royalty_uain,
        "tried_in": prepared.level,
        "methods": [method.name for method in manifest.methods],
        "call": call_line(manifest),
        "examples": [
            {"method": one.method, "milliseconds": one.milliseconds, "output": one.output}
            for one in prepared.examples
        ],
    }


def _quote_program(refusal: Refusal, *, quiet: bool) -> None:
    """Show what the program itself said before it failed; the publisher is who can use it."""
    cause = refusal if "stderr" in refusal.facts else refusal.__cause__
    words = cause.facts.get("stderr") if isinstance(cause, Refusal) else None
    if words and not quiet:
        note("\n".join(f"    | {line}" for line in str(words).splitlines()[-WORDS_LINES_MAX:]))
        refusal._remedy = "Its own words are above; mend it and publish it again."


def choose_bench() -> Any:
    """A bench in the best sandbox that starts here, else a plain one, which is said."""
    from openresource.cli.sandboxes import find_drivers
    from openresource.cli.trials import PlainBench, SandboxBench
    from openresource.provider.runtimes import cache_folder

    drivers = find_drivers()
    if drivers.default is not None:
        return SandboxBench(drivers, cache_folder())
    reasons = "; ".join(f"{one.level}: {one.why_not}" for one in drivers.capabilities)
    note(f"No sandbox starts here ({reasons}).")
    note("As the program is your own, it is tried in a plain process of this machine.")
    return PlainBench(cache_folder())


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
