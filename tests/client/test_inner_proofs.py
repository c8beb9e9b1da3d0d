"""What callers hand in for programs: only answers that a receipt proves, within bounds, under the line's secret."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest

from openresource.client import AsyncClient
from openresource.market.receipts import (
    CallReceipt,
    body_digest,
    receipt_from_json,
    receipt_to_json,
    sign_receipt,
)
from openresource.primitives.encoding import base64url
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.provider import inner_calls
from openresource.provider.inner_calls import ANSWER_BYTES_MAX
from openresource.sandbox.driver import InnerRequest, ProgramCall, ProgramReply
from tests.client.street import Shop, Street, new_key, shout, until

Run = Callable[..., Any]


def reply(value: Any) -> ProgramReply:
    return ProgramReply(200, "application/json", json.dumps(value).encode(), cpu_ms=1, wall_ms=1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody counts as gone who only has a slow machine."""
    monkeypatch.setattr(inner_calls, "CALLER_SECONDS_MAX", 120.0)
    monkeypatch.setattr(inner_calls, "LINE_SECONDS_MAX", 60.0)


@dataclass
class Scene:
    """A free program that asks for one call, and somebody who speaks to its gateway by hand."""

    street: Street
    shop: Shop
    child: Shop
    buyer: AsyncClient
    http: httpx2.AsyncClient
    line: str

    async def call(self, allowance: str = "") -> httpx2.Response:
        header = {"OpenResource-Allowance": allowance or f"{self.line};10000;1"}
        service = self.shop.service
        path = f"/services/{service.full_name}/{service.version.program}/shout"
        return await self.http.post(path, json={"text": "hi"}, headers=header)

    async def asks(self, after: int = 0, run: str = "", line: str = "") -> httpx2.Response:
        return await self.http.get(
            f"/inner?after={after}&run={run}", headers={"OpenResource-Line": line or self.line}
        )

    async def hand_in(self, number: int, run: str, content: Any, **headers: str) -> httpx2.Response:
        given = {
            "OpenResource-Line": self.line,
            "OpenResource-Run": run,
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.http.post(f"/inner/{number}", content=body, headers=given)


@asynccontextmanager
async def opened(street: Street) -> AsyncIterator[Scene]:
    child = await street.open(await street.publish(), shout)

    async def asking(call: ProgramCall) -> ProgramReply:
        assert call.asker is not None
        try:
            answer = await call.asker.ask(InnerRequest(child.service.full_name, "", {"text": "bees"}))
            return reply({"output": answer.output, **answer.facts})
        except Refusal as refusal:
            return reply(refusal.to_json())

    from openresource.market.prices import Price

    service = await street.publish(royalty_uain=0, calls=("any",))
    shop = await street.open(service, asking, price=Price(0, 0, 20_000))
    trust = ssl.create_default_context(cafile=str(shop.identity.path))
    async with (
        await street.buyer() as buyer,
        httpx2.AsyncClient(base_url=shop.endpoint, verify=trust, trust_env=False, timeout=60) as http,
    ):
        yield Scene(street, shop, child, buyer, http, secrets.token_hex(32))


def signed(street: Street, record: dict[str, Any], key: PrivateKey, **changes: Any) -> str:
    receipt = replace(receipt_from_json(record), **changes)
    return header_of(street, sign_receipt(receipt, key, street.network))


def header_of(street: Street, receipt: CallReceipt) -> str:
    return base64url(json.dumps(receipt_to_json(receipt, street.network)).encode())


def test_an_answer_reaches_the_program_only_if_its_receipt_proves_it(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        async with opened(street) as scene:
            good = await scene.buyer.call(scene.child.service.full_name, "shout", text="bees")
            other = await street.open(await street.publish(), shout)
            elsewhere = await scene.buyer.call(other.service.full_name, "shout", text="bees")
            record, body = good.receipt, good.body
            salt = bytes.fromhex(record["salt"][2:])
            stranger = new_key()
            facts = dict(receipt_from_json(record).facts)
            forged = {
                "the right one": (body, header_of(street, receipt_from_json(record))),
                "another output": (b'"LIES"', header_of(street, receipt_from_json(record))),
                "signed by a stranger": (body, signed(street, record, stranger)),
                "a stranger as its provider": (
                    b'"LIES"',
                    signed(
                        street,
                        record,
                        stranger,
                        facts={**facts, "provider": stranger.address},
                        output=body_digest(salt, b'"LIES"'),
                    ),
                ),
                "another input": (
                    body,
                    signed(street, record, scene.child.key, input=body_digest(salt, b"{}")),
                ),
                "another service": (elsewhere.body, header_of(street, receipt_from_json(elsewhere.receipt))),
                "another method": (
                    body,
                    signed(street, record, scene.child.key, facts={**facts, "method": "count"}),
                ),
                "no receipt": (body, base64url(b"{}")),
                "not base64": (body, "%%%"),
            }
            for name, (content, header) in forged.items():
                calling = asyncio.create_task(scene.call())
                asked = (await scene.asks()).json()
                (ask,) = asked["asks"]
                assert ask["service"] == scene.child.service.full_name and json.loads(ask["body"]) == {
                    "text": "bees"
                }
                handed = await scene.hand_in(
                    ask["number"], asked["run"], content, OpenResource_Receipt=header
                )
                if name in ("no receipt", "not base64"):
                    assert handed.status_code in (400, 422), name
                    if not calling.done():
                        await scene.hand_in(
                            ask["number"], asked["run"], {"error": {}}, OpenResource_Refused="1"
                        )
                told = (await calling).json()
                if name == "the right one":
                    assert handed.status_code == 200, handed.text
                    assert told["output"] == "BEES" and told["total_uain"] == good.price_uain
                    assert told["provider"] == scene.child.key.address
                elif name not in ("not base64",):
                    assert handed.status_code in (400, 422), name
                    assert told["code"] in ("inner-answer-not-proven", "inner-call-failed"), name

    on_a_street(story)


def test_a_caller_says_in_its_own_words_why_there_is_no_answer_within_bounds(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        async with opened(street) as scene:
            errors: list[tuple[Any, str]] = [
                (
                    {"error": {"code": "allowance-used-up", "message": "m", "facts": {"left_uain": 3}}},
                    "allowance-used-up",
                ),
                ({"error": {"code": "x" * 3_000, "message": "y" * 3_000}}, "x" * 64),
                ({"error": [1]}, "inner-call-failed"),
                (b"{nonsense", "inner-call-failed"),
                (b"[" * 10_000, "inner-call-failed"),
            ]
            for error, code in errors:
                calling = asyncio.create_task(scene.call())
                asked = (await scene.asks()).json()
                handed = await scene.hand_in(1, asked["run"], error, OpenResource_Refused="1")
                assert handed.status_code == 200
                told = (await calling).json()
                assert told["code"] == code and len(told["message"]) <= 500
                assert told["facts"]["service"] == scene.child.service.full_name

    on_a_street(story)


def test_lines_are_for_who_has_their_secret_and_their_calls_only(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        async with opened(street) as scene:
            calling = asyncio.create_task(scene.call())
            asked = (await scene.asks()).json()
            stranger = secrets.token_hex(32)
            headers = {"OpenResource-Line": stranger, "OpenResource-Run": asked["run"]}
            found = await scene.http.post("/inner/1", content=b"{}", headers=headers)
            assert found.status_code == 404 and found.json()["error"]["code"] == "line-unknown"
            assert (await scene.hand_in(1, "0" * 16, {}, OpenResource_Refused="1")).status_code == 400
            assert (await scene.hand_in(2, asked["run"], {}, OpenResource_Refused="1")).status_code == 409
            assert (await scene.hand_in(1, asked["run"], b"x" * (ANSWER_BYTES_MAX + 1))).status_code == 413
            assert (await scene.asks(line="zz")).status_code == 400
            # What was fetched and not answered is told again to who asks from the beginning, or after another run.
            assert (await scene.asks(after=0, run=asked["run"])).json()["asks"] == asked["asks"]
            assert (await scene.asks(after=5, run="0" * 16)).json()["asks"] == asked["asks"]
            await scene.hand_in(1, asked["run"], {}, OpenResource_Refused="1")
            assert (await calling).status_code == 200
            late = await scene.hand_in(1, asked["run"], {}, OpenResource_Refused="1")
            assert late.status_code == 404
            for header in ("x", f"{stranger};1", f"{stranger};-1;1", f"{stranger};1;9"):
                assert (await scene.call(header)).status_code == 400

    on_a_street(story)


def test_a_program_whose_caller_is_silent_is_told_so(
    on_a_street: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner_calls, "CALLER_SECONDS_MAX", 1.0)
    monkeypatch.setattr(inner_calls, "LOOK_SECONDS", 0.1)

    async def story(street: Street) -> None:
        async with opened(street) as scene:
            assert (await scene.call()).json()["code"] == "caller-gone"
            monkeypatch.setattr(inner_calls, "CALLER_SECONDS_MAX", 120.0)
            # One who listens is waited for.
            calling = asyncio.create_task(scene.call())
            asked = (await scene.asks()).json()
            listening = asyncio.create_task(scene.asks(after=1, run=asked["run"]))
            (line,) = scene.shop.lines._lines.values()
            await until(lambda: line.listeners)
            monkeypatch.setattr(inner_calls, "CALLER_SECONDS_MAX", 0.0)
            await asyncio.sleep(1.5)
            assert not calling.done()
            await scene.hand_in(1, asked["run"], {"error": {"code": "enough"}}, OpenResource_Refused="1")
            assert (await calling).json()["code"] == "enough"
            assert (await listening).json()["ended"] is True

    on_a_street(story)


def test_bytes_that_are_no_text_reach_a_program_as_base64() -> None:
    value = inner_calls._plain(b"\x00\xff", "image/png")
    assert value == {"base64": base64.b64encode(b"\x00\xff").decode(), "content_type": "image/png"}
    assert inner_calls._plain(b'{"a": 1}', "application/json") == {"a": 1}
