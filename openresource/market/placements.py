"""Placements: a provider's standing offer to serve one version, its life cycle, and the papers that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from openresource.ledger.draft import NetworkDomain
from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.hardware import (
    NOTHING_SAID,
    Hardware,
    hardware_record,
    hardware_text,
    read_hardware,
    read_word,
)
from openresource.market.papers import PaperNotSigned, hex_text, paper_digest, paper_signer, sign_paper
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import InvalidSignature, PrivateKey, address_of, recover_public_key

TLS_KEY_TYPE: Final = "TlsKey(address provider,string endpoint,bytes32 key)"
TEST_CALL_TYPE: Final = "TestCall(address publisher,bytes32 program,uint64 timestamp)"
TEST_CALL_WINDOW_MS: Final = 5 * 60 * 1000

ENDPOINT_CHARACTERS_MAX: Final = 200
REASON_CHARACTERS_MAX: Final = 500
RUNTIME_CHARACTERS_MAX: Final = 100
CAPACITY_MAX: Final = 1_000_000
LIMITS_CHARACTERS_MAX: Final = 200
RUNTIME_CLASS_CHARACTERS_MAX: Final = 100
START_MS_MAX: Final = 3_600_000

OFFERED: Final = "OFFERED"
PLACED: Final = "PLACED"
REFUSED: Final = "REFUSED"
DRAINING: Final = "DRAINING"
GONE: Final = "GONE"
STATUSES: Final = (OFFERED, PLACED, REFUSED, DRAINING, GONE)
# Where there is no record yet.
NOWHERE: Final = ""

LIFE_CYCLE: Final[dict[str, tuple[str, ...]]] = {
    NOWHERE: (OFFERED, REFUSED),
    OFFERED: (OFFERED, PLACED, REFUSED, GONE),
    PLACED: (PLACED, DRAINING, GONE),
    DRAINING: (DRAINING, PLACED, GONE),
    REFUSED: (REFUSED, OFFERED, GONE),
    GONE: (OFFERED, REFUSED),
}
# A provider in these states can be called, so everything that a caller needs is in the record.
CALLABLE: Final = (PLACED, DRAINING)

# Isolation from weak to strong; a higher number satisfies a lower demand.
ISOLATION_LEVELS: Final[dict[str, int]] = {
    "confined": 10,
    # A device's driver takes calls that no filter looks into.
    "bubblewrap+gpu": 15,
    "oci+gpu": 15,
    "gvisor+gpu": 15,
    "bubblewrap": 20,
    "oci": 30,
    "kubernetes": 30,
    "wasm": 40,
    "gvisor": 50,
}

LOCAL_CHAIN_ID: Final = 100
_LOOPBACK_HOSTS: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class PlacementStepNotAllowed(Refusal):
    result_code = ResultCode.PLACEMENT_STEP_NOT_ALLOWED
    template = "A placement that is {current} cannot become {wanted}."
    way_out = "From here it can become: {possible}."


class EndpointNotAccepted(Refusal):
    result_code = ResultCode.ENDPOINT_NOT_ACCEPTED
    template = "The endpoint {endpoint} is not accepted: {reason}."
    way_out = (
        "Announce https://host:port (a shell ssh://host:port), without a path; "
        "loopback hosts only on the network local."
    )


class TlsKeyNotSignedByProvider(Refusal):
    result_code = ResultCode.TLS_KEY_NOT_SIGNED_BY_PROVIDER
    template = "The TLS key of {endpoint} is signed by {recovered}, not by the provider {provider}."
    way_out = "Sign the endpoint and its key's hash with the provider's wallet, for this network."


class ForeignTestCall(Refusal):
    template = "The test call is signed by {recovered}; the service belongs to {publisher}."
    way_out = "Sign with the publisher's wallet, or pay for the call."


class StaleTestCall(Refusal):
    template = "The test call was signed for {timestamp_ms}; it is {at_ms}."
    way_out = "Set the clock right and sign again; a signature is good for {window_ms} ms."


@dataclass(frozen=True, slots=True)
class Placement:
    """What a provider announces; texts are empty and numbers 0 where the status needs none."""

    publisher: str
    name: str
    program: str
    provider: str
    status: str
    reason: str = ""
    endpoint: str = ""
    tls_key: bytes = b""
    tls_signature: bytes = b""
    capacity: int = 0
    ask_uain: int = 0
    isolation: str = ""
    runtime: str = ""
    at_ms: int = 0
    # Whether an instance is kept ready, and how long a start takes if none is.
    warm: bool = False
    start_ms: int = 0
    # By which means each limit is held, such as `memory=cgroup cpu=none`.
    limits: str = ""
    hardware: Hardware = NOTHING_SAID
    region: str = ""
    runtime_class: str = ""
    # The built release that runs, by its content.
    build: str = ""
    # The port of the gRPC door, on the endpoint's host.
    grpc: int = 0


def tls_key_digest(provider: str, endpoint: str, tls_key: bytes, network: NetworkDomain) -> bytes:
    """What a provider signs so that a caller knows whose TLS key it meets."""
    return paper_digest(TLS_KEY_TYPE, {"provider": provider, "endpoint": endpoint, "key": tls_key}, network)


def sign_tls_key(endpoint: str, tls_key: bytes, key: PrivateKey, network: NetworkDomain) -> bytes:
    """The signature that binds a TLS key to an endpoint and to the wallet that signs."""
    return sign_paper(tls_key_digest(key.address, endpoint, tls_key, network), key)


def check_tls_key(
    provider: str, endpoint: str, tls_key: bytes, signature: bytes, network: NetworkDomain
) -> None:
    """Refuses a TLS key that the provider's wallet did not sign for this endpoint on this network."""
    recovered = paper_signer(tls_key_digest(provider, endpoint, tls_key, network), signature)
    if recovered != provider:
        raise TlsKeyNotSignedByProvider(endpoint=endpoint, recovered=recovered, provider=provider)


