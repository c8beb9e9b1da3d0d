"""Services: a publisher's name with its versions, who may call and run it, and the price rule that never changes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields, InvalidRecord, is_cid_text
from openresource.market.placements import ISOLATION_LEVELS
from openresource.market.predicates import NO_DEMANDS, RunIf, check_isolation, read_run_if, run_if_record
from openresource.market.prices import UNITS, CapBelowRoyalty
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import is_checksum_address

EXACTNESS: Final = ("bit_exact", "class_exact", "tolerant", "subjective")
SUMMARY_CHARACTERS_MAX: Final = 300
LICENSE_CHARACTERS_MAX: Final = 100
DOMAIN_CHARACTERS_MAX: Final = 40
RELEASE_BYTES_MAX: Final = 64 * 1024 * 1024 * 1024
PERMITTED_ADDRESSES_MAX: Final = 1_000
EVERYONE: Final = "everyone"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(?:[-+][0-9A-Za-z.\-+]{1,40})?")


class VersionNotPublished(Refusal):
    result_code = ResultCode.VERSION_NOT_PUBLISHED
    template = "The service {publisher}/{name} has no version {program}."
    way_out = "Read /services/{publisher}/{name}/versions for what there is."


class VersionTextTaken(Refusal):
    result_code = ResultCode.VERSION_TEXT_TAKEN
    template = "Version {version} of {name} is published already, as {program}."
    way_out = "Give the release a new version number: what is published never changes."


class CallNotPermitted(Refusal):
    result_code = ResultCode.CALL_NOT_PERMITTED
    template = "The publisher of {name} does not permit {address} to call it."
    way_out = "Ask the publisher {publisher} for permission, or use another service."


class RunNotPermitted(Refusal):
    result_code = ResultCode.RUN_NOT_PERMITTED
    template = "The publisher of {name} does not permit {address} to run it."
    way_out = "Ask the publisher {publisher} for permission."


class ServiceRenounced(Refusal):
    result_code = ResultCode.SERVICE_RENOUNCED
    template = (
        "Nobody owns {publisher}/{name} any more: its publisher has renounced it, and nothing of it changes."
    )
    way_out = "Improve it under a name of your own: openresource program fork {publisher}/{name} NEW_NAME."


class ForkSourceMissing(Refusal):
    result_code = ResultCode.FORK_SOURCE_MISSING
    template = "A fork names its source by {publisher}/{name} and {program}; {reason}."
    way_out = "Name a version that is published, of another service: openresource services show NAME."


@dataclass(frozen=True, slots=True)
class ForkSource:
    """The exact version of another service that a version was made from."""

    publisher: str
    name: str
    program: str


@dataclass(frozen=True, slots=True)
class Version:
    """One published version; `number` and `published_at_ms` are stamped by the chain."""

    program: str
    version: str
    unit: str
    royalty_uain: int
    price_cap_uain: int | None
    license: str
    summary: str
    domain: str
    exactness: str
    bytes: int
    number: int = 0
    published_at_ms: int = 0
    fork_of: ForkSource | None = None
    # How its results are compared, where that is more than its exactness says.
    verify: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Permissions:
    """Who may call and who may run a service; None means everybody."""

    call: Mapping[str, bool] | None = None
    run: Mapping[str, bool] | None = None
    min_isolation: str = ""
    run_if: RunIf = NO_DEMANDS


def is_service_name(name: Any) -> bool:
    """Whether a text may name a service: a label of the domain name system."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def require_service_name(name: str) -> None:
    """Refuses a name that is no label of the domain name system."""
    if not is_service_name(name):
        raise InvalidRecord(
            what="service",
            member="its name",
            reason="must be lower-case letters, digits and hyphens, at most 63",
        )


def read_version(program: str, record: Any) -> Version:
    """A version from its record."""
    fields = Fields(record, "version")
    text = fields.text("version")
    if _VERSION.fullmatch(text) is None:
        raise fields.wrong("version", "must be three numbers such as 1.2.0")
    royalty = fields.amount("royalty_uain")
    cap = fields.amount("price_cap_uain") if fields.has("price_cap_uain") else None
    fields.take("price_cap_uain")
    if cap is not None and cap < royalty:
        raise CapBelowRoyalty(price_cap_uain=cap, royalty_uain=royalty)
    version = Version(
        program=program,
        version=text,
        unit=fields.choice("unit", UNITS),
        royalty_uain=royalty,
        price_cap_uain=cap,
        license=fields.text("license", LICENSE_CHARACTERS_MAX),
        summary=fields.text("summary", SUMMARY_CHARACTERS_MAX),
        domain=fields.optional_text("domain", DOMAIN_CHARACTERS_MAX),
        exactness=fields.choice("exactness", EXACTNESS),
        bytes=fields.integer("bytes", 1, RELEASE_BYTES_MAX),
        number=fields.optional_integer("number", 0),
        published_at_ms=fields.optional_integer("published_at_ms", 0),
        fork_of=read_fork_source(fields.take("fork_of")),
        verify=fields.take("verify"),
    )
    fields.finish()
    return version


def read_fork_source(record: Any) -> ForkSource | None:
    """Where a version comes from; none for what began by itself."""
    if record is None:
        return None
    fields = Fields(record, "source of a fork")
    source = ForkSource(fields.address("publisher"), fields.text("name"), fields.cid("program"))
    fields.finish()
    if not is_service_name(source.name):
        raise fields.wrong("name", "must be the name of a service")
    return source


def fork_source_text(source: ForkSource) -> str:
    """A source as manifests write it: <publisher>/<name>@<program>."""
    return f"{source.publisher}/{source.name}@{source.program}"


