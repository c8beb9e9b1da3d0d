"""The accounts that hold money for the market, and where their balances are."""

from __future__ import annotations

from typing import Final

from openresource.market.holds import JOB_ACCOUNTS
from openresource.primitives.paths import service_account_name

CHANNELS: Final = "channels"
HOLDS: Final = "holds"
DEPOSITS: Final = "deposits"
TREASURY: Final = service_account_name("treasury", "market", "fees")

# What natives that pay out of these accounts declare.
CHANNEL_BALANCES: Final[tuple[str, ...]] = ("service_accounts", CHANNELS)
HOLD_BALANCES: Final[tuple[str, ...]] = ("service_accounts", HOLDS)
BOND_BALANCES: Final[tuple[str, ...]] = ("service_accounts", DEPOSITS)


def channel_account(buyer: str, channel_id: str) -> str:
    """The account with a channel's deposit."""
    return service_account_name(CHANNELS, "market", f"{buyer}:{channel_id}")


def hold_account(app: str, hold_id: str) -> str:
    """The account with the money that pays an app's jobs."""
    return service_account_name(HOLDS, "market", f"{app}:{hold_id}")


def bond_account(provider: str) -> str:
    """The account with a provider's bond."""
    return service_account_name(DEPOSITS, "market", f"bond:{provider}")


def stake_account(address: str) -> str:
    """The account with somebody's stake."""
    return service_account_name(DEPOSITS, "market", f"stake:{address}")


def ballot_account(program: str, ballot: str) -> str:
    """The account with the deposit of whoever asked for a vote."""
    return service_account_name(DEPOSITS, "market", f"ballot:{program}:{ballot}")


def job_account(job: str) -> str:
    """The account with one job's budget."""
    return service_account_name(HOLDS, "market", f"{JOB_ACCOUNTS}:{job}")


# Beside the jobs' accounts: no job has this name.
AUDIT_POT: Final = service_account_name(HOLDS, "market", f"{JOB_ACCOUNTS}:audits")
