"""Cargo.toml: a binary of the package, built for release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from openresource.builds.detectors.python_apps import is_port, reads_port
from openresource.builds.facts import table_in, toml_object
from openresource.builds.files import Files
from openresource.builds.findings import Finding

SERVER_PACKAGES: Final = {
    "actix-web": 8080, "axum": 3000, "warp": 3030, "rocket": 8000, "hyper": 3000, "tide": 8080, "tiny_http": 8000,
    "poem": 3000, "salvo": 5800, "rouille": 8000, "ntex": 8080,
}  # fmt: skip
_BIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PORT = re.compile(
    r"""(?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::\]):([1-9][0-9]{3,4})|\(\s*(?:\[[0-9, ]{7,20}\]|"[0-9.:]{2,20}")\s*,\s*([1-9][0-9]{3,4})\s*\)"""
)


def detect_rust(files: Files) -> Finding | None:
    """A package with src/main.rs or a [[bin]], at the top or in a workspace's member."""
    if "Cargo.toml" not in files:
        return None
    content = toml_object(files.text("Cargo.toml"))
    places = [""]
    members = table_in(content, "workspace").get("members")
    for member in members if isinstance(members, list) else ():
        if isinstance(member, str) and not member.startswith(("/", ".")):
            prefix = member.removesuffix("/*").rstrip("/")
            places += (
                sorted({name.rpartition("/")[0] for name in files.names if name.startswith(f"{prefix}/")
                        and name.endswith("/Cargo.toml")})
            )  # fmt: skip
    for place in places[:50]:
        finding = _package(files, place, toml_object(files.text(_in(place, "Cargo.toml"))))
        if finding is not None:
            return finding
    return None


def _package(files: Files, place: str, content: Mapping[str, Any]) -> Finding | None:
    package = str(table_in(content, "package").get("name") or "")
    bins = content.get("bin")
    names = (
        [str(one.get("name") or "") for one in bins if isinstance(one, Mapping)]
        if isinstance(bins, list)
        else []
    )
    if _in(place, "src/main.rs") in files and package:
        names.append(package)
    names += [
        name.rpartition("/")[2].removesuffix(".rs")
        for name in files.names
        if name.startswith(_in(place, "src/bin/")) and name.endswith(".rs")
    ]
    names = [name for name in dict.fromkeys(names) if _BIN_NAME.fullmatch(name)]
    if not names:
        return None
    names.sort(key=lambda name: name not in (package, files.name))
    name = names[0]
    text = "\n".join(
        files.text(file)
        for file in files.names
        if file.startswith(_in(place, "src/")) and file.endswith(".rs")
    )
    dependencies = table_in(content, "dependencies")
    server = next((one for one in SERVER_PACKAGES if one in dependencies), "")
    is_server = bool(server) and any(
        word in text for word in ("bind", "serve", "launch", "listen", "#[rocket::main]")
    )
    is_server = is_server or ("TcpListener::bind" in text and "HTTP/1." in text)
    port = _port(text, server) if is_server else 0
    remarks = (f"Other binaries were passed over: {', '.join(names[1:6])}.",) if len(names) > 1 else ()
    words = (
        f"serves HTTP on the port {port}"
        if port
        else "serves HTTP on $PORT"
        if is_server
        else "is a command line"
    )
    return Finding(
        "rust",
        "http" if is_server else "cli",
        f"The binary «{name}» of {_in(place, 'Cargo.toml')} {words}.",
        command=(f"./bin/{name}",),
        port=port,
        remarks=remarks,
    )


def _port(text: str, server: str) -> int:
    if reads_port(text):
        return 0
    match = _PORT.search(text)
    number = int(match[1] or match[2]) if match is not None else 0
    return number if is_port(number) else SERVER_PACKAGES.get(server, 8080)


def _in(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name
