"""A program's release on this machine: fetched and verified, compared with what was published, tried with its examples."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openresource.builds.building import Built, build
from openresource.builds.workshop import Progress, Workshop
from openresource.client.chain import Chain
from openresource.market.jobs.comparators import read_verification, verification_record
from openresource.market.manifests import Manifest, Method
from openresource.market.prices import check_cap
from openresource.market.schemas import check_value
from openresource.market.services import Version, fork_source_text
from openresource.primitives.cids import parse_cid
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.provider.offers import Runner
from openresource.provider.runtimes import choose_runtime
from openresource.sandbox.driver import (
    JSON_TYPE,
    Limits,
    ProgramCall,
    Release,
    Runtime,
)
from openresource.sandbox.interfaces import interface_of
from openresource.sandbox.releases import mark_executable

# What a call costs where neither the operator nor the publisher says.
ASK_UAIN_DEFAULT = 100


class ReleaseInvalid(Refusal):
    template = "The program's folder cannot be used: {reason}."
    way_out = "Run `openresource publish --dry-run FOLDER`, mend it and publish it as a new version."


class SmokeTestFailed(Refusal):
    template = "The example of method {method} did not pass: {reason}"
    way_out = "Run `openresource publish --dry-run FOLDER`; publish a version whose examples pass."


class PricedOut(Refusal):
    template = "This provider asks {ask_uain} µAIN; with the royalty of {royalty_uain} that is above the cap of {cap_uain}."
    way_out = "Publish a version with a higher cap or without one, or wait for a cheaper provider."


async def fetch_release(chain: Chain, program: str, releases: Path) -> Path:
    """The program's folder; every block is verified, and a folder appears whole or not at all."""
    # A name that is no CID must not become a path.
    parse_cid(program)
    folder = releases / program
    if folder.is_dir():
        return folder
    fresh = releases / f".{program}.new"
    await asyncio.to_thread(shutil.rmtree, fresh, True)
    releases.mkdir(parents=True, exist_ok=True)
    try:
        await chain.get_folder(program, fresh)
        await asyncio.to_thread(fresh.rename, folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, fresh, True)
    return folder


def drop_releases(releases: Path, kept: set[str], before_seconds: float) -> None:
    """Removes the folders of programs that are not served and were not fetched lately."""
    if releases.is_dir():
        for folder in releases.iterdir():
            if folder.name not in kept and folder.stat().st_mtime < before_seconds:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Ready:
    """A release that can be started, and what it was built from."""

    release: Release
    built: Built

    @property
    def runtime_name(self) -> str:
        """The runtime it runs in; empty if it needs none."""
        return self.release.runtime.name if self.release.runtime is not None else ""


async def prepare_release(
    folder: Path,
    manifest: Manifest,
    runtimes: Mapping[str, Runtime],
    workshop: Workshop,
    *,
    progress: Progress = lambda _: None,
) -> Ready:
    """A program's folder as it will be run, built if it needs that; what it needs and is not here is refused by name."""
    runtime = await asyncio.to_thread(choose_runtime, manifest, runtimes, workshop.cache.folder.parent)
    built = await build(folder, manifest, workshop=workshop, progress=progress)
    mark_executable(built.folder, manifest)
    return Ready(built.release(runtime), built)


def methods_of(manifest: Manifest, described: dict[str, Any]) -> tuple[Method, ...]:
    """The methods with their descriptions; a Python program has told its own when it started in the sandbox."""
    prices = {method.name: method.price for method in manifest.methods}
    interface = interface_of(manifest, described)
    return tuple(
        Method(
            name=method["name"],
            path=method["path"],
            summary=method["summary"],
            input=method["input"] or None,
            output=method["output"] or None,
            example=method.get("example"),
            stream=method["stream"],
            price=prices.get(method["name"]),
        )
        for method in interface["methods"]
    )


def ask_of(fixed_uain: int | None, methods: tuple[Method, ...], version: Version) -> int:
    """The operator's ask, else what the publisher's prices leave after the royalty, else a modest one within the cap.

    A publisher who names the price 0 means it; one who names none leaves it to the provider, who has costs.
    """
    if fixed_uain is not None:
        return fixed_uain
    hints = [method.price.amount_uain for method in methods if method.price is not None]
    if hints:
        return max(0, max(hints) - version.royalty_uain)
    cap_uain = version.price_cap_uain
    room_uain = ASK_UAIN_DEFAULT if cap_uain is None else max(0, cap_uain - version.royalty_uain)
    return min(ASK_UAIN_DEFAULT, room_uain)


async def smoke_test(runner: Runner, methods: tuple[Method, ...], limits: Limits, *, is_exact: bool) -> None:
    """Runs the examples; a program without any must at least start."""
    tested = [method for method in methods if isinstance(method.example, Mapping)]
    for method in tested:
        assert isinstance(method.example, Mapping)
        output = await _example_output(runner, method, limits)
        if method.stream:
            continue
        expected = method.example.get("output")
        if is_exact and expected is not None and output != expected:
            raise SmokeTestFailed(method=method.name, reason="the output is not the example's output.")
        if isinstance(method.output, Mapping):
            try:
                check_value(method.output, output, field="output")
            except Refusal as refusal:
                raise SmokeTestFailed(method=method.name, reason=refusal.message) from refusal
    if not tested:
        await _start(runner)


async def _start(runner: Runner) -> None:
    start = getattr(runner, "start", None)
    if start is not None:
        await start()


async def _example_output(runner: Runner, method: Method, limits: Limits) -> Any:
    assert isinstance(method.example, Mapping)
    body = json.dumps(method.example["input"]).encode()
    try:
        reply = await runner.call(
            ProgramCall(method.name, method.path, body, JSON_TYPE, deadline_seconds=limits.call_seconds)
        )
        if not isinstance(reply.body, bytes):
            parts = [chunk async for chunk in reply.body]
            return b"".join(parts)
    except Refusal as refusal:
        raise SmokeTestFailed(method=method.name, reason=str(refusal)) from refusal
    if reply.status >= 400:
        shown = reply.body[:200].decode("utf-8", "replace")
        raise SmokeTestFailed(method=method.name, reason=f"it answered with status {reply.status}: {shown}")
    if reply.content_type.partition(";")[0] != JSON_TYPE:
        return reply.body
    return parse_json(reply.body)


def check_published(manifest: Manifest, name: str, version: Version) -> None:
    """Refuses a folder whose manifest says other than what was published about it."""
    pairs = (
        ("name", manifest.name, name),
        ("version", manifest.version, version.version),
        ("royalty", manifest.royalty_uain, version.royalty_uain),
        ("exactness", manifest.exactness, version.exactness),
        (
            "verify",
            verification_record(manifest.verification),
            verification_record(read_verification(version.verify, version.exactness)),
        ),
        ("fork_of", manifest.fork_of, fork_source_text(version.fork_of) if version.fork_of else ""),
    )
    for member, found, published in pairs:
        if found != published:
            said = f"its manifest says {member} {found or 'nothing'}, the chain says {published or 'nothing'}"
            raise ReleaseInvalid(reason=said)


def check_price(ask_uain: int, version: Version) -> None:
    """Refuses to serve a version whose publisher wants it cheaper than this provider does."""
    try:
        check_cap(ask_uain, version.royalty_uain, version.price_cap_uain)
    except Refusal as refusal:
        raise PricedOut(
            ask_uain=ask_uain, royalty_uain=version.royalty_uain, cap_uain=version.price_cap_uain
        ) from refusal
