"""The chain on one page: profiles, networks, and the functions, rules and parameters of our genesis.

`begin` makes block 0 of a network from its genesis document, `resume` continues a chain that a store holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from openresource.ledger.draft import Native
from openresource.ledger.genesis import (
    GenesisDocument,
    InvalidGenesis,
    config_tree,
    genesis_block,
    merged_parameters,
    read_genesis,
)
from openresource.ledger.machine import Machine
from openresource.ledger.natives.apps import create_app
from openresource.ledger.natives.bridge import (
    cancel_checkin,
    close_checkin,
    close_checkout,
    open_checkin,
    open_checkout,
)
from openresource.ledger.natives.consensus import (
    claim_reward,
    collect_fee,
    distribute_fee,
    handle_offenses,
    update_latest_shard_report,
)
from openresource.ledger.natives.general import erase_value, fail, save_last_tx, set_owner_config
from openresource.ledger.natives.payments import claim, hold, pay, release
from openresource.ledger.natives.staking import stake, unstake
from openresource.ledger.natives.transfer import move_transfer, transfer
from openresource.ledger.profile import REPLAY_WINDOW_MS, KernelNative, Network, Profile, TimerFlag
from openresource.ledger.tree import Tree
from openresource.market import natives as market

# -- profiles ---------------------------------------------------------------------------------------------------------

AIN: Final = Profile(
    name="ain",
    list_ignores_own_code=True,
    failed_pay_nothing=True,
    native_exceptions_are_swallowed=True,
    unstake_reads_wall_clock=True,
    gas_price_may_be_absent=False,
    has_shards=True,
    tree_shape="ain",
    has_programs=False,
    labels_have_one_spelling=False,
    replay_window_ms=0,
    has_beacon=False,
)

OPENRESOURCE: Final = Profile(
    name="openresource",
    list_ignores_own_code=False,
    failed_pay_nothing=False,
    native_exceptions_are_swallowed=False,
    unstake_reads_wall_clock=False,
    gas_price_may_be_absent=True,
    has_shards=False,
    tree_shape="canonical",
    has_programs=True,
    labels_have_one_spelling=True,
    replay_window_ms=REPLAY_WINDOW_MS,
    has_beacon=True,
)

# AI Network's natives; those that only an administrator of the chain may bind come first.
AIN_NATIVES: Final[dict[str, KernelNative]] = {
    "_transfer": transfer,
    "_createApp": create_app,
    "_stake": stake,
    "_unstake": unstake,
    "_pay": pay,
    "_claim": claim,
    "_hold": hold,
    "_release": release,
    "_collectFee": collect_fee,
    "_claimReward": claim_reward,
    "_distributeFee": distribute_fee,
    "_handleOffenses": handle_offenses,
    "_openCheckin": open_checkin,
    "_cancelCheckin": cancel_checkin,
    "_closeCheckin": close_checkin,
    "_openCheckout": open_checkout,
    "_closeCheckout": close_checkout,
    "_updateLatestShardReport": update_latest_shard_report,
    "_saveLastTx": save_last_tx,
    "_eraseValue": erase_value,
    "_setOwnerConfig": set_owner_config,
    "_fail": fail,
}

# -- networks ---------------------------------------------------------------------------------------------------------

CHAIN_IDS: Final[dict[str, int]] = {"local": 100, "testnet": 101, "mainnet": 102}

# -- natives ----------------------------------------------------------------------------------------------------------

_TRANSFER: Final = Native("_transfer", (), move_transfer)
NATIVES: Final[tuple[Native, ...]] = (_TRANSFER, *market.NATIVES)
KERNEL_NATIVES: Final[dict[str, KernelNative]] = {
    "_createApp": create_app,
    "_saveLastTx": save_last_tx,
    "_eraseValue": erase_value,
    "_setOwnerConfig": set_owner_config,
    "_fail": fail,
}

FUNCTIONS: Final[dict[str, str]] = {
    "/transfer/$from/$to/$key/value": "_transfer",
    "/manage_app/$app_name/create/$record_id": "_createApp",
    **market.FUNCTIONS,
}

# -- rules ------------------------------------------------------------------------------------------------------------

_IS_ADMIN: Final = "(auth.fid === '_createApp' || util.isAppAdmin($app_name, auth.addr, getValue) === true)"
_IS_DEEP: Final = "util.checkValuePathLen(parsedValuePath, 4) === true"

WRITE_RULES: Final[dict[str, str | bool]] = {
    "/": False,
    "/blockchain_params": "util.isAppAdmin('consensus', auth.addr, getValue) === true",
    "/manage_app/$app_name/create/$record_id": (
        "data === null && getValue('/manage_app/' + $app_name + '/config') === null && util.isDict(newData)"
        f" && {_IS_DEEP}"
    ),
    "/manage_app/$app_name/config/admin": (
        f"{_IS_ADMIN} && util.validateManageAppAdminConfig(newData) && {_IS_DEEP}"
    ),
    "/manage_app/$app_name/config/billing": (
        f"{_IS_ADMIN} && util.validateManageAppBillingConfig(newData) && {_IS_DEEP}"
    ),
    "/manage_app/$app_name/config/is_public": (
        f"{_IS_ADMIN} && util.validateManageAppIsPublicConfig(newData) && {_IS_DEEP}"
    ),
    "/manage_app/$app_name/config/service": (
        f"{_IS_ADMIN} && util.validateManageAppServiceConfig(newData) && {_IS_DEEP}"
    ),
    # A key names one payment: as long as its record stands, nothing is paid under it a second time.
    "/transfer/$from/$to/$key/value": (
        "auth.addr === $from && data === null && util.isCksumAddr($to) && $from !== $to && util.isNumber(newData)"
        " && newData > 0 && util.countDecimals(newData) <= 6"
        " && util.checkValuePathLen(parsedValuePath, 5) === true"
    ),
    **market.RULES,
}
# Records of payments are kept for a while for each pair of accounts.
STATE_RULES: Final[dict[str, dict[str, int]]] = {
    "/transfer/$from/$to/$key": {"gc_max_siblings": 1000, "gc_num_siblings_deleted": 900},
}

# -- parameters -------------------------------------------------------------------------------------------------------

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "token": {"name": "AI Network", "symbol": "AIN", "total_supply": 700_000_000},
    "resource": {
        "state_tree_height_limit": 30,
        "state_tree_bytes_limit": 5_000_000_000,
        "state_label_length_limit": 150,
        "service_state_budget_ratio": 0.5,
        "apps_state_budget_ratio": 0.495,
        "free_state_budget_ratio": 0.25,
        "max_state_tree_size_per_byte": 0.00625,
        "state_gas_coefficient": 1,
        "unit_write_gas_amount": 1,
        "account_registration_gas_amount": 2000,
        "app_creation_gas_amount": 2000,
        "rest_function_call_gas_amount": 100,
        "gas_price_unit": 0.000001,
        "min_gas_price": 1,
        "min_staking_for_app_tx": 0,
        "min_balance_for_service_tx": 0,
        "tx_bytes_limit": 100_000,
        "batch_tx_list_size_limit": 50,
        "set_op_list_size_limit": 50,
        "min_gc_num_siblings_deleted": 10,
    },
}

# Changes of AI Network's protocol that are in force on ours from the first block.
_ENABLED: Final = (
    "allow_lower_case_app_names_only",
    "add_app_creation_gas_amount",
    "extend_account_registration_gas_amount",
    "allow_up_to_6_decimal_transfer_value_only",
    "disable_tx_receipt_recording",
)
FLAGS: Final = tuple(TimerFlag(name, 0) for name in _ENABLED)

_ALL_PERMISSIONS: Final = {
    "branch_owner": True,
    "write_function": True,
    "write_owner": True,
    "write_rule": True,
}
_NO_PERMISSIONS: Final = {
    "branch_owner": False,
    "write_function": False,
    "write_owner": False,
    "write_rule": False,
}
_APP_MAKER: Final = {"branch_owner": True, "write_function": False, "write_owner": False, "write_rule": True}


def network_of(document: GenesisDocument) -> Network:
    """The network that a genesis document describes."""
    chain_id = CHAIN_IDS.get(document.network)
    if chain_id is None:
        raise InvalidGenesis(
            reason=f"there is no network {document.network}; there are {', '.join(CHAIN_IDS)}"
        )
    if chain_id != document.chain_id:
        raise InvalidGenesis(
            reason=f"the chain id of {document.network} is {chain_id}, not {document.chain_id}"
        )
    return Network(
        name=document.network,
        profile=OPENRESOURCE,
        chain_id=chain_id,
        producers=(document.producer,),
        parameters=genesis_parameters(document),
        natives={native.name: native for native in NATIVES},
        kernel_natives=KERNEL_NATIVES,
        due_actions={action.kind: action for action in market.DUE_ACTIONS},
        programs=market.PROGRAM_HOOK,
        flags=FLAGS,
    )


def ain_network(name: str, config: Mapping[str, Any], bandages: Mapping[str, Any]) -> Network:
    """One of AI Network's chains, from its `blockchain_params` and `timer_flags` and the writes that flags bring."""
    parameters: dict[str, Any] = config["blockchain_params"]
    flags: list[TimerFlag] = []
    for flag, terms in config["timer_flags"].items():
        writes: list[tuple[tuple[str, ...], Any]] = []
        if terms.get("has_bandage"):
            writes = [(tuple(bandage["path"]), bandage["value"]) for bandage in bandages[flag]]
        enabled_block = terms.get("enabled_block")
        if enabled_block is not None:
            flags.append(TimerFlag(flag, enabled_block, terms.get("disabled_block"), tuple(writes)))
    return Network(
        name=name,
        profile=AIN,
        chain_id=parameters["genesis"]["chain_id"],
        parameters=parameters,
        kernel_natives=AIN_NATIVES,
        flags=tuple(flags),
    )


