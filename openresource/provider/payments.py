"""How payment looks on the wire: x402's three headers, the session header, and the answer to who has not paid.

The envelope is x402's version 2 with the scheme `openresource`; its `extra` says in numbers and in a sentence what
a buyer has to do.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from openresource.ledger.draft import NetworkDomain
from openresource.market.papers import SCHEME, network_name
from openresource.market.prices import Price, price_json, price_text
from openresource.market.tabs import CallKey
from openresource.market.vouchers import Voucher, session_hash, voucher_from_json
from openresource.primitives.amounts import ASSET_AIN
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.limits import SAFE_INTEGER_MAX
from openresource.provider.accounts import Account

X402_VERSION = 2
PAYMENT_BYTES_MAX = 16 * 1024
PAYMENT_DEPTH_MAX = 12
# A guide for the buyer: a channel that pays this many calls rarely has to be topped up.
DEPOSIT_CALLS_SUGGESTED = 20

_SESSION = re.compile(rb"(0x[0-9a-fA-F]{40}/[0-9a-f]{16,32});(?:0x)?([0-9a-fA-F]{64});(0|[1-9][0-9]{0,15})")
_encoder = msgspec.json.Encoder()


class PaymentMissing(Refusal):
    template = "This call costs {price} and came without payment."
    way_out = "Open a channel to this provider and send a voucher: `openresource call` does both."


@dataclass(frozen=True, slots=True)
class Session:
    """The session header: which channel pays, and which call this is."""

    channel: str
    call: CallKey


def parse_session(header: bytes) -> Session:
    """`<buyer>/<id>;<session secret>;<sequence number>`."""
    match = _SESSION.fullmatch(header)
    number = int(match[3]) if match is not None else 0
    if match is None or number > SAFE_INTEGER_MAX:
        raise InvalidInput(
            what="OpenResource-Session header",
            reason="it is not <buyer>/<channel id>;<64 hex digits>;<number>",
        )
    return Session(match[1].decode(), CallKey(session_hash(bytes.fromhex(match[2].decode())), number))


def decode_voucher(header: bytes) -> Voucher:
    """The voucher inside a PAYMENT-SIGNATURE header."""
    if len(header) > PAYMENT_BYTES_MAX:
        raise _not_a_payment(f"it is longer than {PAYMENT_BYTES_MAX} bytes")
    try:
        raw = binascii.a2b_base64(header, strict_mode=True)
    except (binascii.Error, ValueError):
        raise _not_a_payment("it is not base64") from None
    payment = parse_json(raw, bytes_max=PAYMENT_BYTES_MAX, depth_max=PAYMENT_DEPTH_MAX)
    if not isinstance(payment, dict) or payment.get("x402Version") != X402_VERSION:
        raise _not_a_payment("it is not a payment of x402 version 2")
    accepted = payment.get("accepted")
    if not isinstance(accepted, dict) or accepted.get("scheme") != SCHEME:
        raise _not_a_payment(f"the scheme that it accepted is not {SCHEME}")
    return voucher_from_json(payment.get("payload"))


def payment_response(network: NetworkDomain, payer: str, price_uain: int) -> bytes:
    """The header that confirms a payment: counted now, settled by the next claim, so without a transaction."""
    return _header(
        {
            "success": True,
            "transaction": "",
            "network": network_name(network),
            "payer": payer,
            "amount": str(price_uain),
        }
    )


def payment_required(
    refusal: Refusal,
    *,
    url: str,
    description: str,
    price: Price,
    provider: str,
    network: NetworkDomain,
    program: str,
    call_seconds: float,
    account: Account | None = None,
) -> tuple[bytes, bytes]:
    """Body and header of a 402 answer."""
    extra: dict[str, Any] = {
        "price": price_json(price),
        "program": program,
        "chain_id": network.chain_id,
        "salt": network.genesis_hash,
        "minimum_deposit_uain": price.total_uain,
        "suggested_deposit_uain": price.total_uain * DEPOSIT_CALLS_SUGGESTED,
    }
    pay = (
        f"Open a channel to {provider} for this program, then send a voucher for at least "
        f"{price_text(price)} in PAYMENT-SIGNATURE and OpenResource-Session."
    )
    if account is not None:
        tab = account.tab
        required_uain = tab.spent_uain + tab.in_flight_uain + price.total_uain
        extra |= {
            "channel": account.name,
            "nonce": tab.nonce,
            "channel_value_uain": account.channel.value_uain,
            "expires_at_ms": account.channel.expires_at_ms,
            "serves_until_ms": account.serves_until_ms,
            "total_uain": tab.total_uain,
            "spent_uain": tab.spent_uain,
            "in_flight_uain": tab.in_flight_uain,
            "completed": tab.completed,
            "acknowledged": tab.acknowledged,
            "receipts": "0x" + tab.receipts.hex(),
            "required_total_uain": required_uain,
        }
        pay = (
            f"Sign a voucher for channel {account.name}, nonce {tab.nonce}, with a total of at least "
            f"{required_uain} µAIN, and send the call again with it."
        )
    extra["pay"] = pay
    envelope = {
        "x402Version": X402_VERSION,
        "error": refusal.code,
        "resource": {"url": url, "description": description, "mimeType": "application/json"},
        "accepts": [
            {
                "scheme": SCHEME,
                "network": network_name(network),
                "amount": str(price.total_uain),
                "asset": ASSET_AIN,
                "payTo": provider,
                "maxTimeoutSeconds": max(1, round(call_seconds)),
                "extra": extra,
            }
        ],
    }
    # Readers of x402 ignore members that they do not know; ours find the refusal itself in the body.
    body = _encoder.encode(
        {
            **envelope,
            "message": refusal.message,
            "remedy": refusal.remedy,
            "facts": refusal.to_json()["facts"],
        }
    )
    return body, _header(envelope)


def _header(value: dict[str, Any]) -> bytes:
    return base64.b64encode(_encoder.encode(value))


def _not_a_payment(reason: str) -> InvalidInput:
    return InvalidInput(
        remedy="Send base64 of the JSON that the 402 answer describes.",
        what="PAYMENT-SIGNATURE header",
        reason=reason,
    )
