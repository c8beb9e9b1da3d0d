"""Go: modules by go.mod and go.sum into a layer, then one static program without a network."""

from __future__ import annotations

import re

from openresource.builds.recipes import (
    BASE,
    BUILD,
    DEPENDENCIES,
    HOME,
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
from openresource.builds.toolchains import find_toolchain

# What almost every service imports, with all that these import.
COMMON = ("net/http", "encoding/json", "bufio", "flag", "log", "regexp", "text/template", "compress/gzip")
_PACKAGE_MAIN = re.compile(r"(?m)^package main\b")
_REQUIRE = re.compile(r"(?m)^\s*(?:require\s+)?\(?\s*[\w.-]+\.[\w./~-]+\s+v[0-9]")
_C = re.compile(r'(?m)^\s*(?:import\s+)?"C"\s*$')
MAINS_MAX = 200


class GoRecipe:
    """`go build` of the one main package, or of the one that is named like the program."""

    version = 1

    def suits(self, source: Source) -> bool:
        """A module, and a command that is not there yet."""
        return source.has("go.mod") and bool(source.target)

    def plan(self, source: Source) -> Plan:
        """Download by go.sum alone; compile with the network closed."""
        go = find_toolchain("go")
        if not source.has("go.mod"):
            raise CannotBuild(
                language="go", reason="there is no go.mod", remedy="Run `go mod init` and publish it."
            )
        uses_c = any(_C.search(source.text(name)) for name in source.ending(".go")[:MAINS_MAX])
        toolchains = (go, find_toolchain("c")) if uses_c else (go,)
        environment = {
            "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod -buildvcs=false -trimpath", "CGO_ENABLED": "1" if uses_c else "0",
            "GOCACHE": f"{BUILD}/tmp/go-cache", "GOPATH": f"{HOME}/go", "GOMODCACHE": f"{HOME}/go/pkg/mod",
        }  # fmt: skip
        vendored = source.has("vendor/modules.txt")
        if vendored:
            environment["GOFLAGS"] = "-mod=vendor -buildvcs=false -trimpath"
        needs_modules = bool(_REQUIRE.search(source.text("go.mod"))) and not vendored
        layer = self._layer(source, environment) if needs_modules else None
        # The common part of the standard library, compiled with the same settings, saves a minute; a copy, as no build may write it.
        variables = tuple({**environment, "GOCACHE": f"{OUT}/cache", "GOPROXY": "off"}.items())
        base = Layer({"go.mod": b"module base\n"}, (Step(("go", "build", *COMMON), environment=variables),))
        steps: list[Step] = [Step(("cp", "-r", f"{BASE}/cache", environment["GOCACHE"]))]
        if layer is not None:
            # What was downloaded was checked then; the layer stands in for the proxy.
            environment |= {"GOPROXY": f"file://{DEPENDENCIES}/download", "GONOSUMDB": "*", "GONOSUMCHECK": "1",
                            "GOSUMDB": "off"}  # fmt: skip
            if not source.has("go.sum"):
                copied = ("cp", f"{DEPENDENCIES}/go.mod", f"{DEPENDENCIES}/go.sum", WORK)
                steps.append(Step(copied))
        else:
            environment["GOPROXY"] = "off"
        given = command_steps(source)
        if not given:
            target = source.target or f"bin/{source.manifest.name}"
            given = (Step(("go", "build", "-ldflags=-s -w", "-o", f"{WORK}/{target}", self._main(source))),)
        steps += [Step(step.words, step.folder, tuple(environment.items())) for step in given]
        return Plan(
            "go",
            self.version,
            toolchains=toolchains,
            registries=("go",),
            dependencies=layer,
            base=base,
            steps=tuple(steps),
        )

    def _layer(self, source: Source, environment: dict[str, str]) -> Layer:
        files = {name: source.read(name) for name in ("go.mod", "go.sum") if source.has(name)}
        into = {**environment, "GOPROXY": ",".join(find_registry("go").addresses)}
        words = ("go", "mod", "download") if "go.sum" in files else ("go", "mod", "download", "all")
        variables = tuple(into.items())
        steps = (
            Step(words, environment=variables),
            Step(("cp", "-r", f"{HOME}/go/pkg/mod/cache/download", f"{OUT}/download")),
            Step(("cp", "go.mod", "go.sum", OUT)),
        )
        return Layer(files, steps)

    def _main(self, source: Source) -> str:
        """The package to build: that of the folder itself, else the one below cmd that fits."""
        folders = {
            name.rpartition("/")[0]
            for name in source.ending(".go")[:MAINS_MAX]
            if not name.endswith("_test.go") and _PACKAGE_MAIN.search(source.text(name))
        }
        if "" in folders:
            return "."
        named = sorted(folder for folder in folders if folder.rpartition("/")[2] == source.manifest.name)
        candidates = named or sorted(folders)
        if not candidates:
            raise CannotBuild(language="go", reason="no file says `package main`")
        if len(candidates) > 1:
            raise CannotBuild(
                language="go",
                reason=f"there are several programs: {', '.join(candidates[:8])}",
                remedy='Name one in [build] command, such as "go build -o server ./cmd/server".',
            )
        return f"./{candidates[0]}"