def begin(document: Any, tree: Tree) -> Machine:
    """A new chain: the genesis state in an empty tree, and a machine that stands at block 0."""
    genesis = read_genesis(document)
    network = network_of(genesis)
    block = genesis_block(
        genesis,
        tree,
        genesis_values(genesis),
        genesis_rules(),
        genesis_functions(),
        genesis_owners(genesis),
        validators_of(genesis),
    )
    return Machine(network, tree, block, block["hash"])


def resume(
    document: Any,
    tree: Tree,
    tip: Mapping[str, Any],
    genesis_hash: str,
    last_blocks: Iterable[Mapping[str, Any]] = (),
) -> Machine:
    """A chain that a store holds: its tree after the block `tip`, and the blocks of the replay window before it."""
    machine = Machine(network_of(read_genesis(document)), tree, tip, genesis_hash)
    machine.recall(last_blocks)
    return machine


def genesis_parameters(document: GenesisDocument) -> dict[str, Any]:
    """All parameters of a network; they are copied into its first state."""
    identity = {
        "genesis": {
            "network": document.network,
            "chain_id": document.chain_id,
            "network_id": document.chain_id,
            "genesis_addr": document.producer,
            "genesis_timestamp": document.timestamp_ms,
        }
    }
    return merged_parameters(PARAMETERS, market.MARKET_PARAMETERS, identity, document.parameters)


