"""One call at one provider: cover it, send it, mend its payment, ask again under its number, check its receipt.

A connection that breaks is tried again under the same number, which gives the stored answer and is never paid twice.
If that does not help, the provider is asked what became of the call before anybody else may be called for it
(`outcomes.py`).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from openresource.client.channels import NoSuchChannel
from openresource.client.envelopes import (
    ANSWER_BYTES_MAX,
    EVENTS_TYPE,
    RECEIPT_BYTES_MAX,
    RECEIPT_HEADER,
    REFUSAL_BYTES_MAX,
    AnswerNotReceipted,
    PaymentRefused,
    ProviderBusy,
    gateway_state,
    payment_header,
    receipt_record,
    refusal_of,
    split_events,
)
from openresource.client.outcomes import (
    ANSWERED,
    NOT_DONE,
    UNKNOWN,
    WAIT_SECONDS_MAX,
    AnswerLost,
    OutcomeUnknown,
    ask_about_lost,
    resolve,
)
from openresource.client.purses import OpenChannel, StartedCall
from openresource.client.replies import (
    ASK_SECONDS,
    WAIT_SECONDS_FIRST,
    Answer,
    Desk,
    NumberedCall,
    Plan,
    RefusedThere,
    Streaming,
)
from openresource.client.standings import LOAD_HEADER
from openresource.client.wires import ProviderAway, Wire
from openresource.market.fields import InvalidRecord
from openresource.market.prices import Price
from openresource.market.purses import GatewayClaimsUnsigned, NonceMoved, SpendingUnexplained
from openresource.market.services import is_open_to_all
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

PAYMENT_TRIES_MAX: Final = 5
BROKEN_TRIES_MAX: Final = 3
# An answer that is there and breaks off each time is fetched again and again for so long.
FETCH_SECONDS_MAX: Final = 30.0
# A free call has no number by which a gateway knows it again; it may run twice.
FREE_TRIES_MAX: Final = 2
CHANNEL_EXPIRES_SOON: Final = "channel-expires-soon"
ACKNOWLEDGEMENT_DUE: Final = "acknowledgement-due"
# What a gateway says while it does not know yet what the chain or the wallet knows already: a moment helps.
WORTH_A_WAIT: Final = frozenset(("channel-unknown", "voucher-ahead", "voucher-past-deposit"))


class Attempt:
    """One call at one provider, from its payment to its receipt."""

    def __init__(self, desk: Desk, plan: Plan, wire: Wire, price: Price) -> None:
        self._desk = desk
        self._plan = plan
        self._wire = wire
        self._price = price
        self._placement = wire.placement
        self._began = time.monotonic()
        # When the call itself went out, after its channel was ready; 0 before.
        self.sent_at = 0.0

    async def begin(self) -> Answer | Streaming:
        """The whole answer, or a stream whose first bytes are here."""
        permissions = await self._desk.directory.permissions(self._plan.choice)
        if self._price.total_uain == 0 and is_open_to_all(permissions):
            return await self._send(None)
        refused: PaymentRefused | None = None
        for number in range(PAYMENT_TRIES_MAX):
            held = await self._ready()
            try:
                return await self._send(held)
            except PaymentRefused as one:
                self.sent_at = 0.0
                refused = one
                await self._mend(held, one, WAIT_SECONDS_FIRST * 2**number)
        assert refused is not None
        raise refused

    # Sending

    async def _send(self, held: OpenChannel | None) -> Answer | Streaming:
        """One call under one number; a broken connection asks again for the answer that may be there."""
        waits_ms = max(1, int(self._plan.left_seconds() * 1000))
        headers = {"Content-Type": "application/json", "OpenResource-Deadline": str(waits_ms)}
        started: StartedCall | None = None
        if held is not None:
            started = held.start()
            headers["OpenResource-Session"] = started.session_header
            if started.voucher is not None:
                headers["PAYMENT-SIGNATURE"] = payment_header(
                    started.voucher, self._placement.provider, started.price_uain, self._desk.network
                )
        call = NumberedCall(self._desk, self._plan, self._placement.provider, held, started, self._began)
        if self._plan.inner is not None:
            # Heard before the call is sent, so that nothing that its program asks has to wait.
            listening = self._plan.inner.listen(self._wire, self._plan)
            headers["OpenResource-Allowance"] = listening.header
            call.on_end = listening.stop
        tries = FREE_TRIES_MAX if held is None else BROKEN_TRIES_MAX
        may_have_arrived = False
        try:
            if held is not None:
                await self._desk.books.synced()
            for attempt in range(tries):
                try:
                    return await self._exchange(call, headers)
                except ProviderAway as away:
                    may_have_arrived |= bool(away.was_sent)
                    if attempt + 1 == tries:
                        raise
                    await asyncio.sleep(min(WAIT_SECONDS_FIRST * 2**attempt, self._plan.left_seconds()))
            raise AssertionError("the last try returns or raises")
        except AnswerNotReceipted:
            call.lose()
            self._distrust(held)
            raise
        except ProviderAway as away:
            if not may_have_arrived:
                call.refused()
                raise
            return await self._resolved(call, headers, away)
        except RefusedThere as refused:
            if may_have_arrived and held is not None and isinstance(refused.refusal, ProviderBusy):
                # It has no room for the repetition; that says nothing about the first time.
                return await self._resolved(call, headers, refused.refusal)
            call.refused()
            raise refused.refusal from None
        except BaseException:
            call.lose()
            raise

    async def _resolved(
        self, call: NumberedCall, headers: dict[str, str], failure: Refusal
    ) -> Answer | Streaming:
        """A call that may have arrived: its provider says what became of it before another one is called."""
        wait_seconds = WAIT_SECONDS_FIRST
        try:
            # It may have come back and not be ready yet: what it has already is worth some patience.
            fetch_until = time.monotonic() + min(FETCH_SECONDS_MAX, self._plan.left_seconds() / 2)
            while True:
                outcome = await resolve(self._wire, call, self._plan)
                if outcome != ANSWERED:
                    break
                try:
                    return await self._exchange(call, headers)
                except ProviderAway as away:
                    failure = away
                except RefusedThere as refused:
                    if not isinstance(refused.refusal, ProviderBusy):
                        raise refused.refusal from None
                    failure = refused.refusal
                if time.monotonic() > fetch_until:
                    break
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(2 * wait_seconds, WAIT_SECONDS_MAX)
        except AnswerNotReceipted:
            call.lose()
            self._distrust(call.held)
            raise
        except BaseException:
            call.lose()
            raise
        if outcome == NOT_DONE:
            call.not_done()
            raise failure
        call.lose()
        assert call.held is not None, "a call without a price is never unknown"
        failure.facts["at_risk_uain"] = call.held.price_uain
        if outcome == UNKNOWN and self._plan.insists:
            raise failure
        kind = AnswerLost if outcome == ANSWERED else OutcomeUnknown
        raise kind(
            provider=self._placement.provider,
            reason=failure.message.rstrip("."),
            channel=call.held.entry.name,
            sequence=call.sequence,
            price=text_from_uain(call.held.price_uain),
        ) from failure

    async def _exchange(self, call: NumberedCall, headers: dict[str, str]) -> Answer | Streaming:
        plan = self._plan
        path = f"/services/{plan.choice.service}/{plan.choice.program}{plan.method.path}"
        self.sent_at = self.sent_at or time.monotonic()
        reply = await self._wire.send(
            "POST", path, body=plan.body, headers=headers, seconds=plan.left_seconds()
        )
        key = (self._placement.provider, plan.choice.program)
        self._desk.standings.heard(key, reply.headers.get(LOAD_HEADER))
        try:
            if reply.status != 200:
                content = await reply.whole(REFUSAL_BYTES_MAX)
                retry_after = reply.headers.get("retry-after", "")
                raise RefusedThere(refusal_of(reply.status, content, self._placement, retry_after))
            content_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
            receipt_text = reply.headers.get(RECEIPT_HEADER)
            if receipt_text is None:
                streaming = Streaming(
                    reply, call, self._wire, content_type, lambda: self._distrust(call.held)
                )
                await streaming.begin()
                return streaming
            body = await reply.whole(ANSWER_BYTES_MAX)
            if content_type == EVENTS_TYPE:
                body, _ = split_events(body, self._placement)
            answer = call.answered(body, content_type, receipt_record(receipt_text, self._placement))
        except BaseException:
            await reply.close()
            raise
        await reply.close()
        return answer

    # Payment

    async def _ready(self) -> OpenChannel:
        """A channel that covers this call; about calls whose end nobody saw its provider was asked."""
        choice, channels = self._plan.choice, self._desk.channels
        held = await channels.ready(choice, self._placement, self._price, progress=self._plan.progress)
        if not held.lost:
            return held
        await ask_about_lost(self._desk, self._wire, held)
        # What came out of that may have used up the deposit, and others may have begun calls meanwhile.
        return await channels.ready(choice, self._placement, self._price, progress=self._plan.progress)

    async def _mend(self, held: OpenChannel, refused: PaymentRefused, wait_seconds: float) -> None:
        """After a 402: take the gateway's word as far as calls explain it, or the chain's."""
        channels = self._desk.channels
        held.deliver_again()
        if refused.code == ACKNOWLEDGEMENT_DUE:
            # Receipts that this wallet never got stand in between; after a claim both sides begin at none.
            await self._settle(held)
            return
        try:
            if refused.code == CHANNEL_EXPIRES_SOON:
                await channels.prolong(held)
            if refused.extra.get("channel") == held.entry.name:
                await self._resume(held, refused.extra)
            if refused.extra.get("channel_value_uain") != held.purse.deposit_uain:
                await channels.refresh(held)
        except NonceMoved:
            await channels.refresh(held)
        except NoSuchChannel:
            channels.mark_closed(held.entry.name)
        if refused.code in WORTH_A_WAIT:
            await asyncio.sleep(min(wait_seconds, self._plan.left_seconds()))

    async def _resume(self, held: OpenChannel, said: Any) -> None:
        """Go on from what the gateway counts; a count that does not fit is asked for again when nothing is in flight."""
        try:
            held.resume(gateway_state(said))
        except (GatewayClaimsUnsigned, SpendingUnexplained):
            # Answers that were on their way may explain it.
            await held.others_ended()
            try:
                held.resume(await self._asked_state(held))
            except (GatewayClaimsUnsigned, SpendingUnexplained):
                self._distrust(held)
                raise
        except InvalidRecord:
            self._distrust(held)
            raise

    async def _asked_state(self, held: OpenChannel) -> Any:
        status, _, content = await self._wire.request(
            "GET",
            f"/channels/{held.entry.name}",
            headers={"OpenResource-Session": held.session_header(0)},
            seconds=ASK_SECONDS,
            bytes_max=REFUSAL_BYTES_MAX,
        )
        if status != 200:
            raise refusal_of(status, content, self._placement)
        return gateway_state(parse_json(content, bytes_max=REFUSAL_BYTES_MAX, depth_max=16))

    async def _settle(self, held: OpenChannel) -> None:
        status, _, content = await self._wire.request(
            "POST",
            f"/channels/{held.entry.name}/settle",
            headers={"OpenResource-Session": held.session_header(0)},
            seconds=self._plan.left_seconds(),
            bytes_max=RECEIPT_BYTES_MAX,
        )
        if status != 200:
            raise refusal_of(status, content, self._placement)
        await self._desk.channels.refresh(held)

    def _distrust(self, held: OpenChannel | None) -> None:
        """No more is signed for a provider whose word does not fit; what is left returns at the expiry."""
        if held is not None:
            self._desk.channels.mark_closed(held.entry.name)
