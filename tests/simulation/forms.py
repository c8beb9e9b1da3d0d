"""What has the right form: labels, values, and the trees of rules, functions and owners."""

from __future__ import annotations

import math
import re
from typing import Any

from tests.simulation.rules import is_number
from tests.simulation.state import Path, text_length

PERMISSIONS = {"branch_owner", "write_function", "write_owner", "write_rule"}
SHAPE_MEMBERS = (
    "max_children",
    "max_height",
    "max_size",
    "max_bytes",
    "gc_max_siblings",
    "gc_num_siblings_deleted",
)
MICRO = 1_000_000
RESERVED = re.compile(r"[/.$*#{}\[\]<>'\"` \x00-\x1f\x7f]")
RULE_NAMES = re.compile(
    "auth|blockNumber|blockTime|currentTime|data|evalOwner|evalRule|getFunction|getOwner|getRule|getValue|newData|util"
    "|parsedValuePath|Number|String|Boolean|true|false|null|typeof|this|new|in|void|delete|instanceof"
)


class Forms:
    """The forms of trees, with what the chain says about them."""

    def __init__(self, owner_natives: frozenset[str], deleted_min: int) -> None:
        self.owner_natives = owner_natives
        self.deleted_min = deleted_min

    def is_tree(self, path: Path, value: Any, config: str) -> bool:
        """Whether a value may stand in the tree of rules, functions or owners."""
        variables = [label for label in path if label.startswith("$")]
        if len(set(variables)) < len(variables):
            return False
        if not isinstance(value, dict) or not value:
            return False
        for label, item in value.items():
            if label == config:
                judge = {".rule": self.is_rule, ".function": self.is_function, ".owner": self.is_owner}[
                    config
                ]
                if not judge(item, variables):
                    return False
            elif not self.is_tree((*path, label), item, config):
                return False
        return True

    def is_rule(self, value: Any, variables: list[str]) -> bool:
        """The form of a rule's config."""
        if not isinstance(value, dict) or not value or not value.keys() <= {"write", "state"}:
            return False
        write, shape = value.get("write"), value.get("state")
        if isinstance(write, str):
            bare = re.sub(r"'[^']*'", "''", write)
            names = re.findall(r"(?<![\w.$])[$A-Za-z_]\w*", bare)
            if re.search(r"(?<![=!<>])=(?!=)", bare) or "function" in names:
                return False
            if any(name not in variables and not RULE_NAMES.fullmatch(name) for name in names):
                return False
        elif not (write is None or isinstance(write, bool)):
            return False
        return shape is None or self.is_shape(shape)

    def is_shape(self, shape: Any) -> bool:
        """The form of a state rule."""
        if not isinstance(shape, dict) or not shape or not shape.keys() <= set(SHAPE_MEMBERS):
            return False
        if not all(is_number(limit) for limit in shape.values()):
            return False
        if any(shape[name] <= 0 for name in SHAPE_MEMBERS[:5] if name in shape):
            return False
        if "gc_max_siblings" in shape:
            count = shape.get("gc_num_siblings_deleted")
            least = self.deleted_min
            return count is not None and least <= count <= shape["gc_max_siblings"]
        return any(name in shape for name in SHAPE_MEMBERS[:4])

    def is_function(self, value: Any, variables: list[str]) -> bool:
        """The form of a function's config."""
        if not isinstance(value, dict) or not value:
            return False
        for name, entry in value.items():
            if entry is None:
                continue
            if not isinstance(entry, dict) or entry.get("function_id") != name:
                return False
            kind = entry.get("function_type")
            wanted = {"function_type", "function_id"} | ({"function_url"} if kind == "REST" else set())
            if kind not in ("NATIVE", "REST") or set(entry) != wanted:
                return False
            if kind == "REST" and not entry["function_url"].startswith("https://"):
                return False
        return True

    def is_owner(self, value: Any, variables: list[str]) -> bool:
        """The form of an owner's config."""
        owners = value.get("owners") if isinstance(value, dict) else None
        if not isinstance(owners, dict) or not owners:
            return False
        for who, granted in owners.items():
            is_native = who.startswith("fid:") and who[4:] in self.owner_natives
            if not (who == "*" or re.fullmatch("0x[0-9a-fA-F]{40}", who) or is_native):
                return False
            if granted is not None and not (
                isinstance(granted, dict)
                and set(granted) == PERMISSIONS
                and all(isinstance(item, bool) for item in granted.values())
            ):
                return False
        return True


def named_natives(tree: Any) -> list[str]:
    """The ids of all functions that a tree names."""
    if not isinstance(tree, dict):
        return []
    found: list[str] = []
    for label, item in tree.items():
        found.extend((item or {}) if label == ".function" else named_natives(item))
    return found


def labels_of(ref: Any) -> Path:
    """The labels of a path's text."""
    return tuple(label for label in (ref or "").split("/") if label)


def is_label(label: str, length_max: int) -> bool:
    """Whether the state takes a label."""
    if not label or text_length(label) > length_max:
        return False
    if RESERVED.search(label) is None or label == "*":
        return True
    return label[0] in ".$" and len(label) > 1 and RESERVED.search(label[1:]) is None


def is_storable(value: Any, length_max: int) -> bool:
    """Whether the state takes a value."""
    if value is None or isinstance(value, bool | str):
        return True
    if is_number(value):
        return math.isfinite(value)
    if not isinstance(value, dict) or not value:
        return False
    return all(is_label(label, length_max) and is_storable(item, length_max) for label, item in value.items())


def micro(amount: Any) -> int:
    """AIN as whole µAIN."""
    whole: int = round(amount * MICRO)
    return whole
