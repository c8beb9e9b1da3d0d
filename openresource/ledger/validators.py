"""Who may make and vote for AI Network's next block: validators from the state, the proposer by a draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openresource.ledger.nodes import Branch
from openresource.ledger.state import State
from openresource.primitives.encoding import utf16_order
from openresource.primitives.numbers import is_number
from openresource.primitives.seeded_random import SeededRandom

Validators = Mapping[str, Any]

# The double that the protocol multiplies stakes with; not the fraction.
MAJORITY: Final = 2 / 3
CONSENSUS_APP: Final = "consensus"


def validators_after(state: State, stake_min: Any, stake_max: Any, count_max: int) -> dict[str, Any]:
    """The validators of the next block, in the order of their rank."""
    ranked: list[tuple[bool, float, float, bytes, str]] = []
    staking = state.value_node(("staking", CONSENSUS_APP))
    if not isinstance(staking, Branch):
        return {}
    for address, _ in staking.children():
        stake = state.read_value(("service_accounts", "staking", CONSENSUS_APP, f"{address}|0", "balance"))
        if not is_number(stake) or not stake > 0:
            continue
        if state.read_value((CONSENSUS_APP, "proposer_whitelist", address)) is True:
            if not stake_min <= stake <= stake_max:
                continue
            may_propose = True
        elif state.read_value((CONSENSUS_APP, "validator_whitelist", address)) is True:
            may_propose = False
        else:
            continue
        expires = state.read_value(("staking", CONSENSUS_APP, address, "0", "expire_at"))
        expire_at = expires if is_number(expires) else 0
        ranked.append((not may_propose, -stake, -expire_at, utf16_order(address), address))
    ranked.sort()
    chosen: dict[str, Any] = {}
    for is_voter, negative_stake, _, _, address in ranked[:count_max]:
        chosen[address] = {"stake": -negative_stake, "proposal_right": not is_voter}
    return chosen


def proposer_of(seed: str, validators: Validators) -> str | None:
    """The validator whom the seed draws, by stake; None if nobody has the right to propose."""
    addresses = sorted(
        (address for address, terms in validators.items() if terms.get("proposal_right") is True),
        key=utf16_order,
    )
    total: Any = 0
    for address in addresses:
        total += validators[address]["stake"]
    target = SeededRandom(seed).random() * total
    sum_so_far: Any = 0
    for address in addresses:
        sum_so_far += validators[address]["stake"]
        if sum_so_far > target:
            return address
    return None


def stake_of(validators: Validators, address: str) -> Any:
    """A validator's stake; 0 for somebody else."""
    terms = validators.get(address)
    return terms["stake"] if isinstance(terms, dict) and is_number(terms.get("stake")) else 0


def total_stake(validators: Validators) -> Any:
    """The stakes of all validators together."""
    total: Any = 0
    for address in validators:
        total += stake_of(validators, address)
    return total
