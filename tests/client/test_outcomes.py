"""Calls that do not end as they should: providers that fail or die, connections that break; paid once or not at all."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from openresource.client import AsyncClient, attempts
from openresource.client.calls import (
    AnswerLost,
    DeadlinePassed,
    NoProviderAnswered,
    OutcomeUnknown,
    ProgramFailedThere,
    ProviderBusy,
)
from openresource.client.wires import ProviderAway, TlsKeyNotPinned
from openresource.market.prices import Price
from openresource.sandbox.driver import Overloaded, ProgramCall, ProgramReply
from tests.client.street import (
    FEE_PPM,
    PRICE_UAIN,
    ROYALTY_UAIN,
    START_UAIN,
    CuttingProxy,
    Shop,
    Slowly,
    Street,
    channel_names,
    crash,
    purse_of,
    time_passes,
    until,
)

pytestmark = pytest.mark.journey


def test_a_program_that_fails_is_not_paid_and_the_next_provider_answers(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        broken = await street.open(service, crash)
        async with await street.buyer() as buyer:
            with pytest.raises(ProgramFailedThere) as refusal:
                await buyer.call(service.name, text="a")
            assert "secret words" not in str(refusal.value)
            assert broken.spent_uain == buyer.books.spent_uain(0) == 0
            good = await street.open(service, price=Price(100, ROYALTY_UAIN, FEE_PPM))
            async with await street.buyer() as other:
                answer = await other.call(service.name, text="a")
                assert (answer.provider, answer.price_uain) == (good.key.address, 120)
                # Whoever failed is asked last for a while.
                asked = len(broken.runner.calls)
                assert (await other.call(service.name, text="b")).provider == good.key.address
                assert len(broken.runner.calls) == asked
                assert other.books.spent_uain(0) == good.spent_uain == 240
            assert broken.spent_uain == 0

    on_a_street(story)


def test_two_failures_are_told_together(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shops = [await street.open(service, crash) for _ in range(2)]
        away = await street.open(service, price=Price(70, ROYALTY_UAIN, FEE_PPM))
        await away.server.stop(1)
        async with await street.buyer() as buyer:
            with pytest.raises(NoProviderAnswered) as refusal:
                await buyer.call(service.name, text="a")
            assert "does not answer" in refusal.value.reasons
            # At most two are tried.
            assert sum(len(shop.runner.calls) for shop in shops) == 1
            assert buyer.books.spent_uain(0) == 0

    on_a_street(story)


def test_a_provider_that_dies_in_the_middle_is_not_paid_and_the_next_one_answers(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        slowly = Slowly()
        first = await street.open(service, slowly)
        second = await street.open(service, price=Price(100, ROYALTY_UAIN, FEE_PPM))
        async with await street.buyer() as buyer:
            calling = asyncio.ensure_future(buyer.call(service.name, insists=True, text="a"))
            await slowly.begun.wait()
            await first.stop()
            answer = await calling
            assert answer.provider == second.key.address
            # Who insists is told what may be charged for the first try all the same.
            (vanished,) = answer.failed
            assert (vanished.provider, vanished.at_risk_uain) == (first.key.address, PRICE_UAIN)
            assert buyer.books.spent_uain(0) == second.spent_uain == 120
            await first.start()
            assert first.spent_uain == 0
            slowly.go.set()
            # The provider that came back is asked what became of the call, and is paid for the next one alone.
            await second.stop()
            answer = await buyer.call(service.name, text="b")
            assert (answer.value, answer.provider) == ("B", first.key.address)
            assert first.spent_uain == PRICE_UAIN
            assert buyer.books.spent_uain(0) == 220

    on_a_street(story)


def test_no_room_is_said_as_such(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        async def full(call: ProgramCall) -> ProgramReply:
            raise Overloaded(concurrency=1)

        service = await street.publish()
        shop = await street.open(service, full)
        async with await street.buyer() as buyer:
            # It is asked again as long as there is time, and nothing is paid meanwhile.
            with pytest.raises(ProviderBusy) as refusal:
                await buyer.call(service.name, text="a", deadline_seconds=30)
            assert (refusal.value.code, refusal.value.status) == ("overloaded", 503)
            assert len(shop.runner.calls) > 1
            assert shop.spent_uain == 0

    on_a_street(story)


def test_a_deadline_ends_a_call_and_its_late_answer_is_counted_before_the_next(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        slowly = Slowly()
        shop = await street.open(service, slowly)
        async with await street.buyer() as buyer:
            calling = asyncio.ensure_future(buyer.call(service.name, text="a", deadline_seconds=60))
            await slowly.begun.wait()
            time_passes(60)
            with pytest.raises(DeadlinePassed):
                await calling
            assert shop.spent_uain == 0
            # It still runs there; the next call does not wait for it.
            calling = asyncio.ensure_future(buyer.call(service.name, text="b"))
            await until(lambda: len(shop.runner.calls) == 2)
            slowly.go.set()
            assert (await calling).value == "B"
            await shop.has_earned(2 * PRICE_UAIN)
            assert (await buyer.call(service.name, text="c")).value == "C"
            purse = await purse_of(buyer)
            assert (purse.acknowledged, purse.earned_uain, purse.at_risk_uain) == (3, 300, 0)
            assert buyer.books.spent_uain(0) == shop.spent_uain == 300

    on_a_street(story)


def test_a_client_that_is_cut_off_counts_what_was_answered_when_it_comes_back(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        slowly = Slowly()
        shop = await street.open(service, slowly)
        home = await street.home()
        async with AsyncClient(home, street.node.url) as buyer:
            calls = [asyncio.ensure_future(buyer.call(service.name, text=f"n{n}")) for n in range(5)]
            await until(lambda: len(shop.runner.calls) == 5)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        slowly.go.set()
        await shop.has_earned(5 * PRICE_UAIN)
        async with AsyncClient(home, street.node.url) as again:
            assert (await again.call(service.name, text="b")).value == "B"
            purse = await purse_of(again)
            assert (purse.acknowledged, purse.earned_uain, purse.inherited_uain) == (6, 600, 0)
            assert again.books.spent_uain(0) == shop.spent_uain == 600

    on_a_street(story)


# ── Connections that break ───────────────────────────────────────────────────────────────────────────────────────


async def behind(street: Street, proxy: CuttingProxy, shop: Shop) -> None:
    """Announces a shop at its proxy's address."""
    await shop.announce("PLACED", endpoint=f"https://127.0.0.1:{proxy.port}")


