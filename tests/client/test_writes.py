"""Writes in a few words become operations of AI Network's form."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.client.writes import addition, new_app, operation, transfer
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.keys import generate_key

ANN = generate_key(b"ann, who writes in few words....").address
EVERYTHING = {"branch_owner": True, "write_function": True, "write_owner": True, "write_rule": True}


@pytest.mark.parametrize(
    ("tree", "value", "kind", "written"),
    [
        ("values", "text", "SET_VALUE", "text"),
        ("values", None, "SET_VALUE", None),
        ("rules", "auth.addr === $who", "SET_RULE", {".rule": {"write": "auth.addr === $who"}}),
        (
            "rules",
            {".rule": {"state": {"max_children": 1}}},
            "SET_RULE",
            {".rule": {"state": {"max_children": 1}}},
        ),
        ("owners", ANN, "SET_OWNER", {".owner": {"owners": {ANN: EVERYTHING}}}),
        ("owners", None, "SET_OWNER", None),
        (
            "functions",
            {"tell": {"function_type": "REST", "function_url": "https://a.example"}},
            "SET_FUNCTION",
            {
                ".function": {
                    "tell": {
                        "function_type": "REST",
                        "function_url": "https://a.example",
                        "function_id": "tell",
                    }
                }
            },
        ),
        ("functions", {"tell": None}, "SET_FUNCTION", {".function": {"tell": None}}),
        ("functions", {".function": {"tell": None}}, "SET_FUNCTION", {".function": {"tell": None}}),
    ],
)
def test_short_forms_stand_for_whole_ones(tree: Any, value: Any, kind: str, written: Any) -> None:
    made = operation("/apps/a", value, tree)
    assert (made.type, made.ref, made.value) == (kind, "/apps/a", written)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InvalidInput):
        operation("/apps/a", 1, "leaves")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        transfer(ANN, "ann", "1")
    with pytest.raises(Refusal):
        transfer(ANN, ANN, "0.1234567")


def test_money_is_written_as_the_chain_counts_it() -> None:
    made = transfer(ANN, ANN.lower(), "1.5")
    assert (
        made.value == 1.5 and made.ref.startswith(f"/transfer/{ANN}/{ANN}/") and made.ref.endswith("/value")
    )
    assert transfer(ANN, ANN, 2).value == 2
    assert transfer(ANN, ANN, 2).ref != transfer(ANN, ANN, 2).ref


def test_an_app_names_its_admin() -> None:
    assert new_app("board", ANN).value == {"admin": {ANN: True}}
    assert new_app("board", ANN, is_public=True).value["is_public"] is True
    assert addition("/apps/a/n", 2).to_json() == {"type": "INC_VALUE", "ref": "/apps/a/n", "value": 2}
