"""C and C++: CMake where there is a CMakeLists.txt, else make, else the compiler itself over all sources.

A module of WebAssembly is made of all C sources by clang, against the C library of WASI.
"""

from __future__ import annotations

from openresource.builds.recipes import WORK, CannotBuild, Plan, Source, Step, command_steps
from openresource.builds.toolchains import WASI_TARGET, Toolchain, find_toolchain, missing

C_ENDINGS = (".c",)
CPP_ENDINGS = (".cc", ".cpp", ".cxx")
MAKEFILES = ("Makefile", "makefile", "GNUmakefile")


class CRecipe:
    """The compiler of this machine; a program's libraries are those below /usr."""

    version = 1

    def suits(self, source: Source) -> bool:
        """A command that is not there yet, and sources or a Makefile beside it."""
        has_sources = any("/" not in name for name in source.ending(*C_ENDINGS, *CPP_ENDINGS))
        has_tool = source.has("CMakeLists.txt") or any(source.has(name) for name in MAKEFILES)
        return bool(source.target) and (has_sources or has_tool) and not source.has("go.mod")

    def plan(self, source: Source) -> Plan:
        """The steps of whatever tool the folder is made for."""
        run = source.manifest.run
        if run.kind == "wasm" and not command_steps(source):
            return self._module(source, run.module)
        toolchains: list[Toolchain] = [find_toolchain("c")]
        steps = command_steps(source)
        if steps:
            if any(source.has(name) for name in MAKEFILES):
                toolchains.append(find_toolchain("make"))
        elif source.has("CMakeLists.txt"):
            toolchains += [find_toolchain("cmake"), find_toolchain("make")]
            steps = (
                Step(("cmake", "-S", ".", "-B", "build", "-DCMAKE_BUILD_TYPE=Release")),
                Step(("cmake", "--build", "build", "--parallel", "2")),
            )
        elif any(source.has(name) for name in MAKEFILES):
            toolchains.append(find_toolchain("make"))
            steps = (Step(("make", "-j2")),)
        else:
            steps = (Step(self._compile(source)),)
        return Plan(
            "c",
            self.version,
            toolchains=tuple(toolchains),
            steps=steps,
            dropped=("build/CMakeFiles",),
        )

    def _module(self, source: Source, module: str) -> Plan:
        sources = source.ending(*C_ENDINGS)
        if not sources:
            raise CannotBuild(language="c", reason=f"there is no source of which {module} could be made")
        toolchain = find_toolchain("wasm-c")
        # No flag that lets the compiler change what a double is: the module is compared bit for bit.
        words = (
            toolchain.shown,
            WASI_TARGET,
            "-O2",
            "-ffp-contract=off",
            "-o",
            f"{WORK}/{module}",
            *sources,
            "-lm",
        )
        return Plan("c", self.version, toolchains=(toolchain,), steps=(Step(words),))

    def _compile(self, source: Source) -> tuple[str, ...]:
        cpp = source.ending(*CPP_ENDINGS)
        sources = [*source.ending(*C_ENDINGS), *cpp]
        if not sources or not source.target:
            raise CannotBuild(
                language="c",
                reason="there is no source, or [run] command names no file to make, such as ./program",
            )
        compiler = "c++" if cpp else "cc"
        if cpp:
            try:
                find_toolchain("c++")
            except Exception as problem:
                raise missing("c") from problem
        return (compiler, "-O2", "-o", f"{WORK}/{source.target}", *sources, "-lm", "-pthread")
