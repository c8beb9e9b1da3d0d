"""The members of `util` that judge records of the consensus, of fees and of the token bridge."""

from __future__ import annotations

from typing import Final

from openresource.ledger.rule_util import (
    UTIL,
    Reader,
    balance_path_of,
    is_at_most,
    is_finite_number,
    is_offense_type,
    is_valid_hash,
    member,
    text_of,
)
from openresource.ledger.rules.environment import Environment
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.values import (
    UNDEFINED,
    Function,
    deep_equals,
    is_dict,
    keys_of,
    own_member,
    strict_equals,
    to_number,
)

# All members of util: importing this module has registered the last of them.
UTIL_MEMBERS: Final[dict[str, Function]] = UTIL


def _stake(address: object, reader: Reader, meter: Meter) -> object:
    return reader.number(f"/service_accounts/staking/consensus/{text_of(address, meter)}|0/balance")


def _whitelist_size(reader: Reader, name: str) -> int:
    whitelist = reader.get(f"/consensus/{name}")
    if not is_dict(whitelist):
        return 0
    return sum([own_member(whitelist, address) is True for address in keys_of(whitelist)])


def _is_positive(value: object) -> bool:
    return is_finite_number(value) and isinstance(value, (int, float)) and value > 0


# Consensus


@member("getConsensusStakeBalance", 2)
def _get_consensus_stake(environment: Environment, this: object, arguments: list[object]) -> object:
    return _stake(arguments[0], Reader(arguments[1], environment), environment)


@member("getMinStakeAmount", 1)
def _get_min_stake(environment: Environment, this: object, arguments: list[object]) -> object:
    return Reader(arguments[0], environment).parameter("consensus", "min_stake_for_proposer")


@member("getMaxStakeAmount", 1)
def _get_max_stake(environment: Environment, this: object, arguments: list[object]) -> object:
    return Reader(arguments[0], environment).parameter("consensus", "max_stake_for_proposer")


@member("getMinNumValidators", 1)
def _get_min_validators(environment: Environment, this: object, arguments: list[object]) -> object:
    return Reader(arguments[0], environment).parameter("consensus", "min_num_validators")


@member("getConsensusProposerWhitelistSize", 1)
def _get_proposer_whitelist_size(environment: Environment, this: object, arguments: list[object]) -> object:
    return _whitelist_size(Reader(arguments[0], environment), "proposer_whitelist")


@member("getConsensusValidatorWhitelistSize", 1)
def _get_validator_whitelist_size(environment: Environment, this: object, arguments: list[object]) -> object:
    return _whitelist_size(Reader(arguments[0], environment), "validator_whitelist")


@member("validateConsensusProposalData", 4)
def _validate_proposal(environment: Environment, this: object, arguments: list[object]) -> object:
    record, address = arguments[0], arguments[1]
    reader = Reader(arguments[3], environment)
    if not is_dict(record):
        return False
    number = to_number(arguments[2], environment)
    if not strict_equals(number, own_member(record, "number")):
        return False
    if not is_finite_number(own_member(record, "gas_cost_total")):
        return False
    if not strict_equals(own_member(record, "proposer"), address):
        return False
    if not reader.is_true(f"/consensus/proposer_whitelist/{text_of(address, environment)}"):
        return False
    stake = _stake(address, reader, environment)
    least = reader.parameter("consensus", "min_stake_for_proposer")
    most = reader.parameter("consensus", "max_stake_for_proposer")
    return is_at_most(least, stake) and is_at_most(stake, most)


@member("validateConsensusVoteData", 4)
def _validate_vote(environment: Environment, this: object, arguments: list[object]) -> object:
    record = arguments[0]
    address = text_of(arguments[1], environment)
    reader = Reader(arguments[3], environment)
    is_listed = reader.is_true(f"/consensus/validator_whitelist/{address}") or reader.is_true(
        f"/consensus/proposer_whitelist/{address}"
    )
    if not is_listed or not is_dict(record):
        return False
    is_against = own_member(record, "is_against")
    stake = own_member(record, "stake")
    if not isinstance(is_against, bool) or not is_finite_number(stake):
        return False
    if not strict_equals(own_member(record, "block_hash"), arguments[2]):
        return False
    if is_against and not is_offense_type(own_member(record, "offense_type")):
        return False
    return strict_equals(_stake(arguments[1], reader, environment), stake)


# Fees and rewards


@member("validateClaimRewardData", 3)
def _validate_claim(environment: Environment, this: object, arguments: list[object]) -> object:
    record = arguments[1]
    reader = Reader(arguments[2], environment)
    amount = own_member(record, "amount")
    if not is_dict(record) or not _is_positive(amount):
        return False
    return is_at_most(
        amount, reader.number(f"/consensus/rewards/{text_of(arguments[0], environment)}/unclaimed")
    )


