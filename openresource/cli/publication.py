"""What stands before every publication, whoever asks for it: the folder is read, its program tried, its record written.

`publish`, `check`, a push and a watched repository all come through `prepare_folder`, and all but `check` through
`Publication`, which ends when every caller gets the new version, or with the old one where it was.
"""

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from openresource.cli.output import note
from openresource.cli.program_words import hint_of_words
from openresource.cli.session import chain_of, key_of
from openresource.client.chain import Chain
from openresource.client.homes import Home
from openresource.client.publishing import Prepared, Publisher
from openresource.client.publishing import Publication as Published
from openresource.client.releases import Release
from openresource.client.services import Directory
from openresource.market.generic_methods import is_generic
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey

CALL_LINE_CHARACTERS_MAX = 160
# Inputs that any program of a kind takes.
GENERIC_INPUTS = {"run": "args:='[\"--help\"]'", "request": "path=/"}
WORDS_LINES_MAX = 30
LEFT_OUT_SHOWN_MAX = 10


async def prepare_folder(
    folder: Path,
    progress: Callable[[str], None],
    *,
    quiet: bool,
    version_for: Callable[[Release], Awaitable[str]] | None = None,
    probe: Callable[[Any, Release], Awaitable[None]] | None = None,
    is_told: bool = False,
    get_block: Callable[[str], Awaitable[bytes]] | None = None,
) -> Any:
    """The folder's release with its examples answered here; what the program said of its failure is shown.

    A folder without a manifest is published with the one that is detected, which is said; the folder stays as it is.
    """
    from openresource.cli.detecting import additions_of, detect_folder, detection_lines
    from openresource.client.publishing import prepare

    detected = await asyncio.to_thread(detect_folder, folder)
    if detected is not None and not quiet and not is_told:
        note("\n".join(detection_lines(detected)))
    additions = additions_of(detected) if detected is not None else None
    try:
        prepared = await prepare(
            folder,
            await asyncio.to_thread(choose_bench, progress, get_block),
            progress,
            version_for,
            additions=additions,
            probe=probe,
        )
        if prepared.release.left_out and not quiet:
            note(f"  not published: {', '.join(prepared.release.left_out[:LEFT_OUT_SHOWN_MAX])}")
        return prepared
    except Refusal as refusal:
        quote_program(refusal, quiet=quiet)
        if detected is not None and "stderr" in refusal.facts:
            hint = hint_of_words(str(refusal.facts["stderr"])) or "Its own words are above."
            refusal._remedy = (
                f"{hint} To start it otherwise, `openresource init` writes the page that was detected."
            )
        raise


class NameDiffers(Refusal):
    template = "The commit calls its service {found}; this remote is for {name}."
    way_out = (
        "Write the name back, or make a remote for the other service: openresource publish --git {found}"
    )


