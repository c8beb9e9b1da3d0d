"""The driver: Ray chooses a machine with room, an actor of ours starts the program there in a sandbox of ours.

Ray's own messages can run code on its machines, so all of them must be this operator's; nothing of a program ever
travels in them but bytes.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any, Final

from openresource.adapters.ray.keeper import Keeper, packed
from openresource.sandbox import driver as seam
from openresource.sandbox.driver import (
    Capabilities,
    KindNotServed,
    Limits,
    Overloaded,
    ProgramCall,
    ProgramCrashed,
    ProgramError,
    ProgramReply,
    Release,
    SandboxUnavailable,
    Usage,
)

NOT_INSTALLED: Final = "ray is not installed: pip install 'openresource[ray]'"
RELEASE_BYTES_MAX: Final = 80 << 20
PROBE_SECONDS_MAX: Final = 120.0
PLACE_SECONDS: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0
NAMESPACE: Final = "openresource"


class RayNotInstalled(SandboxUnavailable):
    template = "Programs cannot be placed by Ray here: {why_not}."
    way_out = "Install it on every machine of the cluster, in the same version as here."


class RayPlacement:
    """Sandboxes on the machines of a Ray cluster."""

    def __init__(self, address: str = "auto") -> None:
        """`address` is the cluster's, `auto` the one that was started on this machine, `local` one for this process."""
        self._address = address
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """What a machine of the cluster reaches, told by an actor there."""
        if self._capabilities is None:
            try:
                self._capabilities = self._probe()
            except SandboxUnavailable as refusal:
                self._capabilities = Capabilities("bubblewrap", False, refusal.message)
        return self._capabilities

    async def start(self, release: Release, limits: Limits) -> RayInstance:
        """A running program on whichever machine has room."""
        if release.runtime is not None or release.mounts or release.egress is not None:
            raise KindNotServed(
                kind=release.manifest.run.kind, level="ray",
                reason="packages, artifacts and networks are not brought to other machines",
            )  # fmt: skip
        if release.manifest.calls is not None:
            raise KindNotServed(
                kind=release.manifest.run.kind, level="ray",
                reason="it calls other services, and the broker is on this machine",
            )  # fmt: skip
        ray = await asyncio.to_thread(self._connected)
        archive = await asyncio.to_thread(packed, release.folder)
        if len(archive) > RELEASE_BYTES_MAX:
            raise KindNotServed(
                kind=release.manifest.run.kind, level="ray", reason="its release is too large"
            )
        actor = (
            ray.remote(Keeper)
            .options(num_cpus=limits.cpu, memory=limits.memory_bytes, max_restarts=0, max_concurrency=limits.concurrency + 4)
            .remote()
        )  # fmt: skip
        try:
            async with asyncio.timeout(PLACE_SECONDS + limits.startup_seconds):
                told = await actor.start.remote(archive, asdict(limits))
        except (ray.exceptions.RayError, TimeoutError) as problem:
            ray.kill(actor)
            raise SandboxUnavailable(
                level="ray", why_not=str(problem)[:300] or "no machine had room"
            ) from None
        if "refusal" in told:
            ray.kill(actor)
            raise _refusal(told)
        return RayInstance(ray, actor, limits, told["interface"])

    def _connected(self) -> Any:
        if importlib.util.find_spec("ray") is None:
            raise RayNotInstalled(level="ray", why_not=NOT_INSTALLED)
        import ray

        if not ray.is_initialized():
            address = None if self._address == "local" else self._address
            try:
                ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, include_dashboard=False)
            except Exception as problem:
                # Ray says with the plainest kind of exception that it could not start.
                raise SandboxUnavailable(level="ray", why_not=str(problem)[:300]) from None
        return ray

    def _probe(self) -> Capabilities:
        ray = self._connected()
        actor = ray.remote(Keeper).remote()
        try:
            told = ray.get(actor.probe.remote(), timeout=PROBE_SECONDS_MAX)
        except ray.exceptions.RayError as problem:
            raise SandboxUnavailable(level="ray", why_not=str(problem)[:300]) from None
        finally:
            ray.kill(actor)
        if not told["level"]:
            return Capabilities("bubblewrap", False, told["why_not"])
        return Capabilities(
            told["level"], True, memory=told["memory"], processes=told["processes"], cpu=told["cpu"],
            disk=told["disk"], kinds=tuple(told["kinds"]), details=(("placed by", f"ray {ray.__version__}"),),
        )  # fmt: skip


class RayInstance:
    """A program on another machine, as the seam wants it."""

    def __init__(self, ray: Any, actor: Any, limits: Limits, interface: dict[str, Any]) -> None:
        self._ray = ray
        self._actor = actor
        self._limits = limits
        self._interface = interface
        self._in_flight = 0
        self._is_alive = True
        self._changed = asyncio.Condition()

    @property
    def alive(self) -> bool:
        """Whether it took the last call."""
        return self._is_alive

    @property
    def in_flight(self) -> int:
        """How many calls it works on."""
        return self._in_flight

    @property
    def interface(self) -> dict[str, Any]:
        """What the program says of its methods."""
        return self._interface

    async def call(self, call: ProgramCall) -> ProgramReply:
        """One call; the machine's loss is the program's."""
        if not self._is_alive:
            raise ProgramCrashed(reason="it has ended", stderr="")
        if self._in_flight >= self._limits.concurrency:
            raise Overloaded(concurrency=self._limits.concurrency)
        self._in_flight += 1
        try:
            told = await self._actor.call.remote(asdict(replace(call, asker=None)))
        except self._ray.exceptions.RayError as problem:
            self._is_alive = False
            raise ProgramCrashed(reason="its machine is gone", stderr=str(problem)[:300]) from None
        finally:
            self._in_flight -= 1
            async with self._changed:
                self._changed.notify_all()
        self._is_alive = bool(told["alive"])
        if "refusal" in told:
            raise _refusal(told)
        body = told["body"]
        return ProgramReply(
            told["status"], told["content_type"], body if isinstance(body, bytes) else _Whole(body),
            told["cpu_ms"], told["wall_ms"],
        )  # fmt: skip

    async def until_free(self, in_flight_max: int) -> None:
        """Wait until it works on no more than so many calls, or has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_alive or self._in_flight <= in_flight_max)

    async def usage(self) -> Usage:
        """What it has used; nothing is known of one whose machine is gone."""
        try:
            return Usage(**await self._actor.usage.remote())
        except self._ray.exceptions.RayError:
            return Usage(0, 0, 0, 0, 0)

    async def stop(self) -> None:
        """Stop the program, then the actor."""
        self._is_alive = False
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self._actor.stop.remote()
        except (self._ray.exceptions.RayError, TimeoutError):
            # The sandbox dies with the actor's process.
            pass
        self._ray.kill(self._actor)


class _Whole:
    """A stream whose chunks are all here."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Nothing more comes."""
        self._chunks = iter(())


def _refusal(told: dict[str, Any]) -> ProgramError:
    """The typed refusal that was told from another machine; an unknown one is a crash."""
    kind = getattr(seam, str(told["refusal"]), None)
    if isinstance(kind, type) and issubclass(kind, ProgramError):
        return kind(**told["facts"])
    return ProgramCrashed(reason=str(told["refusal"]), stderr="")
