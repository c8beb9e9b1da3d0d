"""Calls as HTTP requests: generic ones, declared ones, those of an OpenAPI document; and answers as values."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.manifests import parse_manifest
from openresource.market.schemas import check_schema
from openresource.sandbox.driver import ProgramCall, ProgramRefused
from openresource.sandbox.http import Lines
from openresource.sandbox.openapi import OPERATIONS_MAX, read_openapi
from openresource.sandbox.requests import Outgoing, Requests, wrapped

GENERIC = Requests(parse_manifest('name = "x"\n[run]\nkind = "http"\ncommand = ["./x"]'))
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/items/{item_id}": {
            "parameters": [{"name": "item_id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {
                "operationId": "read_item_items__item_id__get",
                "summary": "One  item.",
                "parameters": [
                    {"name": "q", "in": "query", "schema": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                    {"name": "x-token", "in": "header", "schema": {"type": "string"}},
                ],
                "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}}},
            },
            "put": {
                "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}},
            },
        },
        "/many": {"post": {"requestBody": {"required": True, "content": {"application/json": {
            "schema": {"type": "array", "items": {"type": "string"}}}}}}},
        "/form": {"post": {"operationId": "form", "requestBody": {"content": {"application/x-www-form-urlencoded": {
            "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}}}}},
        "/upload": {"post": {"operationId": "upload", "requestBody": {"content": {"multipart/form-data": {
            "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}, "n": {"type": "integer"}}}}}}}},
        "/needs-header": {"get": {"parameters": [{"name": "k", "in": "header", "required": True}]}},
        "/hole/{x}": {"get": {}},
    },
    "components": {"schemas": {"Item": {
        "type": "object", "title": "Item", "required": ["name"], "x-own": 1,
        "properties": {"name": {"type": "string"}, "price": {"type": "number", "exclusiveMinimum": True},
                       "next": {"$ref": "#/components/schemas/Item"}},
    }}},
}  # fmt: skip


def sent(requests: Requests, method: str, value: Any, **more: Any) -> Outgoing:
    """The request of a call."""
    return requests.outgoing(ProgramCall(method, f"/{method}", json.dumps(value).encode(), **more))


def test_a_generic_request_is_sent_as_it_is_told() -> None:
    plain = sent(GENERIC, "request", {})
    assert (plain.verb, plain.target, plain.headers, plain.body) == ("GET", "/", (), b"")
    told = sent(GENERIC, "request", {"method": "PUT", "path": "/ä?x=1", "query": {"a": [1, True], "b": "c d"},
                                     "headers": {"X-A": "1"}, "body": {"k": "ö"}})  # fmt: skip
    assert told.target == "/%C3%A4?x=1&a=1&a=true&b=c+d"
    assert dict(told.headers) == {"X-A": "1", "Content-Type": "application/json"}
    assert json.loads(told.body) == {"k": "ö"}
    assert sent(GENERIC, "request", {"body": "text"}).body == b"text"
    assert sent(GENERIC, "request", {"body": "AAE=", "encoding": "base64"}).body == b"\0\1"
    assert sent(GENERIC, "request", {"body": None, "method": "POST"}).body == b"null"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"method": "CONNECT"}, "method is CONNECT"),
        ({"path": "http://elsewhere/"}, "path begins"),
        ({"path": "/a b"}, "path begins"),
        ({"path": "/a\r\nX: y"}, "path begins"),
        ({"query": [1]}, "query is an object"),
        ({"headers": {"Host": "x"}}, "Host"),
        ({"headers": {"A": "b\r\nC: d"}}, "header A"),
        ({"headers": {"A B": "c"}}, "A B"),
        ({"headers": {f"A{n}": "" for n in range(70)}}, "at most 64"),
        ({"body": 3, "encoding": "base64"}, "base64"),
        ([1], "object"),
    ],
)
def test_a_generic_request_that_http_does_not_allow_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ProgramRefused, match=words):
        sent(GENERIC, "request", value)


@given(st.dictionaries(st.sampled_from(["method", "path", "query", "headers", "body", "encoding"]),
                       st.one_of(st.text(), st.none(), st.dictionaries(st.text(), st.text()), st.lists(st.integers()))))  # fmt: skip
def test_no_input_leaves_its_line(value: Any) -> None:
    try:
        outgoing = sent(GENERIC, "request", value)
    except ProgramRefused:
        return
    for text in (outgoing.target, *(part for pair in outgoing.headers for part in pair)):
        assert not set("\r\n\0") & set(text)
        text.encode("latin-1")
    assert " " not in outgoing.target


def test_declared_verbs_put_the_input_into_the_query() -> None:
    requests = Requests(parse_manifest(
        'name = "x"\n[run]\nkind = "http"\ncommand = ["./x"]\n[[methods]]\nname = "find"\nverb = "GET"\npath = "/v1/find"\n'
        '[[methods]]\nname = "put"\nverb = "PUT"\n[[methods]]\nname = "say"\n'))  # fmt: skip
    call = ProgramCall("find", "/v1/find", b'{"q": "a b", "n": 2}')
    assert requests.outgoing(call) == Outgoing("GET", "/v1/find?q=a+b&n=2", (), b"")
    assert sent(requests, "put", {"a": 1}).verb == "PUT"
    assert sent(requests, "say", {"a": 1}).verb == "POST"
    assert requests.document_path == "" and GENERIC.document_path == "/openapi.json"


def test_answers_are_told_as_values() -> None:
    def told(body: bytes, kind: bytes) -> Any:
        return json.loads(wrapped(404, {b"content-type": kind}, body))

    assert told(b'{"a": 1}', b"application/json; charset=utf-8")["body"] == {"a": 1}
    assert told(b"NaN", b"application/json")["body"] == "NaN"
    assert told(b"[" * 100_000, b"application/json")["body"] == "[" * 100_000
    assert told("ä".encode(), b"text/html") == {
        "status": 404,
        "headers": {"content-type": "text/html"},
        "body": "ä",
    }
    assert told(b"\0\xff", b"image/png")["body"] == base64.b64encode(b"\0\xff").decode()
    assert told(b"\0\xff", b"image/png")["encoding"] == "base64"


def test_an_openapi_document_gives_methods_with_schemas_that_are_checked() -> None:
    methods, routes = read_openapi(json.dumps(DOCUMENT).encode())
    by_name = {method["name"]: method for method in methods}
    assert list(by_name) == ["read_item", "put_items_item_id", "post_many", "form", "upload"]
    for method in methods:
        check_schema(method["input"])
        check_schema(method["output"])
    assert by_name["read_item"]["summary"] == "One item."
    assert by_name["read_item"]["input"]["required"] == ["item_id"]
    assert by_name["put_items_item_id"]["input"]["required"] == ["item_id", "name"]
    requests = Requests(parse_manifest('name = "x"\n[run]\nkind = "http"\ncommand = ["./x"]'))
    requests.learn(routes)
    read = sent(requests, "read_item", {"item_id": "3/../4", "q": "a&b"})
    assert (read.verb, read.target, read.body) == ("GET", "/items/3%2F..%2F4?q=a%26b", b"")
    put = sent(requests, "put_items_item_id", {"item_id": 3, "name": "x"})
    assert (put.verb, put.target, json.loads(put.body)) == ("PUT", "/items/3", {"name": "x"})
    assert json.loads(sent(requests, "post_many", {"body": ["a"]}).body) == ["a"]
    assert sent(requests, "form", {"a": "x y"}).body == b"a=x+y"
    parts = sent(requests, "upload", {"file": "AAE=", "n": 2}).body
    assert b'name="file"; filename="file"' in parts and b"\0\1" in parts and b'name="n"\r\n\r\n2' in parts
    for value in ({}, {"item_id": ".."}, {"item_id": ""}):
        with pytest.raises(ProgramRefused):
            sent(requests, "read_item", value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"openapi": "3.0"}', b'{"openapi": "3.0", "paths": []}', b"[" * 100_000,
        b'{"openapi": "3.0", "paths": {"/x": 3, "y": {"get": {}}, "/z": {"get": {"parameters": 3, "responses": []}}}}',
        json.dumps({"openapi": "3", "paths": {"/x": {"post": {"requestBody": {"content": {"application/json": {
            "schema": {"$ref": "#/paths/~1x/post/requestBody/content/application~1json/schema"}}}}}}}}).encode(),
        json.dumps({"openapi": "3", "paths": {"/x": {"get": {"operationId": "request", "parameters": [{}, None, {
            "name": "a", "in": "query", "schema": {"type": "strnig", "minLength": -1}}]}}}}).encode(),
    ],
)  # fmt: skip
def test_a_document_that_makes_no_sense_gives_what_makes_sense(content: bytes) -> None:
    methods, routes = read_openapi(content)
    assert len(methods) == len(routes) <= 2
    for method in methods:
        check_schema(method["input"])


def test_a_very_long_document_is_cut() -> None:
    paths = {f"/p{number}": {"get": {}} for number in range(OPERATIONS_MAX * 2)}
    assert len(read_openapi(json.dumps({"openapi": "3", "paths": paths}).encode())[0]) == OPERATIONS_MAX


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b" ", b"1", b"ab"]), max_size=20).map(b"".join),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_lines_are_the_same_wherever_their_bytes_are_cut(body: bytes, cuts: list[int]) -> None:
    lines, found, begin = Lines(), [], 0
    for cut in (*sorted(cuts), len(body)):
        found += lines.take(body[begin:cut])
        assert lines.size <= len(body)
        begin = max(begin, cut)
    found += lines.rest()
    assert found == [line + b"\n" for line in body.split(b"\n") if line.strip()]
