"""Programs that call others: who allowed it pays, no more than was allowed, for answers that receipts prove."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from openresource.client import AsyncClient, calls, inner_calls, outcomes
from openresource.client.calls import (
    AnswerNotReceipted,
    Exchange,
    OverSpendingLimit,
    ProgramFailedThere,
)
from openresource.market.allowances import Allowance, allow
from openresource.market.services import Permissions
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import (
    InnerRequest,
    Overloaded,
    ProgramCall,
    ProgramFailed,
    ProgramReply,
)
from tests.client.street import PRICE_UAIN, Shop, Street, change_receipts, new_key, shout

Run = Callable[..., Any]
Composed = Callable[[ProgramCall], Awaitable[ProgramReply]]


def reply(value: Any) -> ProgramReply:
    return ProgramReply(200, "application/json", json.dumps(value).encode(), cpu_ms=1, wall_ms=1)


def text_of(call: ProgramCall) -> str:
    return str(json.loads(call.body)["text"])


async def ask(call: ProgramCall, service: str, text: str = "x", **options: Any) -> Any:
    """What a program gets from another service: its output, or the code of the no."""
    assert call.asker is not None
    try:
        answer = await call.asker.ask(InnerRequest(service, "shout", {"text": text}, **options))
    except Refusal as refusal:
        return refusal.code
    return answer.output


def composed(*services: str, **options: Any) -> Composed:
    """A program that has its text worked on by others, one after the other."""

    async def program(call: ProgramCall) -> ProgramReply:
        return reply([await ask(call, service, text_of(call), **options) for service in services])

    return program


async def children(street: Street, count: int = 2) -> list[Shop]:
    return [await street.open(await street.publish()) for _ in range(count)]


async def parent(street: Street, program: Composed, *calls: str, **options: Any) -> Shop:
    return await street.open(await street.publish(calls=calls or ("any",)), program, **options)


async def exact(street: Street, buyer: AsyncClient, at_risk_uain: int = 0) -> int:
    """What all shops count is what the buyer's books say; gives the sum."""
    counted_uain = await street.claimed_uain(buyer)
    booked_uain = buyer.books.spent_uain(0)
    assert booked_uain <= counted_uain <= booked_uain + at_risk_uain
    return counted_uain


async def call(buyer: AsyncClient, shop: Shop, allowance: Any = "0.001", **inputs: Any) -> Any:
    inputs.setdefault("text", "hi")
    return await buyer.call(shop.service.full_name, "shout", allowance=allowance, **inputs)


