"""A chain's directory: blocks, papers and snapshots come back as they were, and one process at a time writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openresource.ledger.snapshots import radix_snapshot
from openresource.ledger.tree import Tree
from openresource.node.ain.storage import ChainStorage, flat_rows, nested_rows
from openresource.node.store import HomeInUse


def storage(folder: Path) -> ChainStorage:
    return ChainStorage(folder / "chain", folder / "snapshots")


def block(number: int, **more: Any) -> dict[str, Any]:
    return {"number": number, "hash": "0x" + f"{number:064x}", **more}


def test_blocks_come_back_after_a_new_start(tmp_path: Path) -> None:
    with storage(tmp_path) as chain:
        assert chain.last_number == -1
        chain.append(block(0, text="ä\ud800", value=1e21))
        chain.append(block(1))
    with storage(tmp_path) as chain:
        assert chain.last_number == 1
        assert chain.block(0) == block(0, text="ä\ud800", value=1e21)
        assert chain.number_of(block(1)["hash"]) == 1
        assert chain.block(2) is None and chain.block(-1) is None
        assert chain.number_of("0x" + "f" * 64) is None and chain.number_of("nonsense") is None


def test_papers_are_kept_until_they_are_dropped(tmp_path: Path) -> None:
    first, second = "0x" + "1" * 64, "0x" + "2" * 64
    with storage(tmp_path) as chain:
        chain.keep_papers({first: {"vote": 1}, second: {"vote": 2}})
        chain.drop_papers(frozenset((second,)))
    with storage(tmp_path) as chain:
        assert chain.papers() == [{"vote": 2}]


def test_a_block_comes_back_with_its_proposal_and_is_the_same_once_it_is_final(tmp_path: Path) -> None:
    paper = "0x" + "1" * 64
    made = block(0, infinite=float("inf"), wide=2**70, nothing=None, transactions=[{"hash": "0x" + "3" * 64}])
    with storage(tmp_path) as chain:
        chain.keep_papers({paper: {"block": made, "proposal": {"value": 1}}})
        assert chain.papers() == [{"block": made, "proposal": {"value": 1}}]
    with storage(tmp_path) as chain:
        # Also after a kill, of which nothing but the disk knows.
        assert chain.papers() == [{"block": made, "proposal": {"value": 1}}]
        chain.keep_papers({paper: {"block": made, "proposal": {"value": 1}}})
        chain.append(made)
        chain.drop_papers(frozenset())
        assert chain.papers() == [] and chain.block(0) == made
        assert chain.place_of("0x" + "3" * 64) == (0, 0)


def test_one_process_at_a_time_has_the_directory(tmp_path: Path) -> None:
    with storage(tmp_path), pytest.raises(HomeInUse):
        storage(tmp_path)


def test_the_newest_snapshot_that_fits_its_block_is_taken(tmp_path: Path) -> None:
    tree = Tree("ain")
    for number in range(50):
        tree.write(["values", "apps", f"app{number}", "0x" + f"{number:02x}"], number)
    with storage(tmp_path) as chain:
        chain.append(block(0, state_proof_hash=tree.root_hash()))
        chain.write_snapshot(0, tree.freeze().root, 2)
        tree.write(["values", "apps", "more"], {"a": {"b": True}})
        chain.append(block(1, state_proof_hash=tree.root_hash()))
        chain.write_snapshot(1, tree.freeze().root, 2)
        found = chain.newest_snapshot()
        assert found is not None and found[0]["number"] == 1
        assert found[1].root_hash() == tree.root_hash()

        # One that was cut short is passed over.
        newest = tmp_path / "snapshots" / "1.jsonl.gz"
        newest.write_bytes(newest.read_bytes()[:-40])
        found = chain.newest_snapshot()
        assert found is not None and found[0]["number"] == 0

        chain.append(block(2, state_proof_hash="0x00"))
        chain.write_snapshot(2, tree.freeze().root, 2)
        assert chain.snapshot_numbers() == [2, 1]
        assert chain.newest_snapshot() is None


def test_a_tree_of_any_depth_becomes_rows_and_comes_back() -> None:
    tree = Tree("ain")
    tree.write(["values", *[f"label{depth}" for depth in range(600)]], "deep")
    snapshot = radix_snapshot(tree.root, "")
    assert radix_snapshot_equal(nested_rows(flat_rows(snapshot)), snapshot)


@pytest.mark.parametrize("rows", [[], [{"a": []}], [{}, {}], [5]])
def test_rows_that_make_no_tree_are_refused(rows: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"row|middle"):
        nested_rows(iter(rows))


def radix_snapshot_equal(left: Any, right: Any) -> bool:
    """Equality without recursion, as these are deeper than Python's own comparison goes."""
    pairs = [(left, right)]
    for one, other in pairs:
        if isinstance(one, dict) and isinstance(other, dict):
            if list(one) != list(other):
                return False
            pairs.extend((one[name], other[name]) for name in one)
        elif one != other:
            return False
    return True
