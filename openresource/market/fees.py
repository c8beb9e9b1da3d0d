"""How one payment is divided: the network's fee, the publisher's royalty, the provider's remainder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openresource.primitives.amounts import PPM, split_ppm

FEE_PPM_DEFAULT: Final = 20_000
FEE_PPM_MAX: Final = PPM // 10


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a claim; they add up to the claim exactly."""

    fee_uain: int
    royalty_uain: int
    provider_uain: int


def split_claim(amount_uain: int, ask_uain: int, royalty_uain: int, fee_ppm: int) -> Split:
    """The fee and then the royalty, both rounded down; what is left belongs to the provider."""
    fee, rest = split_ppm(amount_uain, fee_ppm)
    price = ask_uain + royalty_uain
    share = amount_uain * royalty_uain // price if price > 0 else 0
    # A royalty that is nearly the whole price must not eat the fee.
    royalty = min(share, rest)
    return Split(fee, royalty, rest - royalty)
