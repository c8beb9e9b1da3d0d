"""Prices: what a call costs, whom it pays, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fees import Split, split_claim
from openresource.primitives.amounts import ASSET_AIN, text_from_uain
from openresource.primitives.errors import Refusal

UNIT_CALL: Final = "call"
UNITS: Final = (UNIT_CALL,)


class PriceAboveCap(Refusal):
    result_code = ResultCode.PRICE_ABOVE_CAP
    template = (
        "Ask {ask_uain} and royalty {royalty_uain} µAIN exceed the version's cap of {price_cap_uain} µAIN."
    )
    way_out = "Ask for at most the cap less the royalty."


class CapBelowRoyalty(Refusal):
    result_code = ResultCode.CAP_BELOW_ROYALTY
    template = (
        "The price cap of {price_cap_uain} µAIN does not even cover the royalty of {royalty_uain} µAIN."
    )
    way_out = "Raise the cap, lower the royalty, or leave the cap out."


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one unit; the fee is inside the total, not on top of it."""

    ask_uain: int
    royalty_uain: int
    fee_ppm: int
    unit: str = UNIT_CALL
    asset: str = ASSET_AIN

    @property
    def total_uain(self) -> int:
        """What the buyer pays for one unit."""
        return self.ask_uain + self.royalty_uain


def price_split(price: Price) -> Split:
    """How one unit's price is divided when it is claimed alone."""
    return split_claim(price.total_uain, price.ask_uain, price.royalty_uain, price.fee_ppm)


def check_cap(ask_uain: int, royalty_uain: int, price_cap_uain: int | None) -> None:
    """Refuses an ask that lifts the price above what the version allows."""
    if price_cap_uain is not None and ask_uain + royalty_uain > price_cap_uain:
        raise PriceAboveCap(ask_uain=ask_uain, royalty_uain=royalty_uain, price_cap_uain=price_cap_uain)


def price_text(price: Price) -> str:
    """The price as a person reads it."""
    return f"{text_from_uain(price.total_uain)} {price.asset}"


def price_json(price: Price) -> dict[str, Any]:
    """The price as listings, quotes and the 402 answer state it."""
    return {
        "ask_uain": price.ask_uain,
        "royalty_uain": price.royalty_uain,
        "fee_ppm": price.fee_ppm,
        "total_uain": price.total_uain,
        "text": price_text(price),
        "unit": price.unit,
        "asset": price.asset,
    }
