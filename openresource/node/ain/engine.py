"""A node that stands where one of AI Network stands: its life, and what its doors, links and rounds ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from openresource.ledger.consensus_entries import Entry
from openresource.ledger.results import has_failed
from openresource.ledger.transactions import Transaction, sign_transaction, transaction_from_json
from openresource.node.ain.chain import (
    CHAIN_SYNCING,
    NODE_STATES,
    SERVING,
    STATE_SYNCING,
    STOPPED,
    AinChain,
    Listener,
    Snapshot,
    is_unsigned,
    proposal_of,
)
from openresource.node.ain.door import AinDoor
from openresource.node.ain.events import EventHandler
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.peers import Peers
from openresource.node.ain.rest import RestCalls
from openresource.node.ain.rounds import PROPOSE, RUNNING, Rounds
from openresource.node.ain.settings import FROM_ALL_BLOCKS, FROM_PEER, AinSettings
from openresource.node.ain.shards import ShardReporter, is_shard_reporter
from openresource.node.ain.standing import consensus_status, no_links, raw_consensus_status
from openresource.node.ain.state_sync import KINDS, StateSync
from openresource.node.ain.status import Status
from openresource.node.ain.storage import ChainStorage
from openresource.node.ain.submission import unsigned_transaction
from openresource.node.ain.tracker import report_to_tracker
from openresource.node.ain.traffic import Traffic
from openresource.node.ain.websocket import listening_sockets
from openresource.node.door import LOCAL_NAMES
from openresource.node.memory import collect_garbage_seldom
from openresource.node.server import Server
from openresource.node.service import run_in_loop
from openresource.node.signers import Signers
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.primitives.numbers import is_number

SEGMENT_ANSWER_SECONDS: Final = 10.0
SYNC_ROUND_SECONDS: Final = 0.2
# A first node that restarts gives the others this long to tell it what it has missed.
FIRST_NODE_WAIT_SECONDS: Final = 3.0
# At an orderly end the state is written down if this many blocks would have to be executed again.
LAST_SNAPSHOT_BLOCKS: Final = 20
LAST_SNAPSHOT_NODES_MAX: Final = 200_000
TRANSACTIONS_PER_MESSAGE_MAX: Final = 1_000
LOOPBACK_ADDRESS: Final = "127.0.0.1"

Facts = dict[str, Any]
_log = logging.getLogger("openresource.node.ain.engine")


class NodeFailed(Refusal):
    template = "The node stopped by itself: {reason}."
    way_out = "Read the log above; start it again, it goes on behind its last block."


class AinNode:
    """One node with one chain; everything happens on one event loop."""

    def __init__(self, settings: AinSettings, clock_ms: Callable[[], int] | None = None) -> None:
        self.settings = settings
        self.parameters: NodeParameters = settings.parameters
        self.traffic = Traffic()
        self.signers = Signers()
        self.key: PrivateKey | None = settings.key
        self.failure: BaseException | None = None
        self._clock_ms = clock_ms or _wall_clock_ms
        self._storage: ChainStorage | None = None
        self._chain: AinChain | None = None
        self._rounds: Rounds | None = None
        self._peers: Peers | None = None
        self._server: Server | None = None
        self._events: EventHandler | None = None
        self._rest: RestCalls | None = None
        self._shard: ShardReporter | None = None
        self._sync: StateSync | None = None
        self._stop_wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_at: float | None = None
        self._asked_last = ""
        self._address = _own_ip(settings.is_local)

    # -- facts ------------------------------------------------------------------------------------------------------

    @property
    def chain(self) -> AinChain:
        """The chain; only after `start`."""
        assert self._chain is not None, "the node has not been started"
        return self._chain

    @property
    def events(self) -> EventHandler | None:
        """The event handler; None on a node without one."""
        return self._events

    @property
    def timer_flags(self) -> Facts:
        """When changes of the protocol come into force, as the configuration has it."""
        return self.settings.timer_flags

    def now_ms(self) -> int:
        """The wall clock."""
        return self._clock_ms()

    def listen(self, listener: Listener) -> None:
        """From now on this listener is told what happens in the chain; REST functions are called beside."""
        rest = self._rest
        if rest is not None:
            listener = replace(listener, user_rest=rest.caller("USER"), block_rest=rest.caller("BLOCK"))
        self.chain.listen(listener)

    def network_id(self) -> int:
        """The network's number, which clients may ask for."""
        number = self.settings.network.configured("genesis", "network_id")
        return int(number) if is_number(number) else 0

    def chain_id(self) -> int:
        """What signatures on this network are made for."""
        return self.settings.network.chain_id

    def genesis_hash(self) -> str:
        """What distinguishes this network from others."""
        return str(self.settings.genesis["hash"])

    def urls(self) -> Facts:
        """Where this node can be reached."""
        settings = self.settings
        client, links = (
            f"http://{self._address}:{settings.port}/",
            f"ws://{self._address}:{settings.p2p_port}/",
        )
        return {
            "ip": self._address,
            "p2p": {"url": links, "port": settings.p2p_port},
            "clientApi": {"url": client, "port": settings.port},
            "jsonRpc": {"url": f"{client}json-rpc", "port": settings.port},
        }

    def network_status(self) -> Facts:
        """The addresses of this node and the state of its links."""
        links: Facts = no_links(self.parameters) if self._peers is None else self._peers.status()
        return {"urls": self.urls(), "connectionStatus": links}

    def peer_urls(self) -> dict[str, str]:
        """The doors of the peers to which this node has connected, by address."""
        return {} if self._peers is None else self._peers.json_rpc_urls()

    def consensus_status(self) -> Facts:
        """How the consensus stands."""
        return consensus_status(self._rounds, self.chain, self.key)

    def raw_consensus_status(self) -> Facts:
        """The consensus with all blocks that are not final."""
        return raw_consensus_status(self._rounds, self.chain)

    # -- writing ----------------------------------------------------------------------------------------------------

    def submit(self, transaction: Transaction, *, is_dry_run: bool = False) -> Facts:
        """Executes a verified transaction here, and passes it on to the peers unless it fails or is only tried."""
        result = self.chain.submit(transaction, self.now_ms(), is_dry_run=is_dry_run)
        if not is_dry_run and self._peers is not None and not has_failed(result, True):
            self._peers.say("TRANSACTION", [transaction.to_json()])
        return result

    def broadcast_consensus(self, message: Any) -> None:
        """Sends a message of the consensus to the peers as it is; this node itself does not take it."""
        if self._peers is not None:
            self._peers.say("CONSENSUS", message)

    def inject(self, key: PrivateKey) -> bool:
        """Takes a key as that of the node's account, and begins; False if there is one already."""
        if self.key is not None or self.chain.node_state != NODE_STATES[0]:
            return False
        self.key = key
        self._spawn(self._begin(key))
        return True

    # -- life -------------------------------------------------------------------------------------------------------

    def run(self, on_ready: Callable[[AinNode], None] | None = None) -> None:
        """Serves until SIGTERM or SIGINT; raises a refusal if the node cannot start or fails."""
        collect_garbage_seldom()
        run_in_loop(self._run_with_signals(on_ready))

    def request_stop(self) -> None:
        """Asks for an orderly end; call it from the loop's own thread."""
        self._stop_wanted.set()

    async def start(self) -> None:
        """Opens everything; when this returns the node answers, and looks for others if it has an account."""
        settings = self.settings
        is_open = self.parameters.whitelist("DEV_CLIENT_API_IP_WHITELIST") is None
        if is_open and not settings.is_local and self.parameters.flag("ENABLE_DEV_CLIENT_SET_API"):
            _log.warning(
                "whoever reaches port %d writes with this node's key: set ENABLE_DEV_CLIENT_SET_API=false, or list"
                " addresses in DEV_CLIENT_API_IP_WHITELIST",
                settings.port,
            )
        more = listening_sockets(settings.hosts[1:], settings.port, is_first_needed=False)
        self._server = Server(settings.hosts[0], settings.port, more)
        try:
            self._open_chain()
            if self.parameters.flag("ENABLE_REST_FUNCTION_CALL"):
                self._rest = RestCalls(self)
            self.listen(Listener())
            if self.parameters.flag("ENABLE_EVENT_HANDLER"):
                self._events = EventHandler(self, settings.hosts, settings.event_port)
                await self._events.start()
            door = AinDoor(self, LOCAL_NAMES if settings.is_local else None)
            await self._server.start(door.application, door.lane)
            if self.key is not None:
                await self._begin(self.key)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends links and rounds, and closes the chain's directory."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.signers.close()
        if self._peers is not None:
            await self._peers.stop()
        if self._events is not None:
            await self._events.stop()
        if self._rest is not None:
            await self._rest.stop()
        if self._shard is not None:
            await self._shard.close()
        if self._server is not None:
            await self._server.stop()
        if self._chain is not None:
            self._chain.node_state = STOPPED
            self._write_last_snapshot(self._chain)
        if self._storage is not None:
            self._storage.close()
            self._storage = None

    async def _run_with_signals(self, on_ready: Callable[[AinNode], None] | None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        try:
            await self.start()
            if on_ready is not None:
                on_ready(self)
            await self._stop_wanted.wait()
        finally:
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if self.failure is not None:
            failure = self.failure
            raise (
                failure if isinstance(failure, Refusal) else NodeFailed(reason=type(failure).__name__)
            ) from failure

    def _open_chain(self) -> None:
        settings = self.settings
        self._storage = storage = ChainStorage(settings.chain_directory, settings.snapshot_directory)
        found = None if settings.sync_mode == FROM_ALL_BLOCKS else storage.newest_snapshot()
        if found is None and storage.oldest_number() > 1:
            raise OldBlocksMissing(directory=str(settings.chain_directory), number=storage.oldest_number())
        self._chain = chain = AinChain(
            settings.network,
            settings.genesis,
            storage,
            limits=settings.pool_limits,
            start=None if found is None else Snapshot(*found),
            allows_unsigned=self.parameters.flag("ENABLE_TX_SIG_VERIF_WORKAROUND"),
            replays_pool=self.parameters.flag("UPDATE_NEW_FINAL_FRONT_DB_WITH_TX_POOL"),
        )
        first = storage.block(0)
        if first is None or first["hash"] != self.genesis_hash():
            raise OtherChainOnDisk(directory=str(settings.chain_directory))
        block = storage.block(chain.final_number + 1)
        while block is not None:
            following = storage.block(block["number"] + 1)
            chain.add_block(block, proposal_of(following), self.now_ms())
            chain.finalise(self.now_ms())
            block = following

    async def _begin(self, key: PrivateKey) -> None:
        """With an account the node takes part: it looks for others and, once it knows what they know, serves."""
        assert self._storage is not None
        settings = self.settings
        chain = self.chain
        self._peers = peers = Peers(
            self, hosts=settings.hosts, port=settings.p2p_port, is_local=settings.is_local
        )
        self._rounds = rounds = Rounds(
            chain, self._storage, key, self.now_ms, self._say, self._ask_for_blocks, self._note_final
        )
        rounds.restore(self._storage.papers())
        self._sync = StateSync(self, self._storage, peers)
        if is_shard_reporter(chain, key):
            self._shard = ShardReporter(self, key)
        chain.node_state = CHAIN_SYNCING
        await peers.start()
        if self.parameters.flag("ENABLE_STATUS_REPORT_TO_TRACKER") and self._tracker_url():
            status = Status(self)
            self._spawn(report_to_tracker(self.parameters, status.everything, self.now_ms))
        self._spawn(self._catch_up_first())

    def _tracker_url(self) -> bool:
        """Whether there is an address to which the node's status may be reported."""
        try:
            parts = urlsplit(self.parameters.text("TRACKER_UPDATE_JSON_RPC_URL"))
            return parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            return False

    async def _catch_up_first(self) -> None:
        """Waits until the node knows what its peers know; the first node of a network need not wait for anybody."""
        peers, rounds = self._peers, self._rounds
        assert peers is not None and rounds is not None
        is_first = peers.is_own(self.parameters.text("PEER_CANDIDATE_JSON_RPC_URL"))
        await self._take_over_state(rounds, is_first)
        is_alone = len(self.chain.final_block["validators"]) <= 1 or self.chain.final_number == 0
        deadline = time.monotonic() + (FIRST_NODE_WAIT_SECONDS if is_first and not is_alone else 0.0)
        while self.chain.node_state == CHAIN_SYNCING:
            if is_first and time.monotonic() >= deadline:
                if self._shard is not None and self.chain.final_number == 0:
                    await self._shard.open()
                self.chain.node_state = SERVING
                break
            self._ask_for_blocks()
            await asyncio.sleep(SYNC_ROUND_SECONDS)
        rounds.finalise()
        rounds.state = RUNNING
        rounds.epoch = rounds.epoch_at(self.now_ms())
        self._stake(rounds)
        facts = {"port": self.settings.port, "number": self.chain.final_number, "peers": peers.addresses()}
        _log.info("serving", extra={"facts": facts})
        self._spawn(self._run_epochs(rounds))
        if self._shard is not None:
            self._spawn(self._report_shard(self._shard, rounds))

    async def _take_over_state(self, rounds: Rounds, is_first: bool) -> None:
        """A node without blocks begins where a peer is, if it was told to; nobody is before the first node."""
        sync, storage = self._sync, self._storage
        assert sync is not None and storage is not None
        if self.settings.sync_mode == FROM_PEER and storage.last_number <= 0 and not is_first:
            self.chain.node_state = STATE_SYNCING
            await sync.fetch_state()
            self.chain.node_state = CHAIN_SYNCING
        if storage.oldest_number() > 1:
            rounds.is_silent = True
            self._spawn(self._fetch_old_blocks(sync, rounds))

    async def _fetch_old_blocks(self, sync: StateSync, rounds: Rounds) -> None:
        await sync.fetch_old_blocks()
        rounds.is_silent = False

    async def _report_shard(self, shard: ShardReporter, rounds: Rounds) -> None:
        while True:
            await asyncio.sleep(rounds.epoch_ms / 1000)
            if rounds.state == RUNNING:
                await shard.report()

    async def _run_epochs(self, rounds: Rounds) -> None:
        begun: int = self.settings.genesis["timestamp"]
        while True:
            length = rounds.epoch_ms
            next_ms = begun + length * (rounds.epoch_at(self.now_ms()) + 1)
            # A timer may come a little early, and an epoch must not be missed for that.
            while (missing_ms := next_ms - self.now_ms()) > 0:
                await asyncio.sleep(missing_ms / 1000)
            rounds.tick()

    def _stake(self, rounds: Rounds) -> None:
        """Puts at stake what is missing of what the node was told to have there."""
        key, wanted = self.key, self.settings.stake
        if key is None or wanted <= 0:
            return
        account = ("service_accounts", "staking", "consensus", f"{key.address}|0", "balance")
        held = self.chain.final.read_value(account)
        missing = wanted - (held if is_number(held) else 0)
        if missing > 0:
            ref = f"/staking/consensus/{key.address}/0/stake/{self.now_ms()}/value"
            body = {
                "operation": {"type": "SET_VALUE", "ref": ref, "value": missing},
                "nonce": -1,
                "timestamp": self.now_ms(),
                "gas_price": self.chain.parameter("resource", "min_gas_price"),
            }
            self.submit(sign_transaction(body, key, self.chain_id()))

    def _write_last_snapshot(self, chain: AinChain) -> None:
        """An orderly end makes the next start quick, where the state is small enough not to delay the end."""
        storage = self._storage
        if storage is None:
            return
        newest = next(iter(storage.snapshot_numbers()), 0)
        tree = chain.final.tree
        if chain.final_number - newest >= LAST_SNAPSHOT_BLOCKS and tree.root.size < LAST_SNAPSHOT_NODES_MAX:
            kept = max(1, int(self.parameters.number("MAX_NUM_SNAPSHOTS")))
            storage.write_snapshot(chain.final_number, tree.freeze().root, kept)

    def _note_final(self, entry: Entry) -> None:
        self.traffic.note_final_block(entry.block, self.now_ms())
        interval = int(self.parameters.number("SNAPSHOTS_INTERVAL_BLOCK_NUMBER"))
        if self._storage is not None and interval > 0 and entry.number % interval == 0:
            kept = max(1, int(self.parameters.number("MAX_NUM_SNAPSHOTS")))
            root = entry.state.tree.freeze().root
            self._spawn(asyncio.to_thread(self._storage.write_snapshot, entry.number, root, kept))

    # -- messages of peers ------------------------------------------------------------------------------------------

    def _say(self, kind: str, data: Any, sender: str | None) -> None:
        """What the rounds have to say, with how long its paper was on its way."""
        if kind == "CONSENSUS":
            value = data["value"]
            paper = value["proposalTx"] if data["type"] == PROPOSE else value
            now_ms = self.now_ms()
            late_ms = now_ms - paper["tx_body"]["timestamp"]
            self.traffic.add(f"{data['type']}_p2p_message", late_ms, now_ms, is_block_time=True)
        if self._peers is not None:
            self._peers.say(kind, data, sender)

    def peer_joined(self, address: str) -> None:
        """A link to a peer is open."""
        if self.chain.node_state == CHAIN_SYNCING:
            self._asked_at = None
            self._ask_for_blocks()

    def take_message(self, kind: str, data: Any, sender: str) -> None:
        """Anything that a peer says."""
        rounds, peers, sync = self._rounds, self._peers, self._sync
        if rounds is None or peers is None or sync is None:
            return
        begun_ms = self.now_ms()
        try:
            if kind == "CONSENSUS":
                rounds.take(data, sender)
            elif kind == "TRANSACTION" and isinstance(data, list):
                self._take_transactions(data[:TRANSACTIONS_PER_MESSAGE_MAX], sender)
            elif kind == "CHAIN_SEGMENT_REQUEST" and isinstance(data, dict):
                # Who does not serve yet says so, and the other one asks somebody else.
                is_serving = self.chain.node_state == SERVING
                segment = rounds.segment(data.get("from")) if is_serving else None
                peers.tell(sender, "CHAIN_SEGMENT_RESPONSE", segment)
            elif kind == "CHAIN_SEGMENT_RESPONSE" and self._has_asked(sender):
                self._asked_at = None
                if rounds.merge(data):
                    self._ask_for_blocks(sender)
            elif kind in KINDS:
                sync.take(kind, data, sender)
        except Refusal as refusal:
            # Such as a full disk: nothing was said that is not written down.
            _log.error(
                "a message could not be worked", extra={"facts": {"kind": kind, "reason": str(refusal)}}
            )
        self.traffic.add("p2p_message_server", self.now_ms() - begun_ms, self.now_ms())

    def _take_transactions(self, wires: list[Any], sender: str) -> None:
        passed_on: list[Any] = []
        for wire in wires:
            if not isinstance(wire, dict) or self.chain.pool.has_received(str(wire.get("hash"))):
                continue
            try:
                if self.chain.allows_unsigned and is_unsigned(wire):
                    transaction = unsigned_transaction(wire["tx_body"])
                else:
                    transaction = transaction_from_json(wire, self.chain_id())
            except Refusal:
                continue
            result = self.chain.submit(transaction, self.now_ms())
            if not has_failed(result, True):
                passed_on.append(transaction.to_json())
        if passed_on and self._peers is not None:
            self._peers.say("TRANSACTION", passed_on, sender)

    def _has_asked(self, address: str) -> bool:
        """Blocks that nobody asked for would be executed for nothing."""
        return self._asked_at is not None and self._asked_last == address

    def _ask_for_blocks(self, address: str | None = None) -> None:
        """Asks one peer after the other for the blocks behind the last final one; one question at a time."""
        peers = self._peers
        now = time.monotonic()
        if peers is None or (self._asked_at is not None and now - self._asked_at < SEGMENT_ANSWER_SECONDS):
            return
        addresses = peers.addresses()
        if not addresses:
            return
        if address not in addresses:
            after = addresses.index(self._asked_last) + 1 if self._asked_last in addresses else 0
            address = addresses[after % len(addresses)]
        assert address is not None
        if peers.tell(address, "CHAIN_SEGMENT_REQUEST", {"from": self.chain.final_number + 1}):
            self._asked_at, self._asked_last = now, address

    # -- tasks ------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the node fails", exc_info=error)
            self.failure = error
            self._stop_wanted.set()


class OtherChainOnDisk(Refusal):
    template = "The directory {directory} holds the blocks of another network."
    way_out = "Set BLOCKCHAIN_DATA_DIR or PORT to another one, or BLOCKCHAIN_CONFIGS_DIR to the network that it holds."


class OldBlocksMissing(Refusal):
    template = (
        "The directory {directory} holds no blocks before {number}, as the node began with a peer's state, and no "
        "snapshot from which it could go on."
    )
    way_out = "Start it with SYNC_MODE=fast, or remove the directory and fetch the chain again."


def _own_ip(is_local: bool) -> str:
    """The address under which others reach this machine."""
    if is_local:
        return LOOPBACK_ADDRESS
    # Nothing is sent: this only asks which of the machine's addresses leads outwards.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return LOOPBACK_ADDRESS


def _wall_clock_ms() -> int:
    return int(time.time() * 1000)
