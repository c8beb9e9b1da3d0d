"""The plain address: who may ask, what one run may spend, and what a request means; before any coin moves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from openresource.client import AsyncClient
from openresource.client.connect import Allowance, Connect, RunLimitReached, named_inputs
from openresource.client.services import Method
from openresource.primitives.errors import InvalidInput

METHOD = Method("m", "/m", "", {"properties": {"text": {}, "n": {}}, "required": ["text"]}, {}, False, None)


async def ask(
    application: Connect, verb: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], Any]:
    """One request straight to the application."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await application({"type": "http", "method": verb, "path": path, "headers": raw}, receive, send)
    given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], given, b"".join(one.get("body", b"") for one in sent[1:])


def answered(verb: str, path: str, headers: dict[str, str], body: bytes = b"", **options: Any) -> Any:
    async def scenario() -> Any:
        # No node listens there: what is refused at the door never gets that far.
        async with AsyncClient("/nonexistent", "http://127.0.0.1:9") as client:
            return await ask(Connect(client, **options), verb, path, headers, body)

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8082", "127.0.0.1.evil.example", "", "[::1].evil", "169.254.169.254"],
)
def test_a_page_under_another_name_does_not_reach_the_wallet(host: str) -> None:
    status, _, body = answered("POST", "/shout", {"Host": host}, b"{}")
    assert status == 403 and json.loads(body)["error"]["code"] == "foreign-host"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil", "http://127.0.0.1:9999"]
)
def test_a_page_of_another_origin_does_not_spend(origin: str) -> None:
    headers = {"Host": "127.0.0.1:8082", "Origin": origin}
    status, given, body = answered("POST", "/shout", headers, b"{}")
    assert status == 403 and json.loads(body)["error"]["code"] == "foreign-origin"
    assert "access-control-allow-origin" not in given


def test_an_allowed_origin_passes_the_door_and_is_told_so() -> None:
    origin = "http://127.0.0.1:3000"
    headers = {"Host": "127.0.0.1:8082", "Origin": origin}
    status, given, _ = answered("OPTIONS", "/shout", headers, origins=(origin,))
    assert status == 204 and given["access-control-allow-origin"] == origin


def test_without_names_any_host_may_be_used_but_no_foreign_page() -> None:
    headers = {"Host": "box.lan:8082"}
    status, _, _ = answered("GET", "/healthz", headers, names=None)
    assert status == 200
    status, _, _ = answered("GET", "/healthz", {**headers, "Origin": "https://evil.example"}, names=None)
    assert status == 403


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("DELETE", "/shout", 405, "verb-not-served"),
        ("GET", "/v1/nothing", 404, "no-such-page"),
        ("POST", "/", 405, "verb-not-served"),
    ],
)
def test_what_is_not_served_is_said(verb: str, path: str, status: int, code: str) -> None:
    found, _, body = answered(verb, path, {"Host": "localhost:8082"}, b"{}")
    error = json.loads(body)["error"]
    assert (found, error["code"]) == (status, code) and error["remedy"]


def test_two_calls_at_once_do_not_pass_the_limit_together() -> None:
    allowance = Allowance(limit_uain=1_000)
    with allowance.promise(600):
        with pytest.raises(RunLimitReached), allowance.promise(600):
            pass
        with allowance.promise(400):
            assert allowance.left_uain == 0
    assert allowance.left_uain == 1_000
    allowance.spent_uain = 900
    with pytest.raises(RunLimitReached), allowance.promise(101):
        pass


def test_a_lone_value_goes_to_the_only_required_parameter() -> None:
    assert named_inputs("hello", METHOD) == {"text": "hello"}
    assert named_inputs({"n": 1}, METHOD) == {"n": 1}
    two = Method("m", "/m", "", {"properties": {"a": {}, "b": {}}}, {}, False, None)
    with pytest.raises(InvalidInput, match="a, b"):
        named_inputs([1], two)
