"""Forms: fields from descriptions, inputs from what browsers send, bodies within bounds."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from openresource.client.services import Method
from openresource.primitives.errors import Refusal
from openresource.web import forms
from openresource.web.forms import (
    BodyTooLarge,
    FieldNotUnderstood,
    Form,
    FormNotUnderstood,
    fields_of,
    inputs_from,
    read_form,
)

BOUNDARY = b"----x7"


def method(properties: dict[str, Any] | None, required: list[str] | None = None, **more: Any) -> Method:
    schema: dict[str, Any] = {} if properties is None else {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return Method("m", "/m", "", schema, {}, False, more.get("example"))


def request_of(body: bytes, content_type: str, *, claimed: int | None = None, pieces: int = 1) -> Request:
    size = max(1, len(body) // pieces)
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]

    async def receive() -> dict[str, Any]:
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    headers = [(b"content-type", content_type.encode())]
    if claimed is not None:
        headers.append((b"content-length", str(claimed).encode()))
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def read(body: bytes, content_type: str, **options: Any) -> Form:
    bytes_max = options.pop("bytes_max", forms.BODY_BYTES_MAX)
    return asyncio.run(read_form(request_of(body, content_type, **options), bytes_max))


def multipart(*parts: tuple[str, bytes]) -> bytes:
    made = b"".join(
        b"--"
        + BOUNDARY
        + b"\r\nContent-Disposition: form-data; "
        + head.encode()
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for head, content in parts
    )
    return made + b"--" + BOUNDARY + b"--\r\n"


MULTIPART = f"multipart/form-data; boundary={BOUNDARY.decode()}"


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "long"),
        ({"type": "string", "maxLength": 20}, "text"),
        ({"type": "string", "format": "date"}, "text"),
        ({"type": "string", "contentEncoding": "base64"}, "file"),
        ({"type": "string", "enum": ["a", "b"]}, "choice"),
        ({"enum": [1, 2]}, "choice"),
        ({"type": "integer"}, "number"),
        ({"type": "number"}, "number"),
        ({"type": ["number", "null"]}, "number"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "long"),
        ({"type": "boolean"}, "switch"),
        ({"type": "array", "items": {"type": "string"}}, "lines"),
        ({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}, "lines"),
        ({"anyOf": [{"type": "null"}, {"enum": ["a"]}]}, "choice"),
        ({"type": "array", "items": {"type": "number"}}, "json"),
        ({"type": "array"}, "json"),
        ({"type": "object"}, "json"),
        ({}, "json"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "json"),
    ],
)
def test_each_description_has_its_field(schema: dict[str, Any], kind: str) -> None:
    (field,) = fields_of(method({"x": schema}))
    assert field.kind == kind


def test_a_form_is_filled_with_the_example_and_what_is_needed_comes_first() -> None:
    fields = fields_of(
        method(
            {
                "times": {"type": "integer", "default": 3},
                "text": {"type": "string"},
                "lines": {"type": "array", "items": {"type": "string"}},
            },
            ["text"],
            example={"input": {"text": "hello", "lines": ["a", "b"]}},
        )
    )
    assert [(one.name, one.value) for one in fields] == [("text", "hello"), ("times", "3"), ("lines", "a\nb")]
    assert fields[0].is_required and not fields[1].is_required


def test_without_a_description_one_field_takes_the_whole_input() -> None:
    (field,) = fields_of(method(None, example={"input": {"a": 1}}))
    assert field.name == forms.WHOLE and field.kind == "json"
    assert inputs_from(Form({"in.whole": '{"a": [1, 2]}'}), (field,), {}) == {"a": [1, 2]}
    with pytest.raises(FieldNotUnderstood, match="not an object"):
        inputs_from(Form({"in.whole": "[1]"}), (field,), {})


def test_what_was_typed_becomes_what_the_description_wants() -> None:
    properties = {
        "text": {"type": "string"},
        "times": {"type": "integer"},
        "loud": {"type": "boolean"},
        "mood": {"enum": ["glad", 2]},
        "words": {"type": "array", "items": {"type": "string"}},
        "data": {"type": "string", "contentEncoding": "base64"},
        "more": {"type": "object"},
        "left_out": {"type": "string"},
    }
    made = method(properties, ["text", "data"])
    form = Form(
        {
            "in.text": "one\r\ntwo",
            "in.times": "3",
            "in.loud": "on",
            "in.mood": "2",
            "in.words": "a b\r\n\r\nc",
            "in.more": '{"x": null}',
            "in.left_out": "",
        },
        {"file.data": b"\x00\xff"},
    )
    assert inputs_from(form, fields_of(made), made.input) == {
        "text": "one\ntwo",
        "times": 3,
        "loud": True,
        "mood": 2,
        "words": ["a b", "c"],
        "data": base64.b64encode(b"\x00\xff").decode(),
        "more": {"x": None},
    }


def test_a_file_may_hold_the_text_and_must_be_text() -> None:
    made = method({"text": {"type": "string"}}, ["text"])
    fields = fields_of(made)
    assert inputs_from(Form({"in.text": "typed"}, {"file.text": "größer".encode()}), fields, made.input) == {
        "text": "größer"
    }
    with pytest.raises(FieldNotUnderstood, match="not UTF-8"):
        inputs_from(Form({}, {"file.text": b"\xff\xfe"}), fields, made.input)


def test_json_that_is_none_is_refused_with_its_field() -> None:
    made = method({"times": {"type": "integer"}})
    with pytest.raises(FieldNotUnderstood, match="Times is not understood"):
        inputs_from(Form({"in.times": "many"}), fields_of(made), made.input)


def test_both_encodings_of_forms_are_read() -> None:
    assert read(b"in.text=a+b%26%C3%A9&once=", "application/x-www-form-urlencoded").texts == {
        "in.text": "a b&é",
        "once": "",
    }
    form = read(
        multipart(
            ('name="in.text"', b"zwei\r\nZeilen"),
            ('filename="x.bin"; name="file.data"', b"\x00\r\n--not the boundary\r\n\xff"),
            ('name="file.empty"; filename=""', b""),
        ),
        MULTIPART,
        pieces=7,
    )
    assert form.texts == {"in.text": "zwei\r\nZeilen"}
    assert form.files == {"file.data": b"\x00\r\n--not the boundary\r\n\xff", "file.empty": b""}


def test_bodies_have_bounds() -> None:
    with pytest.raises(BodyTooLarge):
        read(b"", "application/x-www-form-urlencoded", claimed=10**9)
    with pytest.raises(BodyTooLarge):
        read(b"in.a=" + b"x" * 200, "application/x-www-form-urlencoded", bytes_max=100, pieces=20)
    with pytest.raises(FormNotUnderstood):
        read(
            b"&".join(b"a%d=1" % n for n in range(forms.FIELDS_MAX + 1)), "application/x-www-form-urlencoded"
        )
    many = multipart(*[(f'name="a{n}"', b"") for n in range(forms.FIELDS_MAX + 1)])
    with pytest.raises(FormNotUnderstood, match="more than"):
        read(many, MULTIPART)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "application/json"),
        (b"", ""),
        (b"x", "multipart/form-data"),
        (b"no boundary here", MULTIPART),
        (b"--" + BOUNDARY + b"\r\nname=\r\n\r\nx", MULTIPART),
        (b"--" + BOUNDARY + b'\r\nname="a"', MULTIPART),
    ],
)
def test_other_bodies_are_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(FormNotUnderstood):
        read(body, content_type)


@given(
    st.binary(max_size=400), st.sampled_from([MULTIPART, "application/x-www-form-urlencoded"]), st.booleans()
)
def test_whatever_arrives_is_a_form_or_a_refusal(body: bytes, content_type: str, framed: bool) -> None:
    if framed:
        body = b"--" + BOUNDARY + body + b"\r\n--" + BOUNDARY + b"--"
    try:
        assert isinstance(read(body, content_type), Form)
    except Refusal:
        pass


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6), st.dictionaries(st.text(), st.text()))
def test_whatever_a_stranger_publishes_as_a_description_makes_a_form(
    properties: dict[str, Any], texts: dict[str, str]
) -> None:
    made = method(properties, list(properties)[:2], example={"input": properties})
    fields = fields_of(made)
    assert len(fields) == max(len(properties), 0)
    try:
        inputs_from(Form(texts), fields, made.input)
    except Refusal:
        pass
