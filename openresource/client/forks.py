"""Forks: a service at its exact version under a name of one's own, and where a service comes from.

What makes a fork one is on the chain: a version names the version that it was made from, and the chain has checked that
there is such a one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.client.chain import Chain
from openresource.client.releases import forked_manifest
from openresource.client.services import Choice
from openresource.market.manifests import MANIFEST_FILE
from openresource.market.services import (
    ForkSource,
    Version,
    fork_source_text,
    read_version,
    require_service_name,
)
from openresource.primitives.errors import Refusal

LINEAGE_MAX: Final = 32
FORKS_SHOWN_MAX: Final = 200


class SourceHasNoManifest(Refusal):
    template = "The program {program} has no openresource.toml that could be read."
    way_out = "Choose another version of {service}."


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One step of a lineage: the version that was forked; None where its record cannot be read."""

    source: ForkSource
    version: Version | None


@dataclass(frozen=True, slots=True)
class Fork:
    """A service that was made from another one, and from which of its programs."""

    publisher: str
    name: str
    program: str


async def fetch_fork(chain: Chain, choice: Choice, name: str, folder: Path) -> ForkSource:
    """Writes the files of a published version into an empty folder, under a new name and with where they come from."""
    require_service_name(name)
    source = ForkSource(choice.publisher, choice.name, choice.program)
    await chain.get_folder(choice.program, folder)
    await asyncio.to_thread(_rename, folder, name, source, choice)
    return source


async def lineage_of(chain: Chain, version: Version) -> tuple[Ancestor, ...]:
    """Where a version comes from, the nearest first, as far as the chain tells and within bounds."""
    found: list[Ancestor] = []
    source = version.fork_of
    while source is not None and len(found) < LINEAGE_MAX:
        record = await chain.read(f"/services/{source.publisher}/{source.name}/versions/{source.program}")
        ancestor = _version(source.program, record)
        found.append(Ancestor(source, ancestor))
        source = ancestor.fork_of if ancestor is not None else None
    return tuple(found)


async def forks_of(chain: Chain, publisher: str, name: str) -> tuple[Fork, ...]:
    """Which services were made from a service."""
    found: list[Fork] = []
    async for other in chain.children(f"/forks/{publisher}/{name}"):
        records = await chain.read(f"/forks/{publisher}/{name}/{other}")
        found += [Fork(other, fork, str(program)) for fork, program in (records or {}).items()]
        if len(found) >= FORKS_SHOWN_MAX:
            break
    return tuple(found[:FORKS_SHOWN_MAX])


def _version(program: str, record: Any) -> Version | None:
    try:
        return read_version(program, record)
    except Refusal:
        return None


def _rename(folder: Path, name: str, source: ForkSource, choice: Choice) -> None:
    file = folder / MANIFEST_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise SourceHasNoManifest(program=choice.program, service=choice.service) from problem
    file.write_text(forked_manifest(text, name, fork_source_text(source)), encoding="utf-8")
