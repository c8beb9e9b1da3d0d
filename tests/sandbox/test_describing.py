"""Type hints become schemas, JSON becomes arguments: the part of the guest that judges callers' input."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import importlib
import json
import sys
import typing
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest

from openresource.market.schemas import check_schema, check_value
from openresource.sandbox.layout import GUEST_FOLDER

sys.path.insert(0, str(GUEST_FOLDER))
import openresource_describing as describing

del sys.path[0]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


class Options(TypedDict):
    deep: bool
    limit: typing.NotRequired[int]


HINTS: list[tuple[Any, Any, Any, Any]] = [
    # hint, JSON that fits, what arrives, JSON that does not fit
    (str, "a", "a", 1),
    (int, 3, 3, "3"),
    (int, 3.0, 3, 3.5),
    (float, 3, 3.0, True),
    (bool, True, True, 1),
    (None, None, None, 0),
    (bytes, "AAE=", b"\0\1", "!"),
    (list[int], [1, 2], [1, 2], [1, "2"]),
    (set[str], ["a", "a"], {"a"}, "a"),
    (tuple[int, str], [1, "a"], (1, "a"), [1]),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3), [None]),
    (dict[str, int], {"a": 1}, {"a": 1}, {"a": "1"}),
    (Mapping[str, list[int]], {"a": [1]}, {"a": [1]}, []),
    (int | None, None, None, "x"),
    (typing.Optional[str], "x", "x", 3),  # noqa: UP045
    (int | str, "1", "1", 1.5),
    (Literal["a", 1], 1, 1, True),
    (Colour, "red", Colour.RED, "green"),
    (Point, {"x": 1}, Point(1), {"y": 1}),
    (Point, {"x": 1, "y": 2}, Point(1, 2.0), {"x": 1, "z": 1}),
    (Options, {"deep": True}, {"deep": True}, {"limit": 1}),
    (datetime.date, "2020-01-02", datetime.date(2020, 1, 2), "yesterday"),
    (
        datetime.datetime,
        "2020-01-02T03:04:05+00:00",
        datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        5,
    ),
    (Annotated[int, "how many"], 1, 1, "1"),
    (Any, {"x": [1]}, {"x": [1]}, ...),
]


@pytest.mark.parametrize(("hint", "good", "expected", "bad"), HINTS)
def test_a_hint_describes_and_converts(hint: Any, good: Any, expected: Any, bad: Any) -> None:
    schema = describing.schema_of(hint, 0)
    check_schema(schema)
    check_value(schema, good)
    assert describing.coerce(good, hint, "value", 0) == expected
    if bad is not ...:
        with pytest.raises(describing.BadInput, match="value"):
            describing.coerce(bad, hint, "value", 0)


def test_a_method_tells_its_name_its_words_and_its_defaults() -> None:
    def search(
        query: Annotated[str, "what to look for", {"maxLength": 5}], top: int = 3, **rest: Any
    ) -> list[Point]:
        """Find it.

        More words.
        """
        return [Point(top)]

    # The hints of a local function cannot be resolved from text.
    search.__annotations__ = {
        "query": Annotated[str, "what to look for", {"maxLength": 5}],
        "top": int,
        "rest": Any,
        "return": list[Point],
    }
    described = describing.Method("search", search).describe()
    assert described["summary"] == "Find it."
    assert described["input"]["properties"] == {
        "query": {"type": "string", "description": "what to look for", "maxLength": 5},
        "top": {"type": "integer", "default": 3},
    }
    assert described["input"]["required"] == ["query"] and described["input"]["additionalProperties"]
    assert described["output"]["items"]["properties"]["x"] == {"type": "integer"}


def test_streams_describe_their_items() -> None:
    def count(to):  # type: ignore[no-untyped-def]
        yield to

    count.__annotations__ = {"to": int, "return": Iterator[int]}
    described = describing.Method("count", count).describe()
    assert described["stream"] and described["output"] == {"type": "integer"}

    async def drip():  # type: ignore[no-untyped-def]
        yield "a"

    drip.__annotations__ = {"return": AsyncIterator[str]}
    assert describing.Method("drip", drip).describe()["output"] == {"type": "string"}


def test_parameters_that_callers_cannot_name_are_refused() -> None:
    def by_place(value: int, /) -> int:
        return value

    with pytest.raises(TypeError, match="no name for callers"):
        describing.Method("by_place", by_place)


def test_types_that_only_checkers_import_may_be_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """from __future__ import annotations
import typing
if typing.TYPE_CHECKING:
    from elsewhere import Table
class Shelf:
    def get(self, name: str, beside: Table | None = None) -> list[Table]: return []
    def put(self, *books: str) -> None: ...
def misspelt(name: Tabel) -> str: return name
"""
    (tmp_path / "shelves_for_checkers.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("shelves_for_checkers")
    monkeypatch.setitem(sys.modules, "shelves_for_checkers", module)
    found = describing.methods_of(module.Shelf())
    assert list(found) == ["get"], "callers cannot name what put takes"
    properties = found["get"].describe()["input"]["properties"]
    assert properties["name"] == {"type": "string"} and "type" not in properties["beside"]
    with pytest.raises(TypeError, match="misspelt cannot be read"):
        describing.Method("misspelt", module.misspelt)


def test_answers_become_json() -> None:
    value = {
        "bytes": b"\0",
        "point": Point(1),
        "colour": Colour.BLUE,
        "day": datetime.date(2020, 1, 2),
        "set": {3},
        "lazy": (number for number in (1, 2)),
    }
    assert json.loads(json.dumps(value, default=describing.to_json)) == {
        "bytes": base64.b64encode(b"\0").decode(),
        "point": {"x": 1, "y": 0.5},
        "colour": "blue",
        "day": "2020-01-02",
        "set": [3],
        "lazy": [1, 2],
    }
    with pytest.raises(TypeError, match="object, which is not JSON"):
        json.dumps(object(), default=describing.to_json)
