"""The whole configuration of a node that stands where AI Network's stands, from environment variables.

Variables have AI Network's names. The network comes from a directory of configuration files, with the files of the
directory `base` beside it standing in for missing ones; where there is no such directory, its name may be that of a
configuration that is built in. Paths are relative to the working directory.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from openresource import protocol
from openresource.ledger.ain_genesis import GenesisAccounts, GenesisTrees, ain_genesis_block
from openresource.ledger.blocks import parse_block
from openresource.ledger.profile import Network, TimerFlag
from openresource.node.ain.configurations import bandages, configuration_of, network_names
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.pool import PoolLimits
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.primitives.numbers import is_integer_text

BASE: Final = "base"
CONFIG_BYTES_MAX: Final = 50_000_000
# How a node comes to its state: from its newest snapshot, from a peer's if it has no blocks, or by every block.
SYNC_MODES: Final = ("fast", "peer", "full")
FROM_PEER: Final = "peer"
FROM_ALL_BLOCKS: Final = "full"
INJECTION_OPTIONS: Final = ("keystore", "mnemonic", "private_key")
LOOPBACK: Final = ("127.0.0.1", "::1")
ANYWHERE: Final = ("0.0.0.0", "::")
# Changes that are brought forward come into force at the first block at which they can.
EARLIEST_FLAG_BLOCK: Final = 2


class ConfigurationMissing(Refusal):
    template = "There is no configuration directory {directory}, and none named {name} is built in."
    way_out = "Set BLOCKCHAIN_CONFIGS_DIR to a directory that exists, or to one of these names: {known}."


class ConfigurationUnreadable(Refusal):
    template = "The configuration file {file} cannot be used: {reason}."
    way_out = "Repair the file, or remove it so that the one of the base configuration stands in for it."


class AccountMissing(Refusal):
    template = "The node has neither a key nor a way to be given one."
    way_out = "Set UNSAFE_PRIVATE_KEY, or ACCOUNT_INJECTION_OPTION to keystore, mnemonic or private_key."


class AccountUnusable(Refusal):
    template = "UNSAFE_PRIVATE_KEY is not a private key."
    way_out = "Set it to the 64 hexadecimal digits of a key."


class PortInvalid(Refusal):
    template = "{name} is {value}, which is not a port."
    way_out = "Set it to a number from 1 to 65535."


class SyncModeUnknown(Refusal):
    template = "SYNC_MODE is {value}, which is none of the ways to come to a state."
    way_out = "Set it to fast, peer or full, or leave it out: then it is fast."


@dataclass(frozen=True, slots=True)
class AinSettings:
    """Everything that a node is told before it starts."""

    parameters: NodeParameters
    network: Network
    genesis: dict[str, Any]
    # As the configuration has them, the ones that were brought forward included at their own blocks.
    timer_flags: dict[str, Any]
    key: PrivateKey | None
    data_directory: Path
    port: int
    p2p_port: int
    event_port: int
    # What this node's account should have at stake as a validator; more is staked when it starts.
    stake: float

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], working_directory: Path | None = None
    ) -> AinSettings:
        """Reads the environment and the files that it names."""
        here = working_directory or Path.cwd()
        configuration = _Configuration(environment.get("BLOCKCHAIN_CONFIGS_DIR", ""), here)
        node_parameters = configuration.document("node_params.json")
        parameters = NodeParameters.from_environment(environment, node_parameters)
        chain_parameters = configuration.document("blockchain_params.json")
        flags = configuration.document("timer_flags.json")
        assert chain_parameters is not None and flags is not None, "the base configuration has both"
        described = {"blockchain_params": chain_parameters, "timer_flags": flags}
        early = environment.get("TIMER_FLAG_EARLY_APPLIED_BLOCK_NUMBER", "")
        network = _with_early_flags(
            protocol.ain_network(configuration.name, described, bandages()),
            int(early) if is_integer_text(early) and len(early) < 16 else None,
        )
        stake = environment.get("STAKE", "")
        # A script that hands on a variable which nobody has set leaves it empty.
        if parameters.get("SYNC_MODE") not in (*SYNC_MODES, ""):
            raise SyncModeUnknown(value=str(parameters.get("SYNC_MODE"))[:40])
        return cls(
            parameters=parameters,
            network=network,
            genesis=configuration.genesis(network),
            timer_flags=dict(flags),
            key=_key_of(parameters),
            data_directory=here / parameters.text("BLOCKCHAIN_DATA_DIR"),
            port=_port(parameters, "PORT"),
            p2p_port=_port(parameters, "P2P_PORT"),
            event_port=_port(parameters, "EVENT_HANDLER_PORT"),
            stake=float(stake) if is_integer_text(stake) and len(stake) < 16 else 0.0,
        )

    @property
    def is_local(self) -> bool:
        """Whether several nodes share this machine and nobody else is to reach them."""
        return self.parameters.text("HOSTING_ENV") == "local"

    @property
    def sync_mode(self) -> str:
        """One of SYNC_MODES, as it was when the node started."""
        return self.parameters.text("SYNC_MODE")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses at which the node listens."""
        return LOOPBACK if self.is_local else ANYWHERE

    @property
    def chain_directory(self) -> Path:
        """Where this node's blocks lie; nodes of several ports share the data directory."""
        return self.data_directory / "chains" / str(self.port)

    @property
    def snapshot_directory(self) -> Path:
        """Where this node's snapshots of the state lie."""
        return self.data_directory / "snapshots" / str(self.port)

    @property
    def pool_limits(self) -> PoolLimits:
        """The room of the pool."""
        number = self.parameters.number
        return PoolLimits(
            int(number("TX_POOL_SIZE_LIMIT")),
            int(number("TX_POOL_SIZE_LIMIT_PER_ACCOUNT")),
            float(number("FREE_TX_POOL_SIZE_LIMIT_RATIO")),
            float(number("FREE_TX_POOL_SIZE_LIMIT_RATIO_PER_ACCOUNT")),
            int(number("TX_POOL_TIMEOUT_MS")),
            int(number("TX_TRACKER_TIMEOUT_MS")),
        )


