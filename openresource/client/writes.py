"""Writes in a few words: values, rules, functions and owners of apps, and money for others, as operations."""

from __future__ import annotations

import os
from typing import Any, Final, Literal

from openresource.client.answers import Operation
from openresource.primitives.amounts import ain_number, uain_from_text
from openresource.primitives.errors import InvalidInput
from openresource.primitives.keys import checksum_address, is_address

Tree = Literal["values", "rules", "functions", "owners"]

_TYPES: Final[dict[str, str]] = {
    "values": "SET_VALUE",
    "rules": "SET_RULE",
    "functions": "SET_FUNCTION",
    "owners": "SET_OWNER",
}
_PERMISSIONS: Final = ("branch_owner", "write_function", "write_owner", "write_rule")


def operation(path: str, value: Any, tree: Tree = "values") -> Operation:
    """Write something at a path of one of the four trees.

    A text as a rule is who may write; as an owner it is an address that gets every permission; an object of functions by
    name is what happens on a write. Whatever has AI Network's form already is written as it is.
    """
    if tree not in _TYPES:
        raise InvalidInput(f"{tree} is no tree.", remedy=f"Name one of {', '.join(_TYPES)}.")
    if tree == "rules" and isinstance(value, str):
        value = {".rule": {"write": value}}
    elif tree == "owners" and isinstance(value, str):
        value = {".owner": {"owners": {value: dict.fromkeys(_PERMISSIONS, True)}}}
    elif tree == "functions" and isinstance(value, dict) and ".function" not in value:
        named = {name: _named(name, entry) for name, entry in value.items()}
        value = {".function": named}
    return Operation(_TYPES[tree], path, value)


def addition(path: str, amount: int | float) -> Operation:
    """Add to a number; what is not there counts as 0."""
    return Operation("INC_VALUE", path, amount)


def new_app(name: str, admin: str, *, is_public: bool = False) -> Operation:
    """An app of somebody: a place with rules, owners and functions of its own."""
    settings: dict[str, Any] = {"admin": {admin: True}}
    if is_public:
        settings["is_public"] = True
    return Operation("SET_VALUE", f"/manage_app/{name}/create/{os.urandom(16).hex()}", settings)


def transfer(sender: str, to: str, amount: str | int) -> Operation:
    """Money for somebody; the amount is in AIN, as a text if it has decimals."""
    if not is_address(to):
        raise InvalidInput(f"{to} is not an address.", remedy="An address is 0x and 40 hex digits.")
    amount_uain = uain_from_text(str(amount))
    path = f"/transfer/{sender}/{checksum_address(to)}/{os.urandom(16).hex()}/value"
    return Operation("SET_VALUE", path, ain_number(amount_uain))


def _named(name: str, entry: Any) -> Any:
    """An entry with its name in it, which AI Network's form repeats."""
    return {**entry, "function_id": name} if isinstance(entry, dict) and "function_id" not in entry else entry
