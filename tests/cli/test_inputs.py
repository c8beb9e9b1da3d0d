"""Words of a command line become inputs by the method's schema."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from openresource.cli.inputs import InputNotUnderstood, inputs_from, usage_of, whole_input
from openresource.client.services import Method

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "times": {"type": "integer"},
        "loud": {"type": "boolean"},
        "words": {"type": "array", "items": {"type": "string"}},
        "image": {"type": "string", "contentEncoding": "base64"},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "tone": {"enum": ["warm", "cold", 3]},
        "anything": {},
    },
}


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("text=hello", "text", "hello"),
        ("text=", "text", ""),
        ("text=3", "text", "3"),
        ("text=a=b", "text", "a=b"),
        ("text=@@home", "text", "@home"),
        ("times=3", "times", 3),
        ("loud=yes", "loud", True),
        ("loud=false", "loud", False),
        ('words=["a", "b"]', "words", ["a", "b"]),
        ('words:=["a"]', "words", ["a"]),
        ("limit=7", "limit", 7),
        ("limit=null", "limit", None),
        ("tone=warm", "tone", "warm"),
        ("tone=3", "tone", 3),
        ("anything=word", "anything", "word"),
        ("anything=3", "anything", 3),
        ("unknown=word", "unknown", "word"),
        ("text:=null", "text", None),
    ],
)
def test_a_word_becomes_what_the_schema_wants(word: str, name: str, value: object) -> None:
    assert inputs_from([word], SCHEMA) == {name: value}


@pytest.mark.parametrize(
    "word", ["text", "=text", "times=many", "loud=perhaps", "words=a,b", "text:=not json", "text:="]
)
def test_a_word_that_cannot_be_meant_is_refused_by_name(word: str) -> None:
    with pytest.raises(InputNotUnderstood) as caught:
        inputs_from([word], SCHEMA)
    assert "key=value" in caught.value.remedy


def test_an_input_given_twice_is_refused() -> None:
    with pytest.raises(InputNotUnderstood, match="twice"):
        inputs_from(["text=a", "text=b"], SCHEMA)


def test_a_file_is_text_bytes_or_json_by_the_schema(tmp_path: Path) -> None:
    text, data, listed = tmp_path / "letter.txt", tmp_path / "image.png", tmp_path / "words.json"
    text.write_text("grüß dich")
    data.write_bytes(b"\x89PNG\xff")
    listed.write_text('["x"]')
    found = inputs_from([f"text=@{text}", f"image=@{data}", f"words=@{listed}"], SCHEMA)
    assert found["text"] == "grüß dich"
    assert base64.b64decode(found["image"]) == b"\x89PNG\xff"
    assert found["words"] == ["x"]


def test_bytes_where_text_is_wanted_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "image.png"
    data.write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputNotUnderstood, match="UTF-8"):
        inputs_from([f"text=@{data}"], SCHEMA)


def test_a_whole_input_is_an_object(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"text": "a"}')
    assert whole_input(str(file)) == {"text": "a"}
    file.write_text('["a"]')
    with pytest.raises(InputNotUnderstood, match="not an object"):
        whole_input(str(file))


def test_the_shown_command_line_calls_the_example() -> None:
    example = {"input": {"query": "it's", "passages": ["a", "b"], "top": 1, "at": "@me"}}
    method = Method("search", "/search", "", {}, {}, False, example)
    shown = usage_of("search", method)
    import shlex

    words = shlex.split(shown)
    assert words[:4] == ["openresource", "call", "search", "search"]
    assert inputs_from(words[4:], {"properties": {"query": {"type": "string"}}}) == example["input"]
