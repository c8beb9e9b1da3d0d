"""The state of the chain: one persistent tree, written in place where nobody else looks, else by copying the path.

Within a block hardly anything is copied: what a backup shares with the work is written in place too, and what it was
before is kept until the backup is dropped or restored.

Counts are right after every write, hashes are computed when asked for. The two shapes differ in one predicate:
`canonical` joins a lone child with its edge always, `ain` only if no other live version shares the child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from openresource.ledger.building import (
    Claims,
    build,
    chain,
    claim,
    label_bytes,
    measure,
    number_child,
    place,
    value_bytes,
    value_height,
    value_siblings,
    value_size,
)
from openresource.ledger.nodes import (
    NOTHING,
    Branch,
    Kid,
    Node,
    copy_branch,
    empty_branch,
    keep_branch,
    own_kids,
    put_back,
    radix_label,
)
from openresource.ledger.records import NodeCache, take_changes
from openresource.ledger.views import View, find

Shape = Literal["canonical", "ain"]

CACHED_NODES_MAX: Final = 50_000


class NodeSource(Protocol):
    """What the tree needs of a store: the bytes under a running number."""

    def load(self, number: int) -> bytes: ...


class Tree(View):
    """The working version of the state, with at most one backup and any number of bases behind it."""

    def __init__(
        self,
        shape: Shape = "canonical",
        source: NodeSource | None = None,
        *,
        root_number: int = 0,
        next_number: int = 1,
        cached_nodes_max: int = CACHED_NODES_MAX,
    ) -> None:
        """An empty tree, or with a root number the tree that a store holds; that version stays alive as the base."""
        self.root: Branch = empty_branch(1)
        self._joins_always: bool = shape == "canonical"
        self._claims: Claims = Claims()
        self._base_count: int = 0
        self._base_token: int = 0
        self._base: Branch | None = None
        self._backup: Branch | None = None
        self._backup_token: int = 0
        self._cache: NodeCache | None = None if source is None else NodeCache(source.load, cached_nodes_max)
        self._root_number: int = root_number
        self._next_number: int = next_number
        if root_number and self._cache is not None:
            self.root = self._cache.root(root_number)
            self._cache.last_root = self.root
            self.rebase()

    # Versions

    def backup(self) -> None:
        """Keep the state of now, so that `restore` can return to it."""
        assert self._backup is None, "a backup is open"
        self._backup = self.root
        self._backup_token = self._claims.token
        self._begin_version()

    @property
    def has_backup(self) -> bool:
        """Whether a backup is open."""
        return self._backup is not None

    def restore(self) -> None:
        """Return to the backup, which ends with that."""
        assert self._backup is not None, "no backup is open"
        self.root = self._backup
        self._backup = None
        touched = self._claims.touched
        for node in touched:
            put_back(node)
        touched.clear()
        self._begin_version()

    def drop_backup(self) -> None:
        """Let go of the backup: what was written stays."""
        assert self._backup is not None, "no backup is open"
        self._backup = None
        self._forget_touched()
        self._find_floor()

    def rebase(self) -> None:
        """End a block: the state of now stays alive as the base, the work goes on above it."""
        assert self._backup is None, "a backup is open"
        self._base_count += 1
        self._base_token = self._claims.token
        self._base = self.root
        self._begin_version()

    def revert(self) -> None:
        """Give up everything since the last base, and the backup if one is open."""
        assert self._base is not None and self._base_count > 0, "there is no base"
        self.root = self._base
        self._backup = None
        self._forget_touched()
        self._begin_version()

    def drop_base(self) -> None:
        """Let go of the oldest base."""
        assert self._base_count > 0, "there is no base"
        self._base_count -= 1
        if self._base_count == 0:
            self._base = None
        self._find_floor()

    def freeze(self) -> View:
        """The state of now, for readers; later writes do not reach it."""
        if self._claims.touched:
            self._part_from_backup()
        self._copy_all()
        return View(self.root)

    def fork(self) -> Tree:
        """A tree of its own above the state of now, which stays alive as its base; neither sees the other's writes."""
        self.freeze()
        forked = Tree("canonical" if self._joins_always else "ain")
        forked.root = self.root
        forked._claims.token = self._claims.token
        forked.rebase()
        return forked

    def replace_root(self, root: Branch) -> None:
        """Take over a whole state, such as one loaded from a snapshot; no other version is alive then."""
        assert self._backup is None, "a backup is open"
        self.root = root
        self._base_count = 0
        self._base = None
        self._copy_all()
        self._find_floor()

    # Storing

    @property
    def root_number(self) -> int:
        """The running number under which the last collected root lies; 0 before that."""
        return self._root_number

    @property
    def next_number(self) -> int:
        """The running number that the next record will get."""
        return self._next_number

    def collect_changes(self) -> list[tuple[int, bytes]]:
        """At a block's end, records of all nodes that no store has yet, children first; the root is the last.

        They must be stored before the next call; if that fails, open the tree anew from the store.
        """
        assert self._cache is not None, "this tree has no store"
        assert self._backup is None, "a backup is open"
        if self._root_number and self.root is self._cache.last_root:
            return []
        records, self.root = take_changes(self.root, self._cache, self._next_number)
        self._root_number, _ = records[-1]
        self._next_number = self._root_number + 1
        self._copy_all()
        return records

    def view_at(self, root_number: int) -> View:
        """The state whose root lies under a running number."""
        assert self._cache is not None, "this tree has no store"
        return View(self._cache.root(root_number))

    # Writing

    def write(self, labels: Sequence[str], value: object) -> None:
        """Set what lies at a full path; None, or an object without children, deletes it and what becomes empty."""
        assert labels, "the root itself is never written"
        # The items of a list are found sooner than those of any sequence.
        way: list[str] = labels if isinstance(labels, list) else list(labels)
        claims = self._claims
        fresh = build(value, claims)
        root = _claimed(self.root, claims)
        self.root = root

        path: list[Node] = [root]
        branches: list[Branch] = []
        starts: list[int] = []
        branch = root
        last = len(way) - 1
        level = 0
        while True:
            branches.append(branch)
            starts.append(len(path) - 1)
            target = place(branch, way[level], path, claims)
            if level == last:
                break
            below = target.value
            if not isinstance(below, Branch):
                break
            if below.token < claims.floor and target.label != way[level] and not self._joins_always:
                _relabel(path, way[level])
            below = _claimed(below, claims)
            target.value = below
            path.append(below)
            branch = below
            level += 1

        if fresh is None:
            self._remove(path, branches, starts, level)
        else:
            self._attach(path, branches, starts, way, level, fresh)

    def _attach(
        self,
        path: list[Node],
        branches: list[Branch],
        starts: list[int],
        labels: list[str],
        level: int,
        fresh: object,
    ) -> None:
        branch = branches[level]
        count = branch.count
        target = path[-1]
        before = target.value
        label = labels[level]
        if level + 1 < len(labels):
            fresh = chain(labels[level + 1 :], fresh, self._claims)
            # The leaf on the way becomes a branch; it is not replaced, so it keeps its label.
            if before is not NOTHING and not self._is_shared_leaf(labels[: level + 1], before):
                label = target.label
        size = value_size(fresh)
        weight = value_bytes(fresh) + label_bytes(label)
        if before is NOTHING:
            number_child(branch, target)
            branch.count = count + 1
        else:
            size -= value_size(before)
            weight -= value_bytes(before) + label_bytes(target.label)
        target.label = label
        target.value = fresh
        _settle(path, len(path) - 1, branches, starts, level, count, size, weight, before, fresh)

    def _remove(self, path: list[Node], branches: list[Branch], starts: list[int], level: int) -> None:
        position = len(path) - 1
        target = path[position]
        if target.value is NOTHING:
            # As if an empty leaf had been added: it takes a serial, and its place is cleared away below.
            number_child(branches[level], target)
        else:
            while level > 0 and branches[level].count == 1:
                position = starts[level] - 1
                target = path[position]
                level -= 1
        branch = branches[level]
        count = branch.count
        before = target.value
        size = 0
        weight = 0
        after: object = NOTHING
        if before is not NOTHING:
            size = -value_size(before)
            weight = -value_bytes(before) - label_bytes(target.label)
            if target is branch and not self._joins_always:
                # AI Network cannot delete the label 0x: an empty leaf stays.
                after = None
                size += value_size(None)
                weight += value_bytes(None) + label_bytes(target.label)
            else:
                branch.count = count - 1
        target.value = after
        if target is not branch:
            self._clear_away(path, position, branch)
        _settle(path, position, branches, starts, level, count, size, weight, before, after)

    def _clear_away(self, path: list[Node], position: int, branch: Branch) -> None:
        """Take a radix node without value out of its branch, as far as the shape allows."""
        target = path[position]
        parent = path[position - 1]
        branch.routes = None
        if len(target.kids) == 1:
            self._join(target, parent)
        elif not target.kids:
            del own_kids(parent)[target.edge[0]]
            if parent is not branch and parent.value is NOTHING and len(parent.kids) == 1:
                self._join(parent, path[position - 2])

    def _join(self, middle: Node, above: Node) -> None:
        """Put the only kid of a radix node in its place, unless a shared kid must stay as it is."""
        for kid in middle.kids.values():
            if self._may_join(kid):
                lower = claim(kid, self._claims)
                lower.edge = middle.edge + lower.edge
                own_kids(above)[middle.edge[0]] = lower

    def _may_join(self, kid: Kid) -> bool:
        if self._joins_always:
            return True
        if isinstance(kid, Node):
            return kid.token >= self._claims.floor
        return self._claims.floor == 0

    def _is_shared_leaf(self, labels: Sequence[str], leaf: object) -> bool:
        """Whether AI Network's tree would copy a leaf, and file it anew, as another live version has it too."""
        if self._joins_always:
            return False
        theirs: object
        if self._backup is not None:
            theirs = _found_before(self._backup, labels)
        elif self._base is not None:
            theirs = find(self._base, labels)
        else:
            return False
        return type(theirs) is type(leaf) and theirs == leaf

    def _begin_version(self) -> None:
        self._claims.token += 1
        self._find_floor()

    def _find_floor(self) -> None:
        claims = self._claims
        floor = self._base_token + 1 if self._base_count else 0
        claims.copy_floor = max(claims.copy_floor, floor)
        if self._backup is not None:
            floor = max(floor, self._backup_token + 1)
        claims.floor = floor

    def _copy_all(self) -> None:
        """From now on every node that there is will be copied instead of being written in place."""
        claims = self._claims
        claims.token += 1
        claims.copy_floor = claims.token

    def _forget_touched(self) -> None:
        touched = self._claims.touched
        for node in touched:
            node.before = None
        touched.clear()

    def _part_from_backup(self) -> None:
        """Make the backup a tree of its own, so that restoring it leaves the nodes of now as they are."""
        assert self._backup is not None, "no backup is open"
        touched = self._claims.touched
        for node in touched:
            before = node.before
            assert before is not None, "the node was kept"
            kids: dict[str, Kid] = {}
            for digit, kid in before.kids.items():
                was = kid.before if isinstance(kid, Node) else None
                kids[digit] = kid if was is None else was
            # A node that was not changed has these kids too.
            before.kids = kids
            value = before.value
            if isinstance(value, Branch) and value.before is not None:
                before.value = value.before
        root = self._backup.before
        if isinstance(root, Branch):
            self._backup = root
        self._forget_touched()


