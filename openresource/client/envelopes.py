"""What travels between a buyer and a gateway: payment headers, refusals, receipts, streams of events.

Everything here takes bytes apart or puts them together. What comes from a gateway is a stranger's until it is parsed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.papers import SCHEME, network_name
from openresource.market.placements import Placement
from openresource.market.purses import GatewayState, read_gateway_state
from openresource.market.vouchers import Voucher, voucher_to_json
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

ANSWER_BYTES_MAX: Final = 256 << 20
RECEIPT_BYTES_MAX: Final = 64 * 1024
REFUSAL_BYTES_MAX: Final = 256 * 1024
JSON_DEPTH_MAX: Final = 128
RETRY_DIGITS_MAX: Final = 6
RETRY_MS_MAX: Final = 60_000
RECEIPT_HEADER: Final = "openresource-receipt"
JSON_TYPE: Final = "application/json"
EVENTS_TYPE: Final = "text/event-stream"
BUSY_STATUSES: Final = frozenset((429, 503))
FAILED_STATUSES: Final = frozenset((500, 502, 504))
# A provider that has just started, or stops, does not have what its placement still says.
NOT_HERE_CODES: Final = frozenset(("service-not-here",))
# With what a line of an event stream may begin.
EVENT_STARTS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_RECEIPT_EVENT: Final = b"event: receipt\n"
_ERROR_EVENT: Final = b"event: error\n"
_OWN_EVENTS: Final = (_RECEIPT_EVENT, _ERROR_EVENT)
_STATE_MEMBERS: Final = ("nonce", "total_uain", "spent_uain", "in_flight_uain", "completed", "receipts")


class ProviderRefused(Refusal):
    """What a gateway said no to; its own code, message and remedy."""

    template = "The provider {provider} refused the call."


class ProviderBusy(ProviderRefused):
    template = "The provider {provider} has no room just now."
    exit_code = 3


class ProgramFailedThere(ProviderRefused):
    template = "The program failed at {provider}."


class PaymentRefused(ProviderRefused):
    """A 402: the payment was missing or not enough; `extra` is what the envelope says about it."""

    template = "The provider {provider} asks for payment."
    extra: dict[str, Any]


class AnswerNotReceipted(Refusal):
    template = "{provider} answered without a receipt that fits the call: {reason}."
    way_out = (
        "The answer is not used and the receipt not acknowledged; at most the price of this call is at risk. "
        "No more is signed for this provider on that channel; its rest returns when it expires."
    )


def payment_header(voucher: Voucher, provider: str, price_uain: int, network: NetworkDomain) -> str:
    """The PAYMENT-SIGNATURE header of x402 version 2 with our scheme."""
    payment = {
        "x402Version": 2,
        "accepted": {
            "scheme": SCHEME,
            "network": network_name(network),
            "amount": str(price_uain),
            "asset": "AIN",
            "payTo": provider,
        },
        "payload": voucher_to_json(voucher),
    }
    return base64.b64encode(json.dumps(payment).encode()).decode()


def refusal_of(status: int, content: bytes, placement: Placement, retry_after: str = "") -> Refusal:
    """A gateway's no, as a refusal of ours with its words; one that is full may say when to come again."""
    try:
        record = parse_json(content or b"{}", bytes_max=REFUSAL_BYTES_MAX, depth_max=32)
    except Refusal:
        record = {}
    if not isinstance(record, dict):
        record = {}
    facts: dict[str, Any] = {"provider": placement.provider, "status": status}
    said = record.get("error")
    # In a 402 of x402's form the error is a code, and the words stand beside it.
    words = said if isinstance(said, dict) else {**record, "code": said}
    code = _text(words.get("code"))
    if status == 402:
        refused = PaymentRefused(
            _text(words.get("message")) or "The provider asks for payment.",
            remedy=_text(words.get("remedy")),
            **facts,
        )
        refused.code = code or "payment-required"  # type: ignore[misc]
        refused.extra = _offered(record)
        return refused
    kind = ProviderRefused
    if status in BUSY_STATUSES or code in NOT_HERE_CODES:
        kind = ProviderBusy
        retry_ms = _retry_ms(retry_after, words.get("facts"))
        if retry_ms:
            facts["retry_ms"] = retry_ms
    elif status in FAILED_STATUSES:
        kind = ProgramFailedThere
    message = (
        _text(words.get("message")) or f"The provider {placement.provider} answered with status {status}."
    )
    refusal = kind(message, remedy=_text(words.get("remedy")), **facts)
    refusal.code = code or kind.code  # type: ignore[misc]
    return refusal


def gateway_state(record: Any) -> GatewayState:
    """What a gateway says about a channel, in a 402 or at /channels."""
    members = {name: record.get(name) for name in _STATE_MEMBERS} if isinstance(record, dict) else {}
    return read_gateway_state(members)


