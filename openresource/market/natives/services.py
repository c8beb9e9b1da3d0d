"""Publishing a version of a service, and saying who may call and run it."""

from __future__ import annotations

from openresource.ledger.draft import Draft, Native, NativeCall
from openresource.market.codes import ResultCode
from openresource.market.fields import InvalidRecord, is_cid_text
from openresource.market.programs import ProgramNotRegistered
from openresource.market.services import (
    VersionTextTaken,
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
    latest = draft.get(*service, "latest")
    number = draft.get(*service, "versions", latest, "number") if isinstance(latest, str) else 0
    draft.set((*service, "versions", cid, "number"), int(number) + 1 if is_integer(number) else 1)
    draft.set((*service, "versions", cid, "published_at_ms"), call.at)
    draft.set(text, cid)
    draft.set((*service, "latest"), cid)


def set_permissions(draft: Draft, call: NativeCall) -> None:
    """Checks the permissions that were written; deleting them permits everybody again."""
    require_service_name(call.params["name"])
    read_permissions(call.value)


NATIVES = (
    Native("_publishVersion", (("services",),), publish_version),
    Native("_setPermissions", (("services",),), set_permissions),
)
FUNCTIONS = {
    "/services/$publisher/$name/versions/$cid": "_publishVersion",
    "/services/$publisher/$name/permissions": "_setPermissions",
}
RULES = {
    "/services": "false",
    "/services/$publisher/$name/versions/$cid": "auth.addr === $publisher && data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/services/$publisher/$name/permissions": "auth.addr === $publisher"
    " && util.checkValuePathLen(parsedValuePath, 4)",
}
