"""Announcing a placement: a provider says that it serves a version, where, for how much and how well walled in."""

from __future__ import annotations

from openresource.ledger.draft import Draft, Native, NativeCall
from openresource.market.fields import InvalidRecord
from openresource.market.natives.bonds import bond_of, record_of
from openresource.market.natives.kills import refuse_killed
from openresource.market.placements import (
    CALLABLE,
    NOWHERE,
    OFFERED,
    PLACED,
    STATUSES,
    check_endpoint,
    check_step,
    check_tls_key,
    read_placement,
)
from openresource.market.predicates import check_run_if, offered_by
from openresource.market.prices import check_cap
from openresource.market.services import (
    VersionNotPublished,
    check_run_permitted,
    read_permissions,
    read_version,
)


def announce_placement(draft: Draft, call: NativeCall) -> None:
    """Checks a placement against its life cycle, the version's cap and the publisher's permissions; stamps its time."""
    if call.value is None:
        raise InvalidRecord(
            what="placement", member="the record", reason="cannot be deleted; write GONE instead"
        )
    publisher, name, cid = call.params["publisher"], call.params["name"], call.params["cid"]
    provider = call.params["provider"]
    placement = read_placement(publisher, name, cid, provider, call.value)
    check_step(_status(call.previous), placement.status)
    published = draft.get("services", publisher, name, "versions", cid)
    if published is None:
        raise VersionNotPublished(publisher=publisher, name=name, program=cid)
    if placement.status in CALLABLE or placement.endpoint:
        check_endpoint(placement.endpoint, call.network.chain_id)
        check_tls_key(provider, placement.endpoint, placement.tls_key, placement.tls_signature, call.network)
    # Leaving is always possible, whatever the publisher has changed since.
    if placement.status in (OFFERED, PLACED):
        refuse_killed(draft, cid)
        permissions = read_permissions(draft.get("services", publisher, name, "permissions"))
        if placement.isolation:
            check_run_permitted(permissions, publisher, name, provider, placement.isolation)
            # Who takes it says what it has; the runtime is known once the release is here.
            offered = offered_by(placement, bond_of(draft, provider).counted_uain, record_of(draft, provider))
            is_placed = placement.status == PLACED
            check_run_if(permissions.run_if, name, offered, is_runtime_known=is_placed)
        version = read_version(cid, published)
        check_cap(placement.ask_uain, version.royalty_uain, version.price_cap_uain)
    draft.set((*call.path, "at_ms"), call.at)


def _status(previous: object) -> str:
    status = previous.get("status") if isinstance(previous, dict) else NOWHERE
    return status if status in STATUSES else NOWHERE


NATIVES = (Native("_announcePlacement", (("placements",),), announce_placement),)
FUNCTIONS = {"/placements/$publisher/$name/$cid/$provider": "_announcePlacement"}
RULES = {
    "/placements": "false",
    "/placements/$publisher/$name/$cid/$provider": "auth.addr === $provider && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
}