def parse_fork_source(text: str) -> ForkSource | None:
    """A source from its text; None if it is none."""
    service, _, program = text.partition("@")
    publisher, _, name = service.partition("/")
    if not is_checksum_address(publisher) or not is_service_name(name) or not is_cid_text(program):
        return None
    return ForkSource(publisher, name, program)


def version_record(version: Version) -> dict[str, Any]:
    """The record that a publisher writes at `/services/<publisher>/<name>/versions/<cid>`."""
    members: dict[str, Any] = {
        "version": version.version,
        "unit": version.unit,
        "royalty_uain": version.royalty_uain,
        "license": version.license,
        "summary": version.summary,
        "exactness": version.exactness,
        "bytes": version.bytes,
    }
    if version.price_cap_uain is not None:
        members["price_cap_uain"] = version.price_cap_uain
    if version.verify:
        members["verify"] = dict(version.verify)
    if version.domain:
        members["domain"] = version.domain
    if version.fork_of is not None:
        members["fork_of"] = {
            "publisher": version.fork_of.publisher,
            "name": version.fork_of.name,
            "program": version.fork_of.program,
        }
    return members


def read_choice(record: Any) -> str:
    """The program that a publisher chooses, from the request."""
    fields = Fields(record, "choice of a version")
    program = fields.cid("program")
    fields.finish()
    return program


def choice_record(program: str) -> dict[str, Any]:
    """The request that a publisher writes at `/services/<publisher>/<name>/choose/<record>`."""
    return {"program": program}


def version_that_serves(
    versions: Mapping[str, Version], latest: str, before: str, placed: Collection[str]
) -> Version | None:
    """What a bare name means: the chosen version where somebody runs it, else the one before it, else the newest that runs.

    Where none runs it is the chosen one, so that the caller hears about that one.
    """
    for program in (latest, before):
        if program in placed and program in versions:
            return versions[program]
    running = [versions[program] for program in placed if program in versions]
    if running:
        return max(running, key=lambda version: version.number)
    return versions.get(latest)


def version_before(versions: Mapping[str, Version], latest: str, before: str) -> Version | None:
    """Where a rollback leads: to what was chosen before, and never to a newer version."""
    chosen = versions.get(latest)
    if chosen is None:
        return None
    last = versions.get(before)
    if last is not None and last.number < chosen.number:
        return last
    older = [version for version in versions.values() if version.number < chosen.number]
    return max(older, key=lambda version: version.number, default=None)


def read_permissions(record: Any) -> Permissions:
    """Permissions from their record; no record permits everybody."""
    if record is None:
        return Permissions()
    fields = Fields(record, "permissions")
    levels = tuple(ISOLATION_LEVELS)
    permissions = Permissions(
        call=_read_permitted(fields, "call"),
        run=_read_permitted(fields, "run"),
        min_isolation=fields.choice("min_isolation", levels) if fields.has("min_isolation") else "",
        run_if=read_run_if(fields.take("run_if")),
    )
    fields.take("min_isolation")
    fields.finish()
    return permissions


def permissions_record(permissions: Permissions) -> dict[str, Any]:
    """The record at `/services/<publisher>/<name>/permissions`; empty if everybody may do everything."""
    members: dict[str, Any] = {}
    if permissions.call is not None:
        members["call"] = dict(permissions.call)
    if permissions.run is not None:
        members["run"] = dict(permissions.run)
    if permissions.min_isolation:
        members["min_isolation"] = permissions.min_isolation
    if permissions.run_if != NO_DEMANDS:
        members["run_if"] = run_if_record(permissions.run_if)
    return members


def may_call(permissions: Permissions, publisher: str, address: str) -> bool:
    """Whether an address may call; a publisher always may."""
    return address == publisher or _is_permitted(permissions.call, address)


def may_run(permissions: Permissions, publisher: str, address: str) -> bool:
    """Whether a provider may run; a publisher always may."""
    return address == publisher or _is_permitted(permissions.run, address)


def check_call_permitted(permissions: Permissions, publisher: str, name: str, address: str) -> None:
    """Refuses a buyer whom the publisher does not let call."""
    if not may_call(permissions, publisher, address):
        raise CallNotPermitted(name=name, publisher=publisher, address=address)


def check_run_permitted(
    permissions: Permissions, publisher: str, name: str, address: str, isolation: str
) -> None:
    """Refuses a provider whom the publisher does not let run, or not behind so thin a wall."""
    if not may_run(permissions, publisher, address):
        raise RunNotPermitted(name=name, publisher=publisher, address=address)
    check_isolation(permissions.min_isolation, name, isolation)


def _read_permitted(fields: Fields, member: str) -> dict[str, bool] | None:
    value = fields.take(member)
    if value is None:
        return None
    if not isinstance(value, dict) or not 0 < len(value) <= PERMITTED_ADDRESSES_MAX:
        raise fields.wrong(member, f"must name 1 to {PERMITTED_ADDRESSES_MAX} addresses, or {EVERYONE}")
    for who, is_permitted in value.items():
        if who != EVERYONE and not is_checksum_address(who):
            raise fields.wrong(member, f"must name addresses in their checksum form, or {EVERYONE}")
        if not isinstance(is_permitted, bool):
            raise fields.wrong(member, "must say true or false for each address")
    return dict(value)


def is_open_to_all(permissions: Permissions) -> bool:
    """Whether everybody may call, nobody kept out: whoever is kept out must be known by a channel."""
    call = permissions.call
    return call is None or (call.get(EVERYONE, False) and all(call.values()))


def _is_permitted(permitted: Mapping[str, bool] | None, address: str) -> bool:
    if permitted is None:
        return True
    return permitted.get(address, permitted.get(EVERYONE, False))
