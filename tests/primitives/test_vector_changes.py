"""A vector test that would not notice a wrong expected value proves nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import vectors_support
from tests.primitives import (
    test_basic_vectors,
    test_cid_vectors,
    test_crypto_vectors,
    test_typed_data_vectors,
)
from tests.vectors_support import changed, notices_changes

VECTOR_TESTS = [
    test
    for module in (test_basic_vectors, test_cid_vectors, test_crypto_vectors, test_typed_data_vectors)
    for name, test in vars(module).items()
    if name.startswith("test_") and test.vector_expected
]


@pytest.mark.parametrize("test", VECTOR_TESTS, ids=lambda test: test.__name__)
def test_a_changed_expected_value_is_noticed(test: Any) -> None:
    # Opening a key file costs a second each.
    cases_max = 1 if test.vector_section == "keystore" else 4
    assert notices_changes(test, seed=len(test.__name__), cases_max=cases_max) == []


def test_every_member_of_a_case_is_an_input_or_an_expected_value() -> None:
    for test in VECTOR_TESTS:
        document = vectors_support.load_vectors(vectors_support.vector_files(test.vector_files)[0])
        members = vectors_support.cases_of(document, test.vector_section)[0]
        assert set(test.vector_expected) <= set(members), test.__name__


def test_a_change_always_changes() -> None:
    random_source = random.Random(1)
    values: list[Any] = [0, 1e300, -1.5, "", "1", "0xab", None, True, [], [1], {}, {"a": [None]}]
    for value in values:
        for _ in range(20):
            assert changed(value, random_source) != value


def test_a_run_with_a_wrong_vector_fails_and_names_the_case(tmp_path: Path) -> None:
    document = vectors_support.load_vectors("ain/basic.json")
    document["sizeof"][3]["bytes"] += 1
    write(tmp_path, "ain/basic.json", {"schema": "basic/1", "sizeof": document["sizeof"]})
    result = run(tmp_path, "tests/primitives/test_basic_vectors.py")
    assert result.returncode == 1
    assert "sizeof[3]" in result.stdout
    assert f"ain/basic.json: {len(document['sizeof'])} cases" in result.stdout


def test_a_run_without_cases_fails(tmp_path: Path) -> None:
    assert run(tmp_path, "tests/primitives/test_basic_vectors.py").returncode == 1
    write(tmp_path, "ain/basic.json", {"schema": "basic/1", "sizeof": []})
    assert run(tmp_path, "tests/primitives/test_basic_vectors.py").returncode == 1


def test_an_unknown_file_or_section_fails(tmp_path: Path) -> None:
    document = vectors_support.load_vectors("ain/basic.json")
    write(tmp_path, "ain/basic.json", {"sizeof": document["sizeof"], "news": [{"a": 1}]})
    write(tmp_path, "else/more.json", {"cases": [1]})
    result = run(tmp_path, "tests/test_vector_files.py")
    assert result.returncode == 1
    assert "ain/basic.json news: no test runs it" in result.stdout
    assert "else/more.json cases: no test runs it" in result.stdout


def write(folder: Path, name: str, document: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    root = Path(vectors_support.TESTS).parent
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "vector", "-p", "no:cacheprovider", "-vv", tests],
        cwd=root,
        env={"OPENRESOURCE_VECTORS": str(folder), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