class _Configuration:
    """The files of one configuration, in a directory or built in."""

    def __init__(self, named: str, here: Path) -> None:
        self._directory: Path | None = None
        self._base: Path | None = None
        directory = (here / named).resolve() if named else None
        if directory is not None and directory.is_dir():
            self._directory = directory
            base = directory.parent / BASE
            self._base = base if base.is_dir() else None
            self.name = directory.name
            return
        self.name = Path(named).name if named else BASE
        if self.name not in network_names():
            raise ConfigurationMissing(
                directory=str(directory), name=self.name, known=", ".join(network_names())
            )

    def document(self, name: str) -> dict[str, Any] | None:
        """One of its files: its own, that of the base configuration, or what is built in."""
        for directory in (self._directory, self._base):
            if directory is not None and (directory / name).is_file():
                return _read(directory / name)
        built_in = configuration_of(self.name if self._directory is None else BASE)
        found: dict[str, Any] | None = built_in.get(name.removesuffix(".json"))
        return found

    def genesis(self, network: Network) -> dict[str, Any]:
        """The genesis block: as a file, or made from the accounts and trees of the configuration."""
        if self._directory is not None:
            for name in ("genesis_block.json.gz", "genesis_block.json"):
                if (self._directory / name).is_file():
                    return _read_block(self._directory / name)
        local = local_genesis()
        accounts = self._tree("genesis_accounts.json", local["accounts"])
        trees = GenesisTrees(
            self._tree("genesis_functions.json", local["functions"]),
            self._tree("genesis_rules.json", local["rules"]),
            self._tree("genesis_owners.json", local["owners"]),
        )
        if "genesis_hash" in (configuration_of(self.name) if self._directory is None else {}):
            raise ConfigurationUnreadable(
                file="genesis_block.json.gz",
                reason=f"the first block of {self.name} is not built in",
                remedy="Set BLOCKCHAIN_CONFIGS_DIR to a directory that holds the network's genesis_block.json.gz.",
            )
        return ain_genesis_block(network, genesis_accounts(accounts), trees)

    def _tree(self, name: str, otherwise: dict[str, Any]) -> dict[str, Any]:
        for directory in (self._directory, self._base):
            if directory is not None and (directory / name).is_file():
                return _read(directory / name)
        return otherwise


@cache
def local_genesis() -> dict[str, Any]:
    """The first rules, functions, owners and accounts of local networks, whose keys everybody knows."""
    text = files("openresource.node.ain").joinpath("data", "local_genesis.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def genesis_accounts(document: Mapping[str, Any]) -> GenesisAccounts:
    """Owner and first accounts of a `genesis_accounts.json`."""
    try:
        owner = PrivateKey(bytes.fromhex(document["owner"]["private_key"]))
        others = [
            (PrivateKey(bytes.fromhex(account["private_key"])), account["balance"])
            for account in document["others"]
        ]
    except (KeyError, TypeError, ValueError, Refusal):
        raise ConfigurationUnreadable(
            file="genesis_accounts.json", reason="it lacks an owner or others with private keys and balances"
        ) from None
    return GenesisAccounts(owner, others)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            # Bounded: a small file may stand for very many bytes.
            raw = zlib.decompressobj(wbits=31).decompress(raw, CONFIG_BYTES_MAX)
        document = json.loads(raw[:CONFIG_BYTES_MAX])
    except (OSError, ValueError, zlib.error, RecursionError) as error:
        raise ConfigurationUnreadable(file=str(path), reason=f"it is no readable JSON ({error})") from None
    if not isinstance(document, dict):
        raise ConfigurationUnreadable(file=str(path), reason="it is not an object")
    return document


def _read_block(path: Path) -> dict[str, Any]:
    document = _read(path)
    try:
        return parse_block(document)
    except Refusal as refusal:
        raise ConfigurationUnreadable(file=str(path), reason=refusal.message) from None


def _with_early_flags(network: Network, early_until: int | None) -> Network:
    if early_until is None:
        return network

    def moved(block: int | None) -> int | None:
        return EARLIEST_FLAG_BLOCK if block is not None and block <= early_until else block

    flags = tuple(
        TimerFlag(flag.name, moved(flag.enabled_block) or 0, moved(flag.disabled_block), flag.bandages)
        for flag in network.flags
    )
    return Network(
        name=network.name,
        profile=network.profile,
        chain_id=network.chain_id,
        parameters=network.parameters,
        kernel_natives=network.kernel_natives,
        flags=flags,
    )


def _key_of(parameters: NodeParameters) -> PrivateKey | None:
    option = parameters.get("ACCOUNT_INJECTION_OPTION")
    if option in INJECTION_OPTIONS:
        return None
    # Digits alone read as a number, which would lose most of them: the text as it was given counts.
    text = parameters.environment.get("UNSAFE_PRIVATE_KEY") or parameters.text("UNSAFE_PRIVATE_KEY")
    if not text:
        raise AccountMissing()
    try:
        return PrivateKey(bytes.fromhex(text.removeprefix("0x")))
    except (ValueError, Refusal):
        raise AccountUnusable() from None


def _port(parameters: NodeParameters, name: str) -> int:
    value = parameters.number(name)
    if not isinstance(value, int) or not 0 < value < 65536:
        raise PortInvalid(name=name, value=value)
    return value