def provider_public_key(placement: Placement, network: NetworkDomain) -> bytes:
    """The public key of the provider's wallet, for what only it may read; the signature of its TLS key tells it."""
    digest = tls_key_digest(placement.provider, placement.endpoint, placement.tls_key, network)
    try:
        public_key = recover_public_key(digest, placement.tls_signature)
    except InvalidSignature as error:
        raise PaperNotSigned(reason=error.reason) from error
    recovered = address_of(public_key)
    if recovered != placement.provider:
        raise TlsKeyNotSignedByProvider(
            endpoint=placement.endpoint, recovered=recovered, provider=placement.provider
        )
    return public_key


def digest_of_test_call(publisher: str, program: str, timestamp_ms: int, network: NetworkDomain) -> bytes:
    """What a publisher signs for a free call of the example of its own version."""
    values = {"publisher": publisher, "program": keccak(program.encode()), "timestamp": timestamp_ms}
    return paper_digest(TEST_CALL_TYPE, values, network)


def sign_test_call(program: str, timestamp_ms: int, key: PrivateKey, network: NetworkDomain) -> bytes:
    """The publisher's signature for a free test call."""
    return sign_paper(digest_of_test_call(key.address, program, timestamp_ms, network), key)


def check_test_call(
    publisher: str,
    program: str,
    timestamp_ms: int,
    signature: bytes,
    network: NetworkDomain,
    *,
    at_ms: int,
) -> None:
    """Refuses a free test call that the publisher did not sign, or not recently."""
    if abs(at_ms - timestamp_ms) > TEST_CALL_WINDOW_MS:
        raise StaleTestCall(timestamp_ms=timestamp_ms, at_ms=at_ms, window_ms=TEST_CALL_WINDOW_MS)
    recovered = paper_signer(digest_of_test_call(publisher, program, timestamp_ms, network), signature)
    if recovered != publisher:
        raise ForeignTestCall(recovered=recovered, publisher=publisher)


def read_placement(publisher: str, name: str, program: str, provider: str, record: Any) -> Placement:
    """A placement from its record; what its status needs must be there."""
    fields = Fields(record, "placement")
    status = fields.choice("status", STATUSES)
    is_callable = status in CALLABLE

    def wanted(member: str) -> bool:
        return is_callable or fields.has(member)

    placement = Placement(
        publisher=publisher,
        name=name,
        program=program,
        provider=provider,
        status=status,
        reason=fields.optional_text("reason", REASON_CHARACTERS_MAX),
        endpoint=fields.text("endpoint", ENDPOINT_CHARACTERS_MAX) if wanted("endpoint") else "",
        tls_key=fields.digest("tls_key") if wanted("tls_key") else b"",
        tls_signature=fields.signature("tls_signature") if wanted("tls_signature") else b"",
        capacity=fields.integer("capacity", 1, CAPACITY_MAX) if wanted("capacity") else 0,
        ask_uain=fields.amount("ask_uain") if wanted("ask_uain") else 0,
        isolation=fields.choice("isolation", tuple(ISOLATION_LEVELS)) if wanted("isolation") else "",
        runtime=fields.optional_text("runtime", RUNTIME_CHARACTERS_MAX),
        at_ms=fields.optional_integer("at_ms", 0),
        warm=fields.flag("warm"),
        start_ms=fields.optional_integer("start_ms", 0, 0, START_MS_MAX),
        limits=fields.optional_text("limits", LIMITS_CHARACTERS_MAX),
        hardware=read_hardware(fields.take("hardware")),
        region=read_word(fields, "region"),
        runtime_class=fields.optional_text("runtime_class", RUNTIME_CLASS_CHARACTERS_MAX),
        build=fields.cid("build") if fields.has("build") else "",
        grpc=fields.optional_integer("grpc", 0, 1, 65535),
    )
    fields.take("build")
    for member in ("endpoint", "tls_key", "tls_signature", "capacity", "ask_uain", "isolation"):
        fields.take(member)
    fields.finish()
    return placement