@member("validateCollectFeeData", 4)
def _validate_fee(environment: Environment, this: object, arguments: list[object]) -> object:
    data, record = arguments[0], arguments[1]
    reader = Reader(arguments[3], environment)
    amount = own_member(record, "amount")
    if data is not None or not is_dict(record) or not is_finite_number(amount):
        return False
    return is_at_most(amount, reader.number(balance_path_of(arguments[2], environment)))


# Token bridge


class _Request:
    """A request to the bridge, found by network, chain, token, user and id."""

    __slots__ = ("bridge", "id", "key")

    def __init__(self, arguments: list[object], meter: Meter) -> None:
        parts = [text_of(argument, meter) for argument in arguments[:5]]
        self.key: str = "/".join(parts)
        self.id: object = arguments[4]
        self.bridge: str = _bridge_path(arguments, meter)


def _bridge_path(arguments: list[object], meter: Meter) -> str:
    parts = [text_of(argument, meter) for argument in arguments[:3]]
    return "/blockchain_params/token/bridge/" + "/".join(parts)


@member("getTokenBridgeConfig", 4)
def _get_bridge(environment: Environment, this: object, arguments: list[object]) -> object:
    return Reader(arguments[3], environment).get(_bridge_path(arguments, environment))


@member("getTokenPoolAddr", 4)
def _get_pool(environment: Environment, this: object, arguments: list[object]) -> object:
    return Reader(arguments[3], environment).get(_bridge_path(arguments, environment) + "/token_pool")


@member("validateCheckinRequestData", 8)
def _validate_checkin(environment: Environment, this: object, arguments: list[object]) -> object:
    request = _Request(arguments, environment)
    record, now = arguments[5], arguments[6]
    reader = Reader(arguments[7], environment)
    if not is_dict(record) or not _is_positive(own_member(record, "amount")):
        return False
    if not isinstance(own_member(record, "sender"), str) or not isinstance(
        own_member(record, "sender_proof"), str
    ):
        return False
    if not strict_equals(to_number(request.id, environment), now):
        return False
    return reader.get(f"/checkin/history/{request.key}") is None and is_dict(reader.get(request.bridge))


@member("validateCheckoutRequestData", 8)
def _validate_checkout(environment: Environment, this: object, arguments: list[object]) -> object:
    request = _Request(arguments, environment)
    record, now = arguments[5], arguments[6]
    reader = Reader(arguments[7], environment)
    if not is_dict(record) or not _is_positive(own_member(record, "amount")):
        return False
    fee_rate = own_member(record, "fee_rate")
    if not isinstance(own_member(record, "recipient"), str) or not is_finite_number(fee_rate):
        return False
    if not strict_equals(to_number(request.id, environment), now):
        return False
    bridge = reader.get(request.bridge)
    if not is_dict(bridge) or not strict_equals(own_member(bridge, "checkout_fee_rate"), fee_rate):
        return False
    return reader.get(f"/checkout/history/{request.key}") is None


@member("validateCheckinHistoryData", 7)
def _validate_checkin_history(environment: Environment, this: object, arguments: list[object]) -> object:
    return _closes_request("checkin", environment, arguments)


@member("validateCheckoutHistoryData", 7)
def _validate_checkout_history(environment: Environment, this: object, arguments: list[object]) -> object:
    return _closes_request("checkout", environment, arguments)


def _closes_request(kind: str, environment: Environment, arguments: list[object]) -> bool:
    """Whether a history entry tells of an open request and of what became of it."""
    request = _Request(arguments, environment)
    record = arguments[5]
    opened = Reader(arguments[6], environment).get(f"/{kind}/requests/{request.key}")
    if opened is None or not is_dict(record):
        return False
    response = own_member(record, "response")
    if not deep_equals(opened, own_member(record, "request"), environment) or not is_dict(response):
        return False
    hash_ = own_member(response, "tx_hash")
    if hash_ is not UNDEFINED and not is_valid_hash(hash_):
        return False
    return isinstance(own_member(response, "status"), bool)


@member("validateCheckoutRefundData", 8)
def _validate_refund(environment: Environment, this: object, arguments: list[object]) -> object:
    request = _Request(arguments, environment)
    auth, record = arguments[5], arguments[6]
    reader = Reader(arguments[7], environment)
    if not isinstance(record, str):
        return False
    is_closing = own_member(auth, "fid") == "_closeCheckout"
    pool = reader.get(request.bridge + "/token_pool")
    if not is_closing and not strict_equals(own_member(auth, "addr"), pool):
        return False
    return reader.get(f"/checkout/history/{request.key}") is not None
