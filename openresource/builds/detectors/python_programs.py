"""Python programs without a page of their own: command lines, typed functions and classes, tools of agents, scripts."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from openresource.builds.detectors.python_apps import python_finding
from openresource.builds.files import Files
from openresource.builds.findings import Finding
from openresource.builds.python_code import (
    Function,
    Source,
    calls_in,
    is_typed,
    public_classes,
    public_functions,
    python_sources,
)
from openresource.builds.python_packages import console_scripts, project_scripts

ENTRY_FILES: Final = ("service", "predict", "predictor", "handler", "inference", "main", "app", "api")
# Files whose very name says that they are called.
SERVICE_FILES: Final = ("service", "predict", "predictor", "handler", "inference")
SCRIPT_FILES: Final = ("__main__", "main", "cli", "app", "run", "__init__")
COMMAND_LINES: Final = {
    "argparse.ArgumentParser": "argparse",
    "typer.Typer": "Typer",
    "typer.run": "Typer",
    "click.command": "click",
    "click.group": "click",
    "fire.Fire": "Fire",
    "docopt.docopt": "docopt",
    "optparse.OptionParser": "optparse",
}
AGENT_TOOLS: Final = ("mcp.server.fastmcp.FastMCP", "mcp.server.FastMCP")
FUNCTIONS_SHOWN_MAX: Final = 6
DISPATCHER_FILE: Final = "openresource_commands.py"
DISPATCHER: Final = '''"""Runs one of the project's commands: the first argument says which."""

import functools
import importlib
import os
import sys

COMMANDS = {
    # COMMANDS
}

sys.path.insert(0, os.getcwd())
if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
    print("usage: COMMAND ARGUMENT…; commands: " + ", ".join(COMMANDS))
    sys.exit(0 if sys.argv[1:] in ([], ["--help"]) else 2)
