"""`check`: what publishing a folder would do, told before it is tried, and tried in the real sandbox."""

import json
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openresource.builds.detectors.node import BRIDGE_FILE
from openresource.builds.findings import toml_value
from openresource.cli.output import Progress, note
from openresource.market.generic_methods import is_generic
from openresource.market.manifests import Manifest
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal

PROBE_CHARACTERS_MAX = 200
PACKAGE_FILES_SHOWN_MAX = 4
# What a program says that cannot work, whatever its arguments.
BROKEN_WORDS = ("Traceback (most recent", "ModuleNotFoundError", "Cannot find module", "error while loading shared",
                "NoClassDefFoundError", "ClassNotFoundException", "command not found")  # fmt: skip
# Calls that do no harm to any program, made where nobody gave an example.
HARMLESS: dict[str, dict[str, Any]] = {"run": {"args": ["--help"]}, "request": {"method": "GET", "path": "/"}}


async def checked(folder: str, *, as_json: bool) -> dict[str, Any]:
    """Read, explain, build, start, try: everything that `publish` does before it publishes."""
    import asyncio

    from openresource.cli.detecting import additions_of, detect_folder, detection_lines
    from openresource.cli.publication import prepare_folder, trial_record
    from openresource.client.releases import read_release

    place = Path(folder)
    detected = await asyncio.to_thread(detect_folder, place)
    additions = additions_of(detected) if detected is not None else None
    release = await asyncio.to_thread(read_release, place, additions)
    plan = await asyncio.to_thread(_plan, release)
    if not as_json:
        told = detection_lines(detected) if detected is not None else []
        note("\n".join([*told, *plan_lines(release.manifest, plan)]))
    progress = Progress(quiet=as_json)
    probes: list[dict[str, Any]] = []

    async def probe(running: Any, ready: Any) -> None:
        for method in ready.manifest.methods:
            if method.example is None and is_generic(method) and method.name in HARMLESS:
                progress(f"trying {method.name} with an input that does no harm")
                probes.append(await _probed(running, method))

    prepared = await prepare_folder(place, progress, quiet=as_json, probe=probe, is_told=True)
    progress.clear()
    manifest = prepared.manifest
    return {
        **trial_record(prepared),
        "dry_run": True,
        "kind": manifest.run.kind,
        "language": manifest.build.language or plan.get("language", ""),
        "command": list(manifest.run.command),
        "entry": manifest.run.entry,
        "detected": {"because": detected.because, "remarks": list(detected.remarks)} if detected else None,
        "build": plan,
        "tries": probes,
    }


def plan_lines(manifest: Manifest, plan: Mapping[str, Any]) -> list[str]:
    """What will happen with a program, for people."""
    run, resources = manifest.run, manifest.resources
    started = run.entry or run.module or run.image or shlex.join(run.command)
    if run.port:
        started += f"   (on its own port {run.port})"
    lines = [
        f"{manifest.name} {manifest.version}: {run.kind}" + (f", speaks {run.speaks}" if run.speaks else "")
    ]
    lines.append(f"  starts    {started}")
    if plan.get("error"):
        lines.append(f"  build     {plan['error']}")
    else:
        if plan.get("packages"):
            lines.append(
                f"  packages  of {', '.join(plan['packages'])}, from the {plan['language']} registry"
            )
        own = manifest.build.command or "; ".join(plan["steps"])
        what = f"{plan['language']}: {own}" if plan["steps"] else "nothing to compile"
        lines.append(f"  build     {what}")
    if manifest.build.runtime or manifest.build.lock:
        lines.append(f"  runtime   {manifest.build.runtime or manifest.build.lock}")
    needs = [
        f"{resources.memory_bytes >> 20} MiB",
        f"{resources.cpu:g} core" + ("" if resources.cpu == 1 else "s"),
        f"{resources.timeout_seconds} s a call",
        f"{resources.concurrency} at once",
    ]
    if resources.gpu_count:
        needs.append(f"{resources.gpu_count} GPU ({resources.gpu_vendor})")
    lines.append("  needs     " + ", ".join(needs))
    lines.append("  network   " + (", ".join(resources.network) or "none"))
    price = f"royalty {text_from_uain(manifest.royalty_uain)} AIN a call"
    if manifest.price_cap_uain is not None:
        price += f", never more than {text_from_uain(manifest.price_cap_uain)} AIN in all"
    lines.append(f"  price     {price}")
    lines.append(f"  runs in   {plan['sandbox']}")
    return lines


