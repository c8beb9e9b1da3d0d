"""Runs test vectors file by file and section by section, counts every case, and knows which files nobody runs yet.

The vectors lie in the folder named by OPENRESOURCE_VECTORS (default: tests/vectors), for example `ain/basic.json`.
A section is a member of a file's top-level object that is a list (each element is a case) or an object (one case);
scalar members (`schema`, `seed`, `note`) are not sections. A test module says what it runs with a decorator:

    from tests.vectors_support import vectors

    @vectors("ain/basic.json", "labels", expected=("valid", "is_variable"))
    def test_label_vectors(case, document):
        assert valid_label(case["label"], document["label_limit"]) == case["valid"]

The function is called once per case; the decorator makes one test out of it, with the mark `vectors`, that runs all
cases, reports each mismatch with its place, and counts. A file that is absent from the folder is skipped; in a
present file no case is, and an empty section fails. `expected` names the members of a case that hold expected
results: `notices_changes(test)` changes each in a copy and demands that the check then fails (see
tests/primitives/test_vector_changes.py). Further arguments:

    @vectors("ain/tx/*.json", WHOLE_FILE, count=lambda document: len(document["steps"]))   # one call per file
    @vectors("ain/rules.json", "genesis_eval", context=("state", "rule_sources"))          # other members are not cases

File names may be patterns. The arguments must be literals where tests/test_vector_files.py reads them from the source:
it fails for every file and section in the folder that no test runs and that NOT_YET does not list with a reason,
and for entries of NOT_YET that some test does run.
"""

from __future__ import annotations

import ast
import copy
import fnmatch
import functools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WHOLE_FILE = "*"
FAILURES_SHOWN_MAX = 10
TESTS = Path(__file__).parent

Case = Any
Document = dict[str, Any]
Check = Callable[[Case, Document], None]

_CONTEXT = "holds no results of its own; the genesis and transaction vectors build on it"
_DAEMON = "comes with the SingularityNET daemon and its clients"

# "file" or "file#section" → why no test runs it yet.
NOT_YET: dict[str, str] = {
    "ain/genesis/bandages.json": _CONTEXT,
    "ain/genesis/configs.json": _CONTEXT,
    "ain/genesis/genesis_*.json": _CONTEXT,
    "ain/genesis/test_accounts.json": _CONTEXT,
    "snet/channel_state_requests.json": _DAEMON,
    "snet/claim_signatures.json": _DAEMON,
    "snet/contract_abi_index.json": _DAEMON,
    "snet/free_calls.json": _DAEMON,
    "snet/ipfs_http_calls.json": _DAEMON,
    "snet/metadata_cases.json": _DAEMON,
    "snet/metadata_headers.json": _DAEMON,
    "snet/provider_control.json": _DAEMON,
    "snet/registry_encoding.json": _DAEMON,
    "snet/sessions.json": _DAEMON,
    "snet/token_service.json": _DAEMON,
    "snet/training_auth.json": _DAEMON,
}


def vectors_folder() -> Path:
    """Where the vectors are."""
    return Path(os.environ.get("OPENRESOURCE_VECTORS") or TESTS / "vectors").resolve()


def vector_files(pattern: str = "*") -> list[str]:
    """Names of the vector files in the folder that match a pattern, relative to it."""
    folder = vectors_folder()
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.json") if path.is_file())
    return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))