sys.argv.pop(0)
module, name = COMMANDS[sys.argv[0]]
sys.exit(functools.reduce(getattr, name.split("."), importlib.import_module(module))())
'''
# A module in C or C++ has to be compiled before it can be imported.
_EXTENSION = re.compile(r"\bext_modules\s*=|\bExtension\(")
_COMMAND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}")


def detect_predictor(files: Files) -> Finding | None:
    """A predict.py with a class or a function called predict."""
    for name in ("predict.py", "predictor.py"):
        if name not in files:
            continue
        sources = [source for source in python_sources(files) if source.file == name]
        for source in sources:
            entry = predictor_in(source)
            if entry:
                return python_finding(
                    files,
                    python_sources(files),
                    Finding("python", "python", f"{name} has {entry}.", entry=f"{source.dotted}:{entry}"),
                )
    return None


def predictor_in(source: Source) -> str:
    """The class with a method `predict`, or the function of that name."""
    for node in public_classes(source):
        if any(isinstance(part, Function) and part.name == "predict" for part in node.body):
            return node.name
    return next((node.name for node in public_functions(source) if node.name == "predict"), "")


def detect_functions(files: Files) -> Finding | None:
    """A file called service.py, predict.py, main.py … whose class or functions say their types."""
    sources = python_sources(files)
    for stem in ENTRY_FILES:
        for source in sources:
            if source.file != f"{stem}.py" or _is_command_line(source) or source.has_main:
                continue
            finding = _typed_entry(source) or (_any_entry(source) if stem in SERVICE_FILES else None)
            if finding is not None:
                return python_finding(files, sources, finding)
    return None


def detect_agent_tools(files: Files) -> Finding | None:
    """A server of tools for agents (MCP), whose tools are typed functions and can be called as such."""
    sources = python_sources(files)
    for source in sources:
        if not any(name in AGENT_TOOLS for _, name in calls_in(source)):
            continue
        tools = [
            function for function in public_functions(source) if _is_tool(function) and is_typed(function)
        ]
        if tools:
            finding = _of_functions(
                source, tools, f"{source.file} offers tools by the Model Context Protocol"
            )
            return python_finding(files, sources, finding)
    return None


def detect_commands(files: Files) -> Finding | None:
    """A command that the project installs, or a file that reads its arguments."""
    sources = python_sources(files)
    scripts = console_scripts(files)
    finding = _installed(files, scripts, {source.dotted: source for source in sources})
    if finding is not None:
        return _with_alternative(files, sources, finding)
    for source in sorted(sources, key=_script_rank):
        said = _is_command_line(source)
        if said and (source.has_main or source.file.endswith("__main__.py") or _is_lone(source, sources)):
            return _with_alternative(
                files, sources, _script(source, f"{source.file} reads its arguments with {said}.")
            )
    return None


def _installed(files: Files, scripts: Mapping[str, str], by_name: Mapping[str, Source]) -> Finding | None:
    """The command that a project installs; of several the one called like it, else all behind one word."""
    targets = {
        name: (target.partition(":")[0].strip(), target.partition(":")[2].partition("[")[0].strip())
        for name, target in scripts.items()
    }
    usable = {
        name: pair
        for name, pair in targets.items()
        if pair[0] in by_name and pair[1].replace(".", "_").isidentifier() and _COMMAND.fullmatch(name)
    }
    if not usable:
        return None
    names = sorted(usable, key=lambda name: (name.replace("_", "-") != files.name.lower(), len(name), name))
    module, function = usable[names[0]]
    root = by_name[module].root
    environment = {"PYTHONPATH": root} if root else {}
    if len(usable) > 1 and names[0].replace("_", "-") != files.name.lower():
        shown = ", ".join(sorted(usable)[:FUNCTIONS_SHOWN_MAX]) + (
            " …" if len(usable) > FUNCTIONS_SHOWN_MAX else ""
        )
        because = (
            f"The project installs {len(usable)} commands: {shown}; the first argument says which is meant."
        )
        return Finding("python", "cli", because, command=("python", DISPATCHER_FILE), environment=environment,
                       files={DISPATCHER_FILE: _dispatcher(usable)})  # fmt: skip
    because = f"The project installs the command «{names[0]}» ({module}:{function})."
    if names[0] in project_scripts(files):
        # Its own packages lie beside the script's folder, where an installer puts both.
        return Finding("python", "cli", because, command=(names[0],), environment={"PYTHONPATH": root or "."})
    program = (
        f"import sys; sys.argv[0] = {names[0]!r}; from {module} import {function.partition('.')[0]}; "
        f"sys.exit({function}())"
    )
    return Finding("python", "cli", because, command=("python", "-c", program), environment=environment)


def _dispatcher(targets: Mapping[str, tuple[str, str]]) -> bytes:
    """The program that runs one of several commands."""
    lines = [
        f"    {name!r}: ({module!r}, {function!r})," for name, (module, function) in sorted(targets.items())
    ]
    return DISPATCHER.replace("    # COMMANDS", "\n".join(lines)).encode()


def detect_library(files: Files) -> Finding | None:
    """A library with one clear module of typed functions; one that is made to be installed may leave types out."""
    sources = python_sources(files)
    finding = _library(files, [source for source in sources if not source.has_main])
    is_compiled = _EXTENSION.search(files.text("setup.py")) is not None
    if finding is None and files.first("setup.py", "setup.cfg", "pyproject.toml") and not is_compiled:
        finding = _untyped_library(files, [source for source in sources if source.root in ("", "src", "lib")])
    return python_finding(files, sources, finding) if finding is not None else None


def _untyped_library(files: Files, sources: list[Source]) -> Finding | None:
    """The module that is called like the project, else the one with most functions; its functions, or its one class."""
    wanted = re.sub(r"[^a-z0-9]", "", files.name.lower())
    ranked: list[tuple[int, int, str, Source]] = []
    for source in sources:
        stem = source.dotted.rpartition(".")[2].lower()
        count = len(public_functions(source)) + len(public_classes(source))
        if (
            count
            and source.dotted.count(".") < 2
            and not stem.startswith("_")
            and stem not in ("utils", "cli")
        ):
            plain = re.sub(r"[^a-z0-9]", "", stem)
            is_named = plain in (wanted, wanted.removeprefix("python"), wanted.removeprefix("py"))
            ranked.append((0 if is_named else 1 if plain in wanted else 2, -count, source.file, source))
    if not ranked:
        return None
    ranked.sort(key=lambda one: one[:3])
    source = ranked[0][3]
    remarks = ["Its parameters have no types: callers may send any JSON."]
    others = [other[3].dotted for other in ranked[1:]]
    if others:
        remarks.append(f"Other modules were passed over: {', '.join(others[:5])}.")
    environment = {"PYTHONPATH": source.root} if source.root else {}
    shown = {
        name.rpartition(".")[2]
        for other in sources
        if other.is_package and "." not in other.dotted
        for name in other.imported.values()
    }
    made = [node for node in public_classes(source) if _is_made_without_arguments(node) and _methods_of(node)]
    made.sort(key=lambda node: node.name not in shown)
    functions = [
        node for node in public_functions(source) if node.args.vararg is None and node.name != "main"
    ]
    if (made and len(_methods_of(made[0])) >= len(functions)) or (
        made and files.name.lower() in made[0].name.lower()
    ):
        names = ", ".join(_methods_of(made[0])[:FUNCTIONS_SHOWN_MAX])
        because = f"{source.dotted} of this library has the class {made[0].name}: {names}."
        entry = f"{source.dotted}:{made[0].name}"
    elif functions:
        because = f"{source.dotted} of this library has functions: {', '.join(one.name for one in functions[:FUNCTIONS_SHOWN_MAX])}."
        entry = f"{source.dotted}:*"
    else:
        return None
    return Finding("python", "python", because, entry=entry, environment=environment, remarks=tuple(remarks))


def _methods_of(node: ast.ClassDef) -> list[str]:
    return [
        part.name
        for part in node.body
        if isinstance(part, Function)
        and not part.name.startswith("_")
        # Properties are no methods.
        and not any(ast.unparse(word).endswith(("property", ".setter")) for word in part.decorator_list)
    ]


def detect_script(files: Files) -> Finding | None:
    """A Python file that does something when it is run."""
    sources = python_sources(files)
    runnable = [source for source in sources if source.has_main or source.file.endswith("__main__.py")]
    if not runnable and len(sources) == 1 and not sources[0].is_package:
        runnable = sources
    if not runnable:
        runnable = [source for source in sources if source.file in ("main.py", "app.py", "run.py", "cli.py")]
    if not runnable:
        return None
    runnable.sort(key=_script_rank)
    if len(sources) == 1 and _only_defines(sources[0]):
        # To run it would do nothing at all, and be called a success.
        defined = _any_entry(sources[0])
        if defined is not None:
            return python_finding(files, sources, defined)
    others = [source.file for source in runnable[1:]]
    finding = _script(runnable[0], f"{runnable[0].file} is a Python program.")
    if others:
        finding = replace(finding, remarks=(f"Other programs were passed over: {', '.join(others[:4])}.",))
    return python_finding(files, sources, finding)


def _only_defines(source: Source) -> bool:
    """Whether a file holds definitions and constants, and no statement that does anything."""
    return all(
        isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))
        or (isinstance(part, (ast.Expr, ast.Assign, ast.AnnAssign)) and not _calls(part))
        for part in source.tree.body
    )


def _calls(part: ast.stmt) -> bool:
    return any(isinstance(node, (ast.Call, ast.Await)) for node in ast.walk(part))


def _typed_entry(source: Source) -> Finding | None:
    for node in public_classes(source):
        methods = [part for part in node.body if isinstance(part, Function) and not part.name.startswith("_")]
        callable_ones = [part for part in methods if part.name != "setup" and is_typed(part, is_method=True)]
        if callable_ones and _is_made_without_arguments(node) and not node.bases:
            names = ", ".join(part.name for part in callable_ones[:FUNCTIONS_SHOWN_MAX])
            return Finding(
                "python",
                "python",
                f"{source.file} has the class {node.name} with typed methods: {names}.",
                entry=f"{source.dotted}:{node.name}",
            )
    functions = [function for function in public_functions(source) if is_typed(function)]
    return _of_functions(source, functions, f"{source.file} has typed functions") if functions else None


def _any_entry(source: Source) -> Finding | None:
    """The first public class that can be made, else the first public function, whatever they say of their types."""
    for node in public_classes(source):
        is_called = any(isinstance(part, Function) and not part.name.startswith("_") for part in node.body)
        if is_called and _is_made_without_arguments(node):
            because = (
                f"{source.file} has the class {node.name}; its parameters have no types, so any JSON goes."
            )
            return Finding("python", "python", because, entry=f"{source.dotted}:{node.name}")
    for function in public_functions(source):
        if function.args.vararg is None and not function.args.posonlyargs:
            because = (
                f"{source.file} has the function {function.name}; types would tell callers what it takes."
            )
            return Finding("python", "python", because, entry=f"{source.dotted}:{function.name}")
    return None


def _library(files: Files, sources: list[Source]) -> Finding | None:
    candidates: list[tuple[int, int, str, Source, list[Function]]] = []
    shown = {
        name.rpartition(".")[2]
        for source in sources
        if source.is_package and "." not in source.dotted
        for name in source.imported.values()
    }
    for source in sources:
        functions = [function for function in public_functions(source) if is_typed(function)]
        if not functions or source.dotted.rpartition(".")[2].startswith("_") or source.root.count("/") > 1:
            continue
        offered = [function for function in functions if function.name in shown]
        stem = source.dotted.rpartition(".")[2]
        is_named = stem.replace("_", "-") in (files.name.lower(), files.name.lower().removeprefix("python-"))
        is_front = source.is_package or is_named
        candidates.append((0 if offered else 1 if is_front else 2, -len(offered or functions), source.file, source,
                           offered or functions))  # fmt: skip
    if not candidates:
        return None
    candidates.sort(key=lambda one: one[:3])
    rank, _, _, source, functions = candidates[0]
    if rank == 2 and len(candidates) > 1:
        # Nothing tells which of several modules is meant.
        return None
    remarks: tuple[str, ...] = ()
    others = [other[3].dotted for other in candidates[1:]]
    if others:
        remarks = (f"Other modules with typed functions were passed over: {', '.join(others[:5])}.",)
    why = {
        0: "what the package offers at its front",
        1: "its main module",
        2: "its only module with typed functions",
    }
    also = "" if rank == 2 else ", with typed functions"
    finding = _of_functions(source, functions, f"{source.dotted} is {why[rank]}{also}")
    return replace(finding, remarks=(*remarks, *finding.remarks))


def _of_functions(source: Source, functions: list[Function], before: str) -> Finding:
    """All functions of a module, or the one that it has."""
    names = [function.name for function in functions]
    shown = ", ".join(names[:FUNCTIONS_SHOWN_MAX]) + (" …" if len(names) > FUNCTIONS_SHOWN_MAX else "")
    return Finding(
        "python",
        "python",
        f"{before}: {shown}.",
        entry=f"{source.dotted}:{names[0] if len(names) == 1 else '*'}",
        environment={"PYTHONPATH": source.root} if source.root else {},
    )


def _with_alternative(files: Files, sources: list[Source], finding: Finding) -> Finding:
    library = _library(files, [source for source in sources if not source.has_main])
    if library is not None:
        remark = f'Its functions could be called instead: kind = "python", entry = "{library.entry}".'
        finding = replace(finding, remarks=(*finding.remarks, remark))
    return python_finding(files, sources, finding)


def _script(source: Source, because: str) -> Finding:
    dotted = source.dotted.removesuffix(".__main__")
    is_module = "." in source.dotted
    return Finding(
        "python",
        "cli",
        because,
        command=("python", "-m", dotted) if is_module else ("python", source.file),
        environment={"PYTHONPATH": source.root} if source.root and is_module else {},
    )


def _script_rank(source: Source) -> tuple[int, int, str]:
    stem = source.file.split("/")[-1].removesuffix(".py")
    return (
        source.file.count("/"),
        SCRIPT_FILES.index(stem) if stem in SCRIPT_FILES else len(SCRIPT_FILES),
        source.file,
    )


def _is_command_line(source: Source) -> str:
    for _, name in calls_in(source):
        if name in COMMAND_LINES:
            return COMMAND_LINES[name]
    for node in source.tree.body:
        if isinstance(node, Function):
            for decorator in node.decorator_list:
                if source.resolve(decorator) in COMMAND_LINES:
                    return COMMAND_LINES[source.resolve(decorator)]
    return ""


def _is_lone(source: Source, sources: list[Source]) -> bool:
    return len(sources) == 1 or source.file in ("main.py", "cli.py", "app.py")


def _is_tool(function: Function) -> bool:
    for decorator in function.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(target, ast.Attribute) and target.attr == "tool":
            return True
    return False


def _is_made_without_arguments(node: ast.ClassDef) -> bool:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            arguments = part.args
            return len(arguments.args) - 1 <= len(arguments.defaults) and None not in arguments.kw_defaults
    return not node.decorator_list
