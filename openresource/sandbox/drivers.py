"""Chooses the driver of a program: the first in the operator's order that starts here and gives what it asks for.

A driver is asked what it reaches only when a program needs to know, as the answer comes from a real start. The order is
a preference, not a ranking by strength: a stronger wall is taken where a publisher or an operator asks for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from openresource.market.manifests import Manifest
from openresource.sandbox.driver import LEVELS, Capabilities, KindNotServed, Sandbox, SandboxUnavailable

DRIVERS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Choice:
    """A driver and what it has shown that it reaches."""

    sandbox: Sandbox
    capabilities: Capabilities

    @property
    def level(self) -> str:
        """The level that a program reaches under it."""
        return self.capabilities.level


class Drivers:
    """The drivers of one machine, the preferred first."""

    def __init__(self, sandboxes: Sequence[Sandbox]) -> None:
        assert len(sandboxes) <= DRIVERS_MAX
        self._sandboxes = tuple(sandboxes)
        self._seen: dict[int, Capabilities] = {}
        self._locks = [threading.Lock() for _ in self._sandboxes]

    @property
    def capabilities(self) -> tuple[Capabilities, ...]:
        """What every driver reaches here; those that were not asked yet are started now, side by side."""
        with ThreadPoolExecutor(max(1, len(self._sandboxes)), "sandbox-probe") as threads:
            return tuple(threads.map(self._probe, range(len(self._sandboxes))))

    @property
    def known(self) -> tuple[Capabilities, ...]:
        """What those drivers reach that were asked so far."""
        return tuple(self._seen[number] for number in sorted(self._seen))

    @property
    def default(self) -> Sandbox | None:
        """The driver of programs that ask for nothing special; None where no driver starts."""
        choice = self._default()
        return choice.sandbox if choice is not None else None

    @property
    def level(self) -> str:
        """The level of the default driver; empty where no driver starts."""
        choice = self._default()
        return choice.level if choice is not None else ""

    def required(self) -> Sandbox:
        """The default driver, or a refusal with what each driver lacks."""
        sandbox = self.default
        if sandbox is None:
            reasons = "; ".join(f"{one.level}: {one.why_not}" for one in self.capabilities)
            raise SandboxUnavailable(level="any", why_not=reasons or "no driver is set up")
        return sandbox

    def level_towards(self, min_level: str) -> str:
        """The level of the preferred driver that satisfies a demand, else of the strongest there is."""
        strongest = ""
        for choice in self._available():
            if rank(choice.level) >= rank(min_level):
                return choice.level
            strongest = max(strongest, choice.level, key=rank)
        return strongest

    def choose(self, manifest: Manifest, min_level: str = "") -> Choice:
        """The driver that runs a program, or a refusal that says what would."""
        reasons: list[str] = []
        for choice in self._available():
            reason = _lacks(choice.capabilities, manifest, min_level)
            if not reason:
                return choice
            reasons.append(f"{choice.level} {reason}")
        for one in self.known:
            if not one.available and manifest.run.kind in one.kinds and rank(one.level) >= rank(min_level):
                reasons.append(f"{one.level} does not start here ({one.why_not})")
        raise KindNotServed(
            kind=manifest.run.kind,
            level=min_level or "any",
            reason="; ".join(reasons) or "no sandbox starts on this machine",
        )

    def for_program(self, manifest: Manifest, min_level: str = "") -> Sandbox:
        """The sandbox that runs a program, or a refusal that says what would."""
        return self.choose(manifest, min_level).sandbox

    def _default(self) -> Choice | None:
        first: Choice | None = None
        for choice in self._available():
            if "python" in choice.capabilities.kinds and not choice.capabilities.gpus:
                return choice
            first = first or choice
        return first

    def _available(self) -> Iterator[Choice]:
        for number, sandbox in enumerate(self._sandboxes):
            capabilities = self._probe(number)
            if capabilities.available:
                yield Choice(sandbox, capabilities)

    def _probe(self, number: int) -> Capabilities:
        with self._locks[number]:
            if number not in self._seen:
                self._seen[number] = self._sandboxes[number].probe()
            return self._seen[number]


def rank(level: str) -> int:
    """How strong a level is; no demand is 0, and what nobody knows is weaker than all."""
    return LEVELS.get(level, -1) if level else 0


def enforced_text(capabilities: Capabilities) -> str:
    """Who holds which limit, in one line that an offer can carry."""
    words = (
        f"memory={capabilities.memory} pids={capabilities.processes} "
        f"cpu={capabilities.cpu} disk={capabilities.disk}"
    )
    return f"{words} gpu=untested" if capabilities.gpus else words


def _suitable(capabilities: Capabilities, manifest: Manifest) -> int:
    """How many devices are what a program asks for."""
    wanted = manifest.resources
    if not capabilities.gpu_kinds:
        # A cluster places programs on devices itself.
        return capabilities.gpus
    counts: dict[str, int] = {}
    for vendor, memory_bytes in capabilities.gpu_kinds:
        if wanted.gpu_vendor in ("any", vendor) and memory_bytes >= wanted.gpu_memory_bytes:
            counts[vendor] = counts.get(vendor, 0) + 1
    return max(counts.values(), default=0)


def _lacks(capabilities: Capabilities, manifest: Manifest, min_level: str) -> str:
    """What is missing for a program; empty if nothing is."""
    resources = manifest.resources
    if manifest.run.kind not in capabilities.kinds:
        return f"runs {', '.join(capabilities.kinds)} programs"
    if rank(capabilities.level) < rank(min_level):
        return f"is weaker than {min_level}"
    if resources.gpu_count > (suitable := _suitable(capabilities, manifest)):
        return f"has {suitable or 'no'} GPU for it"
    if capabilities.gpus and not resources.gpu_count:
        return "is for programs that need a GPU"
    if resources.network and capabilities.network != "proxy":
        return "opens no network"
    return ""
