"""A home keeps every block and every version of the state, for one writer and any number of readers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import strategies as st

from openresource.ledger.proofs import check_proof, state_proof
from openresource.ledger.tree import Tree
from openresource.node.store import (
    FORMAT,
    BlockBatch,
    DiskFull,
    HomeInUse,
    HomeMissing,
    Store,
    StoreDamaged,
    StoreTooNew,
)

LABELS = st.sampled_from(["a", "aa", "ab", "b", "0x61", "10", "c"])
PATHS = st.lists(LABELS, min_size=1, max_size=3)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3)),
    lambda inner: st.dictionaries(LABELS, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "chain"


def add_block(store: Store, tree: Tree, writes: dict[str, Any], **more: Any) -> str:
    """Write, store a block, and give the new root hash."""
    height = store.height + 1
    for path, value in writes.items():
        tree.write(path.split("/"), value)
    root_hash = tree.root_hash()
    assert root_hash is not None
    nodes = tree.collect_changes()
    batch = BlockBatch(
        height=height,
        block_hash=height.to_bytes(32, "big"),
        block=b"block %d" % height,
        nodes=nodes,
        root_number=tree.root_number,
        **more,
    )
    store.append(batch)
    tree.rebase()
    return root_hash


def test_a_new_home_is_empty(home: Path) -> None:
    with Store.open(home) as store:
        assert store.height == -1
        assert store.block(0) is None and store.block(-1) is None and store.view_at(0) is None
        assert store.place_of(b"x" * 32) is None and store.height_of(b"x" * 32) is None
        assert store.tree("canonical").root_hash() is None
        assert list(store.events(0)) == []
    assert oct(home.stat().st_mode & 0o777) == "0o700"


def test_blocks_and_their_transactions_are_found_again(home: Path) -> None:
    with Store.open(home) as store:
        tree = store.tree("canonical")
        transactions = [(b"%032d" % number, b"receipt %d" % number) for number in range(3)]
        add_block(
            store, tree, {"values/a": 1}, transactions=transactions, events=[b"e0", b"e1"], meta={"x": b"1"}
        )
        add_block(store, tree, {"values/b": 2}, events=[b"e2"])
        store.set_meta("genesis", b"hash")
    with Store.open(home, read_only=True) as store:
        assert store.height == 1
        assert store.block(0) == b"block 0" and store.block(1) == b"block 1"
        assert (
            store.block_hash(1) == (1).to_bytes(32, "big") and store.height_of((1).to_bytes(32, "big")) == 1
        )
        assert store.place_of(b"%032d" % 2) == (0, 2)
        assert store.receipt(0, 2) == b"receipt 2" and store.receipt(1, 0) is None
        assert list(store.events(0)) == [(0, 0, b"e0"), (0, 1, b"e1"), (1, 0, b"e2")]
        assert list(store.events(0, 1)) == [(0, 1, b"e1"), (1, 0, b"e2")]
        assert store.meta("x") == b"1" and store.meta("genesis") == b"hash" and store.meta("y") is None


def test_many_events_come_page_by_page(home: Path) -> None:
    with Store.open(home) as store:
        tree = store.tree("canonical")
        add_block(store, tree, {"values/a": 1}, events=[b"%d" % number for number in range(1_000)])
        assert [event for _, _, event in store.events(0)] == [b"%d" % number for number in range(1_000)]


def test_every_past_state_stays_readable_and_provable(home: Path) -> None:
    hashes: list[str] = []
    with Store.open(home) as store:
        tree = store.tree("canonical", cached_nodes_max=10)
        for number in range(20):
            hashes.append(add_block(store, tree, {f"values/k{number % 7}/x": number, "values/last": number}))
        frozen = tree.freeze()
        tree.write(["values", "last"], "open block")
        assert frozen.get(["values", "last"]) == 19
    with Store.open(home) as store:
        for height, expected in enumerate(hashes):
            view = store.view_at(height)
            assert view is not None
            assert view.root_hash() == expected
            assert view.get(["values", "last"]) == height
            proof = state_proof(view, ["values", "last"])
            assert check_proof(proof).is_verified and check_proof(proof).hash == expected
        tree = store.tree("canonical")
        assert tree.root_hash() == hashes[-1]
        assert add_block(store, tree, {"values/last": 20}) not in hashes


def test_a_block_without_writes_keeps_the_state(home: Path) -> None:
    with Store.open(home) as store:
        tree = store.tree("canonical")
        first = add_block(store, tree, {"values/a": 1})
        assert add_block(store, tree, {}) == first
        view = store.view_at(1)
        assert view is not None and view.get(["values", "a"]) == 1


def test_a_second_writer_is_refused_by_name(home: Path) -> None:
    with Store.open(home):
        script = (
            "import sys; from pathlib import Path; from openresource.node.store import *\n"
            "try: Store.open(Path(sys.argv[1]))\nexcept HomeInUse as refusal: print(refusal.process)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(home)], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == str(os.getpid())
        with pytest.raises(HomeInUse) as refusal:
            Store.open(home)
        assert str(home) in str(refusal.value) and refusal.value.remedy
    Store.open(home).close()


def test_a_reader_needs_a_chain(home: Path) -> None:
    with pytest.raises(HomeMissing):
        Store.open(home, read_only=True)
    assert not home.exists()


def test_readers_see_new_blocks_while_the_writer_goes_on(home: Path) -> None:
    with Store.open(home) as store:
        tree = store.tree("canonical")
        add_block(store, tree, {"values/a": 1})
        script = (
            "import sys; from pathlib import Path; from openresource.node.store import *\n"
            "store = Store.open(Path(sys.argv[1]), read_only=True)\n"
            "for line in sys.stdin: print(store.height, store.view_at(store.height).get(['values', 'a']), flush=True)"
        )
        reader = subprocess.Popen(
            [sys.executable, "-c", script, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reader.stdin is not None and reader.stdout is not None
        for number in range(1, 4):
            reader.stdin.write("?\n")
            reader.stdin.flush()
            assert reader.stdout.readline().split() == [str(number - 1), str(number)]
            add_block(store, tree, {"values/a": number + 1})
        reader.stdin.close()
        assert reader.wait(timeout=60) == 0


def test_a_newer_format_is_refused(home: Path) -> None:
    with Store.open(home) as store:
        store.set_meta("format", str(FORMAT + 1).encode())
    for read_only in (False, True):
        with pytest.raises(StoreTooNew) as refusal:
            Store.open(home, read_only=read_only)
        assert (refusal.value.found, refusal.value.known) == (FORMAT + 1, FORMAT)


def test_a_full_disk_is_named_and_takes_nothing_with_it(home: Path) -> None:
    with Store.open(home, map_bytes=256 * 1024) as store:
        tree = store.tree("canonical")
        with pytest.raises(DiskFull) as refusal:
            for number in range(100):
                add_block(store, tree, {f"values/k{number}": "x" * 20_000})
        last = store.height
        assert refusal.value.height == last + 1 > 1
    with Store.open(home) as store:
        assert store.height == last
        tree = store.tree("canonical")
        assert len(tree.get(["values"])) == last + 1  # type: ignore[arg-type]
        add_block(store, tree, {"values/more": 1})


def test_a_missing_node_and_a_broken_file_are_named(home: Path) -> None:
    with Store.open(home) as store:
        add_block(store, store.tree("canonical"), {"values/a": {"b": 1}})
        with pytest.raises(StoreDamaged):
            store.load(999)
    (home / "data.mdb").write_bytes(b"not a store" * 1_000)
    with pytest.raises(StoreDamaged):
        Store.open(home)


def test_blocks_come_in_order(home: Path) -> None:
    with Store.open(home) as store, pytest.raises(AssertionError):
        store.append(BlockBatch(height=1, block_hash=b"x" * 32, block=b"", nodes=[], root_number=0))


def test_the_environment_is_as_careful_as_it_must_be(home: Path) -> None:
    with Store.open(home) as store:
        flags = store._environment.flags()
        assert flags["sync"] and flags["metasync"] and not flags["writemap"]
        assert isinstance(store._environment, lmdb.Environment)
