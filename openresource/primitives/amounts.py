"""Money: whole µAIN inside, decimal texts of AIN for people, doubles of AIN in the tree.

Amounts are plain integers whose names end in `_uain`; up to 10^9 AIN the double in the tree stands for exactly one.
"""

from __future__ import annotations

import math
import re
from typing import Final

from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import is_finite

ASSET_AIN: Final = "AIN"
UAIN_PER_AIN: Final = 1_000_000
PPM: Final = 1_000_000
# 10^15 µAIN: below 2^53, and a double of AIN still tells neighbours apart.
UAIN_MAX: Final = 10**9 * UAIN_PER_AIN

_DECIMAL: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,6})?")


class InvalidAmount(Refusal):
    template = "{text} is not an amount of AIN: {reason}."
    way_out = "Write a decimal number such as 0.0002, with at most six decimals."


class AmountOutOfRange(Refusal):
    template = "{amount_uain} µAIN lies outside of 0 to {amount_uain_max} µAIN."


class NotWholeUain(Refusal):
    template = "{value} AIN is not a whole number of µAIN between 0 and {amount_uain_max}."


def uain_from_text(text: str) -> int:
    """Whole µAIN of a decimal text of AIN, exactly; no sign, no exponent, at most six decimals."""
    if _DECIMAL.fullmatch(text) is None:
        raise InvalidAmount(text=text, reason=_reason(text))
    whole, _, fraction = text.partition(".")
    amount_uain = int(whole) * UAIN_PER_AIN + int(fraction.ljust(6, "0"))
    if amount_uain > UAIN_MAX:
        raise InvalidAmount(text=text, reason="there are only 1,000,000,000 AIN")
    return amount_uain


def text_from_uain(amount_uain: int) -> str:
    """The decimal text of AIN, without trailing zeros; a negative amount gets its sign."""
    sign = "-" if amount_uain < 0 else ""
    whole, fraction = divmod(abs(amount_uain), UAIN_PER_AIN)
    decimals = f"{fraction:06d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def ain_number(amount_uain: int) -> float | int:
    """The number that the tree stores for an amount."""
    if not 0 <= amount_uain <= UAIN_MAX:
        raise AmountOutOfRange(amount_uain=amount_uain, amount_uain_max=UAIN_MAX)
    whole, fraction = divmod(amount_uain, UAIN_PER_AIN)
    return whole if fraction == 0 else amount_uain / UAIN_PER_AIN


def uain_of_number(value: int | float) -> int:
    """Whole µAIN of a number in the tree; a number that no amount is stored as is refused."""
    if is_finite(value) and 0 <= value <= 10**9:
        amount_uain = round(value * UAIN_PER_AIN)
        if amount_uain / UAIN_PER_AIN == value:
            return amount_uain
    raise NotWholeUain(value=value, amount_uain_max=UAIN_MAX)


def split_ppm(total_uain: int, share_ppm: int) -> tuple[int, int]:
    """A share of an amount, rounded down, and the remainder."""
    if not 0 <= share_ppm <= PPM:
        raise ShareOutOfRange(share_ppm=share_ppm)
    share_uain = total_uain * share_ppm // PPM
    return share_uain, total_uain - share_uain


def gas_cost(gas_price: float, gas_amount: float, is_floored: bool = True) -> float:
    """The fee in AIN as AI Network computes it: in doubles from left to right, then down to whole µAIN."""
    cost = gas_price * 0.000001 * gas_amount
    if not is_floored:
        return cost
    scaled = cost * 1000000.0
    return math.floor(scaled) / 1000000.0 if math.isfinite(scaled) else scaled


class ShareOutOfRange(Refusal):
    template = "A share of {share_ppm} ppm lies outside of 0 to 1,000,000."


def _reason(text: str) -> str:
    if text.startswith("-"):
        return "it is negative"
    if re.fullmatch(r"[0-9]+\.[0-9]{7,}", text) is not None:
        return "it has more than six decimals"
    if "e" in text or "E" in text:
        return "exponents are not read here"
    return "it is not a plain decimal number"
