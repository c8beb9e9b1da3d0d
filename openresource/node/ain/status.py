"""What a node tells about itself: its versions, its blocks and state, its machine, its whole configuration.

Keys are never part of it: where one is set there are asterisks.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from openresource.ledger.nodes import Branch
from openresource.ledger.proofs import state_proof
from openresource.ledger.reads import state_info
from openresource.ledger.views import View
from openresource.node.ain.chain import NODE_STATES, SERVING
from openresource.node.ain.protocol_versions import (
    COMPATIBLE_MIN_PROTOCOL_VERSION,
    CONSENSUS_PROTOCOL_VERSION,
    DATA_PROTOCOL_VERSION,
    PROTOCOL_VERSION_MAP,
)
from openresource.node.ain.served import Facts, ServedNode
from openresource.node.rpc import PROTOCOL_VERSION
from openresource.primitives.numbers import number_text
from openresource.primitives.paths import VALUES, decode_label, parse_path

# Switches that AI Network's node has in its source; this is how ours behaves.
DEV_FLAGS: Final = {
    "enableRichFunctionLogging": False,
    "enableRichTransactionLogging": False,
    "enableRichP2pCommunicationLogging": False,
    "enableRichTxSelectionLogging": False,
    "enableStateTreeTransfer": False,
    "enableTrafficMonitoring": True,
    "enableWinstonLogger": False,
    "enableP2pMessageTagsChecking": False,
    "enableGasFeeCollection": True,
    "enableGasFeeDistribution": True,
    "enableGetStateFreeTierUsageOptimization": True,
    "enableTxBandwidthCheckPerBlock": True,
    "enableNetworkTopologyLoggingForUnhealthyConsensus": True,
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[A-Z]")
_START = time.monotonic()


class Status:
    """The status of one node, in the parts in which it is asked for."""

    def __init__(self, node: ServedNode) -> None:
        self._node = node

    def everything(self) -> Facts:
        """The answer of `/status`."""
        node, block = self._node, self.block()
        return {
            "address": self.address(),
            "updatedAt": node.now_ms(),
            "lastBlockNumber": block["number"],
            "networkStatus": node.network_status(),
            "blockStatus": block,
            "txStatus": {
                "txPoolSize": node.chain.pool.size,
                "freeTxPoolSize": node.chain.pool.free_size,
                "txTrackerSize": len(node.chain.pool.tracker),
            },
            "consensusStatus": {
                **node.consensus_status(),
                "longestNotarizedChainTipsSize": len(node.chain.consensus.longest_tips()),
            },
            "nodeStatus": self.node(),
            "clientStatus": self.client(),
            "shardingStatus": self.sharding(),
            "cpuStatus": _cpu(),
            "memoryStatus": _memory(),
            "diskStatus": _disk(),
            "runtimeInfo": _runtime(),
            "protocolInfo": self.protocol(),
            "config": self.config(),
            "chainSyncInProgress": None,
        }

    def metrics(self) -> str:
        """Every number of the status, a line each, as Prometheus reads it."""
        return "\n".join(f"{name} {value}" for name, value in _metric_lines(self.everything(), ()))

    def address(self) -> str | None:
        key = self._node.key
        return None if key is None else key.address

    def is_healthy(self) -> bool:
        """Whether the node serves and its consensus runs and moves."""
        consensus = self._node.consensus_status()
        return (
            self._node.chain.node_state == SERVING
            and consensus["state"] == "RUNNING"
            and consensus["health"] is True
        )

    def block(self) -> Facts:
        chain = self._node.chain
        time_ms = chain.final_time_ms
        is_first = time_ms == chain.parameter("genesis", "genesis_timestamp")
        return {
            "number": chain.final_number,
            "epoch": chain.final_block["epoch"],
            "timestamp": time_ms,
            "elapsedTimeMs": 0 if is_first else self._node.now_ms() - time_ms,
        }

    def node(self) -> Facts:
        """The answer of `/node_status`."""
        chain = self._node.chain
        view, version = View(chain.front.tree.root), f"NODE:{chain.final_number}"
        address = self.address()
        return {
            "health": self.is_healthy(),
            "address": address,
            "state": chain.node_state,
            "stateNumeric": NODE_STATES.index(chain.node_state),
            "nonce": None if address is None else view.get([VALUES, "accounts", address, "nonce"]) or 0,
            "dbStatus": {
                "rootStateInfo": state_info(view, [], version),
                "rootStateProof": state_proof(view, []),
                "numAccounts": _children(view, "accounts"),
                "numApps": _children(view, "manage_app"),
            },
            "stateVersionStatus": self.versions(),
            "eventHandlerStatus": self.events(),
        }

    def events(self) -> Facts:
        """What the event handler tells, or what there is to tell without one."""
        if self._node.events is not None:
            return self._node.events.status()
        get = self._node.parameters.get
        channels, filters = get("MAX_NUM_EVENT_CHANNELS"), get("MAX_NUM_EVENT_FILTERS")
        return {
            "isEnabled": False,
            "networkInfo": {
                "url": "",
                "maxNumEventChannels": channels,
                "numEventChannels": 0,
                "maxNumEventFilters": filters,
                "numEventFilters": 0,
            },
            "channelStatus": {
                "maxNumEventChannels": channels,
                "numEventChannels": 0,
                "channelLifeTimeLimitSecs": get("EVENT_HANDLER_CHANNEL_LIFE_TIME_LIMIT_SECS"),
                "channelIdleTimeLimitSecs": get("EVENT_HANDLER_CHANNEL_IDLE_TIME_LIMIT_SECS"),
                "maxChannelLifeTimeMs": 0,
                "maxChannelIdleTimeMs": 0,
                "channelInfo": {},
            },
            "filterStatus": {"maxNumEventFilters": filters, "numEventFilters": 0, "filterInfo": {}},
        }

    def versions(self) -> Facts:
        """The versions of the state that are kept: of blocks that are not final, the final one, and the front."""
        consensus, number = self._node.chain.consensus, self._node.chain.final_number
        pooled = [
            f"POOL:{entry.number - 1}:{entry.number}:{entry.block['timestamp']}:0"
            for entry in consensus.chain_to(consensus.tip())
        ]
        listed = ["EMPTY", f"FINAL:{number}", f"NODE:{number}", *pooled]
        return {"numVersions": len(listed), "versionList": listed, "finalVersion": f"FINAL:{number}"}

    def client(self) -> Facts:
        """The answer of `/client_status`."""
        periods = self._node.parameters.get("TRAFFIC_STATS_PERIOD_SECS_LIST")
        stats = self._node.traffic.stats(periods if isinstance(periods, dict) else {}, self._node.now_ms())
        return {"trafficStats": stats}

    def protocol(self) -> Facts:
        return {
            "CURRENT_PROTOCOL_VERSION": PROTOCOL_VERSION,
            "COMPATIBLE_MIN_PROTOCOL_VERSION": COMPATIBLE_MIN_PROTOCOL_VERSION,
            "DATA_PROTOCOL_VERSION": DATA_PROTOCOL_VERSION,
            "CONSENSUS_PROTOCOL_VERSION": CONSENSUS_PROTOCOL_VERSION,
        }

    def sharding(self) -> Facts:
        """The shards of this chain, and how far each has reported."""
        front = self._node.chain.front
        shards = front.get([VALUES, "sharding", "shard"])
        told: Facts = {}
        for name in shards if isinstance(shards, dict) else {}:
            below = [VALUES, *parse_path(decode_label(name)), ".shard"]
            told[name] = {
                part: front.get([*below, part]) for part in ("sharding_enabled", "latest_block_number")
            }
        return told

    def config(self) -> Facts:
        """The answer of `/get_config`, without secrets."""
        node = self._node
        chain, parameters = node.chain, node.parameters
        folder = Path(parameters.text("BLOCKCHAIN_DATA_DIR") or ".").resolve()
        configs = parameters.text("BLOCKCHAIN_CONFIGS_DIR")
        flags = node.timer_flags
        enabled = chain.network.enabled_at(chain.final_number)
        bandages: dict[str, list[str]] = {}
        for flag in chain.network.flags:
            if flag.bandages:
                bandages.setdefault(str(flag.enabled_block), []).append(flag.name)
        return {
            "blockchainParams": chain.final.get([VALUES, "blockchain_params"]) or {},
            "env": parameters.environment_shown(),
            "devFlags": DEV_FLAGS,
            "blockchainConsts": {
                "BASE_BLOCKCHAIN_CONFIGS_DIR": "blockchain-configs/base",
                "CURRENT_PROTOCOL_VERSION": PROTOCOL_VERSION,
                "PROTOCOL_VERSIONS": "client/protocol_versions.json",
                "DATA_PROTOCOL_VERSION": DATA_PROTOCOL_VERSION,
                "CONSENSUS_PROTOCOL_VERSION": CONSENSUS_PROTOCOL_VERSION,
                "CHAINS_N2B_DIR_NAME": "n2b",
                "CHAINS_H2N_DIR_NAME": "h2n",
                "SNAPSHOTS_N2S_DIR_NAME": "n2s",
                "SNAPSHOTS_N2C_DIR_NAME": "n2c",
                "DEBUG_SNAPSHOT_FILE_PREFIX": "debug_",
                "PROTOCOL_VERSION_MAP": PROTOCOL_VERSION_MAP,
            },
            "nodeConfigs": {
                **parameters.shown(),
                "GENESIS_BLOCK_DIR": str(Path(configs).resolve()),
                "LOGS_DIR": str(folder / "logs"),
                "CHAINS_DIR": str(folder / "chains"),
                "SNAPSHOTS_ROOT_DIR": str(folder / "snapshots"),
                "KEYS_ROOT_DIR": str(folder / "keys"),
            },
            "timerFlags": flags,
            "bandageMap": bandages,
            "timerFlagStatus": {
                "lastBlockNumber": chain.final_number,
                "flagStates": {name: name in enabled for name in flags},
                "numFlags": len(flags),
                "numEnabledFlags": sum(name in enabled for name in flags),
            },
        }


def metric_name(key: str) -> str:
    """A member's name as metrics call it: its words and numbers in small letters, joined by underscores."""
    return "_".join(word.lower() for word in _WORD.findall(key))


