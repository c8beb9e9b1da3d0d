"""C and C++: a Makefile, a CMakeLists.txt, or plain sources with main."""

from __future__ import annotations

import re
from typing import Final

from openresource.builds.detectors.python_apps import is_port, reads_port
from openresource.builds.facts import label_of
from openresource.builds.files import Files
from openresource.builds.findings import Finding

SOURCE_ENDINGS: Final = (".c", ".cc", ".cpp", ".cxx")
SOURCES_MAX: Final = 200
COMPILED_SOURCES_MAX: Final = 60
MAKE_LINES_MAX: Final = 2_000
_MAIN = re.compile(r"^[ \t]*(?:extern[ \t]+)?(?:int|void)[ \t\n]+main[ \t]*\(", re.MULTILINE)
_ADD_EXECUTABLE = re.compile(r"add_executable\s*\(\s*([A-Za-z0-9_.+-]{1,80})\s", re.IGNORECASE)
_CMAKE_PROJECT = re.compile(r"project\s*\(\s*([A-Za-z0-9_.+-]{1,80})", re.IGNORECASE)
_CMAKE_SET = re.compile(
    r"\bset\s*\(\s*(PROGRAM|TARGET|EXECUTABLE|EXE|APP|BINARY)\s+\"?([A-Za-z0-9_.+-]{1,80})\"?\s*\)",
    re.IGNORECASE,
)
_CMAKE_OUTPUT = re.compile(
    r"set_target_properties\s*\(\s*([A-Za-z0-9_.+-]{1,80})\s[^()]{0,400}?OUTPUT_NAME\s+\"?([A-Za-z0-9_.+-]{1,80})\"?",
    re.IGNORECASE,
)
_CMAKE_NAME = re.compile(r"\$\{(?:PROJECT_NAME|CMAKE_PROJECT_NAME)\}")
_TARGET = re.compile(r"([A-Za-z0-9_.$(){}/-]{1,100})\s*:(?!=)")
_VARIABLE = re.compile(r"([A-Za-z0-9_]{1,60})\s*[:?+]?=\s*([^\s#]{1,100})")
_USED = re.compile(r"\$[({]([A-Za-z0-9_]{1,60})[)}]")
_OUTPUT = re.compile(r"-o\s+([A-Za-z0-9_.$(){}@/-]{1,100})")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,99}")
_PORT = re.compile(r"(?:htons\(\s*|PORT\s+|port\s*=\s*)([1-9][0-9]{3,4})\b")
_PROGRAM_VARIABLES: Final = (
    "TARGET",
    "BIN",
    "BINARY",
    "PROG",
    "PROGRAM",
    "EXE",
    "EXECUTABLE",
    "NAME",
    "OUT",
    "APP",
)
_NO_PROGRAMS: Final = (
    "all",
    "clean",
    "install",
    "test",
    "check",
    "dist",
    "uninstall",
    "help",
    "default",
    "lib",
    "docs",
)


def detect_c(files: Files) -> Finding | None:
    """The program that a build page or the sources with main make."""
    sources = list(files.ending(*SOURCE_ENDINGS, depth_max=4))[:SOURCES_MAX]
    mains = [name for name in sources if _MAIN.search(files.text(name)) and not _is_aside(name)]
    cmake, make = "CMakeLists.txt" in files, files.first("Makefile", "makefile", "GNUmakefile")
    if cmake:
        made = _cmake(files)
        if made:
            return _finding(files, sources, f"CMakeLists.txt makes the program {made}.", f"./build/{made}")
    if make and mains:
        program = _made(files, files.text(make), mains)
        if program:
            return _finding(files, sources, f"{make} makes the program {program}.", f"./{program}")
    if not mains or (files.first("configure", "configure.ac", "meson.build") and not make):
        return None
    mains.sort(key=lambda name: (name.count("/"), _stem(name) not in (files.name, "main"), name))
    main = mains[0]
    program = f"bin/{label_of(files.name if _stem(main) == 'main' else _stem(main)) or 'program'}"
    folder = main.rpartition("/")[0]
    together = [main] + [
        name
        for name in sources
        if name not in mains and name.rpartition("/")[0] == folder and not _is_aside(name)
    ]
    is_plus = any(not name.endswith(".c") for name in together)
    words = " ".join(f"'{name}'" for name in together[:COMPILED_SOURCES_MAX])
    compiler = "c++ -std=c++17" if is_plus else "cc"
    threads = " -pthread" if any("pthread" in files.text(name) for name in together) else ""
    build = f"mkdir -p bin && {compiler} -O2{threads} -o {program} {words} -lm"
    return _finding(files, sources, f"{main} has main.", f"./{program}", build, program)


