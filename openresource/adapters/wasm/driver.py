"""The driver: a module becomes a worker inside the sandbox below, with nothing but the engine and the release to see."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from openresource.adapters.wasm.cache import COMPILED_BYTES_MAX, CompiledModules, name_of
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import (
    Capabilities,
    Instance,
    KindNotServed,
    Limits,
    Mount,
    ProgramCall,
    ProgramDidNotStart,
    ProgramRefused,
    Release,
    Sandbox,
    SandboxUnavailable,
)
from openresource.sandbox.layout import WASM_COMPILED, WASM_ENGINE, WASM_ENGINE_BYTES, WASM_GUEST
from openresource.sandbox.probing import why_not_started

LEVEL: Final = "wasm"
KINDS: Final = ("wasm",)
TONGUES: Final = ("jsonl", "cli")
GUEST_FOLDER: Final = Path(__file__).parent / "guest"
COMPILE_MEMORY_BYTES: Final = 2 << 30
COMPILE_SECONDS_MAX: Final = 120.0
ENGINE_PROCESSES: Final = 8
MODULE_BYTES_MAX: Final = 64 << 20
NO_ENGINE: Final = "wasmtime is not installed: pip install 'openresource[wasm]'"
_MANIFEST: Final = 'name = "probe"\n[run]\nkind = "wasm"\nmodule = "probe.wat"\nspeaks = "cli"\n'
_MODULE: Final = '(module (memory (export "memory") 1) (func (export "_start")))'


class Wasm:
    """The sandbox of level `wasm`, over the first of the given ones that starts here."""

    def __init__(self, inner: Sequence[Sandbox], *, cache: Path) -> None:
        """`cache` is a private folder for what modules are compiled to."""
        self._candidates = tuple(inner)
        self._inner: Sandbox | None = None
        self._modules = CompiledModules(cache)
        self._compiling: dict[str, asyncio.Lock] = {}
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """What this driver reaches here, found once by a real start."""
        if self._capabilities is None:
            self._capabilities = self._probe()
        return self._capabilities

    async def start(self, release: Release, limits: Limits) -> Instance:
        """A running worker with the compiled module."""
        run = release.manifest.run
        if run.kind not in KINDS:
            raise KindNotServed(kind=run.kind, level=LEVEL, reason="it runs modules of WebAssembly")
        if run.tongue not in TONGUES:
            raise KindNotServed(
                kind=run.kind,
                level=LEVEL,
                reason=f"WASI gives a module no sockets to speak {run.tongue} on",
                remedy='Let it read its input: speaks = "jsonl" or speaks = "cli".',
            )
        engine = engine_folder()
        if engine is None:
            raise SandboxUnavailable(level=LEVEL, why_not=NO_ENGINE)
        inner = await asyncio.to_thread(self._sandbox)
        compiled = await self._compiled(inner, release, engine, limits)
        shown = replace(
            release,
            mounts=(*release.mounts, *_tools(engine), Mount(compiled, WASM_COMPILED)),
        )
        return await inner.start(
            shown,
            replace(
                limits,
                memory_bytes=limits.memory_bytes + WASM_ENGINE_BYTES,
                processes=limits.concurrency + ENGINE_PROCESSES,
            ),
        )

    async def _compiled(self, inner: Sandbox, release: Release, engine: Path, limits: Limits) -> Path:
        source = release.folder / release.manifest.run.module
        if not source.is_file() or source.is_symlink() or source.stat().st_size > MODULE_BYTES_MAX:
            raise ProgramDidNotStart(
                reason=f"there is no module {release.manifest.run.module} of at most {MODULE_BYTES_MAX} bytes",
                stderr="",
                remedy="Build it into the release, and name it at [run] module.",
            )
        name = await asyncio.to_thread(name_of, source, importlib.metadata.version("wasmtime"))
        async with self._compiling.setdefault(name, asyncio.Lock()):
            found = await asyncio.to_thread(self._modules.find, name)
            if found is None:
                made = await self._compile(inner, release, engine, limits)
                found = await asyncio.to_thread(self._modules.keep, name, made)
        if len(self._compiling) > 1_000:
            self._compiling.clear()
        return found

    async def _compile(self, inner: Sandbox, release: Release, engine: Path, limits: Limits) -> bytes:
        """Compile a module inside the sandbox: a compiler that meets a hostile module is bounded as well."""
        roomy = replace(
            limits,
            memory_bytes=max(limits.memory_bytes, COMPILE_MEMORY_BYTES),
            output_bytes=COMPILED_BYTES_MAX,
            processes=ENGINE_PROCESSES,
            call_seconds=COMPILE_SECONDS_MAX,
        )
        worker = await inner.start(replace(release, mounts=(*release.mounts, *_tools(engine))), roomy)
        try:
            reply = await worker.call(ProgramCall("compile", "/", b"", deadline_seconds=COMPILE_SECONDS_MAX))
        except ProgramRefused as refusal:
            reason = f"the module cannot be compiled: {refusal.facts['reason']}"
            raise ProgramDidNotStart(
                reason=reason, stderr="", remedy="Build it anew for WASI preview 1."
            ) from None
        finally:
            await worker.stop()
        assert isinstance(reply.body, bytes)
        return reply.body

    def _sandbox(self) -> Sandbox:
        """The sandbox around the engine."""
        if self._inner is None:
            self._inner = next((one for one in self._candidates if one.probe().available), None)
        if self._inner is None:
            raise SandboxUnavailable(level=LEVEL, why_not="there is no sandbox to run the engine in")
        return self._inner

    def _probe(self) -> Capabilities:
        if engine_folder() is None:
            return Capabilities(LEVEL, False, NO_ENGINE, kinds=KINDS)
        try:
            around = self._sandbox().probe()
        except Refusal as refusal:
            return Capabilities(LEVEL, False, str(refusal.facts["why_not"]), kinds=KINDS)
        details = (("wasmtime", importlib.metadata.version("wasmtime")), ("inside", around.level))
        files = {"openresource.toml": _MANIFEST, "probe.wat": _MODULE}
        why_not = why_not_started(self, files, "run", b'{"args": []}', b'"exit_code": 0')
        return Capabilities(
            LEVEL,
            not why_not,
            why_not,
            memory="engine",
            processes=around.processes,
            cpu="engine",
            disk=around.disk,
            as_root=around.as_root,
            kinds=KINDS,
            details=details,
        )


def engine_folder() -> Path | None:
    """Where wasmtime's package lies; it is not loaded into this process."""
    try:
        found = importlib.util.find_spec("wasmtime")
    except ValueError:
        found = None
    return Path(found.origin).parent if found is not None and found.origin else None


def _tools(engine: Path) -> tuple[Mount, Mount]:
    return Mount(engine, WASM_ENGINE), Mount(GUEST_FOLDER, WASM_GUEST)
