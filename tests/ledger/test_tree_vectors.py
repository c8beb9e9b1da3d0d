"""AI Network's trees, proofs and snapshots, from memory and read back from a store after every block."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openresource.ledger.hashes import hash_text, node_hash, value_hash
from openresource.ledger.nodes import NOTHING, Branch, Node
from openresource.ledger.proofs import state_proof, verify_proof
from openresource.ledger.snapshots import load_radix_snapshot, radix_snapshot
from openresource.ledger.tree import Tree
from openresource.ledger.views import View
from openresource.primitives.paths import parse_path
from tests.support.trees import MemorySource
from tests.vectors_support import notices_changes, vectors

ROOT = Path(__file__).resolve().parents[2]
FEW_NODES = 4


def same(one: Any, other: Any) -> bool:
    """Equal with the same order of keys; numbers as doubles."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)
    return bool(one == other)


def info(view: View, labels: list[str]) -> dict[str, Any]:
    found = view.info(labels)
    assert found is not None
    return {
        "num_children": found.children,
        "tree_height": found.height,
        "tree_size": found.size,
        "tree_bytes": found.bytes,
        "tree_max_siblings": found.siblings,
        "proof_hash": found.hash,
    }


def child_order(branch: Branch, path: str = "") -> dict[str, list[str]]:
    """Labels in order of all branches below the root that have more than one child."""
    order: dict[str, list[str]] = {}
    children = branch.children()
    if path and len(children) > 1:
        order[path] = [label for label, _ in children]
    for label, value in children:
        if isinstance(value, Branch):
            order.update(child_order(value, f"{path}/{label}"))
    return order


def radix(node: Node) -> dict[str, Any]:
    """Edges and hashes of a branch's radix nodes."""
    shown: dict[str, Any] = {kid.edge: radix(kid.node()) for kid in node.kids.values()}
    shown["#radix_ph"] = hash_text(node_hash(node))
    if node.value is not NOTHING:
        shown["#state:" + node.label] = {"#state_ph": hash_text(value_hash(node.value))}
    return shown


def check_tree(case: dict[str, Any], tree: Tree, source: MemorySource | None) -> None:
    for step in case["steps"]:
        match step["op"]:
            case "write":
                tree.write(step["path"], step["value"])
            case "backup":
                tree.backup()
            case "drop_backup":
                tree.drop_backup()
            case "restore":
                tree.restore()
            case "rebase":
                if source is not None:
                    source.take(tree)
                tree.rebase()
            case "drop_base":
                tree.drop_base()
            case _:
                raise AssertionError(step["op"])
        assert tree.root_hash() == step["root_proof_hash"], step
    final = case["final"]
    assert info(tree, []) == final["info"]
    assert same(tree.get([]) or None, final["state"])
    assert child_order(tree.root) == final["child_order"]
    if "values_radix" in final:
        values = tree.branch("values")
        assert values is not None
        assert radix(values) == final["values_radix"]
    for path, expected in final.get("sub_info", {}).items():
        assert info(tree, parse_path(path)) == expected


@vectors("ain/state_trees.json", "cases", expected=("final",))
def test_state_tree_vectors_in_memory(case: dict[str, Any], document: dict[str, Any]) -> None:
    check_tree(case, Tree("ain"), None)


@vectors("ain/state_trees.json", "cases", expected=("final",))
def test_state_tree_vectors_from_a_store(case: dict[str, Any], document: dict[str, Any]) -> None:
    source = MemorySource()
    check_tree(case, Tree("ain", source, cached_nodes_max=FEW_NODES), source)


def check_proof(case: dict[str, Any], view: View) -> None:
    labels = parse_path(case["path"])
    assert view.root_hash() == case["root_proof_hash"]
    assert view.hash_of(labels) == case["proof_hash"]
    assert state_proof(view, labels) == case["proof"]
    if case["proof"] is not None:
        assert verify_proof(case["proof"]) == case["verify"]
    if "tampered_proof" in case:
        assert verify_proof(case["tampered_proof"]) == case["tampered_verify"]


@vectors(
    "ain/state_proofs.json",
    "cases",
    expected=("path", "proof", "proof_hash", "root_proof_hash", "verify", "tampered_verify"),
)
def test_state_proof_vectors_in_memory(case: dict[str, Any], document: dict[str, Any]) -> None:
    tree = Tree("ain")
    for write in case["writes"]:
        tree.write(write["path"], write["value"])
    check_proof(case, tree)


@vectors("ain/state_proofs.json", "cases")
def test_state_proof_vectors_from_a_store(case: dict[str, Any], document: dict[str, Any]) -> None:
    source = MemorySource()
    tree = Tree("ain", source, cached_nodes_max=FEW_NODES)
    for write in case["writes"]:
        tree.write(write["path"], write["value"])
    source.take(tree)
    tree.rebase()
    check_proof(case, Tree("ain", source, root_number=tree.root_number, cached_nodes_max=FEW_NODES))


@vectors("ain/radix_snapshots.json", "cases", expected=("info", "state_snapshot", "child_order"))
def test_radix_snapshot_vectors(case: dict[str, Any], document: dict[str, Any]) -> None:
    source = MemorySource()
    tree = Tree("ain", source, cached_nodes_max=FEW_NODES)
    tree.replace_root(load_radix_snapshot(case["radix_snapshot"]))
    assert same(radix_snapshot(tree.root, "V0"), case["radix_snapshot"])
    source.take(tree)
    tree.rebase()
    stored = Tree("ain", source, root_number=tree.root_number, cached_nodes_max=FEW_NODES)
    for view in (tree, stored):
        assert info(view, []) == case["info"]
        assert same(view.get([]), case["state_snapshot"])
        assert child_order(view.root) == case["child_order"]
        assert same(radix_snapshot(view.root, "V0"), case["radix_snapshot"])


@pytest.mark.vectors
@pytest.mark.parametrize("seed", range(3))
def test_changed_vectors_are_noticed(seed: int) -> None:
    for test in (
        test_state_tree_vectors_in_memory,
        test_state_proof_vectors_in_memory,
        test_radix_snapshot_vectors,
    ):
        assert notices_changes(test, seed) == []


@pytest.mark.vectors
@pytest.mark.parametrize("plain", ["1", "0"])
def test_the_vectors_pass_plain_and_compiled(plain: str) -> None:
    """The kind that this process does not run is run in another one."""
    is_plain = sys.modules["openresource.ledger.tree"].__file__ == str(ROOT / "openresource/ledger/tree.py")
    if is_plain == (plain == "1"):
        pytest.skip("this process runs it")
    environment = {**os.environ, "OPENRESOURCE_PLAIN": plain}
    probe = "import openresource.ledger.tree as tree; print(tree.__file__.endswith('.py'))"
    found = subprocess.run(
        [sys.executable, "-c", probe], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    if found.stdout.strip() != str(plain == "1"):
        pytest.skip("no compiled kernel is built for these sources")
    names = [
        "test_tree_vectors.py",
        "test_rule_vectors.py",
        "test_crypto_vectors.py",
        "test_basic_vectors.py",
    ]
    files = [str(path) for name in names for path in sorted((ROOT / "tests").rglob(name))]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "vectors",
    ]
    command += ["-k", "not plain_and_compiled", *files]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170
    )
    assert done.returncode == 0, done.stdout[-3000:]
