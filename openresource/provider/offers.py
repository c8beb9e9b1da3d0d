"""What the gateway serves: one offer for each version that is placed here, with the lane in which its calls queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from openresource.market.manifests import Manifest, Method
from openresource.market.prices import Price, price_json
from openresource.market.services import Permissions, Version
from openresource.primitives.errors import Refusal
from openresource.provider.lanes import Lane
from openresource.provider.statuses import NOT_FOUND, UNAVAILABLE, register
from openresource.sandbox.driver import Limits, ProgramCall, ProgramReply

# Resolved request paths are kept, so that the usual call is one look-up.
ROUTES_KEPT_MAX = 10_000
ROUTE_BYTES_MAX = 512


class ServiceNotHere(Refusal):
    template = "This provider does not serve {path}."
    way_out = "Read / for what it serves, or the placements of the service on the chain for who else does."


class ServiceStarting(Refusal):
    template = "This provider is starting the program of {path}."
    way_out = "Nothing was charged. Try again in a few seconds, or call another provider."


class MethodUnknown(Refusal):
    template = "The service {service} has no method at {path}."
    way_out = "Its methods are at: {methods}. The whole description is at interface.json."


class Draining(Refusal):
    template = "This provider is stopping and takes no new calls of {service}."
    way_out = "Nothing was charged. Call another provider; what was not spent comes back with the settlement."


register(ServiceNotHere, NOT_FOUND)
register(ServiceStarting, UNAVAILABLE)
register(MethodUnknown, NOT_FOUND)
register(Draining, UNAVAILABLE)


class Runner(Protocol):
    """Runs a program's calls, in as many warm instances as it keeps."""

    async def call(self, call: ProgramCall) -> ProgramReply: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Offer:
    """A version that runs here."""

    publisher: str
    name: str
    version: Version
    manifest: Manifest
    methods: tuple[Method, ...]
    price: Price
    isolation: str
    runtime: str
    limits: Limits
    runner: Runner
    permissions: Permissions
    lane: Lane
    is_draining: bool = False
    # How long its first instance took to be ready, and whether one is ready now.
    start_ms: int = 0
    is_warm: bool = True
    # What was built of it, by its content; empty if it runs as it was published.
    build: str = ""
    # By which means its driver holds each limit.
    held: str = ""
    free_calls: int = 0
    # Why nothing more of its program is served, where a vote has stopped it.
    stopped: Refusal | None = None
    interface: bytes = b""
    _by_path: dict[str, Method] = field(default_factory=dict)

    @property
    def program(self) -> str:
        return self.version.program

    @property
    def service(self) -> str:
        return f"{self.publisher}/{self.name}"

    @property
    def path(self) -> str:
        return f"/services/{self.publisher}/{self.name}/{self.program}"

    def check_not_stopped(self) -> None:
        """Refuses what was stopped, with the reason."""
        if self.stopped is not None:
            raise type(self.stopped)(**self.stopped.facts)

    def method_at(self, path: str) -> Method:
        """The method at a path below the offer's; its bare name is good as well."""
        if not self._by_path:
            self._by_path = {f"/{method.name}": method for method in self.methods}
            self._by_path |= {method.path: method for method in self.methods}
        method = self._by_path.get(path or "/")
        if method is None and path in ("", "/") and len(self.methods) == 1:
            method = self.methods[0]
        if method is None:
            paths = ", ".join(method.path for method in self.methods)
            raise MethodUnknown(service=self.service, path=path or "/", methods=paths)
        return method


def describe(offer: Offer) -> bytes:
    """The offer's description at `interface.json`."""
    return msgspec.json.encode(
        {
            "service": {"publisher": offer.publisher, "name": offer.name},
            "program": offer.program,
            "version": offer.version.version,
            "summary": offer.version.summary,
            "license": offer.version.license,
            "exactness": offer.version.exactness,
            "price": price_json(offer.price),
            "isolation": offer.isolation,
            "runtime": offer.runtime,
            "limits": {
                "input_bytes": offer.limits.input_bytes,
                "output_bytes": offer.limits.output_bytes,
                "call_seconds": offer.limits.call_seconds,
                "concurrency": offer.lane.capacity,
            },
            "methods": [_method_json(offer, method) for method in offer.methods],
        }
    )


def _method_json(offer: Offer, method: Method) -> Mapping[str, Any]:
    return {
        "name": method.name,
        "path": method.path,
        "url": offer.path + ("" if method.path == "/" else method.path),
        "summary": method.summary,
        "stream": method.stream,
        "input": method.input,
        "output": method.output,
        "example": method.example,
    }


class Offers:
    """All offers, found by the path of a request."""

    def __init__(self) -> None:
        self._offers: dict[tuple[str, str, str], Offer] = {}
        self._routes: dict[bytes, tuple[Offer, Method]] = {}
        # What is being made ready; until the first look at the chain that may be anything.
        self.starting: set[tuple[str, str, str]] = set()
        self.has_looked = False
        # Programs of which nothing is served any more, and why.
        self.stopped: dict[str, Refusal] = {}

    def __iter__(self) -> Any:
        return iter(list(self._offers.values()))

    def __len__(self) -> int:
        return len(self._offers)

    def put(self, offer: Offer) -> None:
        """Begins to serve an offer."""
        offer.interface = describe(offer)
        offer.stopped = self.stopped.get(offer.program)
        self._offers[(offer.publisher, offer.name, offer.program)] = offer
        self._routes.clear()

    def remove(self, offer: Offer) -> None:
        """Stops to serve an offer."""
        self._offers.pop((offer.publisher, offer.name, offer.program), None)
        self._routes.clear()

    def stop(self, program: str, reason: Refusal) -> None:
        """Takes no more calls of a program, whoever offers it and whoever calls."""
        self.stopped[program] = reason
        self._routes.clear()
        self._mark(program)

    def resume(self, program: str) -> None:
        """Takes calls of a program again."""
        if self.stopped.pop(program, None) is not None:
            self._mark(program)

    def _mark(self, program: str) -> None:
        for offer in self:
            if offer.program == program:
                offer.stopped = self.stopped.get(program)

    def check_not_stopped(self, program: str) -> None:
        """Refuses a program that was stopped, with the reason."""
        reason = self.stopped.get(program)
        if reason is not None:
            raise type(reason)(**reason.facts)

    def find(self, publisher: str, name: str, program: str) -> Offer | None:
        """The offer of a version."""
        return self._offers.get((publisher, name, program))

    def route(self, raw_path: bytes, path: str) -> tuple[Offer, Method]:
        """Offer and method that a request's path names."""
        known = self._routes.get(raw_path)
        if known is not None:
            return known
        offer, rest = self.offer_at(path)
        found = (offer, offer.method_at(rest))
        if len(self._routes) < ROUTES_KEPT_MAX and len(raw_path) <= ROUTE_BYTES_MAX:
            self._routes[raw_path] = found
        return found

    def offer_at(self, path: str) -> tuple[Offer, str]:
        """The offer that a path begins with, and the rest of the path."""
        parts = path.split("/", 5)
        if len(parts) >= 5 and parts[1] == "services":
            self.check_not_stopped(parts[4])
            offer = self._offers.get((parts[2], parts[3], parts[4]))
            if offer is not None:
                return offer, "/" + parts[5] if len(parts) == 6 else ""
            if not self.has_looked or (parts[2], parts[3], parts[4]) in self.starting:
                raise ServiceStarting(path=path)
        raise ServiceNotHere(path=path)
