"""A node's configuration from AI Network's environment variables and configuration files."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from openresource.node.ain.configurations import configuration_of
from openresource.node.ain.settings import (
    AccountMissing,
    AccountUnusable,
    AinSettings,
    ConfigurationMissing,
    ConfigurationUnreadable,
    PortInvalid,
    SyncModeUnknown,
)
from tests.vectors_support import load_vectors

ACCOUNTS = load_vectors("ain/genesis/test_accounts.json")["others"]
KEY = {"UNSAFE_PRIVATE_KEY": ACCOUNTS[0]["private_key"]}


def write_genesis(block: Any, path: Path) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump(block, file)


def settings(folder: Path, **environment: str) -> AinSettings:
    return AinSettings.from_environment({**KEY, **environment}, folder)


@pytest.mark.parametrize("name", ["base", "1-node", "2-nodes", "3-nodes"])
def test_built_in_configurations_begin_with_the_known_genesis_block(tmp_path: Path, name: str) -> None:
    made = settings(tmp_path, BLOCKCHAIN_CONFIGS_DIR=f"blockchain-configs/{name}")
    known = load_vectors(f"ain/genesis/{name}.genesis_block.json")
    assert made.genesis["hash"] == known["hash"]
    assert made.network.name == name


def test_without_a_directory_the_base_configuration_is_taken(tmp_path: Path) -> None:
    made = settings(tmp_path)
    assert made.network.name == "base"
    assert (made.port, made.p2p_port, made.event_port) == (8080, 5000, 5100)
    assert made.key is not None and made.key.address == ACCOUNTS[0]["address"]
    assert made.hosts == ("127.0.0.1", "::1")


def test_data_lies_below_the_working_directory_by_port(tmp_path: Path) -> None:
    made = settings(tmp_path, PORT="9001")
    assert made.chain_directory == tmp_path / "ain_blockchain_data" / "chains" / "9001"
    elsewhere = settings(tmp_path, PORT="9001", BLOCKCHAIN_DATA_DIR="/var/ain")
    assert elsewhere.snapshot_directory == Path("/var/ain/snapshots/9001")


def test_limits_of_the_pool_come_from_the_environment(tmp_path: Path) -> None:
    made = settings(
        tmp_path,
        TX_POOL_SIZE_LIMIT="50",
        TX_POOL_SIZE_LIMIT_PER_ACCOUNT="20",
        FREE_TX_POOL_SIZE_LIMIT_RATIO="0.5",
        FREE_TX_POOL_SIZE_LIMIT_RATIO_PER_ACCOUNT="0.25",
    )
    limits = made.pool_limits
    assert (limits.size, limits.size_per_account) == (50, 20)
    assert (limits.free_size, limits.free_size_per_account) == (25, 5)


def test_files_of_a_directory_win_over_those_of_base_beside_it(tmp_path: Path) -> None:
    own, base = tmp_path / "configs" / "mine", tmp_path / "configs" / "base"
    own.mkdir(parents=True)
    base.mkdir()
    parameters = copy.deepcopy(configuration_of("1-node")["blockchain_params"])
    parameters["genesis"]["epoch_ms"] = 123
    (own / "blockchain_params.json").write_text(json.dumps(parameters))
    (base / "node_params.json").write_text(json.dumps({"GET_OP_LIST_SIZE_LIMIT": 7}))
    made = settings(tmp_path, BLOCKCHAIN_CONFIGS_DIR="configs/mine")
    assert made.network.configured("genesis", "epoch_ms") == 123
    assert made.parameters.number("GET_OP_LIST_SIZE_LIMIT") == 7
    assert (
        settings(
            tmp_path, BLOCKCHAIN_CONFIGS_DIR="configs/mine", GET_OP_LIST_SIZE_LIMIT="9"
        ).parameters.number("GET_OP_LIST_SIZE_LIMIT")
        == 9
    )


def test_a_genesis_block_file_is_taken_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "net"
    directory.mkdir()
    known = load_vectors("ain/genesis/mainnet-prod.genesis_block.json")
    write_genesis(known, directory / "genesis_block.json.gz")
    made = settings(tmp_path, BLOCKCHAIN_CONFIGS_DIR="net")
    assert made.genesis["hash"] == known["hash"]


def test_flags_up_to_a_block_can_be_brought_forward(tmp_path: Path) -> None:
    late = settings(tmp_path, BLOCKCHAIN_CONFIGS_DIR="net", **_public_network(tmp_path))
    early = settings(
        tmp_path,
        BLOCKCHAIN_CONFIGS_DIR="net",
        TIMER_FLAG_EARLY_APPLIED_BLOCK_NUMBER="50000",
        **_public_network(tmp_path),
    )
    assert late.network.enabled_block("create_app_config_sanitization") == 44600
    assert early.network.enabled_block("create_app_config_sanitization") == 2
    assert early.network.enabled_block("update_tx_bytes_limit") == 3940700


def _public_network(folder: Path) -> dict[str, str]:
    directory = folder / "net"
    directory.mkdir(exist_ok=True)
    for name in ("blockchain_params", "timer_flags"):
        (directory / f"{name}.json").write_text(json.dumps(configuration_of("mainnet-prod")[name]))
    write_genesis(
        load_vectors("ain/genesis/mainnet-prod.genesis_block.json"), directory / "genesis_block.json.gz"
    )
    return {}


@pytest.mark.parametrize("option", ["keystore", "mnemonic", "private_key"])
def test_a_key_may_be_injected_later(tmp_path: Path, option: str) -> None:
    made = AinSettings.from_environment({"ACCOUNT_INJECTION_OPTION": option}, tmp_path)
    assert made.key is None


@pytest.mark.parametrize(
    ("environment", "refusal"),
    [
        ({}, AccountMissing),
        ({"ACCOUNT_INJECTION_OPTION": "telepathy"}, AccountMissing),
        ({"UNSAFE_PRIVATE_KEY": "12"}, AccountUnusable),
        ({"UNSAFE_PRIVATE_KEY": "zz" * 32}, AccountUnusable),
        ({**KEY, "BLOCKCHAIN_CONFIGS_DIR": "nowhere"}, ConfigurationMissing),
        ({**KEY, "BLOCKCHAIN_CONFIGS_DIR": "mainnet-prod"}, ConfigurationUnreadable),
        ({**KEY, "PORT": "70000"}, PortInvalid),
        ({**KEY, "PORT": "0"}, PortInvalid),
        ({**KEY, "SYNC_MODE": "slow"}, SyncModeUnknown),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    tmp_path: Path, environment: dict[str, str], refusal: type[Any]
) -> None:
    with pytest.raises(refusal) as refused:
        AinSettings.from_environment(environment, tmp_path)
    assert refused.value.remedy
    assert KEY["UNSAFE_PRIVATE_KEY"] not in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[]", '"text"', "[" * 100_000])
def test_unreadable_files_are_named(tmp_path: Path, content: str) -> None:
    directory = tmp_path / "net"
    directory.mkdir()
    (directory / "blockchain_params.json").write_text(content)
    with pytest.raises(ConfigurationUnreadable, match="blockchain_params"):
        settings(tmp_path, BLOCKCHAIN_CONFIGS_DIR="net")


def test_a_key_of_digits_alone_is_not_read_as_a_number(tmp_path: Path) -> None:
    digits = "1234567890" * 6 + "1234"
    made = AinSettings.from_environment({"UNSAFE_PRIVATE_KEY": digits}, tmp_path)
    assert made.key is not None and made.key.to_bytes().hex() == digits
