"""Scripts: a file with a `#!` line, or the one file of a language whose interpreter is on most machines."""

from __future__ import annotations

from typing import Final

from openresource.builds.detectors.python_apps import reads_port
from openresource.builds.files import Files
from openresource.builds.findings import Finding
from openresource.builds.python_code import ASIDE_FOLDERS

# Ending → language and the words before the file.
INTERPRETERS: Final = {
    ".sh": ("shell", ("sh",)),
    ".bash": ("shell", ("bash",)),
    ".pl": ("perl", ("perl",)),
    ".awk": ("awk", ("awk", "-f")),
    ".rb": ("ruby", ("ruby",)),
    ".lua": ("lua", ("lua",)),
    ".php": ("php", ("php",)),
    ".tcl": ("tcl", ("tclsh",)),
    ".sed": ("sed", ("sed", "-f")),
}
PROGRAMS: Final = {
    "sh": "shell", "bash": "shell", "dash": "shell", "zsh": "shell", "ksh": "shell", "perl": "perl", "awk": "awk",
    "gawk": "awk", "mawk": "awk", "ruby": "ruby", "lua": "lua", "php": "php", "python": "python", "python3": "python",
    "node": "node", "tclsh": "tcl", "sed": "sed",
}  # fmt: skip
ASIDE_NAMES: Final = (
    "install", "setup", "build", "test", "tests", "configure", "bootstrap", "release", "deploy", "uninstall", "ci",
    "format", "lint", "autogen", "runtests", "run-tests", "run_tests", "make", "update", "generate",
)  # fmt: skip
HEAD_BYTES: Final = 200


def detect_script(files: Files) -> Finding | None:
    """The script that a folder is about: called like it, else the only one."""
    found: list[tuple[int, int, str, str, tuple[str, ...]]] = []
    for name in files.names:
        *folders, last = name.split("/")
        stem, _, _ = last.partition(".")
        if (
            len(folders) > 2
            or set(folders) & ASIDE_FOLDERS
            or stem.lower() in ASIDE_NAMES
            or last.startswith(".")
        ):
            continue
        read = _interpreter(files, name, last)
        if read is None:
            continue
        is_named = stem.lower() in (
            files.name.lower(),
            "main",
            "run",
            "cli",
            files.name.lower().removesuffix(".sh"),
        )
        rank = 0 if is_named else 1 if name in files.executables else 2
        found.append((rank, len(folders), name, *read))
    if not found:
        return None
    found.sort(key=lambda one: one[:3])
    rank, _, name, language, words = found[0]
    others = [one[2] for one in found[1:]]
    remarks = (f"Other scripts were passed over: {', '.join(others[:5])}.",) if others else ()
    is_server = reads_port(files.text(name)) and language != "python"
    return Finding(
        language,
        "http" if is_server else "cli",
        f"{name} is a {language} script" + (" that reads $PORT." if is_server else "."),
        command=(*words, name),
        remarks=remarks,
    )


def _interpreter(files: Files, name: str, last: str) -> tuple[str, tuple[str, ...]] | None:
    ending = last[last.rfind(".") :] if "." in last else ""
    if ending and ending not in INTERPRETERS and ending not in (".py", ".js"):
        return None
    if not ending and name not in files.executables and "/" in name and not name.startswith(("bin/", "src/")):
        return None
    head = files.bytes_of(name)[:HEAD_BYTES]
    if head.startswith(b"#!"):
        line = head[2:].partition(b"\n")[0].decode("utf-8", "replace").split()
        words = line[1:] if line and line[0].endswith("/env") else line
        words = [word for word in words if word != "-S"]
        program = words[0].rpartition("/")[2] if words else ""
        if program in PROGRAMS and not (ending == ".py" and PROGRAMS[program] == "python"):
            return PROGRAMS[program], (program, *words[1:5])
    # Python files have detectors of their own.
    return INTERPRETERS.get(ending)
