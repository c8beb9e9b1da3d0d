"""The market's parameters on the chain, with the values that hold where the chain says nothing."""

from __future__ import annotations

from typing import Final

from openresource.ledger.draft import Draft
from openresource.market.bonds import BOND_DELAY_MS_DEFAULT
from openresource.market.channels import CHANNEL_LIFETIME_MS_DEFAULT, CHANNEL_LIFETIME_MS_MAX
from openresource.market.fees import FEE_PPM_DEFAULT, FEE_PPM_MAX
from openresource.primitives.limits import SAFE_INTEGER_MAX
from openresource.primitives.numbers import is_integer

CATEGORY: Final = "market"

FEE_PPM: Final = "fee_ppm"
CHANNEL_LIFETIME_MS: Final = "channel_lifetime_ms"
CHANNEL_LIFETIME_MS_MIN_NAME: Final = "channel_lifetime_ms_min"
CHANNEL_LIFETIME_MS_MAX_NAME: Final = "channel_lifetime_ms_max"
HOLD_LIFETIME_MS_MAX: Final = "hold_lifetime_ms_max"
JOB_LEASE_MS: Final = "job_lease_ms"
JOB_DEADLINE_MS: Final = "job_deadline_ms"
BOND_DELAY_MS: Final = "bond_delay_ms"

# Below /blockchain_params/market in the genesis.
PARAMETERS: Final[dict[str, int]] = {
    FEE_PPM: FEE_PPM_DEFAULT,
    CHANNEL_LIFETIME_MS: CHANNEL_LIFETIME_MS_DEFAULT,
    CHANNEL_LIFETIME_MS_MIN_NAME: 1_000,
    CHANNEL_LIFETIME_MS_MAX_NAME: CHANNEL_LIFETIME_MS_MAX,
    HOLD_LIFETIME_MS_MAX: CHANNEL_LIFETIME_MS_MAX,
    JOB_LEASE_MS: 60_000,
    JOB_DEADLINE_MS: 10 * 60_000,
    BOND_DELAY_MS: BOND_DELAY_MS_DEFAULT,
}


def parameter(draft: Draft, name: str) -> int:
    """A parameter of the market; what is not a sensible number on the chain counts as its default."""
    value = draft.parameter(CATEGORY, name)
    highest = FEE_PPM_MAX if name == FEE_PPM else SAFE_INTEGER_MAX
    return int(value) if is_integer(value) and 0 <= value <= highest else PARAMETERS[name]
