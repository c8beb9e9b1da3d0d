"""Finds services on the chain: by words, by name, with their versions, placements and interface.

Nothing that a listing says is believed here beyond what the chain's own functions checked; the client measures for
itself when it calls. A name without a version means the version that its publisher chose where somebody runs it, else
the one before; whoever keeps answers keeps them for KEPT_SECONDS at most, which a publisher waits out before it says
that a version is live.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from openresource.client.chain import At, Chain
from openresource.market.fields import is_cid_text
from openresource.market.kills import ProgramKilled, check_program_runs
from openresource.market.labels import NOTHING_SEEN, Label, Verified, labels_of, read_verified
from openresource.market.manifests import MANIFEST_FILE, Calls, declared_calls
from openresource.market.placements import Placement, read_placement
from openresource.market.prices import Price
from openresource.market.services import (
    Permissions,
    Version,
    is_service_name,
    read_permissions,
    read_version,
    version_before,
    version_that_serves,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import checksum_address, is_address

SERVICES_SCANNED_MAX: Final = 5_000
INTERFACE_FILE: Final = "interface.json"
INTERFACE_BYTES_MAX: Final = 1 << 20
KEPT_MAX: Final = 1_000
# Calls in quick succession do not ask the chain each time who offers what; a provider that fails ends it at once.
# No answer is used longer than this after it was asked for, so whoever has waited so long is seen by everybody.
KEPT_SECONDS: Final = 0.5
PLACED: Final = "PLACED"
FEE_PPM_PATH: Final = "/blockchain_params/market/fee_ppm"


class NoSuchService(Refusal):
    template = "No service is called {service}."
    way_out = "See what there is: openresource services"


class ServiceNameAmbiguous(Refusal):
    template = "Several publishers offer {service}: {choices}."
    way_out = "Name the publisher too, for instance {first}."


class NoSuchVersion(Refusal):
    template = "{service} has no version {version}; it has {known}."
    way_out = "Choose one of those, or leave the version out for the newest."


class NoSuchMethod(Refusal):
    template = "{service} has no method {method}; it has {known}."
    way_out = "Name one of those, or leave the method out for the first."


class InterfaceMissing(Refusal):
    template = "The program {program} carries no readable interface: {reason}."
    way_out = "Choose another version; its publisher must publish it again."


@dataclass(frozen=True, slots=True)
class Choice:
    """One version of one service, as a buyer chose it."""

    publisher: str
    name: str
    version: Version

    @property
    def service(self) -> str:
        """The full name."""
        return f"{self.publisher}/{self.name}"

    @property
    def program(self) -> str:
        """The program's CID."""
        return self.version.program


@dataclass(frozen=True, slots=True)
class Method:
    """One thing that a service does, as its interface states it."""

    name: str
    path: str
    summary: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    stream: bool
    example: Mapping[str, Any] | None

    @property
    def parameters(self) -> list[str]:
        """The names of its inputs, in the order of the schema."""
        properties = self.input.get("properties")
        return list(properties) if isinstance(properties, Mapping) else []


@dataclass(frozen=True, slots=True)
class Interface:
    """What a program's methods take and give."""

    methods: tuple[Method, ...]
    # Of a program that speaks gRPC: what its .proto was compiled to, and its text.
    descriptors: bytes = b""
    proto: str = ""
    # Which other services it calls; None if it calls nobody.
    calls: Calls | None = None

    def method(self, name: str | None, service: str) -> Method:
        """A method by name or path; without a name the first."""
        for method in self.methods:
            if name is None or name in (method.name, method.path, method.path.lstrip("/")):
                return method
        raise NoSuchMethod(service=service, method=name, known=", ".join(m.name for m in self.methods))


