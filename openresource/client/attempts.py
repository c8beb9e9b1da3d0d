"""One call at one provider: cover it, send it, mend its payment, ask again under its number, check its receipt.

A connection that breaks is tried again under the same number, which gives the stored answer and is never paid twice.
A call whose end was not seen at all stays in the purse; before the next one its provider is asked what became of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from openresource.client.channels import NoSuchChannel
from openresource.client.envelopes import (
    ANSWER_BYTES_MAX,
    BUSY_STATUSES,
    EVENTS_TYPE,
    RECEIPT_BYTES_MAX,
    RECEIPT_HEADER,
    REFUSAL_BYTES_MAX,
    AnswerNotReceipted,
    PaymentRefused,
    gateway_state,
    payment_header,
    receipt_record,
    refusal_of,
    split_events,
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
    not_receipted,
    write_down,
)
from openresource.client.wires import ProviderAway, Wire
from openresource.market.fields import InvalidRecord
from openresource.market.prices import Price
from openresource.market.purses import GatewayClaimsUnsigned, NonceMoved, SpendingUnexplained
from openresource.market.receipts import check_receipt, receipt_from_json
from openresource.market.services import EVERYONE, Permissions
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

PAYMENT_TRIES_MAX: Final = 5
BROKEN_TRIES_MAX: Final = 3
# A free call has no number by which a gateway knows it again; it may run twice.
FREE_TRIES_MAX: Final = 2
CALL_IN_FLIGHT: Final = "call-in-flight"
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

    async def begin(self) -> Answer | Streaming:
        """The whole answer, or a stream whose first bytes are here."""
        permissions = await self._desk.directory.permissions(self._plan.choice)
        if self._price.total_uain == 0 and _is_open_to_all(permissions):
            return await self._send(None)
        refused: PaymentRefused | None = None
        for number in range(PAYMENT_TRIES_MAX):
            held = await self._ready()
            try:
                return await self._send(held)
            except PaymentRefused as one:
                refused = one
                await self._mend(held, one, WAIT_SECONDS_FIRST * 2**number)
        assert refused is not None
        raise refused

    # Sending

    async def _send(self, held: OpenChannel | None) -> Answer | Streaming:
        """One call under one number; a broken connection asks again for the answer that may be there."""
        headers = {"Content-Type": "application/json"}
        started: StartedCall | None = None
        if held is not None:
            started = held.start()
            headers["OpenResource-Session"] = started.session_header
            if started.voucher is not None:
                headers["PAYMENT-SIGNATURE"] = payment_header(
                    started.voucher, self._placement.provider, started.price_uain, self._desk.network
                )
        call = NumberedCall(self._desk, self._plan, self._placement.provider, held, started, self._began)
        tries = FREE_TRIES_MAX if held is None else BROKEN_TRIES_MAX
        may_have_arrived = False
        try:
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
        except ProviderAway:
            if may_have_arrived:
                call.lose()
            else:
                call.refused()
            raise
        except RefusedThere as refused:
            call.refused()
            raise refused.refusal from None
        except BaseException:
            call.lose()
            raise

    async def _exchange(self, call: NumberedCall, headers: dict[str, str]) -> Answer | Streaming:
        plan = self._plan
        path = f"/services/{plan.choice.service}/{plan.choice.program}{plan.method.path}"
        reply = await self._wire.send(
            "POST", path, body=plan.body, headers=headers, seconds=plan.left_seconds()
        )
        try:
            if reply.status != 200:
                content = await reply.whole(REFUSAL_BYTES_MAX)
                raise RefusedThere(refusal_of(reply.status, content, self._placement))
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


async def ask_about_lost(desk: Desk, wire: Wire, held: OpenChannel) -> None:
    """Calls without an end are counted if their receipts are there, and forgotten if they were not done."""
    for sequence in sorted(held.lost):
        status, _, content = await wire.request(
            "GET",
            f"/channels/{held.entry.name}/receipt",
            headers={"OpenResource-Session": held.session_header(sequence)},
            seconds=ASK_SECONDS,
            bytes_max=REFUSAL_BYTES_MAX,
        )
        if sequence not in held.lost:
            continue  # Another call of this process asked at the same time.
        if status == 200:
            _count_lost(desk, wire, held, sequence, content)
            continue
        refusal = refusal_of(status, content, wire.placement)
        if status in BUSY_STATUSES or status >= 500:
            raise refusal
        if refusal.code != CALL_IN_FLIGHT:
            held.give_up(sequence)
    held.deliver_again()


def _count_lost(desk: Desk, wire: Wire, held: OpenChannel, sequence: int, content: bytes) -> None:
    """An answer was given and its bytes were lost on the way: it is paid for."""
    placement = wire.placement
    try:
        record = receipt_record(content.decode("utf-8", "replace"), placement)
        receipt = receipt_from_json(record)
        digest = check_receipt(
            receipt,
            desk.network,
            provider=placement.provider,
            channel=held.entry.name,
            nonce=receipt.nonce,
            session=held.purse.session,
            sequence=sequence,
            program=held.entry.program,
            price_uain=held.price_uain,
            input_body=None,
            output_body=None,
        )
        entry = held.count(sequence, receipt, digest)
    except Refusal as refusal:
        desk.channels.mark_closed(held.entry.name)
        raise not_receipted(placement.provider, refusal) from refusal
    write_down(desk, entry, receipt, digest, record)


def _is_open_to_all(permissions: Permissions) -> bool:
    """As gateways see it: whoever is kept out must be known by a channel."""
    call = permissions.call
    return call is None or (call.get(EVERYONE, False) and all(call.values()))
