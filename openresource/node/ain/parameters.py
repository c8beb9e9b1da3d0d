"""The parameters of an AI Network node: their names, what they are by default, and what they are now.

An environment variable of the same name replaces a default when the node starts; the owner of the node's account may
change them while it runs. Texts become what the default is: a flag, a number, a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from openresource.primitives.numbers import is_decimal_text, is_integer_text, is_number

WILDCARD: Final = "*"
# Never shown to anybody, whoever asks.
SECRET_NAMES: Final = frozenset(("UNSAFE_PRIVATE_KEY",))
# Variables that are no parameters and are shown with them.
SHOWN_BESIDE: Final = ("STAKE",)
# A habit of AI Network's node that its clients can see: what was a number shows as a text once it was set at run
# time. It is used as the number that it says all the same.
SHOWS_SET_NUMBERS_AS_TEXT: Final = True

DEFAULTS: Final[Mapping[str, Any]] = {
    "ACCOUNT_INJECTION_OPTION": None,
    "BLOCKCHAIN_CONFIGS_DIR": "blockchain-configs/base",
    "BLOCKCHAIN_DATA_DIR": "./ain_blockchain_data",
    "BLOCKCHAIN_GUIDE_URL": "https://docs.ainetwork.ai",
    "CHAIN_SEGMENT_LENGTH": 20,
    "CHAIN_SEGMENT_SLEEP_MS": 10000,
    "CHAINS_H2N_HASH_PREFIX_LENGTH": 5,
    "CHAINS_N2B_MAX_NUM_FILES": 100000,
    "CONSOLE_LOG": False,
    "CORS_WHITELIST": (
        "https://ainetwork\\.ai",
        "https://ainize\\.ai",
        "https://afan\\.ai",
        "\\.ainetwork\\.ai$",
        "\\.ainize\\.ai$",
        "\\.afan\\.ai$",
        "http://localhost:3000",
    ),
    "DEBUG": False,
    "DEV_CLIENT_API_IP_WHITELIST": WILDCARD,
    "DEFAULT_AXIOS_REQUEST_TIMEOUT": 20000,
    "ENABLE_DEV_CLIENT_SET_API": True,
    "ENABLE_EARLY_TX_SIG_VERIF": True,
    "ENABLE_EVENT_HANDLER": False,
    "ENABLE_EXPRESS_RATE_LIMIT": True,
    "ENABLE_GAS_FEE_WORKAROUND": True,
    "ENABLE_JSON_RPC_API": True,
    "ENABLE_REST_FUNCTION_CALL": False,
    "ENABLE_STATUS_REPORT_TO_TRACKER": True,
    "ENABLE_TX_SIG_VERIF_WORKAROUND": False,
    "EVENT_HANDLER_CHANNEL_IDLE_CHECK_INTERVAL_MS": 10000,
    "EVENT_HANDLER_CHANNEL_IDLE_TIME_LIMIT_SECS": 600,
    "EVENT_HANDLER_CHANNEL_LIFE_TIME_LIMIT_SECS": 3600,
    "EVENT_HANDLER_FILTER_DELETION_TIMEOUT_MS": 100000,
    "EVENT_HANDLER_HEARTBEAT_INTERVAL_MS": 15000,
    "EVENT_HANDLER_MAX_CUSTOM_CLIENT_ID_LENGTH": 100,
    "EVENT_HANDLER_PORT": 5100,
    "EXPRESS_RATE_LIMIT_WINDOW_SECS": 60,
    "FREE_TX_POOL_SIZE_LIMIT_RATIO": 0.1,
    "FREE_TX_POOL_SIZE_LIMIT_RATIO_PER_ACCOUNT": 0.1,
    "GET_OP_LIST_SIZE_LIMIT": 50,
    "GET_RESP_BYTES_LIMIT": 20000000,
    "GET_RESP_MAX_SIBLINGS": 20000,
    "HOSTING_ENV": "local",
    "LIGHTWEIGHT": False,
    "MAX_BLOCKCHAIN_API_RATE_LIMIT": 20,
    "MAX_FINALIZED_BLOCK_INFO_ON_MEM": 1000,
    "MAX_JSON_RPC_API_READ_RATE_LIMIT": 10,
    "MAX_JSON_RPC_API_WRITE_RATE_LIMIT": 1,
    "MAX_NUM_EVENT_CHANNELS": 30,
    "MAX_NUM_EVENT_FILTERS": 40,
    "MAX_NUM_EVENT_FILTERS_PER_CHANNEL": 5,
    "MAX_NUM_INBOUND_CONNECTION": 6,
    "MAX_NUM_SNAPSHOTS": 10,
    "OLD_CHAIN_SEGMENT_LENGTH": 20,
    "OLD_CHAIN_SEGMENT_SLEEP_MS": 10000,
    "ON_MEMORY_CHAIN_LENGTH": 10,
    "P2P_HEARTBEAT_INTERVAL_MS": 15000,
    "P2P_MESSAGE_TIMEOUT_MS": 600000,
    "P2P_PORT": 5000,
    "P2P_WAIT_FOR_ADDRESS_TIMEOUT_MS": 10000,
    "PEER_CANDIDATE_JSON_RPC_URL": "http://localhost:8081/json-rpc",
    "PEER_CANDIDATES_CONNECTION_INTERVAL_MS": 20000,
    "PEER_CANDIDATE_RETRY_THRESHOLD_MS": 300000,
    "PEER_REORG_MIN_OUTBOUND": 3,
    "PEER_REORG_STEADY_INTERVAL_COUNT": 15,
    "PEER_WHITELIST": WILDCARD,
    "PORT": 8080,
    "REST_FUNCTION_CALL_TIMEOUT_MS": 10000,
    "REQUEST_BODY_SIZE_LIMIT": "100kb",
    "SEND_SNAPSHOT_CHUNK_SLEEP_TIME_MS": 1000,
    "SNAPSHOTS_INTERVAL_BLOCK_NUMBER": 1000,
    "SYNC_MODE": "fast",
    "TARGET_NUM_OUTBOUND_CONNECTION": 3,
    "TRACKER_UPDATE_JSON_RPC_URL": "http://localhost:8080/json-rpc",
    "TRACKER_UPDATE_INTERVAL_MS": 15000,
    "TRAFFIC_DB_INTERVAL_MS": 60000,
    "TRAFFIC_DB_MAX_INTERVALS": 60,
    "TRAFFIC_STATS_PERIOD_SECS_LIST": {"1m": 60, "5m": 300, "1h": 3600},
    "TX_POOL_SIZE_LIMIT": 1000,
    "TX_POOL_SIZE_LIMIT_PER_ACCOUNT": 100,
    "TX_POOL_TIMEOUT_MS": 3600000,
    "TX_TRACKER_TIMEOUT_MS": 86400000,
    "UNSAFE_PRIVATE_KEY": "",
    "UPDATE_NEW_FINAL_FRONT_DB_WITH_TX_POOL": True,
}


# Whole numbers up to this many digits and decimals as long are read as numbers; longer texts stay texts.
_NUMBER_CHARACTERS_MAX = 40
_WHITELIST_ITEMS_MAX = 10_000


class NodeParameters:
    """What every parameter of one node is now; texts of the environment, as they were given, are kept beside."""

    def __init__(self, values: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._values = {name: _copied(value) for name, value in values.items()}
        self.environment = dict(environment)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], network: Mapping[str, Any] | None = None
    ) -> NodeParameters:
        """Defaults, then what a network's own file says, then the environment."""
        values = {**DEFAULTS, **(network or {})}
        given = {name: environment[name] for name in values if name in environment}
        for name, text in given.items():
            values[name] = parsed(values[name], text)
        beside = {name: environment[name] for name in SHOWN_BESIDE if name in environment}
        return cls(values, {**given, **beside})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._values

    def get(self, name: str) -> Any:
        """A parameter as it is shown; a KeyError for one that does not exist."""
        return self._values[name]

    def set(self, name: str, value: Any) -> None:
        """Change a parameter that exists."""
        self._values[name] = value

    def number(self, name: str) -> int | float:
        """A parameter that counts something; a text that is no number counts as the default."""
        value = self._values[name]
        if type(value) is int:
            return value
        if isinstance(value, str) and _is_number_text(value):
            return _number(value)
        if is_number(value):
            return int(value) if float(value).is_integer() else float(value)
        default = DEFAULTS[name]
        assert is_number(default), f"{name} counts nothing"
        return int(default) if float(default).is_integer() else float(default)

    def flag(self, name: str) -> bool:
        """A parameter that is on or off."""
        return self._values[name] is True

    def text(self, name: str) -> str:
        """A parameter that is a text; empty if it is none."""
        value = self._values[name]
        return value if isinstance(value, str) else ""

    def whitelist(self, name: str) -> Sequence[str] | None:
        """The members of a list; None if it lets everybody in."""
        value = self._values[name]
        if value == WILDCARD:
            return None
        return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

    def shown(self) -> dict[str, Any]:
        """Every parameter, without secrets."""
        return {name: hidden(name, value) for name, value in self._values.items()}

    def environment_shown(self) -> dict[str, str]:
        """The texts of the environment, without secrets."""
        return {name: hidden(name, text) for name, text in self.environment.items()}