@dataclass(frozen=True, slots=True)
class Listing:
    """A service as a list shows it: its newest version and who runs it now."""

    choice: Choice
    versions: int
    permissions: Permissions
    placements: tuple[Placement, ...]
    refusals: tuple[Placement, ...]
    verified: Verified = NOTHING_SEEN
    # Nobody can change it any more, if its publisher has said so.
    is_renounced: bool = False
    # Why a vote has stopped the version; empty if none has.
    stopped: str = ""

    @property
    def labels(self) -> tuple[Label, ...]:
        """What the chain saw of the version's jobs, in words."""
        return labels_of(self.choice.version.exactness, self.verified)

    @property
    def from_uain(self) -> int | None:
        """The lowest price at which a provider offers it now."""
        prices = [p.ask_uain + self.choice.version.royalty_uain for p in self.placements]
        return min(prices) if prices else None


class Directory:
    """The market's records as this node shows them, or showed them at most `kept_seconds` ago."""

    def __init__(self, chain: Chain, *, kept_seconds: float = 0.0) -> None:
        self._chain = chain
        self._kept_seconds = kept_seconds
        self._kept: dict[tuple[str, At], tuple[float, Any]] = {}
        # Questions that are under way: who asks the same meanwhile gets the same answer.
        self._asked: dict[tuple[str, At], tuple[float, asyncio.Future[Any]]] = {}
        self._placements: dict[str, tuple[Any, list[Placement]]] = {}
        self._interfaces: dict[str, Interface] = {}
        # What is published never changes.
        self._versions: dict[tuple[str, str, str], Version] = {}
        self._fee_ppm: int | None = None

    async def search(self, query: str = "", at: At = "final") -> list[Listing]:
        """Services whose name, summary or domain hold every word of the query; those that run come first."""
        words = query.lower().split()
        found: list[tuple[str, str]] = []
        async for publisher in self._chain.children("/services", at):
            async for name in self._chain.children(f"/services/{publisher}", at):
                found.append((publisher, name))
                if len(found) >= SERVICES_SCANNED_MAX:
                    break
        listings = await asyncio.gather(*(self.listing(publisher, name, at) for publisher, name in found))
        chosen = [entry for entry in listings if entry is not None and _matches(entry, words)]
        return sorted(
            chosen, key=lambda entry: (not entry.placements, entry.choice.name, entry.choice.publisher)
        )

    async def listing(self, publisher: str, name: str, at: At = "final") -> Listing | None:
        """One service with its placements; None if its record cannot be read."""
        record = await self._chain.read(f"/services/{publisher}/{name}", at)
        try:
            versions = _versions(record)
            permissions = read_permissions(record.get("permissions") if isinstance(record, dict) else None)
        except Refusal:
            return None
        if not versions:
            return None
        by_program = {version.program: version for version in versions}
        choice = await self._serving(publisher, name, record, by_program, at)
        everybody, seen, standing = await asyncio.gather(
            self.all_placements(choice, at),
            self._read(f"/verified/{choice.program}", at),
            self._read(f"/kills/{choice.program}/state", at),
        )
        placed = tuple(p for p in everybody if p.status == PLACED)
        refused = tuple(p for p in everybody if p.status == "REFUSED")
        return Listing(
            choice,
            len(versions),
            permissions,
            placed,
            refused,
            read_verified(seen),
            is_renounced=record.get("renounced") is not None,
            stopped=_stopped(choice.program, standing),
        )

    async def choose(self, service: str, at: At = "final") -> Choice:
        """What a person means by `name`, `publisher/name`, either with `@version` or `@cid`."""
        wanted, _, version = service.partition("@")
        publisher, _, name = wanted.rpartition("/")
        if not is_service_name(name):
            raise NoSuchService(service=service)
        if publisher:
            publishers = [checksum_address(publisher)] if is_address(publisher) else []
        else:
            publishers = await self._publishers_of(name, at)
        candidates: list[tuple[str, str]] = []
        for one in publishers:
            latest = await self._read(f"/services/{one}/{name}/latest", at)
            if isinstance(latest, str):
                candidates.append((one, latest))
        if not candidates:
            self.look_again()
            raise NoSuchService(service=service)
        if len(candidates) > 1:
            names = [f"{one}/{name}" for one, _ in candidates]
            raise ServiceNameAmbiguous(service=name, choices=", ".join(names), first=names[0])
        one, latest = candidates[0]
        if not version:
            return await self._current(one, name, latest, at)
        if is_cid_text(version):
            found = await self._version(one, name, version, at)
            if found is not None:
                return Choice(one, name, found)
        try:
            record = await self._read(f"/services/{one}/{name}", at)
            return Choice(one, name, _pick_version(_versions(record), version, f"{one}/{name}"))
        except NoSuchVersion:
            self.look_again()
            raise

    async def versions(self, service: str, at: At = "final") -> list[Version]:
        """All that was ever published as `publisher/name`, in the order of their numbers."""
        return _versions(await self._read(f"/services/{service}", at))

    async def chosen(self, service: str, at: At = "final") -> Version:
        """The version that the publisher of `publisher/name` chose, whether or not anybody runs it."""
        publisher, _, name = service.partition("/")
        if not is_service_name(name):
            raise NoSuchService(service=service)
        latest = await self._read(f"/services/{service}/latest", at)
        found = await self._version(publisher, name, latest, at) if isinstance(latest, str) else None
        if found is None:
            raise NoSuchService(service=service)
        return found

    async def before(self, service: str, at: At = "final") -> Version | None:
        """Where a rollback of `publisher/name` leads; None if there is no earlier version."""
        record = await self._read(f"/services/{service}", at)
        versions = {version.program: version for version in _versions(record)}
        return version_before(versions, str(record.get("latest")), str(record.get("before")))

    async def _current(self, publisher: str, name: str, latest: str, at: At) -> Choice:
        """What a bare name means; usually that is the chosen version, and its placements say so."""
        chosen = await self._version(publisher, name, latest, at)
        if chosen is not None:
            choice = Choice(publisher, name, chosen)
            if await self.placements(choice, at):
                return choice
        record = await self._read(f"/services/{publisher}/{name}", at)
        by_program = {version.program: version for version in _versions(record)}
        if not by_program:
            self.look_again()
            raise NoSuchService(service=f"{publisher}/{name}")
        return await self._serving(publisher, name, record, by_program, at)

    async def _serving(
        self, publisher: str, name: str, record: Mapping[str, Any], versions: Mapping[str, Version], at: At
    ) -> Choice:
        placements = await self._read(f"/placements/{publisher}/{name}", at)
        placed = [program for program, records in (placements or {}).items() if _is_placed(records)]
        latest, before = str(record.get("latest")), str(record.get("before"))
        found = version_that_serves(versions, latest, before, placed)
        if found is None:
            found = max(versions.values(), key=lambda version: version.number)
        path = f"/placements/{publisher}/{name}"
        kept = self._kept.get((path, at))
        if kept is not None and isinstance(placements, dict):
            # What is asked next about this version must not be older than what it was chosen by.
            self._keep(
                f"{path}/{found.program}", at, placements.get(found.program), kept[0] - self._kept_seconds
            )
        return Choice(publisher, name, found)

    async def _version(self, publisher: str, name: str, program: str, at: At) -> Version | None:
        known = self._versions.get((publisher, name, program))
        if known is not None:
            return known
        record = await self._read(f"/services/{publisher}/{name}/versions/{program}", at)
        if record is None:
            return None
        version = read_version(program, record)
        if at == "final":
            if len(self._versions) >= KEPT_MAX:
                self._versions.clear()
            self._versions[publisher, name, program] = version
        return version

    async def all_placements(self, choice: Choice, at: At = "final") -> list[Placement]:
        """Every provider's word about a version, refusals too."""
        path = f"/placements/{choice.publisher}/{choice.name}/{choice.program}"
        records = await self._read(path, at)
        known = self._placements.get(path)
        if known is not None and known[0] is records:
            return known[1]
        placements = []
        for provider, record in (records or {}).items():
            try:
                placements.append(
                    read_placement(choice.publisher, choice.name, choice.program, provider, record)
                )
            except Refusal:
                continue  # A record in a form that this version does not know is no offer to us.
        if len(self._placements) >= KEPT_MAX:
            self._placements.clear()
        self._placements[path] = (records, placements)
        return placements

    async def placements(self, choice: Choice, at: At = "final") -> list[Placement]:
        """Who runs a version now, the cheapest first."""
        placed = [p for p in await self.all_placements(choice, at) if p.status == PLACED]
        return sorted(placed, key=lambda p: (p.ask_uain, p.provider))

    async def price(self, choice: Choice, placement: Placement) -> Price:
        """What a call would cost at a placement."""
        if self._fee_ppm is None:
            found = await self._read(FEE_PPM_PATH, "final")
            self._fee_ppm = found if isinstance(found, int) else 0
        return Price(placement.ask_uain, choice.version.royalty_uain, self._fee_ppm)

    async def is_provider(self, choice: Choice, program: str, provider: str) -> bool:
        """Whether the chain knows somebody as a provider of a service's program, now or before."""
        path = f"/placements/{choice.publisher}/{choice.name}/{program}/{provider}"
        return await self._read(path, "final") is not None

    async def job(self, job: str) -> Any:
        """The records of a job as the final state has them."""
        return await self._chain.read(f"/jobs/{job}")

    async def permissions(self, choice: Choice) -> Permissions:
        """Who may call and run a service."""
        return read_permissions(await self._read(f"/services/{choice.service}/permissions", "final"))

    async def is_registered(self, program: str) -> bool:
        """Whether a program is known to the chain."""
        return await self._read(f"/programs/{program}", "final") is not None

    async def check_runs(self, program: str, at: At = "final") -> None:
        """Refuses a program that was stopped by a vote, with its reason and evidence."""
        check_program_runs(program, await self._read(f"/kills/{program}/state", at))

    def look_again(self) -> None:
        """Something is not as it was: nothing that is kept, or asked already, counts any more."""
        self._kept.clear()
        self._asked.clear()
        self._asked.clear()

    async def interface(self, program: str) -> Interface:
        """The interface that a program carries, verified by its CID."""
        known = self._interfaces.get(program)
        if known is None:
            return await self._shared((program, "final"), lambda: self._fetched_interface(program))  # type: ignore[no-any-return]
        return known

    async def _fetched_interface(self, program: str) -> Interface:
        files = await self._chain.get_files(program)
        content = files.get(INTERFACE_FILE)
        if content is None or len(content) > INTERFACE_BYTES_MAX:
            raise InterfaceMissing(program=program, reason=f"it has no {INTERFACE_FILE}")
        found = parse_interface(content, program)
        # The manifest is what its gateways go by, whatever a description beside it says.
        found = replace(found, calls=declared_calls(files.get(MANIFEST_FILE, b"")))
        self._interfaces[program] = found
        return found

    async def _shared(self, key: tuple[str, At], ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a question that others may be asking at this moment."""
        asked = self._asked.get(key)
        # An answer that is long in coming tells of a time that is too long ago.
        if asked is None or asked[0] + self._kept_seconds <= time.monotonic():
            asked = (time.monotonic(), asyncio.ensure_future(ask()))
            self._asked[key] = asked
            asked[1].add_done_callback(lambda done: self._has_answer(key, done))
        return await asyncio.shield(asked[1])

    def _has_answer(self, key: tuple[str, At], done: asyncio.Future[Any]) -> None:
        asked = self._asked.get(key)
        if asked is not None and asked[1] is done:
            del self._asked[key]
        if not done.cancelled():
            # Whoever asked may have left; then nobody else looks at a failure.
            done.exception()

    async def _read(self, path: str, at: At) -> Any:
        kept = self._kept.get((path, at))
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        return await self._shared((path, at), lambda: self._fresh(path, at))

    async def _fresh(self, path: str, at: At) -> Any:
        began = time.monotonic()
        return self._keep(path, at, await self._chain.read(path, at), began)

    def _keep(self, path: str, at: At, value: Any, asked_at: float) -> Any:
        if self._kept_seconds:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            # Counted from the question: what changed before it was asked is in the answer.
            ends_at = asked_at + self._kept_seconds
            kept = self._kept.get((path, at))
            if kept is None or kept[0] < ends_at:
                self._kept[path, at] = (ends_at, value)
        return value

    async def _publishers_of(self, name: str, at: At) -> list[str]:
        # A name that stands for nobody yet is looked up each time.
        path = f"/services/*/{name}"
        kept = self._kept.get((path, at))
        if kept is not None and kept[0] > time.monotonic() and kept[1]:
            return list(kept[1])
        return list(await self._shared((path, at), lambda: self._fresh_publishers_of(name, at)))

    async def _fresh_publishers_of(self, name: str, at: At) -> list[str]:
        path = f"/services/*/{name}"
        began = time.monotonic()
        publishers = []
        async for publisher in self._chain.children("/services", at):
            publishers.append(publisher)
        found = await asyncio.gather(
            *(self._chain.read(f"/services/{one}/{name}/latest", at) for one in publishers)
        )
        named = [one for one, latest in zip(publishers, found, strict=True) if latest is not None]
        return list(self._keep(path, at, named, began))


def parse_interface(content: bytes, program: str) -> Interface:
    """An interface from a program's file; whatever is not of the form is refused."""
    try:
        record = json.loads(content)
        methods = tuple(_method(entry) for entry in record["methods"])
        own = record.get("grpc") or {}
        descriptors = base64.b64decode(own.get("descriptors", ""), validate=True)
        proto = str(own.get("proto", ""))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise InterfaceMissing(
            program=program, reason=f"{INTERFACE_FILE} is not of the form ({problem})"
        ) from None
    if not methods:
        raise InterfaceMissing(program=program, reason="it states no method")
    return Interface(methods, descriptors, proto)


def _method(entry: Mapping[str, Any]) -> Method:
    example = entry.get("example")
    schema_in, schema_out = entry.get("input") or {}, entry.get("output") or {}
    if not (isinstance(schema_in, dict) and isinstance(schema_out, dict)):
        raise TypeError("a schema is not an object")
    return Method(
        name=str(entry["name"]),
        path=str(entry["path"]),
        summary=str(entry.get("summary") or ""),
        input=schema_in,
        output=schema_out,
        stream=bool(entry.get("stream")),
        example=example if isinstance(example, dict) else None,
    )


def _versions(record: Any) -> list[Version]:
    entries = record.get("versions") if isinstance(record, dict) else None
    versions = [read_version(program, entry) for program, entry in (entries or {}).items()]
    return sorted(versions, key=lambda version: version.number)


def _pick_version(versions: list[Version], wanted: str, service: str) -> Version:
    if not wanted:
        return versions[-1]
    for version in versions:
        if wanted == (version.program if is_cid_text(wanted) else version.version):
            return version
    known = ", ".join(version.version for version in versions[-10:])
    raise NoSuchVersion(service=service, version=wanted, known=known)


def _is_placed(records: Any) -> bool:
    """Whether any provider's record says that it runs."""
    return isinstance(records, dict) and any(
        isinstance(record, dict) and record.get("status") == PLACED for record in records.values()
    )


def _stopped(program: str, standing: Any) -> str:
    try:
        check_program_runs(program, standing)
    except ProgramKilled as killed:
        return str(killed.facts["reason"])
    return ""


def _matches(listing: Listing, words: list[str]) -> bool:
    version = listing.choice.version
    text = f"{listing.choice.name} {version.summary} {version.domain} {listing.choice.publisher}".lower()
    return all(word in text for word in words)
