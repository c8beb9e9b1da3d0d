"""What Python sources say of themselves, read from their syntax trees: nothing is imported and nothing is run."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from openresource.builds.files import Files

MODULES_MAX: Final = 400
SOURCE_BYTES_MAX: Final = 256 * 1024
SOURCES_BYTES_MAX: Final = 3 * 1024 * 1024
MODULE_DEPTH_MAX: Final = 5
NODES_MAX: Final = 60_000

# Folders and files that stand beside a program without being it.
ASIDE_FOLDERS: Final = frozenset(
    ("test", "tests", "testing", "doc", "docs", "example", "examples", "sample", "samples", "demo", "demos", "bench",
     "benchmark", "benchmarks", "migrations", "build", "dist", "vendor", "third_party", "notebooks", "fixtures", "ci",
     "tools", "contrib")
)  # fmt: skip
ASIDE_FILES: Final = frozenset(
    (
        "setup.py",
        "conftest.py",
        "noxfile.py",
        "tasks.py",
        "fabfile.py",
        "versioneer.py",
        "_version.py",
        "toxfile.py",
    )
)
# What a function may take and give for a caller who speaks JSON.
PLAIN_TYPES: Final = frozenset(
    ("str", "int", "float", "bool", "bytes", "None", "list", "dict", "tuple", "set", "frozenset", "List", "Dict",
     "Tuple", "Set", "FrozenSet", "Optional", "Union", "Any", "Literal", "Annotated", "Sequence", "Iterable",
     "Iterator", "Generator", "Mapping", "AsyncIterator", "AsyncGenerator", "datetime", "date", "object", "AnyStr",
     "Collection", "Path", "pathlib", "typing", "t", "collections", "abc", "bytearray")
)  # fmt: skip
_NAME_IN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: where it lies, how it is imported, and its tree."""

    file: str
    root: str
    dotted: str
    text: str
    tree: ast.Module
    # Names in this file → what they were imported as, such as "web" → "aiohttp.web".
    imported: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_package(self) -> bool:
        """Whether it is the front of a package."""
        return self.file.endswith("__init__.py")

    def resolve(self, node: ast.expr) -> str:
        """The full name of what an expression names: `FastAPI` → `fastapi.FastAPI`."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute) and len(parts) < 8:
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.imported.get(node.id, node.id), *reversed(parts)])

    @property
    def has_main(self) -> bool:
        """Whether it does something when it is run as a program."""
        return any(isinstance(node, ast.If) and _is_main_test(node.test) for node in self.tree.body)

    def imports(self, *packages: str) -> bool:
        """Whether it imports one of these packages."""
        return any(name.partition(".")[0] in packages for name in self.imported.values())


def python_sources(files: Files) -> list[Source]:
    """The Python files that may be the program, those near the top first; broken and outsized ones are passed over."""
    if "python sources" not in files.notes:
        files.notes["python sources"] = _read_sources(files)
    return list(files.notes["python sources"])


def _read_sources(files: Files) -> list[Source]:
    found: list[Source] = []
    bytes_left = SOURCES_BYTES_MAX
    for file in files.names:
        if not file.endswith(".py") or _is_aside(file):
            continue
        content = files.bytes_of(file)
        if not content or len(content) > SOURCE_BYTES_MAX:
            continue
        bytes_left -= len(content)
        if bytes_left < 0 or len(found) >= MODULES_MAX:
            break
        source = _source(file, content, files)
        if source is not None:
            found.append(source)
    return found


def third_party(sources: list[Source], files: Files) -> list[str]:
    """The packages that sources import at their top and that are neither Python's own nor the folder's."""
    ours = {
        part for file in files.names if file.endswith(".py") for part in file.removesuffix(".py").split("/")
    }
    found: set[str] = set()
    for source in sources:
        for node in source.tree.body:
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                package = name.partition(".")[0]
                if package not in sys.stdlib_module_names and package not in ours:
                    found.add(package)
    return sorted(found)


def public_functions(source: Source) -> list[Function]:
    """The functions at a module's top that callers could use."""
    return [
        node
        for node in source.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]


def public_classes(source: Source) -> list[ast.ClassDef]:
    """The classes at a module's top that callers could use."""
    return [
        node for node in source.tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def is_typed(function: Function, *, is_method: bool = False) -> bool:
    """Whether every parameter says its type, and says one that JSON has."""
    arguments = function.args
    if arguments.vararg is not None or arguments.kwarg is not None or arguments.posonlyargs:
        return False
    parameters = [*arguments.args[1 if is_method else 0 :], *arguments.kwonlyargs]
    if not parameters and not is_method:
        # A function that takes and gives nothing is a program's start, not something to call.
        returns = function.returns
        is_nothing = returns is None or (isinstance(returns, ast.Constant) and returns.value is None)
        return not is_nothing and returns is not None and is_plain(returns)
    return all(
        parameter.annotation is not None and is_plain(parameter.annotation) for parameter in parameters
    )


def is_plain(annotation: ast.expr) -> bool:
    """Whether a type is made of those that JSON has."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id not in PLAIN_TYPES:
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A type written as a text, or a word of Literal; both are made of names.
            names = _NAME_IN_TEXT.findall(node.value[:1_000])
            if "[" in node.value and not set(names) <= PLAIN_TYPES:
                return False
    return True


def calls_in(source: Source) -> Iterator[tuple[ast.Call, str]]:
    """Every call in a file with the full name of what is called."""
    for number, node in enumerate(ast.walk(source.tree)):
        if number > NODES_MAX:
            return
        if isinstance(node, ast.Call):
            yield node, source.resolve(node.func)


def keyword_of(call: ast.Call, name: str) -> object:
    """The constant that a call gives for a keyword, else None."""
    for keyword in call.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def _source(file: str, content: bytes, files: Files) -> Source | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    root, dotted = _place(file, files)
    return Source(file, root, dotted, content.decode("utf-8", "replace"), tree, _imported(tree, dotted))


def _imported(tree: ast.Module, dotted: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, node in enumerate(ast.walk(tree)):
        if number > NODES_MAX:
            break
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = dotted.split(".")[: -node.level] if dotted else []
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                found[alias.asname or alias.name] = f"{base}.{alias.name}"
    return found


def _place(file: str, files: Files) -> tuple[str, str]:
    """Where the import path must begin for a file, and the file's dotted name from there."""
    folders = file.split("/")[:-1]
    depth = len(folders)
    while depth > 0 and "/".join([*folders[:depth], "__init__.py"]) in files:
        depth -= 1
    if depth == len(folders) and depth > 0 and folders[0] not in ("src", "lib"):
        # A folder without __init__.py is a namespace package of its parent.
        depth = 0
    parts = [*folders[depth:], file.split("/")[-1].removesuffix(".py")]
    if parts[-1] == "__init__":
        parts.pop()
    return "/".join(folders[:depth]), ".".join(parts)


def _is_aside(file: str) -> bool:
    *folders, name = file.split("/")
    if len(folders) > MODULE_DEPTH_MAX or name in ASIDE_FILES or name.startswith("test_"):
        return True
    return name.endswith("_test.py") or any(
        folder in ASIDE_FOLDERS or folder.startswith((".", "test_", "tests_")) for folder in folders
    )


def _is_main_test(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and any(isinstance(part, ast.Constant) and part.value == "__main__" for part in test.comparators)
    )
