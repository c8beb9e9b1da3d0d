"""Which addresses running programs may reach: those that a program names and this machine's operator allows, no others.

Nothing is allowed unless the operator says so. An allowed program still has no network: it finds a proxy, one for each
instance, and every connection that it asks for is written down.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from openresource.market.manifests import Manifest
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import (
    Capabilities,
    Instance,
    Limits,
    ProgramCall,
    ProgramReply,
    Release,
    Sandbox,
    Usage,
)
from openresource.sandbox.egress import Connection, EgressProxy, parse_target

log = logging.getLogger("openresource.sandbox.networks")

ANY: Final = "any"
LOG_NAME: Final = "network.log"
LOG_BYTES_MAX: Final = 16 << 20
KEPT_MAX: Final = 1_000


class NetworkNotAllowed(Refusal):
    template = "The program wants to reach {wanted}; this provider's operator allows {allowed}."
    way_out = "Publish a version that needs less, or ask the operator for provide --allow-network {wanted}."


@dataclass(frozen=True, slots=True)
class Reached:
    """One connection of a program, as the operator sees it."""

    at_ms: int
    service: str
    target: str
    verdict: str
    bytes_out: int
    bytes_in: int
    milliseconds: int


class Network:
    """What an operator allows, and what was done with it."""

    def __init__(
        self,
        allowed: Sequence[str] = (),
        *,
        private_hosts: Sequence[str] = (),
        folder: Path | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`allowed` are host:port, or the word `any`; connections are also written to a file in `folder`."""
        self._is_open = ANY in allowed
        self._allowed = frozenset(parse_target(one) for one in allowed if one != ANY)
        self._private_hosts = tuple(private_hosts)
        self._file = folder / LOG_NAME if folder is not None else None
        self._clock_ms = clock_ms
        self.log: deque[Reached] = deque(maxlen=KEPT_MAX)

    def check(self, manifest: Manifest) -> None:
        """Refuses a program that wants to reach what the operator does not allow."""
        if self._is_open:
            return
        missing = [one for one in manifest.resources.network if parse_target(one) not in self._allowed]
        if missing:
            allowed = ", ".join(sorted(map(str, self._allowed))) or "nothing"
            raise NetworkNotAllowed(wanted=" ".join(missing), allowed=allowed)

    def opened(self, sandbox: Sandbox, manifest: Manifest) -> Sandbox:
        """The same sandbox, with a proxy beside each instance of a program that may reach something."""
        self.check(manifest)
        return _Proxied(sandbox, self) if manifest.resources.network else sandbox

    async def proxy(self, manifest: Manifest) -> EgressProxy:
        """An open proxy for one instance."""
        proxy = EgressProxy(
            manifest.resources.network,
            private_hosts=self._private_hosts,
            on_connection=lambda connection: self._write_down(manifest.name, connection),
        )
        await proxy.open()
        return proxy

    def _write_down(self, service: str, connection: Connection) -> None:
        reached = Reached(
            self._clock_ms(), service, connection.target, connection.verdict,
            connection.bytes_out, connection.bytes_in, connection.milliseconds,
        )  # fmt: skip
        self.log.append(reached)
        if self._file is None:
            return
        try:
            if self._file.exists() and self._file.stat().st_size > LOG_BYTES_MAX:
                self._file.replace(self._file.with_suffix(".log.1"))
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(reached)) + "\n")
        except OSError as problem:
            log.warning("the log of connections cannot be written: %s", problem)


class _Proxied:
    """A sandbox whose instances each have a proxy."""

    def __init__(self, sandbox: Sandbox, network: Network) -> None:
        self._sandbox = sandbox
        self._network = network

    def probe(self) -> Capabilities:
        """What the sandbox itself reaches."""
        return self._sandbox.probe()

    async def start(self, release: Release, limits: Limits) -> Instance:
        """A running program and its proxy, which is closed when the program is stopped."""
        proxy = await self._network.proxy(release.manifest)
        try:
            instance = await self._sandbox.start(replace(release, egress=proxy.folder), limits)
        except BaseException:
            await proxy.close()
            raise
        return _ProxiedInstance(instance, proxy)


class _ProxiedInstance:
    """An instance and the proxy beside it."""

    def __init__(self, instance: Instance, proxy: EgressProxy) -> None:
        self._instance = instance
        self._proxy = proxy

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._instance.alive

    @property
    def in_flight(self) -> int:
        """How many calls it works on."""
        return self._instance.in_flight

    @property
    def interface(self) -> dict[str, Any]:
        """What the program says of its methods."""
        return self._instance.interface

    async def call(self, call: ProgramCall) -> ProgramReply:
        """One call."""
        return await self._instance.call(call)

    async def until_free(self, in_flight_max: int) -> None:
        """Wait until it works on no more than so many calls."""
        await self._instance.until_free(in_flight_max)

    async def usage(self) -> Usage:
        """What it has used."""
        return await self._instance.usage()

    async def stop(self) -> None:
        """Stop both."""
        try:
            await self._instance.stop()
        finally:
            await self._proxy.close()
