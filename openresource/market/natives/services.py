"""Publishing a version of a service, choosing an earlier one again, saying who may call and run it, and giving it up."""

from __future__ import annotations

from openresource.ledger.draft import Draft, Native, NativeCall
from openresource.market.codes import ResultCode
from openresource.market.fields import Fields, InvalidRecord, is_cid_text
from openresource.market.jobs.comparators import read_verification
from openresource.market.natives.kills import refuse_killed
from openresource.market.programs import ProgramNotRegistered
from openresource.market.services import (
    ForkSource,
    ForkSourceMissing,
    ServiceRenounced,
    VersionNotPublished,
    VersionTextTaken,
    read_choice,
    read_permissions,
    read_version,
    require_service_name,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import is_integer
from openresource.primitives.paths import encode_label

FORKS = "forks"


class VersionAlreadyPublished(Refusal):
    result_code = ResultCode.VERSION_ALREADY_PUBLISHED
    template = "The version {program} of {name} is published already; nobody can change it."
    way_out = "Publish the change as a new version."


def publish_version(draft: Draft, call: NativeCall) -> None:
    """Numbers the version, stamps its time, and makes it the newest."""
    if call.value is None:
        return
    publisher, name, cid = call.params["publisher"], call.params["name"], call.params["cid"]
    require_service_name(name)
    if not is_cid_text(cid):
        raise InvalidRecord(what="version", member="its path", reason="must end in a content identifier")
    if call.previous is not None:
        raise VersionAlreadyPublished(program=cid, name=name)
    _refuse_renounced(draft, publisher, name)
    refuse_killed(draft, cid)
    version = read_version(cid, call.value)
    if read_verification(version.verify, version.exactness).exactness != version.exactness:
        raise InvalidRecord(what="version", member="verify", reason="has another class than its exactness")
    if draft.get("programs", cid) is None:
        raise ProgramNotRegistered(program=cid)
    if version.fork_of is not None:
        _check_fork(draft, publisher, name, version.fork_of)
    service = ("services", publisher, name)
    text = (*service, "by_version", encode_label(version.version))
    taken = draft.get(*text)
    if taken is not None:
        raise VersionTextTaken(version=version.version, name=name, program=taken)
    number = _last_number(draft, service) + 1
    draft.set((*service, "versions", cid, "number"), number)
    draft.set((*service, "versions", cid, "published_at_ms"), call.at)
    draft.set((*service, "count"), number)
    draft.set(text, cid)
    if version.fork_of is not None:
        source = version.fork_of
        # A list of its own: a service's record must not grow by what others do.
        draft.set((FORKS, source.publisher, source.name, publisher, name), source.program)
    _make_latest(draft, service, cid)


def choose_version(draft: Draft, call: NativeCall) -> None:
    """Makes a version that was published before the one that a bare name means; no version changes by it."""
    if call.value is None:
        return
    publisher, name = call.params["publisher"], call.params["name"]
    _refuse_renounced(draft, publisher, name)
    program = read_choice(call.value)
    refuse_killed(draft, program)
    service = ("services", publisher, name)
    if draft.get(*service, "versions", program) is None:
        raise VersionNotPublished(publisher=publisher, name=name, program=program)
    draft.set(call.path, None)
    _make_latest(draft, service, program)


def set_permissions(draft: Draft, call: NativeCall) -> None:
    """Checks the permissions that were written; deleting them permits everybody again."""
    require_service_name(call.params["name"])
    _refuse_renounced(draft, call.params["publisher"], call.params["name"])
    read_permissions(call.value)


def renounce_service(draft: Draft, call: NativeCall) -> None:
    """Gives up a service for good: its versions, its choice and its permissions stay as they are."""
    publisher, name = call.params["publisher"], call.params["name"]
    if call.previous is not None:
        raise ServiceRenounced(publisher=publisher, name=name)
    fields = Fields(call.value, "renunciation")
    program = fields.cid("program")
    fields.finish()
    # Who renounces says what of: a version that came in between must not be frozen by mistake.
    if draft.get("services", publisher, name, "latest") != program:
        raise VersionNotPublished(
            publisher=publisher,
            name=name,
            program=program,
            remedy="Name the program that the service's name means now.",
        )
    draft.set((*call.path, "at_ms"), call.at)


def _refuse_renounced(draft: Draft, publisher: str, name: str) -> None:
    if draft.get("services", publisher, name, "renounced") is not None:
        raise ServiceRenounced(publisher=publisher, name=name)


def _check_fork(draft: Draft, publisher: str, name: str, source: ForkSource) -> None:
    facts = {"publisher": source.publisher, "name": source.name, "program": source.program}
    if (source.publisher, source.name) == (publisher, name):
        raise ForkSourceMissing(**facts, reason="that is this service itself")
    if draft.get("services", source.publisher, source.name, "versions", source.program) is None:
        raise ForkSourceMissing(**facts, reason="there is no such version")


def _make_latest(draft: Draft, service: tuple[str, str, str], program: str) -> None:
    """What stood there before is kept in mind: it serves until the new one runs somewhere."""
    latest = draft.get(*service, "latest")
    if latest == program:
        return
    if isinstance(latest, str):
        draft.set((*service, "before"), latest)
    draft.set((*service, "latest"), program)


def _last_number(draft: Draft, service: tuple[str, str, str]) -> int:
    count = draft.get(*service, "count")
    if is_integer(count):
        return int(count)
    # Services that were published before there was a choice have no count; their latest is their newest.
    latest = draft.get(*service, "latest")
    number = draft.get(*service, "versions", latest, "number") if isinstance(latest, str) else 0
    return int(number) if is_integer(number) else 0


NATIVES = (
    Native("_publishVersion", (("services",), (FORKS,)), publish_version),
    Native("_chooseVersion", (("services",),), choose_version),
    Native("_setPermissions", (("services",),), set_permissions),
    Native("_renounceService", (("services",),), renounce_service),
)
FUNCTIONS = {
    "/services/$publisher/$name/versions/$cid": "_publishVersion",
    "/services/$publisher/$name/choose/$record": "_chooseVersion",
    "/services/$publisher/$name/permissions": "_setPermissions",
    "/services/$publisher/$name/renounced": "_renounceService",
}
RULES = {
    "/services": "false",
    "/services/$publisher/$name/versions/$cid": "auth.addr === $publisher && data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/services/$publisher/$name/choose/$record": "auth.addr === $publisher && data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/services/$publisher/$name/permissions": "auth.addr === $publisher"
    " && util.checkValuePathLen(parsedValuePath, 4)",
    "/services/$publisher/$name/renounced": "auth.addr === $publisher && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 4)",
    # Which services were made from which; written by publishing alone.
    "/forks": "false",
}
