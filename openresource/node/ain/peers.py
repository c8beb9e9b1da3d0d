"""The links between nodes: who is there, who may connect, and messages to all of them.

A node asks another one's JSON-RPC door where its links are, connects there, and says who it is under its signature; the
other side connects back. Messages go to every peer once. Links that break are made again, soon at first and later
seldom. Bounds hold for everything that a peer may send.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx2

from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.websocket import Connection, WebsocketServer, connect
from openresource.primitives.encoding import canonical_json, parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, is_checksum_address, sign_message, verify_signature

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
# Of a greeting: nobody unknown may make this node keep more.
HELLO_BYTES_MAX: Final = 16 * 1024
KNOWN_PEERS_MAX: Final = 100
HELLO_AGE_MS_MAX: Final = 60_000
RETRY_SECONDS_MIN: Final = 0.3
RETRY_SECONDS_MAX: Final = 10.0
ROUND_SECONDS: Final = 0.1
ANSWER_BYTES_MAX: Final = 1_000_000
STEADY: Final = "STEADY"
EXPANDING: Final = "EXPANDING"
STATES: Final = ("STARTING", EXPANDING, STEADY)
JSON_RPC_PATH: Final = "/json-rpc"

HELLO: Final = "HELLO"
PEERS: Final = "PEERS"

Facts = dict[str, Any]
_log = logging.getLogger("openresource.node.ain.peers")


class Neighbour(Protocol):
    """What the links need of the node."""

    @property
    def parameters(self) -> NodeParameters: ...

    @property
    def key(self) -> PrivateKey | None: ...

    def now_ms(self) -> int: ...

    def urls(self) -> Facts: ...

    def genesis_hash(self) -> str: ...

    def chain_id(self) -> int: ...

    def take_message(self, kind: str, data: Any, sender: str) -> None: ...

    def peer_joined(self, address: str) -> None: ...


class HelloRefused(Refusal):
    template = "The other node is not taken as a peer: {reason}."
    way_out = "Start both nodes with the same configuration, and let each be on the other's PEER_WHITELIST."


@dataclass(slots=True)
class Peer:
    """A node at the other end of a link."""

    address: str
    connection: Connection
    urls: Facts


@dataclass(slots=True)
class _Known:
    """A place where a node may be; tried again later each time that nobody is there."""

    due_at: float = 0.0
    delay: float = RETRY_SECONDS_MIN
    is_dialling: bool = False
    address: str | None = None


@dataclass(slots=True)
class Links:
    """Open links by address."""

    inbound: dict[str, Peer] = field(default_factory=dict)
    outbound: dict[str, Peer] = field(default_factory=dict)


class Peers:
    """All links of one node."""

    def __init__(self, node: Neighbour, *, hosts: tuple[str, ...], port: int, is_local: bool) -> None:
        self.links = Links()
        self._node = node
        self._is_local = is_local
        self._server = WebsocketServer(
            hosts,
            port,
            self._accept,
            message_bytes_max=MESSAGE_BYTES_MAX,
            first_bytes_max=HELLO_BYTES_MAX,
        )
        self._known: dict[str, _Known] = {}
        self._candidates: dict[str, _Known] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._started_at_ms: int | None = None
        self._is_asking = False
        self._loop = asyncio.get_running_loop()

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listens, and begins to look for others."""
        await self._server.start()
        self._started_at_ms = self._node.now_ms()
        candidate = self._node.parameters.text("PEER_CANDIDATE_JSON_RPC_URL")
        if candidate and not self.is_own(candidate) and _is_json_rpc_url(candidate):
            self._candidates[candidate] = _Known()
        self._spawn(self._keep_connected())

    async def stop(self) -> None:
        """Ends all links."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self._all():
            peer.connection.terminate()
        await self._server.stop()

    def is_own(self, url: str) -> bool:
        """Whether an address leads to this node itself."""
        own = str(self._node.urls()["jsonRpc"]["url"])
        if not self._is_local:
            return url == own
        try:
            return _is_private(_host_of(url)) and urlsplit(own).port == urlsplit(url).port
        except ValueError:
            return False

    # -- messages ---------------------------------------------------------------------------------------------------

    def say(self, kind: str, data: Any, sender: str | None = None) -> None:
        """Sends a message to every peer but the one that it came from."""
        peers = [peer for peer in self._all() if peer.address != sender]
        if peers:
            text = json.dumps({"type": kind, "data": data}, separators=(",", ":"))
            for peer in peers:
                peer.connection.send(text)

    def tell(self, address: str, kind: str, data: Any) -> bool:
        """Sends a message to one peer, if there is a link."""
        peer = self.links.outbound.get(address) or self.links.inbound.get(address)
        if peer is None:
            return False
        peer.connection.send(json.dumps({"type": kind, "data": data}, separators=(",", ":")))
        return True

    def addresses(self) -> list[str]:
        """Everybody to whom there is a link."""
        return [peer.address for peer in self._all()]

    def _all(self) -> list[Peer]:
        return list({**self.links.inbound, **self.links.outbound}.values())

    # -- what clients see -------------------------------------------------------------------------------------------

    def status(self) -> Facts:
        """The state of the links, as AI Network's clients read it."""
        outbound, inbound = list(self.links.outbound), list(self.links.inbound)
        target = int(self._node.parameters.number("TARGET_NUM_OUTBOUND_CONNECTION"))
        started = self._started_at_ms
        dialling = [url for url, known in self._known.items() if known.is_dialling]
        interval_ms = self._node.parameters.number("PEER_CANDIDATES_CONNECTION_INTERVAL_MS")
        has_looked = started is not None and self._node.now_ms() - started >= interval_ms
        has_met = has_looked or bool(outbound or inbound or dialling)
        state = STATES[0] if not has_met else STEADY if len(outbound) >= target else EXPANDING
        candidates = list(dict.fromkeys([*self._candidates, *self.json_rpc_urls().values()]))
        if not candidates:
            # A node that was told of nobody but itself has itself as its candidate.
            candidates = [self._node.urls()["jsonRpc"]["url"]]
        return {
            "state": state,
            "stateNumeric": STATES.index(state),
            "isConnectingToPeerCandidates": self._is_asking,
            "peerConnectionStartedAt": started,
            "peerConnectionElapsedTime": 0 if started is None else self._node.now_ms() - started,
            "maxInbound": int(self._node.parameters.number("MAX_NUM_INBOUND_CONNECTION")),
            "targetOutBound": target,
            "peerConnectionsInProgress": dialling,
            "peerCandidates": candidates,
            "numInbound": len(inbound),
            "numOutbound": len(outbound),
            "numConnections": len(inbound) + len(outbound),
            "numPeerConnectionsInProgress": len(dialling),
            "numPeerCandidates": len(candidates),
            "incomingPeers": inbound,
            "outgoingPeers": outbound,
        }

    def json_rpc_urls(self) -> dict[str, str]:
        """The doors of the peers to which this node has connected, by address."""
        return {address: peer.urls["jsonRpc"]["url"] for address, peer in self.links.outbound.items()}

    # -- looking for others -----------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        while True:
            now = self._loop.time()
            target = int(self._node.parameters.number("TARGET_NUM_OUTBOUND_CONNECTION"))
            if len(self.links.outbound) < target:
                for url, known in list(self._known.items()):
                    if (
                        not known.is_dialling
                        and now >= known.due_at
                        and known.address not in self.links.outbound
                    ):
                        known.is_dialling = True
                        self._spawn(self._dial(url, known))
                for url, known in list(self._candidates.items()):
                    if not known.is_dialling and now >= known.due_at:
                        known.is_dialling = True
                        self._spawn(self._ask(url, known))
            await asyncio.sleep(ROUND_SECONDS)

    async def _ask(self, url: str, known: _Known) -> None:
        """Asks a node's door where its links are, and whom it knows."""
        self._is_asking = True
        try:
            info = await _peer_candidate_info(url)
            self._learn(info["networkStatus"]["urls"]["p2p"]["url"], info.get("address"))
            for address, other in dict(info.get("peerCandidateJsonRpcUrlList", {})).items():
                if self._may_join(address) and isinstance(other, str) and not self.is_own(other):
                    self._remember_candidate(other)
            interval = float(self._node.parameters.number("PEER_CANDIDATES_CONNECTION_INTERVAL_MS")) / 1000
            known.due_at = self._loop.time() + interval
            known.delay = RETRY_SECONDS_MIN
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            _log.debug("a candidate does not answer", extra={"facts": {"url": url, "reason": str(error)}})
            self._put_off(known)
        finally:
            known.is_dialling = False
            self._is_asking = False

    def _remember_candidate(self, url: str) -> None:
        if url not in self._candidates and len(self._candidates) < KNOWN_PEERS_MAX and _is_json_rpc_url(url):
            self._candidates[url] = _Known()

    def _learn(self, url: Any, address: Any) -> None:
        """Remembers where a node's links are."""
        if not isinstance(url, str) or len(url) > 300 or url == self._node.urls()["p2p"]["url"]:
            return
        host = _host_of(url)
        # A node on this machine has no business elsewhere: somebody could send it to knock at any door.
        if self._is_local and not _is_private(host):
            return
        known = self._known.get(url)
        if known is None and len(self._known) < KNOWN_PEERS_MAX:
            known = self._known[url] = _Known()
        if known is not None and is_checksum_address(address):
            known.address = address

    async def _dial(self, url: str, known: _Known) -> None:
        try:
            connection = await connect(
                url, message_bytes_max=MESSAGE_BYTES_MAX, first_bytes_max=HELLO_BYTES_MAX
            )
        except Refusal:
            self._put_off(known)
            known.is_dialling = False
            return
        try:
            peer = await self._greet(connection, url)
            known.address = peer.address
            if peer.address in self.links.outbound or peer.address == self._own_address():
                known.due_at = self._loop.time() + RETRY_SECONDS_MAX
                return
            known.delay = RETRY_SECONDS_MIN
            self.links.outbound[peer.address] = peer
            known.is_dialling = False
            await self._serve(peer, self.links.outbound)
            known.due_at = self._loop.time() + RETRY_SECONDS_MIN
        except Refusal as refusal:
            _log.info("a node is no peer", extra={"facts": {"url": url, "reason": str(refusal)}})
            known.due_at = self._loop.time() + RETRY_SECONDS_MAX
        finally:
            known.is_dialling = False
            connection.terminate()

    def _put_off(self, known: _Known) -> None:
        known.due_at = self._loop.time() + known.delay
        known.delay = min(known.delay * 1.5, RETRY_SECONDS_MAX)

    # -- links ------------------------------------------------------------------------------------------------------

    async def _accept(self, connection: Connection) -> None:
        try:
            peer = await self._greet(connection)
        except Refusal as refusal:
            _log.info(
                "a caller is no peer", extra={"facts": {"remote": connection.remote, "reason": str(refusal)}}
            )
            return
        room = int(self._node.parameters.number("MAX_NUM_INBOUND_CONNECTION"))
        if peer.address == self._own_address():
            return
        before = self.links.inbound.get(peer.address)
        if before is None and len(self.links.inbound) >= room:
            return
        if before is not None:
            before.connection.terminate()
        self.links.inbound[peer.address] = peer
        self._learn(peer.urls["p2p"]["url"], peer.address)
        known = self._known.get(peer.urls["p2p"]["url"])
        if known is not None:
            known.due_at = 0.0
        await self._serve(peer, self.links.inbound)

    async def _greet(self, connection: Connection, url: str = "") -> Peer:
        """Each side says who it is and proves it; `url` is where this node has called, empty if it was called."""
        connection.send(json.dumps({"type": HELLO, "data": self._hello(url)}))
        seconds = float(self._node.parameters.number("P2P_WAIT_FOR_ADDRESS_TIMEOUT_MS")) / 1000
        try:
            async with asyncio.timeout(seconds):
                text = await connection.receive()
        except TimeoutError:
            raise HelloRefused(reason="it does not say who it is") from None
        if text is None:
            raise HelloRefused(reason="it hung up")
        message = _parsed(text)
        if message is None or message.get("type") != HELLO:
            raise HelloRefused(reason="it speaks another protocol")
        return self._checked(message.get("data"), connection, url)

    def _hello(self, url: str) -> Facts:
        key = self._node.key
        assert key is not None, "links are made by nodes with an account"
        body = {
            "address": key.address,
            "genesis_hash": self._node.genesis_hash(),
            "timestamp": self._node.now_ms(),
            "to": url,
            "urls": self._node.urls(),
        }
        return {"body": body, "signature": sign_message(canonical_json(body), key, self._node.chain_id())}

    def _checked(self, data: Any, connection: Connection, url: str) -> Peer:
        body = data.get("body") if isinstance(data, dict) else None
        signature = data.get("signature") if isinstance(data, dict) else None
        if not isinstance(body, dict) or not isinstance(signature, str):
            raise HelloRefused(reason="its greeting has another form")
        address, timestamp, urls = body.get("address"), body.get("timestamp"), body.get("urls")
        if body.get("genesis_hash") != self._node.genesis_hash():
            raise HelloRefused(reason="it is on another chain")
        if not isinstance(timestamp, int) or abs(self._node.now_ms() - timestamp) > HELLO_AGE_MS_MAX:
            raise HelloRefused(reason="its clock differs by more than a minute")
        if not isinstance(address, str) or not is_checksum_address(address) or not self._may_join(address):
            raise HelloRefused(reason="its address is not allowed here")
        try:
            is_signed = verify_signature(canonical_json(body), signature, address, self._node.chain_id())
        except Refusal:
            is_signed = False
        if not is_signed or not _are_urls(urls):
            raise HelloRefused(reason="its greeting is not signed by its address")
        assert isinstance(urls, dict)
        # A greeting that one node got is good for no other: whoever was greeted could else speak as the one who greeted.
        if (urls["p2p"]["url"] != url) if url else (body.get("to") != self._node.urls()["p2p"]["url"]):
            raise HelloRefused(reason="its greeting is meant for somebody else")
        return Peer(address, connection, urls)

    async def _serve(self, peer: Peer, links: dict[str, Peer]) -> None:
        """Hands on what a peer says, until the link ends."""
        try:
            self._introduce(peer)
            self._node.peer_joined(peer.address)
            while (text := await peer.connection.receive()) is not None:
                message = _parsed(text)
                if message is not None and message.get("type") == PEERS:
                    self._learn_all(message.get("data"))
                elif message is not None and isinstance(message.get("type"), str):
                    self._node.take_message(message["type"], message.get("data"), peer.address)
                # One peer's many messages must not keep everybody else waiting.
                await asyncio.sleep(0)
        finally:
            if links.get(peer.address) is peer:
                del links[peer.address]

    def _introduce(self, peer: Peer) -> None:
        """Tells a new peer of the others, and the others of it, so that all of them find one another at once."""
        others = {one.address: one.urls["p2p"]["url"] for one in self._all() if one.address != peer.address}
        if others:
            self.tell(peer.address, PEERS, others)
            self.say(PEERS, {peer.address: peer.urls["p2p"]["url"]}, peer.address)

    def _learn_all(self, places: Any) -> None:
        if isinstance(places, dict):
            for address, url in list(places.items())[:KNOWN_PEERS_MAX]:
                if address != self._own_address() and self._may_join(address):
                    self._learn(url, address)

    def _may_join(self, address: str) -> bool:
        allowed = self._node.parameters.whitelist("PEER_WHITELIST")
        return allowed is None or address in allowed

    def _own_address(self) -> str:
        key = self._node.key
        return "" if key is None else key.address

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a link failed", exc_info=error)


