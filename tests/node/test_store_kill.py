"""What a store has confirmed survives the death of its process at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openresource.node.store import Store
from tests.node.store_writer import root_hash_of, transaction_hash_of

ROUNDS = 6
SECONDS_MAX = 60.0


@pytest.mark.kill
def test_a_kill_at_any_moment_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    random_source = random.Random(20_260_101)
    home = tmp_path / "chain"
    stored = -1
    for round_number in range(ROUNDS):
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.node.store_writer", str(home)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert writer.stdout is not None
        try:
            confirmed = stored
            wanted = stored + random_source.randrange(1, 12)
            deadline = time.monotonic() + SECONDS_MAX
            while confirmed < wanted:
                assert time.monotonic() < deadline, "the writer does not get on"
                line = writer.stdout.readline()
                assert line, "the writer has ended by itself"
                confirmed = int(line)
            # The instant of the kill lies anywhere in the commits that follow.
            instant = time.monotonic() + random_source.uniform(0, 0.03)
            while time.monotonic() < instant:
                pass
        finally:
            writer.kill()
            rest = writer.stdout.read()
            writer.wait(timeout=SECONDS_MAX)
            writer.stdout.close()
        # The last line may be cut; only whole ones were confirmed.
        for line in rest.splitlines(keepends=True):
            if line.endswith(b"\n"):
                confirmed = int(line)
        stored = check(home, confirmed)
        assert stored >= round_number


def check(home: Path, confirmed: int) -> int:
    """Everything confirmed is there and whole, and nothing is there by half; gives the height."""
    with Store.open(home) as store:
        height = store.height
        assert height >= confirmed
        for number in range(height + 1):
            view = store.view_at(number)
            assert view is not None
            assert view.root_hash() == root_hash_of(store, number)
            assert view.get(["values", "height"]) == number
            assert store.place_of(transaction_hash_of(number)) == (number, 0)
            assert store.receipt(number, 0) is not None
            assert [event for at, _, event in store.events(number) if at == number] == [b"%d" % number] * 3
        assert store.block(height + 1) is None and store.receipt(height + 1, 0) is None
        assert store.place_of(transaction_hash_of(height + 1)) is None
        assert list(store.events(height + 1)) == []
    return height
