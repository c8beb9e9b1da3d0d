"""Programs that run as they lie there, and those whose manifest says by a command how they are made."""

from __future__ import annotations

from openresource.builds.recipes import Plan, Source, command_steps
from openresource.builds.toolchains import find_toolchain


class PlainRecipe:
    """Nothing but the manifest's own command; `toolchain` is what the program needs to run."""

    version = 1

    def __init__(self, language: str, toolchain: str = "sh") -> None:
        self._language = language
        self._toolchain = toolchain

    def suits(self, source: Source) -> bool:
        """Only what has a command of its own needs a build at all."""
        return self._language == "any" and bool(source.manifest.build.command)

    def plan(self, source: Source) -> Plan:
        """The command, if there is one, with all registries in reach."""
        steps = command_steps(source)
        return Plan(
            self._language,
            self.version,
            toolchains=(find_toolchain(self._toolchain),),
            registries=("python", "node", "go", "rust", "java") if steps else (),
            steps=steps,
            steps_have_network=bool(steps),
        )