def receipt_record(text: str | None, placement: Placement) -> dict[str, Any]:
    """A receipt as it stands in a header (base64url) or in a stream's last event (JSON)."""
    if not text or len(text) > RECEIPT_BYTES_MAX:
        raise AnswerNotReceipted(provider=placement.provider, reason="there is none")
    try:
        raw = (
            text.encode() if text.startswith("{") else base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
        record = parse_json(raw, bytes_max=RECEIPT_BYTES_MAX, depth_max=16)
    except (binascii.Error, ValueError) as problem:
        raise AnswerNotReceipted(provider=placement.provider, reason=str(problem)) from None
    except Refusal as problem:
        raise AnswerNotReceipted(provider=placement.provider, reason=problem.message.rstrip(".")) from problem
    if not isinstance(record, dict):
        raise AnswerNotReceipted(provider=placement.provider, reason="it is not an object")
    return record


class EventSplitter:
    """Takes the gateway's last event out of a stream of the program's bytes, as they come.

    What is given on is the program's, byte for byte. Only what may be the beginning of the gateway's event waits, and
    it is given on too when the stream goes on after it: then it was the program's own.
    """

    def __init__(self) -> None:
        self._given = bytearray()
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """The program's bytes that are certain now."""
        self._held += piece
        free = self._free_bytes()
        given, self._held = self._held[:free], self._held[free:]
        self._given += given
        return given

    @property
    def size(self) -> int:
        """How many bytes came so far."""
        return len(self._given) + len(self._held)

    def end(self, placement: Placement) -> tuple[bytes, bytes, str]:
        """At the end of the stream: what of it was not given yet, all of the program's bytes, and the receipt."""
        content = bytes(self._given) + self._held
        body, receipt = split_events(content, placement)
        return body[len(self._given) :], body, receipt

    def _free_bytes(self) -> int:
        """Up to where nothing can belong to the gateway's last event."""
        held, at = self._held, 0
        while True:
            at = self._next_candidate(at)
            if at < 0:
                return len(held)
            end = held.find(b"\n\n", at)
            if end < 0 or end + 2 == len(held):
                return at
            at = end + 2

    def _next_candidate(self, begin: int) -> int:
        """Where something begins like an event of the gateway's; -1 if nothing does."""
        found = [self._held.find(event, begin) for event in _OWN_EVENTS]
        for event in _OWN_EVENTS:
            # The end of what came so far may be the first bytes of one.
            for size in range(min(len(event) - 1, len(self._held) - begin), 0, -1):
                if self._held.endswith(event[:size]):
                    found.append(len(self._held) - size)
                    break
        return min((at for at in found if at >= 0), default=-1)


def split_events(body: bytes, placement: Placement) -> tuple[bytes, str]:
    """A finished stream's own bytes, and the receipt that its last event carries."""
    start = body.rfind(_RECEIPT_EVENT)
    error = body.rfind(_ERROR_EVENT)
    if start >= 0 and start > error:
        return body[:start], _event_data(body[start:]).decode("utf-8", "replace")
    if error >= 0:
        raise refusal_of(502, _event_data(body[error:]), placement)
    raise AnswerNotReceipted(provider=placement.provider, reason="the stream ended without a receipt")


def stream_values(body: bytes) -> list[Any]:
    """The values of a stream's data events; what is not JSON is text."""
    *events, rest = event_blocks(body)
    return [event_value(event) for event in (*events, rest) if event.startswith(b"data:")]


def event_blocks(content: bytes) -> list[bytes]:
    """A stream cut at its blank lines; the last block may not have ended yet."""
    return content.replace(b"\r\n", b"\n").split(b"\n\n")


def event_value(event: bytes) -> Any:
    """The value of one data event."""
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    data = b"\n".join(lines)
    try:
        return parse_json(data, bytes_max=ANSWER_BYTES_MAX, depth_max=JSON_DEPTH_MAX)
    except Refusal:
        return data.decode("utf-8", "replace")


def value_of(body: bytes, content_type: str) -> Any:
    """An answer's value: JSON and texts as such, a stream as the list of its values, anything else as bytes."""
    if content_type == EVENTS_TYPE:
        return stream_values(body)
    if content_type == JSON_TYPE:
        try:
            return parse_json(body, bytes_max=ANSWER_BYTES_MAX, depth_max=JSON_DEPTH_MAX)
        except Refusal:
            # It is paid for and receipted: better the program's faulty text than nothing.
            return body.decode("utf-8", "replace")
    if content_type.startswith("text/"):
        return body.decode("utf-8", "replace")
    return body


def _retry_ms(retry_after: str, facts: Any) -> int:
    """When to come again, by the header in whole seconds, or more exactly by the refusal's facts; 0 if never."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return 0
    exact = facts.get("retry_ms") if isinstance(facts, dict) else None
    retry_ms = exact if type(exact) is int and exact > 0 else int(retry_after[:RETRY_DIGITS_MAX]) * 1000
    return min(retry_ms, RETRY_MS_MAX)


def _offered(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a 402 says about the payment that it asks for."""
    accepts = record.get("accepts")
    first = accepts[0] if isinstance(accepts, list) and accepts else None
    extra = first.get("extra") if isinstance(first, dict) else None
    return extra if isinstance(extra, dict) else {}


def _event_data(event: bytes) -> bytes:
    for line in event.split(b"\n"):
        if line.startswith(b"data: "):
            return line[6:]
    return b""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