@functools.lru_cache(maxsize=4)
def _text_of(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def _integer(digits: str) -> float:
    # The vectors were written by JavaScript: beyond 2^53 their digits mean the nearest double.
    number = int(digits)
    return number if abs(number) < 2**53 else float(number)


def load_vectors(name: str) -> Document:
    """One vector file; the caller may change what it gets."""
    document = json.loads(_text_of(vectors_folder(), name), parse_int=_integer)
    assert isinstance(document, dict), f"{name} is not an object"
    return document


def sections_of(document: Document) -> list[str]:
    """The members of a vector file that hold cases or context."""
    return [name for name, member in document.items() if isinstance(member, dict | list)]


def cases_of(document: Document, section: str) -> list[Case]:
    """The cases of a section."""
    if section == WHOLE_FILE:
        return [document]
    member = document[section]
    return member if isinstance(member, list) else [member]


def vectors(
    files: str,
    section: str,
    *,
    expected: tuple[str, ...] = (),
    context: tuple[str, ...] = (),
    count: Callable[[Document], int] | None = None,
) -> Callable[[Check], Callable[..., None]]:
    """Makes a test that runs a check on every case of a section of every file that matches."""

    def decorate(check: Check) -> Callable[..., None]:
        @pytest.mark.vectors
        def test(record_property: Callable[[str, object], None]) -> None:
            present = [
                name for name in vector_files(files) if section == WHOLE_FILE or section in load_vectors(name)
            ]
            record_property("vector test", files)
            if not present:
                pytest.skip(f"{vectors_folder()} has no {files} with {section}")
            failures: list[str] = []
            for name in present:
                document = load_vectors(name)
                found = _failures(check, document, section)
                cases_run = count(document) if count else len(cases_of(document, section))
                record_property("vector cases", [name, section, cases_run])
                failures += [f"{name} {place}" for place in found]
                if cases_run == 0:
                    failures.append(f"{name} {section}: no case ran")
            if failures:
                shown = "\n".join(failures[:FAILURES_SHOWN_MAX])
                pytest.fail(f"{len(failures)} mismatches:\n{shown}", pytrace=False)

        test.__name__ = check.__name__
        test.__qualname__ = check.__qualname__
        test.__doc__ = check.__doc__
        test.__module__ = check.__module__
        test.vector_check = check  # type: ignore[attr-defined]
        test.vector_files = files  # type: ignore[attr-defined]
        test.vector_section = section  # type: ignore[attr-defined]
        test.vector_expected = expected  # type: ignore[attr-defined]
        return test

    return decorate


def _failures(check: Check, document: Document, section: str) -> Iterator[str]:
    for index, case in enumerate(cases_of(document, section)):
        try:
            check(case, document)
        except Exception as error:
            yield f"{section}[{index}]: {type(error).__name__}: {str(error)[:600]}"


# Changes of expected values


def changed(value: Any, random_source: random.Random) -> Any:
    """A value that differs from the given one in one place."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if value + 1 != value else value * 2
    if value is None:
        return "changed"
    if isinstance(value, str):
        if not value:
            return "changed"
        position = random_source.randrange(len(value))
        other = "1" if value[position] != "1" else "2"
        return value[:position] + other + value[position + 1 :]
    if isinstance(value, list):
        if not value:
            return ["changed"]
        position = random_source.randrange(len(value))
        return [*value[:position], changed(value[position], random_source), *value[position + 1 :]]
    if not value:
        return {"changed": True}
    key = random_source.choice(list(value))
    return {**value, key: changed(value[key], random_source)}


def notices_changes(test: Any, seed: int, *, cases_max: int = 3) -> list[str]:
    """Changes expected values in copies of some cases; gives the places where the check did not notice."""
    random_source = random.Random(seed)
    missed: list[str] = []
    for name in vector_files(test.vector_files):
        document = load_vectors(name)
        if test.vector_section not in document:
            continue
        cases = cases_of(document, test.vector_section)
        for index in random_source.sample(range(len(cases)), min(cases_max, len(cases))):
            for member in test.vector_expected:
                if member not in cases[index]:
                    continue
                case = copy.deepcopy(cases[index])
                case[member] = changed(case[member], random_source)
                try:
                    test.vector_check(case, document)
                except Exception:
                    continue
                missed.append(f"{name} {test.vector_section}[{index}].{member} = {str(case[member])[:200]}")
    return missed


# Completeness: what the folder holds against what tests run


def claims_in_source() -> dict[tuple[str, str], list[str]]:
    """(file pattern, section) → test modules that run it, and the sections they use as context."""
    claims: dict[tuple[str, str], list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "vectors(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "vectors"
            ):
                continue
            files = ast.literal_eval(node.args[0])
            section = WHOLE_FILE if isinstance(node.args[1], ast.Name) else ast.literal_eval(node.args[1])
            names = [section]
            for keyword in node.keywords:
                if keyword.arg == "context":
                    names += ast.literal_eval(keyword.value)
            for name in names:
                claims.setdefault((files, name), []).append(path.relative_to(TESTS).as_posix())
    return claims


def uncovered_vectors() -> list[str]:
    """Everything in the folder that no test runs and NOT_YET does not name, and every stale line of NOT_YET."""
    claims = claims_in_source()
    problems: list[str] = []
    folder = vectors_folder()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix not in (".json", ".md"):
            problems.append(f"{name}: unknown kind of file")
    for name in vector_files():
        problems += _uncovered_in(name, claims)
    for entry in NOT_YET:
        files, _, section = entry.partition("#")
        for (pattern, claimed), modules in claims.items():
            if fnmatch.fnmatchcase(files, pattern) and section in ("", claimed):
                problems.append(f"{entry}: listed in NOT_YET, but {modules[0]} runs it")
    return problems


def _uncovered_in(name: str, claims: dict[tuple[str, str], list[str]]) -> Iterator[str]:
    claimed = {section for (pattern, section) in claims if fnmatch.fnmatchcase(name, pattern)}
    waiting: set[str] = set()
    for entry in NOT_YET:
        files, _, section = entry.partition("#")
        if fnmatch.fnmatchcase(name, files):
            waiting.add(section or WHOLE_FILE)
    if WHOLE_FILE in claimed or WHOLE_FILE in waiting:
        return
    for section in sections_of(load_vectors(name)):
        if section not in claimed and section not in waiting:
            yield f"{name} {section}: no test runs it"


# The count at the end of a run


def summary_lines(reports: list[Any]) -> tuple[list[str], int, int]:
    """Lines for the end of a run, how many cases ran, and how many vector tests."""
    counts: dict[str, int] = {}
    tests = 0
    for report in reports:
        if report.when != "call":
            continue
        for key, value in report.user_properties:
            if key == "vector test":
                tests += 1
            elif key == "vector cases":
                counts[value[0]] = counts.get(value[0], 0) + value[2]
    lines = [f"{name}: {counts[name]} cases" for name in sorted(counts)]
    for entry, reason in NOT_YET.items():
        pattern, _, section = entry.partition("#")
        for name in vector_files(pattern):
            if not section or section in load_vectors(name):
                lines.append(f"{name}{f' {section}' if section else ''}: not run yet, as it {reason}")
    total = sum(counts.values())
    lines.append(f"{total} cases in {len(counts)} files of {vectors_folder()}")
    return lines, total, tests
