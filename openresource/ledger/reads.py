"""Reads as AI Network's clients ask for them: shallow, one page at a time, or with what a node knows of each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openresource.ledger.building import value_bytes, value_height, value_siblings, value_size
from openresource.ledger.hashes import hash_text, value_hash
from openresource.ledger.nodes import NOTHING, Branch
from openresource.ledger.views import View, in_property_order, info_of, is_unwritten
from openresource.primitives.encoding import property_order
from openresource.primitives.errors import Refusal

SIBLINGS_MAX: Final = 20_000
BYTES_MAX: Final = 20_000_000


class TooManySiblings(Refusal):
    template = "The data exceeds the max sibling limit of the requested node: {siblings} > {siblings_max}"
    way_out = "Read it page by page, with is_partial."


class TooManyBytes(Refusal):
    template = "The data exceeds the max byte limit of the requested node: {bytes} > {bytes_max}"
    way_out = "Read a deeper path, or only the first level with is_shallow."


@dataclass(frozen=True)
class ReadOptions:
    """How much of a state node to show; `last_end_label` says behind which radix label a page begins."""

    is_shallow: bool = False
    is_partial: bool = False
    last_end_label: str | None = None
    include_version: bool = False
    include_tree_info: bool = False
    include_proof: bool = False
    page_children_max: int = SIBLINGS_MAX


WHOLE: Final = ReadOptions()


def read(view: View, labels: Sequence[str], options: ReadOptions = WHOLE, version: str = "") -> object:
    """What lies at a full path, shown as the options say; None where there is nothing."""
    return shown(view.node(labels), options, version)


def shown(value: object, options: ReadOptions, version: str = "") -> object:
    """A branch or leaf as the options say."""
    if not isinstance(value, Branch):
        return None if value is NOTHING else value
    if options.is_partial:
        return _page(value, options, version)
    top: dict[str, object] = {}
    branches: list[Branch] = [value]
    objects: list[dict[str, object]] = [top]
    for position, branch in enumerate(branches):
        into = objects[position]
        for label, item in in_property_order(branch):
            if not isinstance(item, Branch):
                into[label] = item
                _annotate(into, ":" + label, item, options, version)
            elif options.is_shallow:
                into[label] = {"#state_ph": hash_text(value_hash(item))}
            else:
                below: dict[str, object] = {}
                into[label] = below
                branches.append(item)
                objects.append(below)
        _annotate(into, "", branch, options, version)
    return top


def state_info(view: View, labels: Sequence[str], version: str) -> dict[str, object] | None:
    """The record of counts that clients ask for; None where there is nothing."""
    info = info_of(view.root, view.node(labels))
    if info is None:
        return None
    return {
        "#num_children": info.children,
        "#tree_height": info.height,
        "#tree_size": info.size,
        "#tree_bytes": info.bytes,
        "#tree_max_siblings": info.siblings,
        "#state_ph": info.hash,
        "#version": version,
    }


def check_read(
    view: View,
    labels: Sequence[str],
    options: ReadOptions = WHOLE,
    siblings_max: int = SIBLINGS_MAX,
    bytes_max: int = BYTES_MAX,
) -> None:
    """Refuse a read that would answer with too much."""
    check_found(view.root, view.node(labels), options, siblings_max, bytes_max)


def check_found(
    root: Branch,
    value: object,
    options: ReadOptions = WHOLE,
    siblings_max: int | float = SIBLINGS_MAX,
    bytes_max: int | float = BYTES_MAX,
) -> None:
    """Refuse to show what was found below a root if that is too much."""
    if options.is_partial or value is NOTHING or is_unwritten(root, value):
        return
    siblings = value_siblings(value)
    if siblings > siblings_max:
        raise TooManySiblings(siblings=siblings, siblings_max=siblings_max)
    if not options.is_shallow:
        total_bytes = value_bytes(value)
        if total_bytes > bytes_max:
            raise TooManyBytes(bytes=total_bytes, bytes_max=bytes_max)


def _page(branch: Branch, options: ReadOptions, version: str) -> dict[str, object]:
    """One page of children in radix order; a first page shows them in the order in which they were added."""
    found: list[tuple[int, str, object]] = []
    end_label: str | None = None
    for key, holder in branch.children_in_radix_order(options.last_end_label or ""):
        if len(found) == options.page_children_max:
            break
        found.append((holder.serial, holder.label, holder.value))
        end_label = key
    if options.last_end_label is None:
        found.sort(key=_serial_of)
    into: dict[str, object] = {"#end_label": end_label}
    for serial, label, value in found:
        if isinstance(value, Branch):
            into[label] = {"#state_ph": hash_text(value_hash(value)), "#serial": serial}
        else:
            into[label] = value
            _annotate(into, ":" + label, value, options, version)
    _annotate(into, "", branch, options, version)
    return {key: into[key] for key in property_order(into)}


def _annotate(
    into: dict[str, object], suffix: str, value: object, options: ReadOptions, version: str
) -> None:
    if options.include_version:
        into["#version" + suffix] = version
    if options.include_tree_info:
        # Versions share nodes here without counting their parents; an exported node has one.
        into["#num_parents" + suffix] = 1
        into["#num_children" + suffix] = value.count if isinstance(value, Branch) else 0
        into["#tree_height" + suffix] = value_height(value)
        into["#tree_size" + suffix] = value_size(value)
        into["#tree_bytes" + suffix] = value_bytes(value)
        into["#tree_max_siblings" + suffix] = value_siblings(value)
    if options.include_proof:
        into["#state_ph" + suffix] = hash_text(value_hash(value))


def _serial_of(item: tuple[int, str, object]) -> int:
    return item[0]
