"""The tree against a model of dictionaries, and the corners that no vector covers."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openresource.ledger.nodes import NOTHING, Branch, NodeLoader, Reference, radix_label
from openresource.ledger.proofs import check_proof, proves, state_proof
from openresource.ledger.reads import ReadOptions, TooManyBytes, TooManySiblings, check_read, read, state_info
from openresource.ledger.snapshots import InvalidSnapshot, load_radix_snapshot, radix_snapshot
from openresource.ledger.tree import Shape, Tree
from openresource.ledger.views import StateInfo, View
from tests.support.trees import MemorySource, Model

EMPTY_HASH = "0xac6e47f6a906efffe8d6732220926589865ab91ce02bfb3da3dd898f4be7af38"
SHAPES: tuple[Shape, ...] = ("canonical", "ain")

labels = st.sampled_from(
    ["a", "aa", "ab", "abx", "b", "0x61", "0x", "0xaB", "0xab", "1", "10", "01", "é", "한글", "$x", "c", "ca"]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
)
values = st.recursive(
    leaves,
    lambda inner: st.dictionaries(st.one_of(labels, st.just("#skipped")), inner, max_size=4),
    max_leaves=8,
)
paths = st.lists(labels, min_size=1, max_size=4)


def written(shape: Shape, *writes: tuple[str, Any]) -> Tree:
    tree = Tree(shape)
    for path, value in writes:
        tree.write(path.split("/"), value)
    return tree


def counts(view: View) -> StateInfo:
    found = view.counts([])
    assert found is not None
    return found


class TreeMachine(RuleBasedStateMachine):
    """One tree in memory, one that lives in a store with a tiny cache, and the model."""

    shape: Shape = "canonical"

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(self.shape)
        self.tree = Tree(self.shape)
        self.source = MemorySource()
        self.stored = Tree(self.shape, self.source, cached_nodes_max=3)
        self.saved: Model | None = None
        self.frozen: list[tuple[View, View, Any, StateInfo | None]] = []
        self.past: list[tuple[int, Any]] = []
        self.is_written = False
        self.last = self.model

    @rule(path=paths, value=values)
    def write(self, path: list[str], value: Any) -> None:
        self.model.write(path, value)
        for tree in (self.tree, self.stored):
            tree.write(path, value)
        self.is_written = True

    @rule(path=paths)
    def delete(self, path: list[str]) -> None:
        self.write(path, None)

    @precondition(lambda self: self.saved is None)
    @rule()
    def backup(self) -> None:
        self.saved = self.model.copy()
        for tree in (self.tree, self.stored):
            tree.backup()

    @precondition(lambda self: self.saved is not None)
    @rule()
    def restore(self) -> None:
        assert self.saved is not None
        self.model = self.saved
        self.saved = None
        for tree in (self.tree, self.stored):
            tree.restore()

    @precondition(lambda self: self.saved is not None)
    @rule()
    def drop_backup(self) -> None:
        self.saved = None
        for tree in (self.tree, self.stored):
            tree.drop_backup()

    @precondition(lambda self: self.saved is None and self.is_written)
    @rule()
    def end_block(self) -> None:
        self.source.take(self.stored)
        for tree in (self.tree, self.stored):
            tree.rebase()
        self.past.append((self.stored.root_number, self.model.plain()))
        self.last = self.model.copy()

    @precondition(lambda self: self.past)
    @rule()
    def revert(self) -> None:
        self.saved = None
        self.model = self.last.copy()
        for tree in (self.tree, self.stored):
            tree.revert()

    @precondition(lambda self: self.saved is None and self.past)
    @rule()
    def reopen(self) -> None:
        self.end_block()
        self.stored = Tree(
            self.shape,
            self.source,
            root_number=self.stored.root_number,
            next_number=self.stored.next_number,
            cached_nodes_max=3,
        )

    @rule()
    def freeze(self) -> None:
        counted = self.model.counts() if self.model.root else None
        self.frozen.append((self.tree.freeze(), self.stored.freeze(), self.model.plain(), counted))

    @invariant()
    def agrees_with_the_model(self) -> None:
        plain = self.model.plain()
        for tree in (self.tree, self.stored):
            assert same_in_order(tree.get([]), plain)
            if self.model.root:
                assert counts(tree) == self.model.counts()
        assert self.tree.root_hash() == self.stored.root_hash()
        if self.shape == "canonical" and self.model.root:
            assert self.tree.root_hash() == self.model.fresh_tree().root_hash()

    def teardown(self) -> None:
        for one, other, plain, counted in self.frozen:
            for view in (one, other):
                assert same_in_order(view.get([]), plain)
                assert counted is None or counts(view) == counted
            assert one.root_hash() == other.root_hash()
        for number, plain in self.past:
            assert same_in_order(self.stored.view_at(number).get([]), plain)


def same_in_order(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same_in_order(one[key], other[key]) for key in one)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


class AinTreeMachine(TreeMachine):
    """Each label in one spelling: which one stays depends on who shares a node, and has a test of its own below."""

    shape: Shape = "ain"

    @rule(path=paths, value=values)
    def write(self, path: list[str], value: Any) -> None:
        super().write([SPELLINGS.get(label, label) for label in path], spelled(value))


SPELLINGS = {"0x61": "a", "0xaB": "0xab"}


def spelled(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {SPELLINGS.get(label, label): spelled(item) for label, item in value.items()}


TestCanonicalTree = TreeMachine.TestCase
TestCanonicalTree.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAinTree = AinTreeMachine.TestCase
TestAinTree.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@settings(deadline=None)
@given(st.lists(st.tuples(paths, values), max_size=12))
def test_the_same_content_has_the_same_hash_whatever_its_history(writes: list[tuple[list[str], Any]]) -> None:
    tree = Tree("canonical")
    model = Model("canonical")
    for number, (path, value) in enumerate(writes):
        if number % 3 == 1:
            tree.rebase()
        tree.backup()
        tree.write(path, value)
        tree.drop_backup()
        model.write(path, value)
    if model.root:
        assert tree.root_hash() == model.fresh_tree().root_hash()
    elif writes:
        assert tree.root_hash() == EMPTY_HASH


def test_a_deletion_that_deletes_nothing_still_unshares_its_way() -> None:
    start = ("values", {"aa": 1, "ab": 2, "b": 3})
    hashes: dict[tuple[Shape, bool], str | None] = {}
    for shape in SHAPES:
        for with_vain_deletion in (False, True):
            tree = written(shape, start)
            tree.backup()
            if with_vain_deletion:
                tree.write(["values", "abx"], None)
            tree.write(["values", "aa"], None)
            hashes[shape, with_vain_deletion] = tree.root_hash()
    minimal = written("ain", ("values", {"ab": 2, "b": 3})).root_hash()
    assert hashes["ain", True] == minimal
    assert hashes["ain", False] != minimal
    assert hashes["canonical", True] == hashes["canonical", False] == minimal


def test_a_write_through_another_spelling_renames_what_it_copies() -> None:
    for shape, is_shared, spelling in (("ain", True, "0x61"), ("ain", False, "a"), ("canonical", True, "a")):
        for start in ({"a": {"b": 1}}, {"a": 1}):
            tree = written(shape, ("values", start))  # type: ignore[arg-type]
            if is_shared:
                tree.backup()
            tree.write(["values", "0x61", "c"], 2)
            branch = tree.get(["values"])
            assert isinstance(branch, dict) and list(branch) == [spelling]
            assert counts(tree) == counts(written("canonical", ("values", branch)))


def test_splitting_an_edge_leaves_the_backup_as_it_was() -> None:
    for shape in SHAPES:
        tree = written(shape, ("values", {"abcd": {"x": 1}}))
        before = tree.root_hash()
        tree.backup()
        tree.write(["values", "abce"], 2)
        tree.restore()
        assert tree.root_hash() == before
        assert tree.get(["values"]) == {"abcd": {"x": 1}}


def test_reverting_returns_to_the_last_base_with_its_sharing() -> None:
    for shape in SHAPES:
        hashes = []
        for is_reverted in (False, True):
            tree = written(shape, ("values", {"aa": 1, "ab": 2, "b": 3}))
            tree.rebase()
            if is_reverted:
                tree.write(["values", "ab"], 5)
                tree.backup()
                tree.write(["values", "x"], 5)
                tree.revert()
                assert tree.get(["values"]) == {"aa": 1, "ab": 2, "b": 3}
            tree.write(["values", "aa"], None)
            hashes.append(tree.root_hash())
        assert hashes[0] == hashes[1]


def test_a_write_through_a_colliding_label_keeps_the_inner_label() -> None:
    for shape in SHAPES:
        tree = written(shape, ("values/a/x", 1), ("values/0x61/y", 2))
        assert tree.get(["values"]) == {"a": {"x": 1, "y": 2}}
        tree.write(["values", "0x61"], 3)
        assert tree.get(["values"]) == {"0x61": 3}
        tree.write(["values", "a", "z"], 4)
        assert tree.get(["values"]) == {"0x61": {"z": 4}}


def test_the_empty_radix_label_goes_away_in_ours_and_stays_as_null_in_theirs() -> None:
    ours = written("canonical", ("values", {"0x": 5, "q": 1}), ("values/0x", None))
    assert ours.get(["values"]) == {"q": 1}
    assert ours.root_hash() == written("canonical", ("values", {"q": 1})).root_hash()
    theirs = written("ain", ("values", {"0x": 5, "q": 1}), ("values/0x", None))
    assert theirs.get(["values"]) == {"0x": None, "q": 1}


def test_a_tree_that_was_never_written_has_no_hash_and_one_that_was_emptied_has() -> None:
    tree = Tree()
    assert tree.root_hash() is None
    assert tree.info([]) == StateInfo(0, 0, 0, 0, 0, None)
    assert tree.get([]) == {}
    tree.write(["values", "a"], 1)
    tree.write(["values"], {})
    assert tree.root_hash() == EMPTY_HASH
    assert tree.info([]) == StateInfo(1, 1, 160, 0, 0, EMPTY_HASH)


def test_depth_from_outside_meets_no_recursion() -> None:
    value: Any = 1
    for _ in range(3_000):
        value = {"a": value}
    for shape in SHAPES:
        source = MemorySource()
        tree = Tree(shape, source)
        tree.write(["values"], value)
        tree.write(["rules", *["0x"] * 3_000], True)
        tree.write(["values", *["b"] * 3_000], {"x" * length: 1 for length in range(1, 400)})
        assert tree.root_hash() is not None
        source.take(tree)
        tree.rebase()
        view = Tree(shape, source, root_number=tree.root_number)
        deep = view.get(["values"])
        assert isinstance(deep, dict) and view.root_hash() == tree.root_hash()
        proof = state_proof(view, ["values", *["b"] * 3_000])
        assert check_proof(proof).is_verified
        copy = Tree(shape)
        copy.replace_root(load_radix_snapshot(radix_snapshot(view.root, "")))
        assert copy.counts([]) == view.counts([]) and copy.root_hash() == view.root_hash()
        tree.write(["values", *["b"] * 3_000], None)
        tree.write(["values"], None)


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [
        (2**53 + 1, 2.0**53),
        (10**30, 1e30),
        (-0.0, 0),
        (5.0, 5),
        (True, True),
        (1e300, 1e300),
        ("\ud800é", "\ud800é"),
    ],
)
def test_leaves_become_doubles_and_survive_the_store(given_value: object, kept: object) -> None:
    source = MemorySource()
    tree = Tree("canonical", source)
    tree.write(["values", "\ud800", "x"], given_value)
    source.take(tree)
    tree.rebase()
    stored = Tree("canonical", source, root_number=tree.root_number)
    for view in (tree, stored):
        found = view.get(["values", "\ud800", "x"])
        assert found == kept and type(found) is type(kept)
    assert stored.root_hash() == tree.root_hash()


def test_what_the_tree_cannot_hold_is_refused_before_anything_changes() -> None:
    tree = written("canonical", ("values/a", 1))
    before = tree.root_hash()
    with pytest.raises(TypeError):
        tree.write(["values", "a"], {"x": [1]})
    assert tree.root_hash() == before


def test_one_dictionary_at_two_places_makes_two_branches() -> None:
    shared = {"x": {"y": 1}}
    tree = written("canonical", ("values", {"a": shared, "b": shared}))
    tree.write(["values", "a", "x", "y"], 2)
    assert tree.get(["values"]) == {"a": {"x": {"y": 2}}, "b": {"x": {"y": 1}}}


def test_a_memo_lasts_until_something_below_its_branch_changes() -> None:
    tree = written("canonical", ("rules/a/b", 1), ("rules/c", 2))
    rules = tree.branch("rules")
    assert rules is not None
    rules.memo = "compiled"
    tree.backup()
    tree.write(["values", "x"], 1)
    tree.drop_backup()
    assert tree.branch("rules") is rules and rules.memo == "compiled"
    tree.write(["rules", "a", "b"], 3)
    changed = tree.branch("rules")
    assert changed is not None and changed.memo is None
    changed.memo = "compiled"
    tree.write(["rules", "a", "b"], 4)
    changed = tree.branch("rules")
    assert changed is not None and changed.memo is None


def test_children_come_in_both_orders_and_page_by_page() -> None:
    source = MemorySource()
    tree = Tree("canonical", source)
    names = [f"{number:03d}" for number in (5, 3, 9, 1, 7, 12, 100)]
    for name in names:
        tree.write(["values", "due", name], int(name))
    source.take(tree)
    tree.rebase()
    due = Tree("canonical", source, root_number=tree.root_number).node(["values", "due"])
    assert isinstance(due, Branch)
    assert [label for label, _ in due.children()] == names
    assert [holder.label for _, holder in due.children_in_radix_order()] == sorted(names)
    after = [holder.label for _, holder in due.children_in_radix_order(radix_label("007"))]
    assert after == ["009", "012", "100"]
    first = due.first_in_radix_order()
    assert first is not None and (first.label, first.value) == ("001", 1)
    assert due.child("004") is NOTHING and due.child("012") == 12
    empty = Tree("canonical").root
    assert empty.first_in_radix_order() is None


def test_the_first_of_many_children_is_found_without_loading_them_all() -> None:
    source = MemorySource()
    tree = Tree("canonical", source)
    tree.write(["values", "due"], {f"{number:06d}": number for number in range(2_000)})
    source.take(tree)
    tree.rebase()
    fresh = Tree("canonical", source, root_number=tree.root_number)
    source.loads = 0
    due = fresh.node(["values", "due"])
    assert isinstance(due, Branch) and due.first_in_radix_order() is not None
    assert source.loads < 40


def test_a_cache_forgets_what_it_may() -> None:
    source = MemorySource()
    tree = Tree("canonical", source, cached_nodes_max=50)
    tree.write(["values"], {f"{number:05d}": {"x": number} for number in range(2_000)})
    source.take(tree)
    tree.rebase()
    for number in range(2_000):
        assert tree.get(["values", f"{number:05d}", "x"]) == number
    gc.collect()
    alive = sum(1 for thing in gc.get_objects() if isinstance(thing, Branch))
    assert alive < 200


def test_a_block_without_a_write_stores_nothing() -> None:
    source = MemorySource()
    tree = Tree("canonical", source)
    tree.write(["values", "a"], 1)
    source.take(tree)
    tree.rebase()
    assert tree.collect_changes() == []
    tree.backup()
    tree.write(["values", "a"], 2)
    tree.restore()
    assert tree.collect_changes() == []
    again = Tree("canonical", source, root_number=tree.root_number, next_number=tree.next_number)
    assert again.collect_changes() == []
    assert isinstance(next(iter(again.root.kids.values())), Reference)


def test_records_are_written_for_the_changed_path_alone() -> None:
    source = MemorySource()
    tree = Tree("canonical", source)
    tree.write(["values"], {f"{number:05d}": {"x": number} for number in range(1_000)})
    source.take(tree)
    tree.rebase()
    tree.write(["values", "00500", "x"], 1)
    assert len(tree.collect_changes()) < 20


def test_a_node_loader_says_when_it_is_none() -> None:
    with pytest.raises(NotImplementedError):
        NodeLoader().load(1, "", b"")


# Proofs


@settings(deadline=None)
@given(st.lists(st.tuples(paths, values), min_size=1, max_size=8), paths)
def test_complete_proofs_prove_their_value_and_no_other(
    writes: list[tuple[list[str], Any]], path: list[str]
) -> None:
    tree = Tree("canonical")
    for where, value in writes:
        tree.write(where, value)
    proof = state_proof(tree, path, is_complete=True)
    found = tree.node(path)
    root_hash = tree.root_hash()
    assert root_hash is not None
    if found is NOTHING:
        assert proof is None
        return
    assert check_proof(proof).is_verified
    assert proves(proof, path, tree.get(path), root_hash)
    assert not proves(proof, path, "something else", root_hash)
    assert not proves(proof, [*path, "a"], tree.get(path), root_hash)
    assert not proves(proof, path, tree.get(path), EMPTY_HASH)


def test_a_label_that_begins_another_needs_the_complete_proof() -> None:
    tree = written("canonical", ("values", {"a": 1, "ab": 2}))
    assert not check_proof(state_proof(tree, ["values", "a"])).is_verified
    assert check_proof(state_proof(tree, ["values", "a"], is_complete=True)).is_verified


@pytest.mark.parametrize(
    "proof", [None, 5, "x", [], {}, {"#state:a": {}}, {"#radix:61": {"#state:a": "0x"}}, {"x": 1}]
)
def test_hostile_proofs_prove_nothing(proof: object) -> None:
    assert not check_proof(proof).is_verified
    assert not proves(proof, ["values", "a"], 1, EMPTY_HASH)


def test_a_proof_with_a_second_state_is_none() -> None:
    tree = written("canonical", ("values/a", 1))
    proof: Any = state_proof(tree, ["values", "a"])
    root_hash = tree.root_hash()
    assert root_hash is not None and proves(proof, ["values", "a"], 1, root_hash)
    at = proof["#radix:76616c756573"]["#state:values"]["#radix:61"]
    lie = written("canonical", ("a", 2)).hash_of(["a"])
    at["#state:0"] = {"#state_ph": lie}
    assert not proves(proof, ["values", "a"], 2, root_hash)


# Snapshots


@pytest.mark.parametrize(
    "change",
    [
        {"#serial": -1},
        {"#next_serial": "1"},
        {"#radix:zz": {}},
        {"#radix:": {}},
        {"#radix:61": 5},
        {"#radix:7": {"#serial": 1}},
        {"#state:a": 1},
        {"#radix:8": {"#serial": 1, "#state:b": 1}},
        {"#radix:8": {"#serial": 1, "#state:0x8": [1]}},
        {"#radix:8": {"#serial": 1, "#state:0x8": 1, "#state:0X8": 2, "#state:0x08": 2}},
    ],
)
def test_hostile_snapshots_are_refused(change: dict[str, Any]) -> None:
    snapshot = radix_snapshot(written("ain", ("values/a", 1)).root, "V")
    assert isinstance(snapshot, dict)
    with pytest.raises(InvalidSnapshot):
        load_radix_snapshot({**snapshot, **change})
    with pytest.raises(InvalidSnapshot):
        load_radix_snapshot([snapshot])


def test_a_snapshot_keeps_shape_and_serials() -> None:
    tree = written("ain", ("values", {"aa": 1, "ab": 2, "b": 3}))
    tree.backup()
    tree.write(["values", "aa"], None)
    tree.drop_backup()
    copy = Tree("ain")
    copy.replace_root(load_radix_snapshot(radix_snapshot(tree.root, "V")))
    assert copy.root_hash() == tree.root_hash()
    tree.rebase()
    copy.rebase()
    for other in (tree, copy):
        other.write(["values", "ac"], 5)
        other.write(["values", "ab"], None)
    assert copy.root_hash() == tree.root_hash()
    assert copy.get([]) == tree.get([])


# Reads with options


def test_reads_show_what_the_options_ask_for() -> None:
    tree = written("ain", ("values/d", {"a": {"s": "t"}, "n": 1.5, "10": 1, "2": {"x": 1}}))
    path = ["values", "d"]
    inner = tree.hash_of([*path, "a"])
    shallow = read(tree, path, ReadOptions(is_shallow=True))
    assert shallow == {
        "2": {"#state_ph": tree.hash_of([*path, "2"])},
        "10": 1,
        "a": {"#state_ph": inner},
        "n": 1.5,
    }
    assert isinstance(shallow, dict) and list(shallow) == ["2", "10", "a", "n"]
    noted = read(tree, [*path, "a"], ReadOptions(include_version=True, include_proof=True), "V1")
    assert noted == {
        "s": "t",
        "#version:s": "V1",
        "#state_ph:s": tree.hash_of([*path, "a", "s"]),
        "#version": "V1",
        "#state_ph": inner,
    }
    informed = read(tree, [*path, "a"], ReadOptions(include_tree_info=True))
    assert isinstance(informed, dict)
    assert (
        informed["#tree_bytes:s"] == 162 and informed["#num_children"] == 1 and informed["#num_parents"] == 1
    )
    assert read(tree, [*path, "n"], ReadOptions(include_version=True)) == 1.5
    assert read(tree, [*path, "none"]) is None
    info = state_info(tree, path, "V1")
    assert info is not None and info["#num_children"] == 4 and info["#version"] == "V1"
    assert state_info(tree, ["nowhere"], "V1") is None


def test_pages_follow_each_other_in_radix_order() -> None:
    names = ["b", "c", "a", "ca", "0x61ff"]
    tree = written("ain", ("values/d", {name: {"x": 1} if name == "c" else name for name in names}))
    first = read(tree, ["values", "d"], ReadOptions(is_partial=True, page_children_max=3))
    assert isinstance(first, dict)
    assert list(first) == ["#end_label", "b", "a", "0x61ff"] and first["#end_label"] == "62"
    second = read(
        tree, ["values", "d"], ReadOptions(is_partial=True, last_end_label="62", page_children_max=3)
    )
    assert isinstance(second, dict)
    assert list(second) == ["#end_label", "c", "ca"]
    assert set(second["c"]) == {"#state_ph", "#serial"}
    third = read(tree, ["values", "d"], ReadOptions(is_partial=True, last_end_label=second["#end_label"]))
    assert third == {"#end_label": None}


def test_reads_of_too_much_are_refused_by_name() -> None:
    tree = written("ain", ("values", {"a": 1, "b": {"x": "y" * 500}}))
    check_read(tree, ["values"])
    with pytest.raises(TooManySiblings) as siblings:
        check_read(tree, ["values"], siblings_max=1)
    assert siblings.value.message.endswith("2 > 1")
    with pytest.raises(TooManyBytes):
        check_read(tree, ["values"], bytes_max=1_000)
    check_read(tree, ["values"], ReadOptions(is_shallow=True), bytes_max=1_000)
    check_read(tree, ["values"], ReadOptions(is_partial=True), siblings_max=1)
    check_read(tree, ["nothing"], siblings_max=0)