async def _peer_candidate_info(url: str) -> Facts:
    request = {
        "jsonrpc": "2.0",
        "method": "p2p_getPeerCandidateInfo",
        "params": {"protoVer": "1.0.0"},
        "id": 0,
    }
    async with (
        httpx2.AsyncClient(timeout=RETRY_SECONDS_MAX, trust_env=False) as client,
        client.stream("POST", url, json=request) as response,
    ):
        raw = b""
        async for part in response.aiter_bytes():
            raw += part
            if len(raw) > ANSWER_BYTES_MAX:
                raise ValueError("the answer is too long")
    info = json.loads(raw)["result"]["result"]
    if not isinstance(info, dict):
        raise ValueError("the answer has another form")
    return info


def _parsed(text: str) -> Facts | None:
    try:
        message = parse_json(text, bytes_max=MESSAGE_BYTES_MAX)
    except Refusal:
        return None
    return message if isinstance(message, dict) else None


def _are_urls(urls: Any) -> bool:
    with contextlib.suppress(KeyError, TypeError):
        return all(
            isinstance(urls[name]["url"], str) and len(urls[name]["url"]) <= 300
            for name in ("p2p", "jsonRpc")
        )
    return False


def _is_json_rpc_url(url: str) -> bool:
    if not _host_of(url):
        return False
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and parts.path == JSON_RPC_PATH


def _host_of(url: str) -> str:
    """The host of an address; empty if it has none, or is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_private(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
