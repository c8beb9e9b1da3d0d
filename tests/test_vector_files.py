"""No vector is silently left out."""

from __future__ import annotations

import pytest

from tests.vectors_support import uncovered_vectors


@pytest.mark.vectors
def test_every_file_and_section_of_the_vectors_is_run_or_named_as_not_yet_run() -> None:
    assert uncovered_vectors() == []