def check_text(outcome: Mapping[str, Any]) -> str:
    """What came of a check, for people."""
    from openresource.cli.publish import publication_text

    lines = [publication_text(dict(outcome))]
    for tried in outcome["tries"]:
        shown = tried["said"]
        lines.insert(0, f"  tried {tried['method']} with {json.dumps(tried['input'])}: {shown}")
        if not tried["ok"]:
            lines.insert(1, "  That looks broken: it would be published, and callers would get this too.")
    if not outcome["examples"]:
        method = outcome["methods"][0] if outcome["methods"] else "the_method"
        shown = toml_value(HARMLESS[method]) if method in HARMLESS else "{…}"
        if BRIDGE_FILE in outcome["command"]:
            shown = '{args = ["…"]}'
        where = (
            "In openresource.toml:"
            if not outcome["detected"]
            else "`openresource init` writes the page for it:"
        )
        lines.append(f"It has no example, and an example is what providers and buyers try first. {where}")
        lines.append(f'    [[methods]]\n    name = "{method}"\n    example = {{input = {shown}}}')
    return "\n".join(lines)


async def _probed(running: Any, method: Any) -> dict[str, Any]:
    value = HARMLESS[method.name]
    outcome: dict[str, Any] = {"method": method.name, "input": value, "ok": True}
    try:
        content, _ = await running.call(method, json.dumps(value).encode())
        answer = json.loads(content)
    except (Refusal, ValueError) as problem:
        return {**outcome, "ok": False, "said": str(problem)[:PROBE_CHARACTERS_MAX]}
    if method.name == "run":
        words = " ".join(str(answer.get("stdout") or answer.get("stderr") or "").split())
        said = f"{answer.get('stdout')} {answer.get('stderr')}"
        is_usual = answer.get("exit_code") in (0, 1, 2) or "usage" in said.lower()
        outcome["ok"] = is_usual and not any(word in said for word in BROKEN_WORDS)
        said = f"exit code {answer.get('exit_code')}: {words}"
    else:
        body = answer.get("body")
        words = " ".join((body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).split())
        outcome["ok"] = int(answer.get("status", 500)) < 500
        said = f"status {answer.get('status')}: {words}"
    return {**outcome, "said": said[:PROBE_CHARACTERS_MAX]}


def _plan(release: Any) -> dict[str, Any]:
    """What the recipe of the program's language would do, and which sandbox would hold it."""
    from openresource.builds.languages import find_languages
    from openresource.builds.recipes import Source
    from openresource.cli.sandboxes import find_drivers

    plan: dict[str, Any] = {"language": release.manifest.build.language, "steps": []}
    with tempfile.TemporaryDirectory(prefix="openresource-check-") as stage:
        release.write_to(Path(stage))
        try:
            source = Source(Path(stage), release.manifest)
            language = find_languages().of(source)
            if language is not None:
                made = language.recipe.plan(source)
                plan["language"] = made.language
                if made.dependencies is not None:
                    plan["packages"] = sorted(made.dependencies.files)[:PACKAGE_FILES_SHOWN_MAX]
                plan["steps"] = [_shown(step.words) for step in made.steps]
                plan["registries"] = list(made.registries)
        except Refusal as refusal:
            plan["error"] = f"{refusal.message} {refusal.way_out}"
    drivers = find_drivers()
    try:
        plan["sandbox"] = drivers.choose(release.manifest).level
    except Refusal as refusal:
        plan["sandbox"] = f"none of this machine's: {refusal.message}"
    return plan


def _shown(words: tuple[str, ...]) -> str:
    if words[:1] == ("/bin/sh",) and len(words) == 3:
        return words[2]
    name = words[0].rpartition("/")[2]
    return shlex.join((name, *words[1:]))[:PROBE_CHARACTERS_MAX]
