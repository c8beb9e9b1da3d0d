"""Node: packages by package-lock.json into a layer, without running their scripts unless the program names them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from openresource.builds.recipes import (
    BUILD,
    DEPENDENCIES,
    OUT,
    WORK,
    CannotBuild,
    Layer,
    Plan,
    Source,
    Step,
    command_steps,
)  # fmt: skip
from openresource.builds.registries import find_registry
from openresource.builds.toolchains import Toolchain, find_toolchain

_PACKAGE = re.compile(r"(?:@[a-z0-9._~-]{1,100}/)?[a-z0-9._~-]{1,100}")
TRUSTED_MAX = 50
# What decides which packages are installed; scripts and the program's own words do not.
MEMBERS = ("name", "version", "dependencies", "optionalDependencies", "peerDependencies", "devDependencies",
           "overrides", "workspaces", "engines", "bundleDependencies", "peerDependenciesMeta")  # fmt: skip


class NodeRecipe:
    """npm; what packages want to run when they are installed is run for those in `trustedDependencies` alone."""

    version = 1

    def suits(self, source: Source) -> bool:
        """A package.json, and a command that Node or its tools carry out."""
        command = source.manifest.run.command
        return source.has("package.json") and bool(command) and command[0] in ("node", "npm", "npx")

    def plan(self, source: Source) -> Plan:
        """`npm ci` from the lock file; without one npm resolves once, and the layer keeps what it found."""
        node = find_toolchain("node")
        package = _package(source)
        command = command_steps(source)
        wanted = [package.get("dependencies"), package.get("optionalDependencies")]
        wanted += [package.get("devDependencies")] if command else []
        layer = None
        toolchains: tuple[Toolchain, ...] = (node,)
        if any(wanted) and not source.has("node_modules/.package-lock.json"):
            toolchains = (node, find_toolchain("npm"))
            layer = self._layer(source, package, with_tools=bool(command))
        steps: list[Step] = []
        if layer is not None and command:
            # A copy: tools write beside their packages.
            steps.append(Step(("cp", "-r", f"{DEPENDENCIES}/node_modules", f"{WORK}/node_modules")))
        steps += [
            Step(step.words, step.folder, (("NODE_ENV", "production"), ("PATH", _path(toolchains))))
            for step in command
        ]
        return Plan(
            "node",
            self.version,
            toolchains=toolchains,
            registries=("node",),
            dependencies=layer,
            steps=tuple(steps),
            carried=(("node_modules", "node_modules"),) if layer is not None else (),
            runs_with=(node,),
            environment=(("NODE_ENV", "production"),),
        )

    def _layer(self, source: Source, package: dict[str, Any], *, with_tools: bool) -> Layer:
        kept = {member: package[member] for member in MEMBERS if member in package}
        files = {"package.json": json.dumps(kept, sort_keys=True).encode()}
        lock = next((name for name in ("package-lock.json", "npm-shrinkwrap.json") if source.has(name)), "")
        registry = find_registry("node")
        common = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress",
                  "--cache", f"{BUILD}/tmp/npm", f"--registry={registry.addresses[0]}")  # fmt: skip
        omitted = () if with_tools else ("--omit=dev",)
        variables = (("npm_config_userconfig", f"{BUILD}/tmp/npmrc"), ("NODE_USE_ENV_PROXY", "0"))
        steps = []
        if lock:
            files[lock] = source.read(lock)
        else:
            resolve = ("npm", "install", "--package-lock-only", *common)
            steps.append(Step(resolve, environment=variables))
        steps.append(Step(("npm", "ci", *omitted, *common), environment=variables))
        trusted = _trusted(package)
        if trusted:
            rebuild = ("npm", "rebuild", *[word for word in common if word != "--ignore-scripts"], *trusted)
            steps.append(Step(rebuild, environment=(*variables, *_headers(find_toolchain("node")))))
        script = f"mkdir -p node_modules && mv node_modules {OUT}/node_modules && cp package-lock.json {OUT}/ || cp npm-shrinkwrap.json {OUT}/package-lock.json"
        steps.append(Step(("/bin/sh", "-ec", script)))
        return Layer(files, tuple(steps), remarks=tuple(trusted))


def _package(source: Source) -> dict[str, Any]:
    if not source.has("package.json"):
        return {}
    try:
        package = json.loads(source.read("package.json"))
    except (ValueError, RecursionError):
        package = None
    if not isinstance(package, dict):
        raise CannotBuild(language="node", reason="package.json is not a JSON object")
    return package


def _trusted(package: dict[str, Any]) -> list[str]:
    named = package.get("trustedDependencies")
    names = named[:TRUSTED_MAX] if isinstance(named, list) else []
    return [name for name in names if isinstance(name, str) and _PACKAGE.fullmatch(name)]


def _headers(node: Toolchain) -> tuple[tuple[str, str], ...]:
    """Where Node's own headers lie, which its compiler would otherwise fetch from where builds may not go."""
    prefix = Path(node.shown).parent.parent
    real = node.executable.resolve().parent.parent
    has_headers = (real / "include/node/node.h").exists()
    return (("npm_config_nodedir", str(prefix)),) if has_headers else ()


def _path(toolchains: tuple[Toolchain, ...]) -> str:
    folders = [folder for toolchain in toolchains for folder in toolchain.path]
    return ":".join((f"{WORK}/node_modules/.bin", *folders, "/usr/local/bin", "/usr/bin", "/bin"))