def placement_record(placement: Placement) -> dict[str, Any]:
    """The record that a provider writes; what is empty is left out, and the chain stamps the time."""
    members: dict[str, Any] = {"status": placement.status}
    if placement.reason:
        members["reason"] = placement.reason
    if placement.endpoint:
        members["endpoint"] = placement.endpoint
        members["tls_key"] = hex_text(placement.tls_key)
        members["tls_signature"] = hex_text(placement.tls_signature)
    if placement.capacity:
        members["capacity"] = placement.capacity
        members["ask_uain"] = placement.ask_uain
    if placement.isolation:
        members["isolation"] = placement.isolation
    if placement.runtime:
        members["runtime"] = placement.runtime
    if placement.hardware != NOTHING_SAID:
        members["hardware"] = hardware_record(placement.hardware)
    more = {
        "warm": placement.warm,
        "start_ms": placement.start_ms,
        "limits": placement.limits,
        "region": placement.region,
        "runtime_class": placement.runtime_class,
        "build": placement.build,
        "grpc": placement.grpc,
    }
    return members | {name: value for name, value in more.items() if value}


def start_text(placement: Placement) -> str:
    """How soon the first call is answered: `warm`, or `cold, starts in about 1.2 s`."""
    if placement.warm:
        return "warm"
    if placement.start_ms:
        return f"cold, starts in about {placement.start_ms / 1000:.1f} s"
    return "cold"


def limits_not_held(placement: Placement) -> tuple[str, ...]:
    """The limits that this machine cannot enforce, by its own word."""
    pairs = (part.partition("=") for part in placement.limits.split())
    return tuple(name for name, _, means in pairs if means == "none" and name != "network")


def placement_words(placement: Placement) -> tuple[str, ...]:
    """What a person wants to know of a placement beside its price: readiness, parts, place, and what is not held."""
    not_held = limits_not_held(placement)
    words = (
        start_text(placement),
        hardware_text(placement.hardware),
        f"in {placement.region}" if placement.region else "",
        f"runtime {placement.runtime_class or placement.runtime}"
        if placement.runtime_class or placement.runtime
        else "",
        f"does not limit {' and '.join(not_held)}" if not_held else "",
    )
    return tuple(word for word in words if word)


def check_step(current: str, wanted: str) -> None:
    """Refuses a change of status that the life cycle does not have."""
    possible = LIFE_CYCLE[current]
    if wanted not in possible:
        raise PlacementStepNotAllowed(
            current=current or "not announced", wanted=wanted, possible=", ".join(possible)
        )


def check_endpoint(endpoint: str, chain_id: int) -> None:
    """Refuses what is not https://host:port; loopback is for the network local."""
    reason = _endpoint_fault(endpoint, chain_id)
    if reason:
        raise EndpointNotAccepted(endpoint=endpoint, reason=reason)


def is_loopback(host: str) -> bool:
    """Whether a host means the machine itself."""
    return host in _LOOPBACK_HOSTS or host.startswith("127.")


def _endpoint_fault(endpoint: str, chain_id: int) -> str:
    try:
        parts = urlsplit(endpoint)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return "it is not an address that can be read"
    if parts.scheme != "https":
        return "only https is served"
    if not host or port is None or not 0 < port < 65536:
        return "it must name a host and a port"
    shown_host = f"[{host}]" if ":" in host else host
    if endpoint != f"https://{shown_host}:{port}":
        return "it must be exactly https://host:port, in lower case"
    if chain_id != LOCAL_CHAIN_ID and is_loopback(host):
        return "a loopback host is reachable from one machine only"
    return ""
