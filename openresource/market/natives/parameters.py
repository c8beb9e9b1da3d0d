"""The market's parameters on the chain, with the values that hold where the chain says nothing."""

from __future__ import annotations

from typing import Final

from openresource.ledger.draft import Draft
from openresource.market.bonds import BOND_DELAY_MS_DEFAULT
from openresource.market.channels import CHANNEL_LIFETIME_MS_DEFAULT, CHANNEL_LIFETIME_MS_MAX
from openresource.market.fees import FEE_PPM_DEFAULT, FEE_PPM_MAX
from openresource.market.jobs.terms import PARAMETER_OF, Settings
from openresource.market.stakes import STAKE_DELAY_MS_DEFAULT
from openresource.primitives.amounts import UAIN_PER_AIN
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
JOB_DEADLINE_MS_MAX: Final = "job_deadline_ms_max"
BOND_DELAY_MS: Final = "bond_delay_ms"
STAKE_DELAY_MS: Final = "stake_delay_ms"
KILL_VOTE_MS: Final = "kill_vote_ms"
KILL_DELAY_MS: Final = "kill_delay_ms"
KILL_QUORUM_PPM: Final = "kill_quorum_ppm"
KILL_MAJORITY_PPM: Final = "kill_majority_ppm"
KILL_SUPPORT_PPM: Final = "kill_support_ppm"
KILL_DEPOSIT_UAIN: Final = "kill_deposit_uain"
KILL_STAKE_UAIN_MIN: Final = "kill_stake_uain_min"
APPEAL_MAJORITY_PPM: Final = "appeal_majority_ppm"

DAY_MS: Final = 24 * 60 * 60_000

# Below /blockchain_params/market in the genesis.
PARAMETERS: Final[dict[str, int]] = {
    FEE_PPM: FEE_PPM_DEFAULT,
    CHANNEL_LIFETIME_MS: CHANNEL_LIFETIME_MS_DEFAULT,
    CHANNEL_LIFETIME_MS_MIN_NAME: 1_000,
    CHANNEL_LIFETIME_MS_MAX_NAME: CHANNEL_LIFETIME_MS_MAX,
    HOLD_LIFETIME_MS_MAX: CHANNEL_LIFETIME_MS_MAX,
    JOB_DEADLINE_MS: 10 * 60_000,
    JOB_DEADLINE_MS_MAX: DAY_MS,
    **{name: getattr(Settings(), member) for member, name in PARAMETER_OF.items()},
    BOND_DELAY_MS: BOND_DELAY_MS_DEFAULT,
    STAKE_DELAY_MS: STAKE_DELAY_MS_DEFAULT,
    KILL_VOTE_MS: 3 * DAY_MS,
    KILL_DELAY_MS: DAY_MS,
    KILL_QUORUM_PPM: 400_000,
    KILL_MAJORITY_PPM: 666_667,
    KILL_SUPPORT_PPM: 250_000,
    KILL_DEPOSIT_UAIN: 100 * UAIN_PER_AIN,
    KILL_STAKE_UAIN_MIN: 10_000 * UAIN_PER_AIN,
    APPEAL_MAJORITY_PPM: 500_000,
}


def parameter(draft: Draft, name: str) -> int:
    """A parameter of the market; what is not a sensible number on the chain counts as its default."""
    value = draft.parameter(CATEGORY, name)
    highest = FEE_PPM_MAX if name == FEE_PPM else SAFE_INTEGER_MAX
    return int(value) if is_integer(value) and 0 <= value <= highest else PARAMETERS[name]


def job_settings(draft: Draft) -> Settings:
    """The parameters that jobs go by."""
    members = {member: parameter(draft, name) for member, name in PARAMETER_OF.items()}
    return Settings(fee_ppm=parameter(draft, FEE_PPM), **members)