def test_an_answer_that_was_cut_off_is_sent_again_and_paid_once(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with CuttingProxy(shop.port) as proxy, await street.buyer() as buyer:
            await behind(street, proxy, shop)
            proxy.cut(times=2, after=200)
            answer = await buyer.call(service.name, text="x" * 20_000)
            assert answer.value == "X" * 20_000
            assert proxy.cuts == 2
            assert len(shop.runner.calls) == 1 and shop.spent_uain == PRICE_UAIN
            assert buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_an_answer_that_never_arrives_is_known_by_its_receipt(
    on_a_street: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FETCH_SECONDS_MAX", 2.0)

    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with CuttingProxy(shop.port) as proxy, await street.buyer() as buyer:
            await behind(street, proxy, shop)
            proxy.cut(times=1_000, after=200)
            with pytest.raises(AnswerLost):
                await buyer.call(service.name, text="x" * 20_000)
            assert len(shop.runner.calls) == 1 and shop.spent_uain == PRICE_UAIN
            proxy.cut(times=0, after=0)
            assert (await buyer.call(service.name, text="b")).value == "B"
            purse = await purse_of(buyer)
            assert (purse.acknowledged, purse.earned_uain, purse.at_risk_uain) == (2, 200, 0)
            assert buyer.books.spent_uain(0) == shop.spent_uain == 200

    on_a_street(story)


def test_connections_break_at_random_places_and_the_sums_still_agree(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        chance = random.Random(11)
        async with CuttingProxy(shop.port) as proxy, await street.buyer() as buyer:
            await behind(street, proxy, shop)
            answered = 0
            for number in range(40):
                proxy.cut(times=chance.randrange(5), after=chance.randrange(1_500))
                outcomes = await asyncio.gather(
                    *(buyer.call(service.name, text=f"{number}.{n}") for n in range(3)),
                    return_exceptions=True,
                )
                for outcome in outcomes:
                    assert not isinstance(outcome, BaseException) or isinstance(
                        outcome, ProviderAway | OutcomeUnknown
                    )
                    answered += not isinstance(outcome, BaseException)
            proxy.cut(times=0, after=0)
            assert (await buyer.call(service.name, text="end")).value == "END"
            assert answered > 30
            assert buyer.books.spent_uain(0) == shop.spent_uain
            assert (await purse_of(buyer)).inherited_uain == 0
            assert len(await channel_names(buyer)) == 1
            (name,) = await channel_names(buyer)
            await (await buyer.calls()).settle(name)
            assert await buyer.balance() == START_UAIN - buyer.books.spent_uain(0)

    on_a_street(story)


def test_a_provider_that_restarts_with_a_fresh_certificate_is_known_by_its_key(on_a_street: Any) -> None:
    import datetime

    from openresource.provider.tls import load_or_make_identity

    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        async with await street.buyer() as buyer:
            assert (await buyer.call(service.name, text="a")).value == "A"
            await shop.stop()
            before = (shop.folder / "tls.pem").read_bytes()
            later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=360)
            load_or_make_identity(shop.folder / "tls.pem", "127.0.0.1", now=later)
            assert (shop.folder / "tls.pem").read_bytes() != before
            # Made for a year from then, so it would not be good yet; what counts is made for now, of the same key.
            pem = (shop.folder / "tls.pem").read_text()
            (shop.folder / "tls.pem").write_text(
                pem[: pem.index("-----BEGIN CERTIFICATE")] + certificate(pem)
            )
            await shop.start()
            assert (await buyer.call(service.name, text="b")).value == "B"
            assert shop.spent_uain == 200

    on_a_street(story)


def certificate(pem: str) -> str:
    """A fresh certificate, good from now on, for the key in a PEM text."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key: Any = serialization.load_pem_private_key(pem.encode(), None)
    known = x509.load_pem_x509_certificate(pem[pem.index("-----BEGIN CERTIFICATE") :].encode())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(extensions=list(known.extensions))
        .subject_name(known.subject)
        .issuer_name(known.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=300))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_another_key_than_the_chain_names_is_never_spoken_to(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        shop = await street.open(service)
        await shop.announce("PLACED", tls_key=bytes(32))
        async with await street.buyer() as buyer:
            with pytest.raises(TlsKeyNotPinned):
                await buyer.call(service.name, text="a")
            assert not shop.requests
            other = await street.open(service, price=Price(100, ROYALTY_UAIN, FEE_PPM))
            assert (await buyer.call(service.name, text="a")).provider == other.key.address
            assert not shop.requests

    on_a_street(story)