def _claimed(branch: Branch, claims: Claims) -> Branch:
    """A branch that may be changed: itself or a copy, without what was derived from it."""
    if branch.token < claims.copy_floor:
        return copy_branch(branch, claims.token)
    if branch.token < claims.floor:
        keep_branch(branch, claims.token, claims.touched)
    branch.hash = b""
    branch.memo = None
    return branch


def _found_before(branch: Branch, labels: Sequence[str]) -> object:
    """What lay below a branch when the backup was made."""
    value: object = branch
    for label in labels:
        if not isinstance(value, Branch):
            return NOTHING
        key = radix_label(label)
        node = _as_before(value)
        at = 0
        while at < len(key):
            kid = node.kids.get(key[at])
            if kid is None:
                return NOTHING
            node = _as_before(kid.node())
            if not key.startswith(node.edge, at):
                return NOTHING
            at += len(node.edge)
        value = node.value
    return value


def _as_before(node: Node) -> Node:
    before = node.before
    return node if before is None else before


def _relabel(path: list[Node], label: str) -> None:
    """AI Network files a copied node anew, so that it takes the label of the path that led through it."""
    target = path[-1]
    weight = label_bytes(label) - label_bytes(target.label)
    target.label = label
    for node in path:
        node.bytes += weight


def _settle(
    path: list[Node],
    position: int,
    branches: list[Branch],
    starts: list[int],
    level: int,
    count_before: int,
    size: int,
    weight: int,
    before: object,
    after: object,
) -> None:
    """Carry the change of one value upwards: sums by their difference, maxima only as far as they change."""
    height_before = value_height(before)
    height_after = value_height(after)
    siblings_before = value_siblings(before)
    siblings_after = value_siblings(after)
    changing = True
    while position >= 0:
        node = path[position]
        node.size += size
        node.bytes += weight
        if changing:
            height = node.height
            siblings = node.siblings
            if (height_after < height_before and height_before == height) or (
                siblings_after < siblings_before and siblings_before == siblings
            ):
                node.height, node.siblings = measure(node)
            else:
                if height_after > height:
                    node.height = height_after
                if siblings_after > siblings:
                    node.siblings = siblings_after
            height_before = height
            height_after = node.height
            siblings_before = siblings
            siblings_after = node.siblings
            if position == starts[level]:
                branch = branches[level]
                height_before += 1
                height_after += 1
                siblings_before = max(siblings_before, count_before)
                siblings_after = max(siblings_after, branch.count)
                level -= 1
                count_before = branches[level].count if level >= 0 else 0
                changing = height_before != height_after or siblings_before != siblings_after
        position -= 1
