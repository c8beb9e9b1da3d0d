"""*.wasm: a module of WebAssembly, told from other files by its first bytes and its imports."""

from __future__ import annotations

from typing import Final

from openresource.builds.files import Files
from openresource.builds.findings import Finding

MAGIC: Final = b"\0asm\1\0\0\0"
WASI_MODULES: Final = (b"wasi_snapshot_preview1", b"wasi_unstable")


def detect_wasm(files: Files) -> Finding | None:
    """The one module of a folder, or the one called like the folder."""
    modules = list(files.ending(".wasm", depth_max=2))
    if not modules:
        return None
    modules.sort(
        key=lambda name: name.rpartition("/")[2] not in (f"{files.name}.wasm", "main.wasm", "service.wasm")
    )
    module = modules[0]
    content = files.bytes_of(module)
    if content and not content.startswith(MAGIC):
        return None
    if content and not any(name in content for name in WASI_MODULES) and b"_start" not in content:
        # A library for browsers has nothing that could be started.
        return None
    remarks: tuple[str, ...] = (
        'It is run as a command line; write speaks = "jsonl" if it answers line by line.',
    )
    if len(modules) > 1:
        remarks = (*remarks, f"Other modules were passed over: {', '.join(modules[1:5])}.")
    return Finding(
        "", "wasm", f"{module} is a module of WebAssembly.", module=module, speaks="cli", remarks=remarks
    )