def genesis_values(document: GenesisDocument) -> dict[str, Any]:
    """The first values but for the balances."""
    return {
        "blockchain_params": genesis_parameters(document),
        "consensus": {"validators": validators_of(document)},
        "manage_app": {"consensus": {"config": {"admin": {document.producer: True}}}},
    }


def genesis_rules() -> dict[str, Any]:
    """The first rules."""
    configs: dict[str, Any] = {path: {"write": write} for path, write in WRITE_RULES.items()}
    for path, state in STATE_RULES.items():
        configs.setdefault(path, {})["state"] = state
    return config_tree(configs, ".rule")


def genesis_functions() -> dict[str, Any]:
    """The first functions."""
    configs = {
        path: {name: {"function_type": "NATIVE", "function_id": name}} for path, name in FUNCTIONS.items()
    }
    return config_tree(configs, ".function")


def genesis_owners(document: GenesisDocument) -> dict[str, Any]:
    """The first owners: the administrator everywhere, and whoever makes an app below /apps."""
    root = {"owners": {document.producer: _ALL_PERMISSIONS, "*": _NO_PERMISSIONS}}
    return config_tree({"/": root, "/apps": {"owners": {"fid:_createApp": _APP_MAKER}}}, ".owner")


def validators_of(document: GenesisDocument) -> dict[str, Any]:
    """Who makes blocks, in the form of AI Network's headers."""
    return {document.producer: {"stake": 1, "proposal_right": True}}
