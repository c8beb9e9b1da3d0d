"""A gRPC server: a .proto beside sources that open a server for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from openresource.builds.detectors.python_apps import is_port, reads_port
from openresource.builds.files import Files
from openresource.builds.findings import Finding
from openresource.builds.python_code import ASIDE_FOLDERS

SOURCES_MAX: Final = 200
SOURCE_ENDINGS: Final = (".py", ".go", ".js", ".mjs", ".ts", ".java", ".rs", ".cc", ".cpp")
SERVER_WORDS: Final = (
    "grpc.server(", "grpc.aio.server(", "grpc.NewServer(", "new grpc.Server(", "ServerBuilder.forPort(", "Server::builder()",
    "grpc::ServerBuilder", "NettyServerBuilder.forPort(",
)  # fmt: skip
DEFAULT_PORT: Final = 50_051
_SERVICE = re.compile(r"^[ \t]*service[ \t]+\w+", re.MULTILINE)
_PORT = re.compile(
    r"(?:add_insecure_port\(|net\.Listen\(\s*\"tcp\"\s*,|bindAsync\(|AddListeningPort\()\s*[rfb]?[\"'`][^\"'`]{0,60}:([0-9]{4,5})"
    r"|forPort\(\s*([0-9]{4,5})|\bport\b[^\n=:]{0,20}[=:]\s*[\"']?([0-9]{4,5})",
    re.IGNORECASE,
)

Detector = Callable[[Files], Finding | None]


def detect_grpc(files: Files, language: Detector) -> Finding | None:
    """The one .proto with a service, and what serves it; `language` says how that is built and started."""
    protos = [
        name
        for name in files.ending(".proto", depth_max=5)
        if _SERVICE.search(files.text(name))
        and not set(name.split("/")[:-1]) & ASIDE_FOLDERS
        and "google/" not in name
    ]
    if not protos:
        return None
    servers = [
        name
        for name in files.ending(*SOURCE_ENDINGS, depth_max=6)[:SOURCES_MAX]
        if any(word in files.text(name) for word in SERVER_WORDS)
        and not set(name.split("/")[:-1]) & ASIDE_FOLDERS
    ]
    found = language(files) if servers else None
    if found is None or found.kind == "oci":
        return None
    command = found.command
    if found.language == "python":
        command = ("python", servers[0])
    text = "\n".join(files.text(name) for name in servers)
    match = _PORT.search(text)
    number = int(next(part for part in match.groups() if part)) if match is not None else DEFAULT_PORT
    port = 0 if reads_port(text) else number if is_port(number) else DEFAULT_PORT
    remarks = (
        found.remarks if len(protos) == 1 else (*found.remarks, f"Other services: {', '.join(protos[1:5])}.")
    )
    return replace(
        found,
        kind="grpc",
        because=f"{servers[0]} serves the gRPC service of {protos[0]}"
        + (f" on the port {port}." if port else "."),
        command=command,
        entry="",
        proto=protos[0],
        port=port,
        methods=(),
        environment={name: value for name, value in found.environment.items() if name == "PYTHONPATH"},
        files={name: content for name, content in found.files.items() if not name.endswith(".mjs")},
        remarks=remarks,
    )
