"""Publishing a version of a service, choosing an earlier one again, and saying who may call and run it."""

from __future__ import annotations

from openresource.ledger.draft import Draft, Native, NativeCall
from openresource.market.codes import ResultCode
from openresource.market.fields import InvalidRecord, is_cid_text
from openresource.market.programs import ProgramNotRegistered
from openresource.market.services import (
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
    version = read_version(cid, call.value)
    if draft.get("programs", cid) is None:
        raise ProgramNotRegistered(program=cid)
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
    _make_latest(draft, service, cid)


def choose_version(draft: Draft, call: NativeCall) -> None:
    """Makes a version that was published before the one that a bare name means; no version changes by it."""
    if call.value is None:
        return
    publisher, name = call.params["publisher"], call.params["name"]
    program = read_choice(call.value)
    service = ("services", publisher, name)
    if draft.get(*service, "versions", program) is None:
        raise VersionNotPublished(publisher=publisher, name=name, program=program)
    draft.set(call.path, None)
    _make_latest(draft, service, program)


def set_permissions(draft: Draft, call: NativeCall) -> None:
    """Checks the permissions that were written; deleting them permits everybody again."""
    require_service_name(call.params["name"])
    read_permissions(call.value)


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
    Native("_publishVersion", (("services",),), publish_version),
    Native("_chooseVersion", (("services",),), choose_version),
    Native("_setPermissions", (("services",),), set_permissions),
)
FUNCTIONS = {
    "/services/$publisher/$name/versions/$cid": "_publishVersion",
    "/services/$publisher/$name/choose/$record": "_chooseVersion",
    "/services/$publisher/$name/permissions": "_setPermissions",
}
RULES = {
    "/services": "false",
    "/services/$publisher/$name/versions/$cid": "auth.addr === $publisher && data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/services/$publisher/$name/choose/$record": "auth.addr === $publisher && data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/services/$publisher/$name/permissions": "auth.addr === $publisher"
    " && util.checkValuePathLen(parsedValuePath, 4)",
}