def parsed(default: Any, text: str) -> Any:
    """What a text of the environment means for a parameter with this default."""
    if isinstance(default, bool):
        return text.lower().startswith("t")
    if _is_number_text(text):
        return _number(text)
    return whitelist_of(text) if isinstance(default, list | tuple) or default == WILDCARD else text


def changed(now: Any, text: str) -> Any:
    """What a text given at run time makes of a parameter that is `now` something."""
    if isinstance(now, bool):
        return text.lower().startswith("t")
    if isinstance(now, str) and _is_number_text(now):
        return text if SHOWS_SET_NUMBERS_AS_TEXT or not _is_number_text(text) else _number(text)
    if is_number(now):
        return text if SHOWS_SET_NUMBERS_AS_TEXT or not _is_number_text(text) else _number(text)
    return whitelist_of(text) if isinstance(now, list) or now == WILDCARD else text


def whitelist_of(text: str) -> Any:
    """The list that a text with commas stands for; an asterisk stays one."""
    return text if text == WILDCARD else text.split(",", _WHITELIST_ITEMS_MAX)


def hidden(name: str, value: Any) -> Any:
    """A value, unless it is a secret: then as many asterisks as say that there is one."""
    return "***" if name in SECRET_NAMES and value else value


def _is_number_text(text: str) -> bool:
    return len(text) <= _NUMBER_CHARACTERS_MAX and (is_integer_text(text) or is_decimal_text(text))


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value


def _copied(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return list(value)
    return dict(value) if isinstance(value, dict) else value
