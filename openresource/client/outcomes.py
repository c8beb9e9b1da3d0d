"""Calls whose end nobody saw: their provider is asked under their number, and nobody is paid twice in the meantime.

A provider that died with a call may have written it down before, and will claim for it when it comes back. So another
one is called only when the first has said that it did not do the work; when it says nothing, the caller is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from openresource.client.envelopes import BUSY_STATUSES, REFUSAL_BYTES_MAX, receipt_record, refusal_of
from openresource.client.purses import OpenChannel
from openresource.client.replies import (
    ASK_SECONDS,
    CALL_NOT_ANSWERED,
    WAIT_SECONDS_FIRST,
    Desk,
    NumberedCall,
    Plan,
    not_receipted,
    write_down,
)
from openresource.client.wires import ProviderAway, Wire
from openresource.market.receipts import check_receipt, receipt_from_json
from openresource.primitives.errors import Refusal

# So long a provider that vanished with a call is waited for, if the call's deadline leaves as much.
VANISHED_SECONDS_MAX: Final = 20.0
WAIT_SECONDS_MAX: Final = 1.0
DEADLINE_MARGIN_SECONDS: Final = 0.2
CALL_IN_FLIGHT: Final = "call-in-flight"
# Nothing of the call is known there: no voucher that names its session ever arrived.
NEVER_ARRIVED_CODES: Final = frozenset(("unknown-session", "channel-unknown", CALL_NOT_ANSWERED))

ANSWERED: Final = "answered"
NOT_DONE: Final = "not-done"
UNKNOWN: Final = "unknown"


class OutcomeUnknown(Refusal):
    template = (
        "{provider} vanished with the call ({reason}), and does not say whether it was done; "
        "{price} AIN may be charged for it."
    )
    way_out = (
        "No other provider was called, so nothing is paid twice. It is asked again before its next call; "
        "to call another one at once all the same: --insist"
    )
    exit_code = 3


class AnswerLost(Refusal):
    template = (
        "{provider} did the call and its answer broke off each time ({reason}); {price} AIN are paid for it."
    )
    way_out = (
        "Its receipt is counted with the next call. Send it again if the answer is worth its price twice."
    )
    exit_code = 3


async def resolve(wire: Wire, call: NumberedCall, plan: Plan) -> str:
    """Ask a call's provider what became of it, again and again for a while: ANSWERED, NOT_DONE or UNKNOWN."""
    if call.held is None:
        return NOT_DONE  # Nobody pays for it, whatever became of it.
    patience_seconds = min(VANISHED_SECONDS_MAX, plan.left_seconds() - DEADLINE_MARGIN_SECONDS)
    ends_at, wait_seconds = time.monotonic() + patience_seconds, WAIT_SECONDS_FIRST
    while True:
        try:
            status, _, content = await _asked(wire, call.held, call.session_header)
        except ProviderAway:
            status, content = 0, b""
        if status == 200:
            return ANSWERED
        if status and refusal_of(status, content, wire.placement).code in NEVER_ARRIVED_CODES:
            return NOT_DONE
        left_seconds = ends_at - time.monotonic()
        if left_seconds <= 0 or (plan.insists and not status):
            return UNKNOWN
        await asyncio.sleep(min(wait_seconds, left_seconds))
        wait_seconds = min(2 * wait_seconds, WAIT_SECONDS_MAX)


async def ask_about_lost(desk: Desk, wire: Wire, held: OpenChannel) -> None:
    """Calls without an end are counted if their receipts are there, and forgotten if they were not done."""
    for sequence in sorted(held.lost):
        status, _, content = await _asked(wire, held, held.session_header(sequence))
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


async def _asked(wire: Wire, held: OpenChannel, session_header: str) -> tuple[int, Mapping[str, str], bytes]:
    return await wire.request(
        "GET",
        f"/channels/{held.entry.name}/receipt",
        headers={"OpenResource-Session": session_header},
        seconds=ASK_SECONDS,
        bytes_max=REFUSAL_BYTES_MAX,
    )
