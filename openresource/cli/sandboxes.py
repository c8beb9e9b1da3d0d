"""Which sandbox this machine gives: the strongest level that really starts, found by starting it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from openresource.sandbox.driver import Capabilities, Sandbox, SandboxUnavailable

# Interpreters that people keep in their own folders; programs see what lies below /usr anyway.
TOOLS = ("node",)


@dataclass(frozen=True, slots=True)
class Found:
    """A sandbox that starts here, and what each level said."""

    sandbox: Sandbox | None
    capabilities: tuple[Capabilities, ...]

    @property
    def level(self) -> str:
        """The level that was reached; empty if none was."""
        reached = [one.level for one in self.capabilities if one.available]
        return reached[0] if reached else ""

    def required(self) -> Sandbox:
        """The sandbox, or a refusal with what each level lacks."""
        if self.sandbox is None:
            reasons = "; ".join(f"{one.level}: {one.why_not}" for one in self.capabilities)
            raise SandboxUnavailable(level="any", why_not=reasons)
        return self.sandbox


def find_sandbox(*, try_all: bool = False) -> Found:
    """The strongest sandbox that starts here; with `try_all` weaker ones are tried as well."""
    from openresource.adapters.bubblewrap.driver import Bubblewrap
    from openresource.adapters.confined.driver import Confined

    chosen: Sandbox | None = None
    seen: list[Capabilities] = []
    tools = own_tools()
    sandboxes: tuple[Sandbox, ...] = (Bubblewrap(tools=tools), Confined(tools=tools))
    for sandbox in sandboxes:
        if chosen is not None and not try_all:
            break
        seen.append(sandbox.probe())
        if seen[-1].available and chosen is None:
            chosen = sandbox
    return Found(chosen, tuple(seen))


def own_tools() -> tuple[Path, ...]:
    """Interpreters on this machine's PATH that lie outside of /usr: each is shown to programs as that one file."""
    found = []
    for name in TOOLS:
        path = shutil.which(name)
        if path is not None and not os.path.realpath(path).startswith("/usr/"):
            found.append(Path(path))
    return tuple(found)
