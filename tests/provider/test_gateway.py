"""The gateway over real TLS: what a call gets, what it costs, and how every no is said."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from openresource.market.placements import sign_test_call
from openresource.market.receipts import check_receipt, next_receipts_hash, receipt_digest
from openresource.market.services import Permissions
from openresource.market.vouchers import NO_RECEIPTS, session_hash
from openresource.provider import lanes
from openresource.sandbox.driver import (
    LINES_TYPE,
    ProgramCall,
    ProgramCrashed,
    ProgramReply,
    ProgramTimedOut,
)
from tests.provider.support import (
    BUYER,
    NETWORK,
    PROGRAM,
    PROVIDER,
    PUBLISHER,
    STRANGER,
    FunctionRunner,
    LineStream,
    Offer,
    Purse,
    Shop,
    echo,
    make_offer,
    open_shop,
    payment_header,
    receipt_of,
)

PRICE = 100


def at_a_shop(folder: Path, work: Callable[[Shop], Awaitable[Any]], offer: Offer | None = None) -> Any:
    async def body() -> Any:
        async with open_shop(folder, offer) as shop:
            return await work(shop)

    return asyncio.run(asyncio.wait_for(body(), 60))


def error_of(response: httpx2.Response) -> Any:
    return response.json()["error"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_paid_call_gives_the_answer_and_a_receipt_that_holds(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        response = await shop.call("/echo", {"say": "hello"}, sequence=1, total_uain=PRICE)
        assert (response.status_code, response.json()) == (200, {"say": "hello"})
        receipt = receipt_of(response)
        check_receipt(
            receipt,
            NETWORK,
            provider=PROVIDER.address,
            channel=shop.purse.channel,
            nonce=0,
            session=session_hash(shop.purse.secret),
            sequence=1,
            program=PROGRAM,
            price_uain=PRICE,
            input_body=b'{"say":"hello"}',
            output_body=response.content,
        )
        assert receipt.facts["isolation"] == "confined"
        settled = msgspec.json.decode(base64.b64decode(response.headers["payment-response"]))
        assert settled == {
            "success": True,
            "transaction": "",
            "network": "openresource:100",
            "payer": BUYER.address,
            "amount": "100",
        }
        again = await shop.http.get("/receipts/0x" + receipt_digest(receipt, NETWORK).hex())
        assert again.json()["id"] == "0x" + receipt_digest(receipt, NETWORK).hex()

    at_a_shop(tmp_path, work)


def test_who_does_not_pay_hears_how_to_pay(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        response = await shop.call("/echo", {})
        assert response.status_code == 402
        envelope = msgspec.json.decode(base64.b64decode(response.headers["payment-required"]))
        body = response.json()
        assert {name: body[name] for name in envelope} == envelope
        assert envelope["x402Version"] == 2
        assert envelope["error"] == "payment-missing"
        assert envelope["resource"]["url"].startswith("https://127.0.0.1:")
        terms = envelope["accepts"][0]
        assert (terms["scheme"], terms["network"], terms["amount"], terms["asset"], terms["payTo"]) == (
            "openresource",
            "openresource:100",
            "100",
            "AIN",
            PROVIDER.address,
        )
        assert terms["extra"]["price"]["text"] == "0.0001 AIN"
        assert terms["extra"]["salt"] == NETWORK.genesis_hash
        assert "voucher" in terms["extra"]["pay"]
        assert not shop.offer.runner.calls

    at_a_shop(tmp_path, work)


def test_a_short_voucher_hears_exactly_what_is_required(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        await shop.call("/echo", {}, sequence=1, total_uain=PRICE * 2)
        await shop.call("/echo", {}, sequence=2)
        response = await shop.call("/echo", {}, sequence=3)
        assert response.status_code == 402
        extra = response.json()["accepts"][0]["extra"]
        assert (extra["nonce"], extra["spent_uain"], extra["completed"]) == (0, PRICE * 2, 2)
        assert extra["required_total_uain"] == PRICE * 3
        again = await shop.call("/echo", {}, sequence=3, total_uain=extra["required_total_uain"])
        assert again.status_code == 200
        assert receipt_of(again).completed == 3

    at_a_shop(tmp_path, work)


def test_vouchers_acknowledge_the_running_hash_of_receipts(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        running = NO_RECEIPTS
        for number in range(1, 6):
            payment = shop.purse.header(PRICE * number, acknowledged=number - 1, receipts=running).decode()
            response = await shop.call("/echo", {}, sequence=number, PAYMENT_SIGNATURE=payment)
            assert response.status_code == 200
            running = next_receipts_hash(running, receipt_digest(receipt_of(response), NETWORK))
        session = {"OpenResource-Session": shop.purse.session_header(9).decode()}
        tab = (await shop.http.get(f"/channels/{shop.purse.channel}", headers=session)).json()
        assert tab["receipts"] == "0x" + running.hex()
        assert (tab["nonce"], tab["total_uain"], tab["spent_uain"], tab["in_flight_uain"]) == (0, 500, 500, 0)
        wrong = shop.purse.header(PRICE * 6, acknowledged=5, receipts=b"x" * 32).decode()
        response = await shop.call("/echo", {}, sequence=6, PAYMENT_SIGNATURE=wrong)
        assert (response.status_code, response.json()["error"]) == (402, "voucher-acknowledges-unknown")

    at_a_shop(tmp_path, work)


def test_calls_of_one_channel_run_concurrently(tmp_path: Path) -> None:
    running = 0
    several = asyncio.Event()
    several.set()

    async def slow(call: ProgramCall) -> ProgramReply:
        nonlocal running
        running += 1
        if running > 3:
            several.set()
        async with asyncio.timeout(60):
            await several.wait()
        running -= 1
        return await echo(call)

    async def work(shop: Shop) -> None:
        first = shop.call("/echo", 0, sequence=0, total_uain=PRICE * 8)
        assert (await first).status_code == 200
        # None of the next ends before four of them run at once.
        several.clear()
        responses = await asyncio.gather(
            *[shop.call("/echo", number, sequence=number) for number in range(1, 8)]
        )
        assert [response.json() for response in responses] == list(range(1, 8))
        assert sorted(receipt_of(response).completed for response in responses) == list(range(2, 9))
        assert several.is_set()

    at_a_shop(tmp_path, work, make_offer(slow))


def test_a_retry_gets_the_same_bytes_and_the_program_runs_once(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        first = await shop.call("/echo", {"n": 1}, sequence=1, total_uain=PRICE)
        again = await shop.call("/echo", {"n": 1}, sequence=1, total_uain=PRICE)
        assert again.content == first.content
        assert again.headers["openresource-receipt"] == first.headers["openresource-receipt"]
        assert len(shop.offer.runner.calls) == 1
        other = await shop.call("/echo", {"n": 2}, sequence=1)
        assert (other.status_code, error_of(other)["code"]) == (409, "call-key-reused")

    at_a_shop(tmp_path, work)


def test_a_retry_while_the_first_still_runs_waits_for_it(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def waits(call: ProgramCall) -> ProgramReply:
        await gate.wait()
        return await echo(call)

    async def work(shop: Shop) -> None:
        tasks = [asyncio.create_task(shop.call("/echo", 1, sequence=1, total_uain=PRICE)) for _ in range(4)]
        await until(lambda: len(shop.offer.runner.calls) == 1)
        gate.set()
        responses = await asyncio.gather(*tasks)
        assert {response.headers["openresource-receipt"] for response in responses} == {
            responses[0].headers["openresource-receipt"]
        }
        assert len(shop.offer.runner.calls) == 1
        assert shop.tab.spent_uain == PRICE

    at_a_shop(tmp_path, work, make_offer(waits))


def test_answers_survive_a_restart(tmp_path: Path) -> None:
    first = at_a_shop(tmp_path, lambda shop: shop.call("/echo", {"n": 1}, sequence=1, total_uain=PRICE))
    again = at_a_shop(tmp_path, lambda shop: shop.call("/echo", {"n": 1}, sequence=1))
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["openresource-receipt"] == first.headers["openresource-receipt"]


def test_a_large_answer_survives_a_restart_in_a_file(tmp_path: Path) -> None:
    async def large(call: ProgramCall) -> ProgramReply:
        return ProgramReply(200, "application/octet-stream", b"\x00\xff" * 100_000)

    async def work(shop: Shop) -> Any:
        return await shop.call("/echo", {"n": 1}, sequence=1, total_uain=PRICE)

    first = at_a_shop(tmp_path, work, make_offer(large))
    assert len(list((tmp_path / "answers").iterdir())) == 1
    again = at_a_shop(tmp_path, work, make_offer(large))
    assert again.content == first.content == b"\x00\xff" * 100_000
    assert again.headers["openresource-receipt"] == first.headers["openresource-receipt"]


def failing(error: BaseException) -> Callable[[ProgramCall], Awaitable[ProgramReply]]:
    async def fail(call: ProgramCall) -> ProgramReply:
        raise error

    return fail


async def says_no(call: ProgramCall) -> ProgramReply:
    return ProgramReply(400, "text/plain", b"I only take cats")


async def breaks(call: ProgramCall) -> ProgramReply:
    return ProgramReply(500, "text/plain", b"boom")


@pytest.mark.parametrize(
    ("function", "status", "code"),
    [
        (
            failing(ProgramCrashed(reason="signal 11", stderr="secret of the publisher")),
            502,
            "program-crashed",
        ),
        (failing(ProgramTimedOut(seconds=1)), 504, "program-timed-out"),
        (failing(RuntimeError("a fault of ours")), 500, "internal"),
        (says_no, 422, "program-refused"),
        (breaks, 502, "program-failed"),
    ],
)
def test_no_answer_no_pay(tmp_path: Path, function: Any, status: int, code: str) -> None:
    async def work(shop: Shop) -> None:
        response = await shop.call("/echo", {}, sequence=1, total_uain=PRICE)
        assert (response.status_code, error_of(response)["code"]) == (status, code)
        assert "secret" not in response.text and "?" not in error_of(response)["remedy"]
        assert "openresource-receipt" not in response.headers
        tab = shop.tab
        assert (tab.spent_uain, tab.in_flight_uain, tab.completed) == (0, 0, 0)
        shop.offer.runner = FunctionRunner(echo)
        assert (await shop.call("/echo", {}, sequence=1)).status_code == 200

    at_a_shop(tmp_path, work, make_offer(function))


BAD_INPUTS: list[tuple[bytes, int, str]] = [
    (b'{"number": "x"}', 422, "invalid-value"),
    (b"{}", 422, "invalid-value"),
    (b'{"number": 1, "other": 2}', 422, "invalid-value"),
    (b"[1]", 422, "invalid-value"),
    (b"not json", 400, "not-json"),
    (b'{"number": 1', 400, "not-json"),
    (b"\xff\xfe", 400, "not-json"),
    (b"[" * 100 + b"]" * 100, 400, "json-too-deep"),
    (b'{"number": ' + b"1" * 300_000 + b"}", 413, "input-too-large"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_INPUTS)
def test_an_input_that_does_not_fit_is_free(tmp_path: Path, body: bytes, status: int, code: str) -> None:
    async def work(shop: Shop) -> None:
        response = await shop.call("/double", body, sequence=1, total_uain=PRICE)
        assert (response.status_code, error_of(response)["code"]) == (status, code)
        assert error_of(response)["remedy"]
        assert not shop.offer.runner.calls
        assert shop.desk.admission.known_account(shop.purse.channel) is None

    at_a_shop(tmp_path, work)


def test_a_body_in_pieces_past_the_bound_is_refused(tmp_path: Path) -> None:
    async def pieces() -> Any:
        for _ in range(50):
            yield b"x" * 10_000

    async def work(shop: Shop) -> None:
        response = await shop.http.post(shop.offer.path + "/echo", content=pieces())
        assert (response.status_code, error_of(response)["code"]) == (413, "input-too-large")

    at_a_shop(tmp_path, work)


def test_bodies_together_have_a_bound_as_they_come_before_payment(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("openresource.provider.gateway.BODIES_BYTES_MAX", 1_000)

    async def work(shop: Shop) -> None:
        response = await shop.http.post(shop.offer.path + "/echo", content=b"x" * 1_001)
        assert (response.status_code, error_of(response)["code"]) == (503, "too-many-bodies")
        for number in range(3):
            answered = await shop.call("/echo", number, sequence=number, total_uain=PRICE * 3)
            assert answered.status_code == 200, "a body gives its room back"

    at_a_shop(tmp_path, work)


def test_overload_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "WAITING_SECONDS_MAX", 60.0)
    gate = asyncio.Event()

    async def waits(call: ProgramCall) -> ProgramReply:
        await gate.wait()
        return await echo(call)

    async def work(shop: Shop) -> None:
        tasks = [
            asyncio.create_task(shop.call("/echo", number, sequence=number, total_uain=PRICE * 30))
            for number in range(17)
        ]
        await until(lambda: shop.offer.lane.waiting == 16)
        response = await shop.call("/echo", 17, sequence=17, total_uain=PRICE * 40)
        assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert response.headers["openresource-load"].startswith("17/1;")
        # Its voucher does not count.
        assert shop.tab.total_uain == PRICE * 30
        gate.set()
        responses = await asyncio.gather(*tasks)
        assert [response.status_code for response in responses] == [200] * 17
        assert shop.tab.spent_uain == PRICE * 17

    at_a_shop(tmp_path, work, make_offer(waits, capacity=1))


def test_a_free_version_needs_no_channel(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        response = await shop.call("/echo", {"n": 1})
        assert (response.status_code, response.json()) == (200, {"n": 1})
        receipt = receipt_of(response)
        assert receipt.price_uain == 0
        assert (await shop.http.get("/receipts/" + receipt_digest(receipt, NETWORK).hex())).status_code == 200

    at_a_shop(tmp_path, work, make_offer(ask_uain=0, royalty_uain=0))


def test_the_publishers_list_of_callers_is_enforced(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        shop.offer.permissions = Permissions(call={STRANGER.address: True})
        response = await shop.call("/echo", {}, sequence=1, total_uain=PRICE)
        assert (response.status_code, error_of(response)["code"]) == (403, "call-not-permitted")
        shop.offer.permissions = Permissions(call={BUYER.address: True})
        assert (await shop.call("/echo", {}, sequence=1, total_uain=PRICE)).status_code == 200

    at_a_shop(tmp_path, work)


def test_a_free_version_for_few_still_asks_who_calls(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        assert (await shop.call("/echo", {})).status_code == 402
        response = await shop.call("/echo", {}, sequence=1, total_uain=0)
        assert response.status_code == 200
        assert shop.tab.spent_uain == 0

    offer = make_offer(ask_uain=0, royalty_uain=0, permissions=Permissions(call={BUYER.address: True}))
    at_a_shop(tmp_path, work, offer)


def test_the_publisher_tests_the_example_for_free_a_few_times(tmp_path: Path) -> None:
    def header(shop: Shop, timestamp_ms: int, key: Any = PUBLISHER) -> str:
        signature = sign_test_call(PROGRAM, timestamp_ms, key, NETWORK)
        return f"{PUBLISHER.address};{timestamp_ms};0x{signature.hex()}"

    async def work(shop: Shop) -> None:
        now, example = shop.desk.clock(), {"number": 21}

        async def test(timestamp_ms: int, body: Any = example, key: Any = PUBLISHER) -> tuple[int, str]:
            sent = header(shop, timestamp_ms, key)
            response = await shop.call("/double", body, OpenResource_Test=sent)
            return response.status_code, "" if response.status_code == 200 else error_of(response)["code"]

        assert await test(now, key=STRANGER) == (403, "foreign-test-call")
        assert await test(now - 3_600_000) == (403, "stale-test-call")
        assert await test(now, {"number": 22}) == (403, "test-call-not-the-example")
        for number in range(5):
            assert await test(now + number) == (200, "")
        assert await test(now + 10) == (403, "test-calls-used-up")
        bad = await shop.call("/double", example, OpenResource_Test="x;y")
        assert bad.status_code == 400

    at_a_shop(tmp_path, work)

    async def replayed(shop: Shop) -> None:
        now = shop.desk.clock()
        sent = header(shop, now + 100)
        statuses = [
            (await shop.call("/double", {"number": 21}, OpenResource_Test=sent)).status_code for _ in range(2)
        ]
        assert statuses == [200, 409]

    at_a_shop(tmp_path / "other", replayed)


BAD_SESSIONS = ["", "x", "a;b;c", f"{BUYER.address}/{'aa' * 8};00;1", f"{BUYER.address}/{'aa' * 8};{'07' * 32};-1",
                f"{BUYER.address}/{'aa' * 8};{'07' * 32};{'9' * 30}", f"{BUYER.address}/../..;{'07' * 32};1",
                f"{BUYER.address.lower()}/{'aa' * 8};{'07' * 32};1"]  # fmt: skip


@pytest.mark.parametrize("header", BAD_SESSIONS)
def test_a_malformed_session_is_a_refusal(tmp_path: Path, header: str) -> None:
    async def work(shop: Shop) -> None:
        response = await shop.call("/echo", {}, OpenResource_Session=header)
        assert response.status_code == (402 if not header else 400)
        assert response.json()["error"]

    at_a_shop(tmp_path, work)


BAD_PAYMENTS: list[Any] = [
    None, [], "x", {}, {"scheme": "exact"},
    {"scheme": "openresource", "channel": "x"},
    {"scheme": "openresource", "channel": f"{BUYER.address}/{'aa' * 8}", "nonce": -1},
]  # fmt: skip


@pytest.mark.parametrize("payload", BAD_PAYMENTS)
def test_a_malformed_payment_is_a_refusal(tmp_path: Path, payload: Any) -> None:
    async def work(shop: Shop) -> None:
        response = await shop.call(
            "/echo", {}, sequence=1, PAYMENT_SIGNATURE=payment_header(payload).decode()
        )
        assert (response.status_code, error_of(response)["code"]) == (400, "invalid-record")

    at_a_shop(tmp_path, work)


def test_unknown_places_are_refused_with_what_there_is(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        for verb, path, status in [
            ("POST", "/services/x", 404),
            ("POST", f"/services/{PUBLISHER.address}/echo/{PROGRAM[:-1]}x/echo", 404),
            ("POST", shop.offer.path + "/nothing", 404),
            ("POST", "/", 405),
            ("DELETE", shop.offer.path, 405),
            ("GET", "/nothing", 404),
            ("GET", "/receipts/zz", 404),
            ("GET", "/receipts/0x" + "00" * 32, 404),
            ("GET", "/channels/x", 400),
        ]:
            response = await shop.http.request(verb, path)
            assert (response.status_code, path) == (status, path)
            assert error_of(response)["message"]

    at_a_shop(tmp_path, work)


def test_the_interface_and_the_overview_are_for_everybody(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        interface = (await shop.http.get(shop.offer.path + "/interface.json")).json()
        assert [method["name"] for method in interface["methods"]] == ["echo", "double", "count"]
        assert interface["methods"][1]["example"] == {"input": {"number": 21}}
        assert interface["price"]["total_uain"] == PRICE
        assert (await shop.http.get("/")).json()["provider"] == PROVIDER.address
        assert (await shop.http.get("/healthz")).json() == {"status": "ok"}
        await shop.call("/echo", {}, sequence=1, total_uain=PRICE)
        metrics = (await shop.http.get("/metrics")).text
        service = f"{PUBLISHER.address}/echo"
        assert f'openresource_calls_total{{service="{service}",outcome="answered"}} 1' in metrics
        assert f'openresource_earned_uain_total{{service="{service}"}} 100' in metrics
        assert "openresource_offers 1" in metrics

    at_a_shop(tmp_path, work)


def test_a_tab_is_shown_only_to_its_buyer(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        await shop.call("/echo", {}, sequence=1, total_uain=PRICE)
        path = f"/channels/{shop.purse.channel}"
        stranger = Purse(shop.purse.channel, secret=b"\x09" * 32)
        assert (await shop.http.get(path)).status_code == 402
        wrong = {"OpenResource-Session": stranger.session_header(1).decode()}
        assert (await shop.http.get(path, headers=wrong)).status_code == 402
        forged = {"PAYMENT-SIGNATURE": Purse(shop.purse.channel, key=STRANGER).header(1).decode()}
        assert (await shop.http.get(path, headers=forged)).status_code == 402
        signed = {"PAYMENT-SIGNATURE": shop.purse.header(1).decode()}
        assert (await shop.http.get(path, headers=signed)).status_code == 200
        assert (await shop.http.post(path + "/settle")).status_code == 402
        settled = await shop.http.post(path + "/settle", headers=signed)
        assert settled.json()["tx_hash"].startswith("0x")

    at_a_shop(tmp_path, work)


def events_of(body: str) -> list[tuple[str, str]]:
    events = []
    for block in body.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((fields.get("event", "message"), fields["data"]))
    return events


def streaming(
    stream: LineStream, content_type: str = LINES_TYPE
) -> Callable[[ProgramCall], Awaitable[ProgramReply]]:
    async def run(call: ProgramCall) -> ProgramReply:
        return ProgramReply(200, content_type, stream)

    return run


def test_a_stream_ends_with_its_receipt(tmp_path: Path) -> None:
    stream = LineStream([b"1\n", b"2\n", b"3\n"])

    async def work(shop: Shop) -> None:
        response = await shop.call("/count", {}, sequence=1, total_uain=PRICE)
        assert response.headers["content-type"] == "text/event-stream"
        events = events_of(response.text)
        assert [event for event in events if event[0] == "message"] == [
            ("message", str(n)) for n in (1, 2, 3)
        ]
        receipt = msgspec.json.decode(events[-1][1])
        assert (events[-1][0], receipt["price_uain"]) == ("receipt", PRICE)
        again = await shop.call("/count", {}, sequence=1)
        assert again.text == response.text
        assert shop.tab.spent_uain == PRICE
        assert stream.is_closed

    at_a_shop(tmp_path, work, make_offer(streaming(stream)))


def test_a_stream_that_fails_says_why_and_costs_nothing(tmp_path: Path) -> None:
    stream = LineStream([b"1\n", ProgramCrashed(reason="signal 9", stderr="")])

    async def work(shop: Shop) -> None:
        response = await shop.call("/count", {}, sequence=1, total_uain=PRICE)
        events = events_of(response.text)
        assert [event[0] for event in events] == ["message", "error"]
        assert "program-crashed" in events[1][1]
        assert shop.tab.spent_uain == 0

    at_a_shop(tmp_path, work, make_offer(streaming(stream)))


@pytest.mark.parametrize(("chunks", "spent_uain"), [([b"1\n"], PRICE), ([], 0)])
def test_a_cancelled_stream_costs_the_price_after_its_first_byte_and_nothing_before(
    tmp_path: Path, chunks: list[bytes], spent_uain: int
) -> None:
    stream = LineStream(chunks, pause=lambda: asyncio.sleep(60))

    async def work(shop: Shop) -> None:
        path, purse = shop.offer.path + "/count", shop.purse
        headers = {
            "OpenResource-Session": purse.session_header(1).decode(),
            "PAYMENT-SIGNATURE": purse.header(PRICE).decode(),
        }

        async def read_a_little() -> None:
            async with shop.http.stream("POST", path, content=b"{}", headers=headers) as response:
                async for _ in response.aiter_bytes():
                    return

        task = asyncio.create_task(read_a_little())
        if chunks:
            await task
        else:
            await until(lambda: len(shop.offer.runner.calls) == 1)
            task.cancel()
            await asyncio.wait([task])
        await until(lambda: stream.is_closed and not shop.tab.in_flight)
        await until(lambda: shop.tab.spent_uain == spent_uain)
        if chunks:
            again = await shop.call("/count", {}, sequence=1)
            assert (again.status_code, error_of(again)["code"]) == (409, "answer-forgotten")

    at_a_shop(tmp_path, work, make_offer(streaming(stream)))


def test_a_client_that_leaves_finds_its_answer_when_it_asks_again(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def waits(call: ProgramCall) -> ProgramReply:
        await gate.wait()
        return await echo(call)

    async def work(shop: Shop) -> None:
        task = asyncio.create_task(shop.call("/echo", 7, sequence=1, total_uain=PRICE))
        await until(lambda: len(shop.offer.runner.calls) == 1)
        task.cancel()
        await asyncio.wait([task])
        gate.set()
        response = await shop.call("/echo", 7, sequence=1)
        assert response.json() == 7
        assert len(shop.offer.runner.calls) == 1

    at_a_shop(tmp_path, work, make_offer(waits))


def test_while_it_drains_a_gateway_takes_no_new_calls_but_gives_old_answers(tmp_path: Path) -> None:
    async def work(shop: Shop) -> None:
        first = await shop.call("/echo", 1, sequence=1, total_uain=PRICE * 3)
        shop.calls.is_draining = True
        response = await shop.call("/echo", 2, sequence=2)
        assert (response.status_code, error_of(response)["code"]) == (503, "draining")
        assert (await shop.call("/echo", 1, sequence=1)).content == first.content

    at_a_shop(tmp_path, work)
