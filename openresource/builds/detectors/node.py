"""package.json: a server, a command line, or a library whose functions can be called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files as package_files
from typing import Any, Final

from openresource.builds.command_words import words_of
from openresource.builds.facts import json_object, label_of
from openresource.builds.files import Files
from openresource.builds.findings import Finding, FoundMethod

SERVER_PACKAGES: Final = (
    "express", "fastify", "koa", "hapi", "@hapi/hapi", "restify", "polka", "hono", "@hono/node-server", "@nestjs/core",
    "micro", "next", "connect", "http-server", "serve", "json-server", "apollo-server",
)  # fmt: skip
PAGE_TOOLS: Final = (
    "react-scripts",
    "vite",
    "webpack",
    "parcel",
    "ng",
    "vue-cli-service",
    "gatsby",
    "rollup",
)
MAIN_FILES: Final = ("server.js", "app.js", "index.js", "main.js", "src/server.js", "src/app.js", "src/index.js",
                     "src/main.js", "index.mjs", "server.mjs", "index.cjs", "bin/www")  # fmt: skip
BRIDGE_FILE: Final = "openresource-lines.mjs"
METHODS_MAX: Final = 32
HEAD_CHARACTERS: Final = 200
METHOD_INPUT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"args": {"type": "array", "description": "the arguments, in their order"}},
    "required": ["args"],
    "additionalProperties": False,
}
_LISTEN = re.compile(r"\.listen\s*\(|createServer\s*\(|Deno\.serve|Bun\.serve")
_LITERAL_PORT = re.compile(r"(?:listen\s*\(\s*|port\s*[:=]\s*|PORT\s*=\s*)([1-9][0-9]{3,4})\b")
_EXPORTED = re.compile(
    r"(?:module\.)?exports\.([A-Za-z_$][\w$]{0,60})\s*=|export\s+(?:async\s+)?function\*?\s+([A-Za-z_$][\w$]{0,60})|"
    r"export\s+default\s+(?:async\s+)?function\*?\s+([A-Za-z_$][\w$]{0,60})|"
    r"export\s+(?:const|let)\s+([A-Za-z_$][\w$]{0,60})\s*=\s*(?:async\s*)?(?:function|\(|[\w$]{1,60}\s*=>)"
)
_REEXPORTED = re.compile(
    r"""(?:module\.exports\s*=\s*require\(|export\s*\*\s*from\s*)["'](\.{1,2}/[^"'\n]{1,200})["']"""
)
_EXPORTED_OBJECT = re.compile(r"module\.exports\s*=\s*\{([^{}]{1,2000})\}|export\s*\{([^{}]{1,2000})\}")
_EXPORTED_ONE = re.compile(
    r"(?:module\.exports\s*=|export\s+default)\s*(?:async\s+)?(?:function\s*\*?\s*([A-Za-z_$][\w$]{0,60})?|"
    r"([A-Za-z_$][\w$]{0,60})\s*;?\s*$|\()",
    re.MULTILINE,
)
_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_EXPORTS_SOMETHING = re.compile(r"\bmodule\.exports\b|\bexport\s+default\b")
_CLASS = re.compile(r"^\s*(?:export\s+(?:default\s+)?)?class\s", re.MULTILINE)
_IMPORT = re.compile(r"""(?:require\(\s*|from\s+|import\s+)["'](\.{1,2}/[^"'\n]{1,200})["']""")


def detect_node(files: Files) -> Finding | None:
    """What a package.json starts, installs or offers."""
    package = json_object(files.text("package.json"))
    if not package:
        return _without_package(files) if "package.json" not in files else None
    return (
        _server(files, package)
        or _command(files, package)
        or _started(files, package)
        or _library(files, package)
    )


def _server(files: Files, package: Mapping[str, Any]) -> Finding | None:
    start = _script(package, "start")
    words = words_of(start)
    if words and any(tool in start.split() for tool in PAGE_TOOLS):
        return None
    main = _file(files, words[1]) if len(words) == 2 and words[0] in ("node", "nodejs") else ""
    main = main or _file(files, str(package.get("main") or "")) or files.first(*MAIN_FILES)
    source = _with_imports(files, main)
    is_server = _LISTEN.search(source) is not None
    if not is_server and not (start and _depends_on(package, SERVER_PACKAGES) and not package.get("bin")):
        return None
    port = _port(source)
    where = f"the port {port}" if port else "the port that $PORT names"
    command = _start_command(words, main, start)
    if not command:
        return None
    return Finding(
        "node",
        "http",
        f"{main or 'The start script'} listens on {where}"
        + (f", started by «{start[:60]}»." if start else "."),
        command=command,
        port=port,
        build_command=_build(package),
        remarks=() if _has_lock(files) or not _has_dependencies(package) else (_NO_LOCK,),
    )


def _command(files: Files, package: Mapping[str, Any]) -> Finding | None:
    binary = package.get("bin")
    name = str(package.get("name") or "").rpartition("/")[2]
    if isinstance(binary, Mapping):
        chosen = name if name in binary else next(iter(binary), "")
        name, binary = str(chosen), binary.get(chosen)
    file = _file(files, str(binary or ""))
    if not file and not (binary and _build(package)):
        return None
    head = files.text(file)[:HEAD_CHARACTERS].split("\n")[0] if file else ""
    interpreter = head.removeprefix("#!").split()[-1].rpartition("/")[2] if head.startswith("#!") else ""
    if interpreter in ("sh", "bash", "zsh", "perl", "python3"):
        because = f"package.json installs the command «{name}», which is not written in JavaScript."
        return Finding(
            "shell" if interpreter.endswith("sh") else "", "cli", because, command=(interpreter, file)
        )
    is_built = bool(file) and not _lacks_built_files(files, package)
    return Finding(
        "node",
        "cli",
        f"package.json installs the command «{name}».",
        command=("node", file or str(binary).removeprefix("./")),
        build_command="" if is_built else _build(package),
        remarks=() if _has_lock(files) or not _has_dependencies(package) else (_NO_LOCK,),
    )


def _started(files: Files, package: Mapping[str, Any]) -> Finding | None:
    start = _script(package, "start")
    words = words_of(start)
    if not words or any(tool in start.split() for tool in PAGE_TOOLS):
        return None
    return Finding(
        "node",
        "cli",
        f"package.json starts it with «{start[:80]}».",
        command=_start_command(words, "", start),
        build_command=_build(package),
    )


def _library(files: Files, package: Mapping[str, Any]) -> Finding | None:
    main = (
        _file(files, str(package.get("main") or ""))
        or _exports_file(files, package)
        or files.first(*MAIN_FILES)
    )
    if not main:
        return None
    names = exported_names(files.text(main))
    again = _REEXPORTED.search(files.text(main))
    if not names and again is not None:
        names = exported_names(files.text(_file(files, _joined(main.rpartition("/")[0], again[1]))))
    if not names and _EXPORTS_SOMETHING.search(files.text(main)) and not _CLASS.search(files.text(main)):
        # One function, exported in a way that plain reading does not follow; the bridge finds it by itself.
        names = [label_of(str(package.get("name") or "")).replace("-", "_") or "call"]
    names = [name for name in names if _METHOD.fullmatch(name)]
    if not names:
        return None
    shown = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
    return Finding(
        "node",
        "jsonl",
        f"{main} exports functions: {shown}.",
        command=("node", BRIDGE_FILE, f"./{main}", *names[:1]),
        methods=tuple(FoundMethod(name, input=METHOD_INPUT) for name in names[:METHODS_MAX]),
        files={BRIDGE_FILE: bridge()},
        remarks=(f"{BRIDGE_FILE} calls the functions: a line with {{args: […]}} in, a line with the result out.",
                 *(() if len(names) > 1 else ("With one method, a line is the input itself.",))),
    )  # fmt: skip


def _without_package(files: Files) -> Finding | None:
    """A lone JavaScript file."""
    names = [name for name in files.ending(".js", ".mjs", ".cjs", depth_max=0) if ".config." not in name]
    main = files.first(*MAIN_FILES) or (names[0] if len(names) == 1 else "")
    if not main or files.ending(".html", depth_max=0) or files.ending(".py", ".go", ".rs", depth_max=0):
        return None
    source = files.text(main)
    if _LISTEN.search(source):
        return Finding(
            "node", "http", f"{main} listens on a port.", command=("node", main), port=_port(source)
        )
    return Finding("node", "cli", f"{main} is a Node program.", command=("node", main))


def exported_names(source: str) -> list[str]:
    """The names that a module exports, as far as plain reading finds them; «default» is the export itself."""
    found: list[str] = []
    for match in _EXPORTED.finditer(source):
        found.append(next(name for name in match.groups() if name))
    for match in _EXPORTED_OBJECT.finditer(source):
        for part in (match[1] or match[2]).split(","):
            name = part.partition(":")[0].rpartition(" as ")[2].strip()
            if name and not name.startswith("."):
                found.append(name)
    one = None if found else _EXPORTED_ONE.search(source)
    if one is not None:
        name = one[1] or one[2] or "call"
        if not re.search(rf"\bclass\s+{re.escape(name)}\b", source):
            found.append(name if _METHOD.fullmatch(name) else "call")
    return [
        name
        for name in dict.fromkeys(found)
        if _METHOD.fullmatch(name) and name not in ("default", "__esModule")
    ]


def bridge() -> bytes:
    """The program that calls a library's functions line by line."""
    return (package_files("openresource.builds") / "bridges" / "lines.mjs").read_bytes()


_NO_LOCK: Final = "Without a lock file two builds may get other versions of its packages."


def _script(package: Mapping[str, Any], name: str) -> str:
    scripts = package.get("scripts")
    value = scripts.get(name) if isinstance(scripts, Mapping) else None
    return value if isinstance(value, str) else ""


def _build(package: Mapping[str, Any]) -> str:
    """The project's own build step; installing its packages is the recipe's."""
    return "npm run build" if _script(package, "build") else ""


def _start_command(words: tuple[str, ...], main: str, start: str) -> tuple[str, ...]:
    if words and words[0] in ("node", "nodejs"):
        return ("node", *words[1:])
    if words and words[0] in ("nodemon", "ts-node", "tsx", "pm2") and main:
        return ("node", main)
    if start:
        return ("npm", "start", "--silent")
    return ("node", main) if main else ()


def _file(files: Files, name: str) -> str:
    name = name.removeprefix("./").rstrip("/")
    return files.first(name, f"{name}.js", f"{name}.mjs", f"{name}.cjs", f"{name}/index.js") if name else ""


def _lacks_built_files(files: Files, package: Mapping[str, Any]) -> bool:
    """Whether the package points to files that only its own build step makes."""
    named = [package.get("main"), package.get("module")]
    return any(isinstance(name, str) and name and not _file(files, name) for name in named)


def _exports_file(files: Files, package: Mapping[str, Any]) -> str:
    exports = package.get("exports")
    for _ in range(4):
        if isinstance(exports, str):
            return _file(files, exports)
        if not isinstance(exports, Mapping):
            return ""
        exports = next(
            (exports[key] for key in (".", "import", "node", "default", "require") if key in exports), None
        )
    return ""


def _with_imports(files: Files, main: str) -> str:
    """A file's text with that of the files which it names by a relative path."""
    if not main:
        return ""
    parts = [files.text(main)]
    folder = main.rpartition("/")[0]
    for name in _IMPORT.findall(parts[0])[:20]:
        path = _joined(folder, name)
        found = _file(files, path)
        if found:
            parts.append(files.text(found))
    return "\n".join(parts)


def _joined(folder: str, name: str) -> str:
    parts = folder.split("/") if folder else []
    for part in name.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in (".", ""):
            parts.append(part)
    return "/".join(parts)


def _port(source: str) -> int:
    if "process.env" in source and "PORT" in source:
        return 0
    match = _LITERAL_PORT.search(source)
    number = int(match[1]) if match is not None else 0
    return number if 1_024 <= number <= 65_535 else 0


def _depends_on(package: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    dependencies = package.get("dependencies")
    return isinstance(dependencies, Mapping) and any(name in dependencies for name in names)


def _has_dependencies(package: Mapping[str, Any]) -> bool:
    return bool(package.get("dependencies"))


def _has_lock(files: Files) -> bool:
    return bool(files.first("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml"))
