"""Rust: crates by Cargo.lock into a layer, then `cargo build --release` without a network."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from openresource.builds.recipes import (
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

# Before this version Cargo's index was a repository.
SPARSE_SINCE = (1, 68)
CONFIGURED = """[source.crates-io]
replace-with = "configured"
[source.configured]
registry = "sparse+{address}"
"""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
INTERMEDIATE = ("target/release/deps", "target/release/build", "target/release/incremental",
                "target/release/.fingerprint", "target/debug")  # fmt: skip
SOURCES = f"""[source.crates-io]
replace-with = "layer"
[source.layer]
directory = "{DEPENDENCIES}/vendor"
"""


class RustRecipe:
    """Cargo; linking needs the machine's C compiler."""

    version = 1

    def suits(self, source: Source) -> bool:
        """A Cargo.toml, and a command that is not there yet."""
        return source.has("Cargo.toml") and bool(source.target)

    def plan(self, source: Source) -> Plan:
        """Vendor by the lock file alone; compile with the network closed."""
        toolchains = (find_toolchain("rust"), find_toolchain("c"))
        if not source.has("Cargo.toml"):
            raise CannotBuild(language="rust", reason="there is no Cargo.toml")
        variables = (
            ("CARGO_HOME", f"{HOME}/cargo"), ("CARGO_TARGET_DIR", f"{BUILD}/tmp/target"), ("CARGO_NET_RETRY", "2"),
            ("CARGO_TERM_COLOR", "never"), ("RUSTFLAGS", f"--remap-path-prefix={WORK}=."),
        )  # fmt: skip
        locked = ("--locked",) if source.has("Cargo.lock") else ()
        manifests = [name for name in source.names if name.rpartition("/")[2] == "Cargo.toml"]
        layer = (
            self._layer(source, manifests, locked, variables) if self._has_crates(source, manifests) else None
        )
        steps: list[Step] = []
        if layer is not None:
            script = f"mkdir -p {HOME}/cargo && cp {DEPENDENCIES}/config.toml {HOME}/cargo/config.toml"
            if not locked:
                script += f" && cp {DEPENDENCIES}/Cargo.lock {WORK}/Cargo.lock"
            steps.append(Step(("/bin/sh", "-ec", script)))
        given = command_steps(source)
        if given:
            # A command of its own finds what it has made where Cargo usually puts it.
            usual = (
                *[pair for pair in variables if pair[0] != "CARGO_TARGET_DIR"],
                ("CARGO_NET_OFFLINE", "true"),
            )
            steps += [Step(step.words, step.folder, usual) for step in given]
        else:
            steps.append(Step(("cargo", "build", "--release", "--offline", *locked), environment=variables))
            steps.append(Step(self._copy(source)))
        return Plan(
            "rust",
            self.version,
            toolchains=toolchains,
            registries=("rust",),
            dependencies=layer,
            steps=tuple(steps),
            dropped=INTERMEDIATE if given else ("target",),
        )

    def _layer(
        self,
        source: Source,
        manifests: list[str],
        locked: tuple[str, ...],
        variables: tuple[tuple[str, str], ...],
    ) -> Layer:
        files = {name: source.read(name) for name in manifests}
        if locked:
            files["Cargo.lock"] = source.read("Cargo.lock")
        for name in manifests:
            # Cargo reads no crate that has no source at all.
            folder = name.rpartition("/")[0]
            for stub in ("src/lib.rs", "src/main.rs"):
                files[f"{folder}/{stub}" if folder else stub] = (
                    b"fn main() {}\n" if stub == "src/main.rs" else b""
                )
        options, more = " ".join(locked), variables
        registry = find_registry("rust")
        is_old = tuple(map(int, find_toolchain("rust").version.split(".")[:2])) < SPARSE_SINCE
        if registry.private_hosts:
            files["registry.toml"] = CONFIGURED.format(address=registry.addresses[0]).encode()
            options += " --respect-source-config"
        if is_old:
            # They know this kind of index, but would rather ask a host that is no registry.
            more = (*variables, ("RUSTC_BOOTSTRAP", "1"), ("CARGO_UNSTABLE_SPARSE_REGISTRY", "true"))
        script = (
            f"mkdir -p {HOME}/cargo && if [ -f registry.toml ]; then cp registry.toml {HOME}/cargo/config.toml; fi && "
            f"cargo vendor {options} {OUT}/vendor > /dev/null && cp Cargo.lock {OUT}/Cargo.lock"
            f" && cp sources.toml {OUT}/config.toml"
        )
        files["sources.toml"] = SOURCES.encode()
        return Layer(files, (Step(("/bin/sh", "-ec", script), environment=more),))

    def _has_crates(self, source: Source, manifests: list[str]) -> bool:
        text = "".join(source.text(name) for name in manifests)
        return "dependencies" in text or "source = " in source.text("Cargo.lock")

    def _copy(self, source: Source) -> tuple[str, ...]:
        """Put the program where its command looks for it."""
        target = source.target
        base = target.rpartition("/")[2]
        names = [base, source.manifest.name, _package_name(source.text("Cargo.toml"))]
        wanted = " ".join(dict.fromkeys(name for name in names if _NAME.fullmatch(name)))
        folder = f"{BUILD}/tmp/target/release"
        script = (
            'target="$1"; mkdir -p "$(dirname "$target")"; '
            f'for name in {wanted}; do if [ -f "{folder}/$name" ]; then cp "{folder}/$name" "$target"; exit 0; fi; done; '
            f'found="$(find {folder} -maxdepth 1 -type f -perm -u+x ! -name "*.so")"; '
            '[ "$(printf "%s\\n" "$found" | wc -l)" = 1 ] && [ -n "$found" ] && cp "$found" "$target" && exit 0; '
            'echo "several programs were built, and none has the name of the command"; exit 1'
        )
        return ("/bin/sh", "-ec", script, "sh", f"{WORK}/{target or 'bin/' + source.manifest.name}")


def _package_name(text: str) -> str:
    try:
        table: Any = tomllib.loads(text).get("package")
    except (ValueError, RecursionError):
        return ""
    name = table.get("name") if isinstance(table, dict) else ""
    return name if isinstance(name, str) else ""
