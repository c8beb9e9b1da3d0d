"""Compiles the `.proto` of a program where it is published, so that nobody else ever has to parse one."""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from openresource.adapters.grpc.extras import require_grpc
from openresource.primitives.errors import Refusal

COMPILE_SECONDS_MAX: Final = 30
COMPILE_MEMORY_BYTES: Final = 1 << 30
PROTO_FILES_MAX: Final = 100
PROTO_BYTES_MAX: Final = 4 << 20
WORDS_CHARACTERS_MAX: Final = 2_000


class ProtoInvalid(Refusal):
    template = "{file} cannot be compiled: {reason}"
    way_out = "Mend the .proto file, and publish again."


class CompilerMissing(Refusal):
    template = "A .proto file is compiled by grpcio-tools, which is not installed here."
    way_out = "Install it: pip install 'openresource[grpc]'"


def compile_proto(files: Mapping[str, bytes], proto: str) -> bytes:
    """The descriptor set of one of a release's files and of all that it imports."""
    require_grpc()
    if importlib.util.find_spec("grpc_tools") is None:
        raise CompilerMissing()
    if proto not in files:
        raise ProtoInvalid(file=proto, reason="there is no such file in the folder.")
    sources = {name: content for name, content in files.items() if name.endswith(".proto")}
    if len(sources) > PROTO_FILES_MAX or sum(map(len, sources.values())) > PROTO_BYTES_MAX:
        raise ProtoInvalid(file=proto, reason=f"there are more than {PROTO_FILES_MAX} .proto files.")
    with tempfile.TemporaryDirectory(prefix="openresource-proto-") as name:
        folder = Path(name)
        for source, content in sources.items():
            path = folder / "in" / source
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # Beside the file itself imports are looked for first, as protoc's users expect.
        folders = dict.fromkeys([str((folder / "in" / proto).parent), str(folder / "in")])
        words = [
            sys.executable, "-m", "grpc_tools.protoc", *(f"--proto_path={one}" for one in folders),
            f"--descriptor_set_out={folder / 'out.pb'}", "--include_imports", "--include_source_info",
            str(folder / "in" / proto),
        ]  # fmt: skip
        _run(words, proto, str(folder / "in"))
        from openresource.adapters.grpc.descriptors import read_methods

        compiled = (folder / "out.pb").read_bytes()
        read_methods(compiled)
        return compiled


def _run(words: list[str], proto: str, folder: str) -> None:
    try:
        ended = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPILE_SECONDS_MAX,
            check=False,
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired:
        raise ProtoInvalid(file=proto, reason=f"it took more than {COMPILE_SECONDS_MAX} seconds.") from None
    if ended.returncode != 0:
        said = ended.stderr.decode("utf-8", "replace").replace(folder + "/", "").strip()
        raise ProtoInvalid(file=proto, reason=said[:WORDS_CHARACTERS_MAX] or "the compiler ended.")


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (COMPILE_MEMORY_BYTES, COMPILE_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_SECONDS_MAX, COMPILE_SECONDS_MAX))