def test_a_program_calls_two_others_and_the_receipts_are_a_tree(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        one, two = await children(street)
        names = (one.service.full_name, two.service.full_name)
        shop = await parent(street, composed(*names), *names)
        async with await street.buyer() as buyer:
            answer = await call(buyer, shop)
            assert answer.value == ["HI", "HI"]
            assert (answer.price_uain, answer.inner_uain, answer.total_uain) == (
                PRICE_UAIN,
                2 * PRICE_UAIN,
                3 * PRICE_UAIN,
            )
            assert [result.service for result in answer.inner] == list(names)
            receipts = [result.answer.receipt_id for result in answer.inner if result.answer]
            assert answer.receipt["children"] == receipts
            assert answer.receipt["inner_uain"] == 2 * PRICE_UAIN
            tree = await buyer.receipt_tree(answer.receipt_id)
            assert tree.total_uain == 3 * PRICE_UAIN and [one.id for one in tree.children] == receipts
            assert await exact(street, buyer) == 3 * PRICE_UAIN
            # Again, with everything warm, and without children where nothing is asked.
            assert (await call(buyer, shop)).total_uain == 3 * PRICE_UAIN
            assert await exact(street, buyer) == 6 * PRICE_UAIN
        assert [shop.spent_uain for shop in (one, two)] == [2 * PRICE_UAIN] * 2

    on_a_street(story)


def test_without_an_allowance_a_program_calls_nobody(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        (one,) = await children(street, 1)

        async def program(call: ProgramCall) -> ProgramReply:
            return reply("nobody to ask" if call.asker is None else "somebody")

        shop = await parent(street, program, one.service.full_name)
        async with await street.buyer() as buyer:
            answer = await call(buyer, shop, None)
            assert answer.value == "nobody to ask" and answer.inner == ()
            assert await exact(street, buyer) == PRICE_UAIN

    on_a_street(story)


def test_no_more_is_spent_than_was_allowed_and_the_rest_stays(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        one, two = await children(street)
        names = (one.service.full_name, two.service.full_name)
        shop = await parent(street, composed(*names, *names), *names)
        async with await street.buyer() as buyer:
            answer = await call(buyer, shop, Allowance(3 * PRICE_UAIN - 1))
            assert answer.value == ["HI", "HI", "allowance-used-up", "allowance-used-up"]
            assert answer.inner_uain == 2 * PRICE_UAIN
            assert answer.inner[2].error is not None
            assert answer.inner[2].error["facts"]["left_uain"] == PRICE_UAIN - 1
            assert (await call(buyer, shop, Allowance(0))).value == ["allowance-used-up"] * 4
            assert await exact(street, buyer) == 4 * PRICE_UAIN
            # A program may set itself a bound below that.
            frugal = await parent(street, composed(names[0], max_price_uain=PRICE_UAIN - 1), *names)
            assert (await call(buyer, frugal)).value == ["price-above-maximum"]

    on_a_street(story)


def test_calls_nest_as_deep_as_was_allowed_and_never_in_a_circle(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        (leaf,) = await children(street, 1)
        middle = await parent(street, composed(leaf.service.full_name), leaf.service.full_name)
        publisher = new_key()
        top_name = f"{publisher.address}/top"

        async def program(call: ProgramCall) -> ProgramReply:
            return reply([await ask(call, middle.service.full_name), await ask(call, top_name)])

        top = await street.open(await street.publish("top", publisher=publisher, calls=("any",)), program)
        async with await street.buyer() as buyer:
            shallow = await call(buyer, top, allow("0.001", depth=1))
            assert shallow.value == [["allowance-depth-reached"], "calls-in-circle"]
            assert shallow.total_uain == 2 * PRICE_UAIN
            deep = await call(buyer, top, allow("0.001", depth=2))
            assert deep.value == [["X"], "calls-in-circle"]
            assert deep.total_uain == 3 * PRICE_UAIN
            tree = await buyer.receipt_tree(deep.receipt_id)
            assert [depth for depth, _ in tree.walk()] == [0, 1, 2] and tree.total_uain == 3 * PRICE_UAIN
            # What is left for the whole tree bounds its leaves too.
            tight = await call(buyer, top, Allowance(2 * PRICE_UAIN - 1, depth=2))
            assert tight.value == [["allowance-used-up"], "calls-in-circle"]
            assert await exact(street, buyer) == 7 * PRICE_UAIN

    on_a_street(story)


def test_a_program_reaches_only_what_it_declared_and_its_caller_meant(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        one, two = await children(street)
        names = (one.service.full_name, two.service.full_name)
        honest = await parent(street, composed(*names), names[0])
        anything = await parent(street, composed(*names), "any")
        silent = await street.open(await street.publish(), composed(*names))
        async with await street.buyer() as buyer:
            assert (await call(buyer, honest)).value == ["HI", "service-not-declared"]
            only = Allowance(10_000, services=(two.service.name,))
            assert (await call(buyer, anything, only)).value == ["service-not-allowed", "HI"]
            assert (await call(buyer, silent)).value == ["service-not-declared"] * 2

    on_a_street(story)


def test_what_is_the_buyers_alone_is_not_lent_to_programs_unless_it_is_named(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        async with await street.buyer() as buyer:
            mine = {buyer.key().address: True}
            path = f"/services/{service.full_name}/permissions"
            await street.chain.write(path, {"call": mine}, service.publisher)
            secret = await street.open(service, permissions=Permissions(call=mine))
            shop = await parent(street, composed(secret.service.full_name))
            assert (await call(buyer, shop)).value == ["service-not-for-everyone"]
            named = Allowance(10_000, services=(secret.service.full_name,))
            assert (await call(buyer, shop, named)).value == ["HI"]

    on_a_street(story)


def test_a_child_that_fails_refuses_or_is_full_is_a_no_to_the_program_and_costs_nothing(
    on_a_street: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FULL_SECONDS_MAX", 3.0)

    async def story(street: Street) -> None:
        async def failing(call: ProgramCall) -> ProgramReply:
            raise ProgramFailed(reason="it cannot")

        async def crowded(call: ProgramCall) -> ProgramReply:
            raise Overloaded(concurrency=1)

        failing_shop = await street.open(await street.publish(), failing)
        full = await street.open(await street.publish(), crowded)
        (good,) = await children(street, 1)
        nobody = await street.publish()
        names = [failing_shop.service.full_name, full.service.full_name, nobody.full_name]
        names += [good.service.full_name, f"{new_key().address}/missing"]
        shop = await parent(street, composed(*names, deadline_seconds=60))
        async with await street.buyer() as buyer:
            answer = await call(buyer, shop)
            assert answer.value == ["program-failed", "overloaded", "no-provider", "HI", "no-such-service"]
            assert answer.total_uain == 2 * PRICE_UAIN
            assert [result.cost_uain for result in answer.inner] == [0, 0, 0, PRICE_UAIN, 0]
            assert not any(result.at_risk_uain for result in answer.inner)
            await exact(street, buyer)

    on_a_street(story)


def test_a_child_whose_provider_dies_in_the_middle_is_a_no_and_its_price_is_kept_back(
    on_a_street: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "VANISHED_SECONDS_MAX", 2.0)

    async def story(street: Street) -> None:
        (good,) = await children(street, 1)
        began = asyncio.Event()

        async def dying(call: ProgramCall) -> ProgramReply:
            began.set()
            await asyncio.Event().wait()
            return reply("")

        mortal = await street.open(await street.publish(), dying)
        names = (mortal.service.full_name, good.service.full_name)
        shop = await parent(street, composed(*names, deadline_seconds=60))
        async with await street.buyer() as buyer:
            calling = asyncio.create_task(call(buyer, shop, Allowance(2 * PRICE_UAIN)))
            await began.wait()
            street.shops.remove(mortal)
            await mortal.stop()
            answer = await calling
            assert answer.value[1] == "HI"
            assert answer.value[0] in ("outcome-unknown", "deadline-passed", "provider-away")
            assert answer.inner[0].at_risk_uain == PRICE_UAIN
            # Whether it charges for it or not, no more than was allowed is gone.
            assert answer.inner_uain + answer.inner[0].at_risk_uain <= 2 * PRICE_UAIN
            await exact(street, buyer)

    on_a_street(story)


def test_when_the_calling_program_crashes_its_call_is_free_and_what_others_did_is_paid(
    on_a_street: Run,
) -> None:
    async def story(street: Street) -> None:
        (one,) = await children(street, 1)

        async def crashing(call: ProgramCall) -> ProgramReply:
            assert await ask(call, one.service.full_name) == "X"
            raise ProgramFailed(reason="it fell over")

        shop = await parent(street, crashing)
        async with await street.buyer() as buyer:
            with pytest.raises(ProgramFailedThere) as failed:
                await call(buyer, shop)
            assert failed.value.facts["inner_uain"] == PRICE_UAIN
            assert await exact(street, buyer) == PRICE_UAIN
            assert (shop.spent_uain, one.spent_uain) == (0, PRICE_UAIN)

    on_a_street(story)


def test_another_provider_of_the_same_program_goes_on_with_answers_that_were_paid_already(
    on_a_street: Run,
) -> None:
    async def story(street: Street) -> None:
        (one,) = await children(street, 1)
        service = await street.publish(calls=("any",))
        runs: list[int] = []

        def program(fails: bool) -> Composed:
            async def run(call: ProgramCall) -> ProgramReply:
                runs.append(1)
                told = [await ask(call, one.service.full_name, text) for text in ("a", "b")]
                if fails and len(runs) == 1:
                    raise ProgramFailed(reason="its machine went away")
                return reply([*told, await ask(call, one.service.full_name, "c")])

            return run

        for _ in range(2):
            await street.open(service, program(True))
        async with await street.buyer() as buyer:
            answer = await buyer.call(
                service.full_name, "shout", text="t", allowance=Allowance(3 * PRICE_UAIN)
            )
            assert answer.value == ["A", "B", "C"] and len(runs) == 2
            assert one.spent_uain == 3 * PRICE_UAIN == answer.inner_uain
            assert len(answer.receipt["children"]) == 3
            assert await exact(street, buyer) == 4 * PRICE_UAIN

    on_a_street(story)


def test_the_provider_dies_between_two_inner_calls_and_comes_back(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        (one,) = await children(street, 1)
        had_first = asyncio.Event()
        runs: list[int] = []

        async def program(call: ProgramCall) -> ProgramReply:
            runs.append(1)
            first = await ask(call, one.service.full_name, "a")
            if len(runs) == 1:
                had_first.set()
                await asyncio.Event().wait()
            return reply([first, await ask(call, one.service.full_name, "b")])

        shop = await parent(street, program)
        async with await street.buyer() as buyer:
            calling = asyncio.create_task(call(buyer, shop))
            await had_first.wait()
            await shop.stop()
            await shop.start()
            try:
                answer = await calling
            except Refusal as refusal:
                # It was told that the call was not done: nothing but the first inner call was paid.
                assert refusal.facts["inner_uain"] == PRICE_UAIN
                answer = await call(buyer, shop)
            assert answer.value == ["A", "B"]
            await exact(street, buyer)
            assert answer.receipt["inner_uain"] == 2 * PRICE_UAIN

    on_a_street(story)


def test_an_allowance_is_within_the_days_limit_or_refused_before_anything_is_spent(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        (one,) = await children(street, 1)
        shop = await parent(street, composed(one.service.full_name))
        async with await street.buyer() as buyer:
            buyer.home.write_limits(replace(buyer.home.limits(), per_day_uain=5 * PRICE_UAIN))
            with pytest.raises(OverSpendingLimit):
                await call(buyer, shop, Allowance(4 * PRICE_UAIN + 1))
            assert await exact(street, buyer) == 0
            assert (await call(buyer, shop, Allowance(4 * PRICE_UAIN))).total_uain == 2 * PRICE_UAIN
            # What was not spent of the first allowance is free for the second.
            assert (await call(buyer, shop, Allowance(2 * PRICE_UAIN))).total_uain == 2 * PRICE_UAIN

    on_a_street(story)


def _more(receipt: dict[str, Any]) -> dict[str, Any]:
    return {**receipt, "children": [*receipt["children"], "0x" + "77" * 32]}


@pytest.mark.parametrize("lie", ["one more child", "dearer children", "children without an allowance"])
def test_a_provider_that_invents_inner_costs_is_not_acknowledged(on_a_street: Run, lie: str) -> None:
    async def story(street: Street) -> None:
        from openresource.market.receipts import receipt_from_json, receipt_to_json, sign_receipt

        (one,) = await children(street, 1)
        shop = await parent(street, composed(one.service.full_name))

        def lying(receipt: dict[str, Any]) -> dict[str, Any]:
            changed = {
                "one more child": {**_more(receipt), "inner_uain": receipt.get("inner_uain", 0) + 5},
                "dearer children": {**receipt, "inner_uain": receipt.get("inner_uain", 0) + 1},
                "children without an allowance": {**_more(receipt), "inner_uain": 500},
            }[lie]
            # It signs its lie, as only its own key can.
            signed = sign_receipt(receipt_from_json(changed), shop.key, street.network)
            return receipt_to_json(signed, street.network)

        shop.change = change_receipts(lying)
        allowance = None if lie == "children without an allowance" else "0.001"
        if allowance is None:

            async def alone(call: ProgramCall) -> ProgramReply:
                return reply("ok")

            shop.runner._function = alone
        async with await street.buyer() as buyer:
            with pytest.raises(AnswerNotReceipted) as refused:
                await call(buyer, shop, allowance)
            assert "Do not acknowledge" in str(refused.value.__cause__)
            (kept,) = buyer.books.disputed()
            assert kept["receipt"]["signature"] and kept["reason"] in str(refused.value.__cause__)
            # What the others did is paid by receipts that fit; of the liar's call at most its own price is at risk.
            assert buyer.books.spent_uain(0) == (0 if allowance is None else PRICE_UAIN)
            assert not buyer.books.channels_to(
                street.network.genesis_hash, shop.key.address, shop.service.version.program
            )

    on_a_street(story)


def test_many_requests_at_once_are_all_answered(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        async def slow(call: ProgramCall) -> ProgramReply:
            await asyncio.sleep(0.05)
            return await shout(call)

        child = await street.open(await street.publish(), slow)

        async def wide(call: ProgramCall) -> ProgramReply:
            many = (ask(call, child.service.full_name, f"t{number}") for number in range(66))
            return reply(await asyncio.gather(*many))

        shop = await parent(street, wide)
        async with await street.buyer() as buyer:
            answer = await call(buyer, shop, "0.1")
            expected = [f"T{number}" for number in range(64)] + ["too-many-inner-calls"] * 2
            assert answer.value == expected
            assert await exact(street, buyer) == 65 * PRICE_UAIN

    on_a_street(story)


def test_very_many_calls_that_wait_for_others_do_not_keep_each_other_from_being_heard(
    on_a_street: Run,
) -> None:
    async def story(street: Street) -> None:
        (child,) = await children(street, 1)
        shop = await parent(street, composed(child.service.full_name), capacity=200)
        async with await street.buyer() as buyer:
            await call(buyer, shop)
            many = (call(buyer, shop, text=f"t{number}") for number in range(90))
            answers = await asyncio.gather(*many)
            assert [answer.value for answer in answers] == [[f"T{number}"] for number in range(90)]
            assert await exact(street, buyer) == 91 * 2 * PRICE_UAIN

    on_a_street(story)


def test_a_stream_may_call_others_while_it_goes_on(on_a_street: Run) -> None:
    async def story(street: Street) -> None:
        (one,) = await children(street, 1)

        async def streaming(call: ProgramCall) -> ProgramReply:
            async def parts() -> Any:
                for text in ("a", "b", "c"):
                    yield json.dumps(await ask(call, one.service.full_name, text)).encode() + b"\n"

            return ProgramReply(200, "application/x-ndjson", parts())  # type: ignore[arg-type]

        shop = await parent(street, streaming)
        async with await street.buyer() as buyer:
            exchange = Exchange()
            values = buyer.stream(shop.service.full_name, "count", exchange=exchange, allowance="0.001")
            assert [value async for value in values] == ["A", "B", "C"]
            assert exchange.answer is not None and exchange.answer.total_uain == 4 * PRICE_UAIN
            assert await exact(street, buyer) == 4 * PRICE_UAIN

    on_a_street(story)


def test_what_a_program_did_not_wait_for_is_paid_and_shown_all_the_same(
    on_a_street: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner_calls, "GRACE_SECONDS", 60.0)

    async def story(street: Street) -> None:
        began = asyncio.Event()
        left: list[asyncio.Task[Any]] = []

        async def slow(call: ProgramCall) -> ProgramReply:
            began.set()
            # It has an answer when nobody asks for it any more.
            await asyncio.wait(left)
            return await shout(call)

        child = await street.open(await street.publish(), slow)

        async def hasty(call: ProgramCall) -> ProgramReply:
            left.append(asyncio.create_task(ask(call, child.service.full_name)))
            await began.wait()
            return reply("done")

        shop = await parent(street, hasty)
        async with await street.buyer() as buyer:
            answer = await call(buyer, shop)
            assert answer.value == "done" and answer.receipt["children"] == []
            assert answer.total_uain == 2 * PRICE_UAIN
            assert await exact(street, buyer) == 2 * PRICE_UAIN
            assert await asyncio.gather(*left) == ["call-has-ended"]

    on_a_street(story)


def test_whatever_fails_and_however_many_run_at_once_no_tree_costs_more_than_was_allowed(
    on_a_street: Run,
) -> None:
    async def story(street: Street) -> None:
        chance = random.Random(20_26)

        async def moody(call: ProgramCall) -> ProgramReply:
            await asyncio.sleep(chance.random() / 50)
            if chance.random() < 0.3:
                raise ProgramFailed(reason="not today")
            return await shout(call)

        leaves = [await street.open(await street.publish(), moody) for _ in range(3)]
        names = [leaf.service.full_name for leaf in leaves]

        async def spreading(call: ProgramCall) -> ProgramReply:
            many = [ask(call, chance.choice(names), str(number)) for number in range(6)]
            told = await asyncio.gather(*many)
            if chance.random() < 0.2:
                raise ProgramFailed(reason="it fell over afterwards")
            return reply(told)

        middle = await parent(street, spreading)

        async def top_program(call: ProgramCall) -> ProgramReply:
            return reply(await asyncio.gather(*(ask(call, middle.service.full_name) for _ in range(3))))

        top = await parent(street, top_program)
        async with await street.buyer() as buyer:
            for number in range(8):
                budget_uain = chance.randrange(0, 12 * PRICE_UAIN)
                before_uain = await exact(street, buyer)
                own_uain = PRICE_UAIN
                try:
                    answer = await call(buyer, top, Allowance(budget_uain, depth=2), text=str(number))
                    assert answer.inner_uain <= budget_uain
                    told_uain = answer.total_uain
                except Refusal as refusal:
                    own_uain, told_uain = 0, refusal.facts.get("inner_uain", 0)
                spent_uain = await exact(street, buyer) - before_uain
                assert spent_uain <= budget_uain + own_uain
                assert spent_uain == told_uain
            # Nothing is kept free of the day's limit any more.
            assert (await buyer.calls())._promised_uain == 0

    on_a_street(story)
