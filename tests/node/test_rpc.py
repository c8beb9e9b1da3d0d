"""The JSON-RPC envelope and the version gate, as AI Network's clients meet them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openresource.node.rpc import (
    OWN_REFUSAL,
    UNDEFINED,
    Answer,
    Dispatcher,
    Params,
    Reply,
    answer,
    check_version,
    encode,
    version_problem,
)
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import InvalidInput

GATE = {"result": None, "protoVer": "1.6.0"}
INVALID = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Invalid request"}}


async def chain_id(params: Params) -> Answer:
    return answer(100)


async def absent(params: Params) -> Answer:
    return {}


async def refusing(params: Params) -> Answer:
    raise InvalidInput(what="at", reason="it is nothing")


async def breaking(params: Params) -> Answer:
    raise ZeroDivisionError("inside")


METHODS = {"net_getChainId": chain_id, "absent": absent, "refusing": refusing, "breaking": breaking}


def reply(body: Any, query_version: str = "") -> Reply:
    return asyncio.run(Dispatcher(METHODS, frozenset(("free",))).reply(body, query_version))


def request(method: Any = "net_getChainId", **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": {"protoVer": "1.0.0"}, "id": 7, **members}


def test_the_value_lies_in_result_result() -> None:
    assert reply(request()).body == {
        "jsonrpc": "2.0",
        "id": 7,
        "result": {"result": 100, "protoVer": "1.6.0"},
    }
    assert reply(request(id="abc")).body["id"] == "abc"
    assert reply(request("absent")).body["result"] == {"protoVer": "1.6.0"}


def test_a_request_without_an_id_gets_no_answer() -> None:
    assert reply(request(id=None)) == Reply(204)
    without = request()
    del without["id"]
    assert reply(without) == Reply(204)
    assert reply([without], "1.0.0") == Reply(204)


def test_an_unknown_method_is_named_so() -> None:
    expected = {"code": -32601, "message": "Method not found"}
    assert reply(request("nope")).body == {"jsonrpc": "2.0", "id": 7, "error": expected}


@pytest.mark.parametrize(
    "body",
    [
        {"method": "net_getChainId", "params": {"protoVer": "1.0.0"}, "id": 3},
        request(jsonrpc="1.0"),
        {"jsonrpc": "2.0", "params": {"protoVer": "1.0.0"}, "id": 4},
        request(5),
    ],
)
def test_what_is_no_request_is_refused_without_its_id(body: Any) -> None:
    assert reply(body).body == INVALID


def test_params_of_the_wrong_kind_are_refused() -> None:
    assert reply(request(params="abc"), "1.0.0").body == INVALID
    assert reply(request(params=["0x00"]), "1.0.0").body["result"]["result"] == 100


@pytest.mark.parametrize(
    ("body", "query", "code"),
    [
        (request(params={}), "", 30101),
        (request(params=["1.0.0"]), "", 30101),
        (request(params="abc"), "", 30101),
        (request(params={"protoVer": "abc"}), "", 30102),
        (request(params={"protoVer": None}), "", 30102),
        (request(params={"protoVer": ""}), "", 30102),
        (request(params={"protoVer": True}), "", 30102),
        (request(params=None), "", 30102),
        ({}, "", 30102),
        ([request()], "", 30102),
        (request(params={"protoVer": "0.9.3"}), "", 30103),
        (request(), "0.1.0", 30103),
    ],
)
def test_the_gate_answers_with_a_bare_object(body: Any, query: str, code: int) -> None:
    found = reply(body, query)
    assert found.status == 200
    message = found.body.pop("message")
    assert found.body == {**GATE, "code": code}
    assert message.endswith(".")


@pytest.mark.parametrize("version", ["1.0.0", "1", "1.6", "v1.6.0", 1, 1.6, "99.9.9", "node-2.0-beta"])
def test_versions_are_coerced(version: Any) -> None:
    assert version_problem(version) == 0
    assert check_version({"protoVer": version}) == {"result": True, "code": 0}


def test_a_version_that_is_missing_or_none_is_told_apart() -> None:
    assert version_problem(UNDEFINED) == 30101
    assert version_problem(None) == 30102
    assert version_problem({}) == 30102
    assert check_version({})["code"] == 30101
    assert check_version({"protoVer": "0.9.3"})["result"] is False


def test_arrays_answer_in_order_with_errors_in_place() -> None:
    found = reply([request(id=1), request("nope", id=2), request(id=3)], "1.0.0").body
    assert [one["id"] for one in found] == [1, 2, 3]
    assert found[1]["error"]["code"] == -32601
    assert reply([], "1.0.0").body == INVALID
    assert reply([request()] * 51, "1.0.0").body == INVALID


def test_our_refusals_travel_typed_inside_of_the_envelope() -> None:
    inner = reply(request("refusing")).body["result"]
    assert inner["result"] is None
    assert inner["code"] == OWN_REFUSAL
    assert inner["refusal"]["code"] == "invalid-input"
    assert inner["refusal"]["facts"] == {"what": "at", "reason": "it is nothing"}


def test_an_exception_inside_is_told_without_its_insides() -> None:
    found = reply(request("breaking")).body
    assert found["error"] == {"code": -32603, "message": "Internal error"}


def test_answers_may_hold_any_text_that_the_state_holds() -> None:
    assert parse_json(encode({"a": "\ud800", "b": 1.5})) == {"a": "\ud800", "b": 1.5}