class Publication:
    """A folder on its way to a live service."""

    def __init__(
        self,
        place: Home,
        node_url: str | None,
        progress: Callable[[str], None],
        deadline_seconds: float,
        *,
        quiet: bool,
        key: PrivateKey | None = None,
    ) -> None:
        self._place = place
        self._node_url = node_url
        self._progress = progress
        self._deadline_seconds = deadline_seconds
        self._quiet = quiet
        self._key = key

    async def publish(self, folder: Path) -> dict[str, Any]:
        """Try, publish, wait until it runs; a publication that nobody runs stays on the chain."""
        key = self._key or key_of(self._place)
        async with chain_of(self._place, self._node_url) as chain:
            prepared = await prepare_folder(
                folder, self._progress, quiet=self._quiet, get_block=chain.get_block
            )
            publisher = Publisher(chain, Directory(chain), key, progress=self._progress)
            return await self._live(publisher, prepared, await publisher.publish(prepared))

    async def deploy(self, folder: Path, commit: str, *, name: str = "") -> dict[str, Any]:
        """The same for a commit: no number has to be raised, and what does not come to run leaves the old version chosen.

        With a name, a commit that calls its service otherwise is refused.
        """
        key = self._key or key_of(self._place)
        async with chain_of(self._place, self._node_url) as chain:
            publisher = Publisher(chain, Directory(chain), key, progress=self._progress)

            async def version_for(release: Release) -> str:
                if name and release.manifest.name != name:
                    raise NameDiffers(name=name, found=release.manifest.name)
                return await publisher.version_for(release, commit)

            prepared = await prepare_folder(
                folder,
                self._progress,
                quiet=self._quiet,
                version_for=version_for,
                get_block=chain.get_block,
            )
            publication = await publisher.publish(prepared)
            try:
                outcome = await self._live(publisher, prepared, publication)
            except BaseException:
                # Whatever ended the wait, an interruption too: callers keep what they had.
                await _to_its_end(self._retreated(chain, publisher, publication))
                raise
        outcome["commit"] = commit
        return outcome

    async def _live(self, publisher: Publisher, prepared: Prepared, publication: Published) -> dict[str, Any]:
        service, version = publication.choice.service, publication.choice.version.version
        outcome = trial_record(prepared)
        outcome |= {"service": service, "is_new": publication.is_new}
        if publication.is_new:
            outcome["tx_hash"] = publication.tx_hash
            self._progress(f"published {service} {version}")
        else:
            self._progress("these bytes were published before; nothing to do but wait for a provider")
        placed = await publisher.wait_placed(prepared, publication, deadline_seconds=self._deadline_seconds)
        await publisher.wait_seen()
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

    async def _retreated(self, chain: Chain, publisher: Publisher, publication: Published) -> None:
        """Choose again what was chosen before; a first version has nothing before it and stays."""
        if not publication.before:
            self._progress(
                "it stays published, as there is no version before it; providers may still take it"
            )
            return
        choice = publication.choice
        before = await Directory(chain).choose(f"{choice.service}@{publication.before}")
        await publisher.choose(before)
        self._progress(f"{choice.service} means {before.version.version} as before")


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Waits for what must not be broken off; its own deadlines bound it."""
    working = asyncio.ensure_future(work)
    while not working.done():
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            if working.cancelled():
                raise
    working.result()


def trial_record(prepared: Any) -> dict[str, Any]:
    """What came of a trial, for --json and for people."""
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


def call_line(manifest: Any) -> str:
    """A command that calls a method of the program with its example's input, one that fits on a line if there is."""
    command = f"openresource call {manifest.name}"
    if not manifest.methods:
        return f"{command} …"
    lines = [_line_of(manifest, method) for method in manifest.methods if _example_input(method) is not None]
    if not lines:
        return _line_of(manifest, manifest.methods[0])
    fitting = [line for line in lines if len(line) <= CALL_LINE_CHARACTERS_MAX]
    return fitting[0] if fitting else f"{command} --input FILE.json"


def _line_of(manifest: Any, method: Any) -> str:
    words = ["openresource", "call", manifest.name, *([method.name] if len(manifest.methods) > 1 else [])]
    example = _example_input(method)
    if example is None:
        if is_generic(method) and method.name in GENERIC_INPUTS:
            return " ".join([*words, GENERIC_INPUTS[method.name]])
        named = (method.input or {}).get("required") or ()
        return " ".join([*words, *(f"{name}=…" for name in named)] if named else [*words, "…"])
    for name, value in example.items():
        words.append(
            f"{name}={value}"
            if isinstance(value, str)
            else f"{name}:={json.dumps(value, ensure_ascii=False)}"
        )
    return shlex.join(words)


def _example_input(method: Any) -> Mapping[str, Any] | None:
    example = method.example.get("input") if isinstance(method.example, Mapping) else None
    return example if isinstance(example, Mapping) else None


def choose_bench(
    progress: Callable[[str], None] = note, get_block: Callable[[str], Awaitable[bytes]] | None = None
) -> Any:
    """A bench in the best sandbox that starts here, else a plain one, which is said; artifacts come by `get_block`."""
    from openresource.cli.sandboxes import find_drivers
    from openresource.cli.trials import PlainBench, SandboxBench
    from openresource.provider.runtimes import cache_folder

    drivers = find_drivers()
    if drivers.default is not None:
        return SandboxBench(drivers, cache_folder(), progress=progress, get_block=get_block)
    reasons = "; ".join(f"{one.level}: {one.why_not}" for one in drivers.capabilities)
    note(f"No sandbox starts here ({reasons}).")
    note("As the program is your own, it is tried in a plain process of this machine.")
    return PlainBench(cache_folder())


def quote_program(refusal: Refusal, *, quiet: bool) -> None:
    """Show what the program itself said before it failed; the publisher is who can use it."""
    cause = refusal if "stderr" in refusal.facts else refusal.__cause__
    words = cause.facts.get("stderr") if isinstance(cause, Refusal) else None
    if words and not quiet:
        note("\n".join(f"    | {line}" for line in str(words).splitlines()[-WORDS_LINES_MAX:]))
        refusal._remedy = (
            hint_of_words(str(words)) or "Its own words are above; mend it and publish it again."
        )