def _finding(
    files: Files, sources: list[str], because: str, command: str, build: str = "", output: str = ""
) -> Finding:
    text = "\n".join(files.text(name) for name in sources[:COMPILED_SOURCES_MAX])
    is_server = "listen(" in text and "accept(" in text and "HTTP/1." in text
    match = _PORT.search(text) if is_server and not reads_port(text) else None
    port = int(match[1]) if match is not None and is_port(int(match[1])) else 0
    words = (f" It serves HTTP on the port {port}." if port else " It serves HTTP.") if is_server else ""
    return Finding(
        "c",
        "http" if is_server else "cli",
        because + words,
        command=(command,),
        port=port,
        build_command=build,
        output=(output,) if output else (),
    )


def _cmake(files: Files) -> str:
    """The program that CMake makes below its build folder, which follows the folders of the project."""
    project = _CMAKE_PROJECT.search(files.text("CMakeLists.txt"))
    project_name = project[1] if project is not None else ""
    found: list[tuple[bool, int, str]] = []
    for page in files.names:
        folder = page.rpartition("/")[0]
        if not page.endswith("CMakeLists.txt") or page.count("/") > 2 or _is_aside(page):
            continue
        text = _CMAKE_NAME.sub(project_name, files.text(page))
        for variable, value in _CMAKE_SET.findall(text)[:MAKE_LINES_MAX]:
            text = text.replace(f"${{{variable}}}", value) if len(text) < 1 << 20 else text
        renamed = dict(_CMAKE_OUTPUT.findall(text))
        for target in _ADD_EXECUTABLE.findall(text):
            name = renamed.get(target, target)
            if _PLAIN.fullmatch(name) and "test" not in name.lower() and "fuzz" not in name.lower():
                found.append(
                    (name.lower() != files.name.lower(), page.count("/"), f"{folder}/{name}".strip("/"))
                )
    return min(found)[2] if found else ""


def _made(files: Files, text: str, mains: list[str]) -> str:
    """The program that `make` leaves behind, as far as reading the page tells."""
    lines = text.replace("\\\n", " ").splitlines()[:MAKE_LINES_MAX]
    variables: dict[str, str] = {}
    for line in lines:
        match = _VARIABLE.match(line)
        if match is not None:
            variables.setdefault(match[1], match[2])
    stems = {_stem(name) for name in mains}
    candidates = [_filled(variables.get(name, ""), variables) for name in _PROGRAM_VARIABLES]
    target = ""
    for line in lines:
        match = _TARGET.match(line)
        if match is not None and not line.startswith("\t"):
            target = _filled(match[1], variables)
            if target == "all":
                candidates += [_filled(word, variables) for word in line.partition(":")[2].split()]
        output = _OUTPUT.search(line) if line.startswith("\t") and " -c " not in line else None
        if output is not None:
            candidates.append(target if output[1] == "$@" else _filled(output[1], variables))
    candidates += sorted(stem for stem in stems if any(line.startswith(f"{stem}:") for line in lines))
    for name in candidates:
        is_file = name.endswith((".o", ".a", ".so", ".d", ".c", ".h")) or name in _NO_PROGRAMS or "%" in name
        if _PLAIN.fullmatch(name) and not is_file and "test" not in name:
            return name
    return next((stem for stem in sorted(stems) if not lines), "")


def _filled(text: str, variables: dict[str, str]) -> str:
    for _ in range(4):
        changed = _USED.sub(lambda match: variables.get(match[1], ""), text)
        if changed == text or len(changed) > 200:
            break
        text = changed
    return text.removeprefix("./")


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _is_aside(name: str) -> bool:
    return "test" in name.lower() or any(
        part in ("bindings", "examples", "example", "docs", "bench", "third_party", "deps")
        for part in name.split("/")[:-1]
    )