def _metric_lines(value: Any, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _metric_lines(member, (*names, metric_name(key)))
    elif isinstance(value, bool):
        yield ":".join(names), "1" if value else "0"
    elif isinstance(value, int | float):
        yield ":".join(names), number_text(value)


def _children(view: View, label: str) -> int | None:
    found = view.node([VALUES, label])
    return found.count if isinstance(found, Branch) else None


def _shares(free: float, total: float) -> Facts:
    used = total - free
    return {"free": free, "usage": used, "usagePercent": used / total * 100 if total else 0, "total": total}


def _cpu() -> Facts:
    """What the processors did since the machine started, in milliseconds."""
    try:
        words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    except OSError:
        return _shares(0, 0)
    times = [int(word) * 10 for word in words]
    return _shares(times[3] if len(times) > 3 else 0, sum(times))


def _memory() -> Facts:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    heap = {"rss": own, "heapTotal": own, "heapUsed": own, "external": 0, "arrayBuffers": 0}
    stats = dict.fromkeys(
        (
            "total_heap_size",
            "total_heap_size_executable",
            "total_physical_size",
            "total_available_size",
            "used_heap_size",
            "heap_size_limit",
            "malloced_memory",
            "peak_malloced_memory",
            "does_zap_garbage",
            "number_of_native_contexts",
            "number_of_detached_contexts",
            "total_global_handles_size",
            "used_global_handles_size",
            "external_memory",
        ),
        0,
    )
    stats.update(total_heap_size=own, used_heap_size=own, total_available_size=free, heap_size_limit=total)
    return {"os": _shares(free, total), "heap": heap, "heapStats": stats}


def _disk() -> Facts:
    usage = shutil.disk_usage("/")
    return {"available": usage.free, **_shares(usage.free, usage.total)}


def _runtime() -> Facts:
    uptime = int(time.monotonic())
    return {
        "process": {
            "version": f"python-{platform.python_version()}",
            "platform": sys.platform,
            "pid": os.getpid(),
            "uptime": int(time.monotonic() - _START),
            "v8Version": "",
        },
        "os": {
            "hostname": platform.node(),
            "type": platform.system(),
            "release": platform.release(),
            "uptime": uptime,
        },
    }
