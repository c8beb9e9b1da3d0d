"""The event handler of an AI Network node: a WebSocket port of its own, on which clients hear of what happens.

Each connection is a channel with a few filters. What happens in the chain is told to the filters that it fits, at once and
in the order in which it happens; a client that does not read, does not answer PING, or stays too long is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Any, Final, Protocol

from openresource.ledger.context import WriteObserver
from openresource.ledger.transactions import Transaction
from openresource.ledger.verdicts import Auth
from openresource.node.ain.chain import AinChain, Listener
from openresource.node.ain.filters import (
    BLOCK_FINALIZED,
    DELETED_BY_USER,
    END_STATE_REACHED,
    FILTER_DELETED,
    FILTER_TIMEOUT,
    TX_STATE_CHANGED,
    VALUE_CHANGED,
    Filter,
    FilterRefused,
    checked_filter,
    shown_text,
)
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.pool import FAILED, FINALIZED, REVERTED, TIMED_OUT, Wire
from openresource.node.ain.websocket import Connection, WebsocketServer
from openresource.node.rpc import encode
from openresource.primitives.encoding import js_json, parse_json
from openresource.primitives.errors import Refusal

MESSAGE_BYTES_MAX: Final = 1024 * 1024
CHANNEL_ID_SPREAD: Final = 1000
END_STATES: Final = frozenset((FINALIZED, REVERTED, FAILED, TIMED_OUT))
FROM_USER: Final = "USER"
FROM_BLOCK: Final = "BLOCK"

NO_MESSAGE_TYPE: Final = 70003
NO_MESSAGE_DATA: Final = 70004
MESSAGE_TYPE: Final = 70005
NOT_REGISTERED: Final = 70020
CLIENT_ID: Final = 70040

Facts = dict[str, Any]
_log = logging.getLogger("openresource.node.ain.events")


class _Told(Exception):
    """Something that a client did wrong, to be told by a code."""

    def __init__(self, code: int, message: str, filter_id: Any = None) -> None:
        super().__init__(message)
        self.facts: Facts = {"code": code, "message": message}
        if filter_id is not None:
            self.facts["filter_id"] = filter_id


class Channel:
    """One connection with its filters."""

    def __init__(self, channel_id: str, connection: Connection, now_ms: int) -> None:
        self.id = channel_id
        self.connection = connection
        self.client_id = ""
        self.filters: dict[str, Filter] = {}
        self.created_at_ms = now_ms
        self.last_message_ms = now_ms
        self.is_alive = True

    def send(self, kind: str, data: Facts) -> None:
        """One message."""
        self.connection.send_bytes(encode({"type": kind, "data": data}))

    def emit(self, name: str, kind: str, payload: Facts) -> None:
        """One event for one filter."""
        self.send("EMIT_EVENT", {"type": kind, "payload": payload, "filter_id": name})

    def to_json(self, now_ms: int) -> Facts:
        """The channel as the node's owner sees it."""
        return {
            "id": self.id,
            "remoteUrl": self.connection.remote,
            "customClientId": self.client_id,
            "eventFilterIds": [one.id for one in self.filters.values()],
            "creationTimeMs": self.created_at_ms,
            "lastMessagingTimeMs": self.last_message_ms,
            "lifeTimeMs": now_ms - self.created_at_ms,
            "idleTimeMs": now_ms - self.last_message_ms,
        }


class EventfulNode(Protocol):
    """What the event handler needs of the node."""

    @property
    def chain(self) -> AinChain: ...

    @property
    def parameters(self) -> NodeParameters: ...

    def now_ms(self) -> int: ...

    def urls(self) -> Facts: ...

    def listen(self, listener: Listener) -> None: ...


class EventHandler:
    """All channels of one node."""

    def __init__(self, node: EventfulNode, hosts: tuple[str, ...], port: int) -> None:
        self._node = node
        self._port = port
        self._server = WebsocketServer(hosts, port, self._serve, message_bytes_max=MESSAGE_BYTES_MAX)
        self._channels: dict[str, Channel] = {}
        self._filters: dict[str, Filter] = {}
        self._by_transaction: dict[str, dict[str, Filter]] = {}
        self._values: dict[str, Filter] = {}
        self._timeouts: dict[str, asyncio.TimerHandle] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listens, and hears the chain from now on."""
        await self._server.start()
        self._listen()
        self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._let_go_idle())]

    async def stop(self) -> None:
        """Ends all channels."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timeout in self._timeouts.values():
            timeout.cancel()
        await self._server.stop()

    # -- what it tells of itself ------------------------------------------------------------------------------------

    def network_info(self) -> Facts:
        """Its url, and how many channels and filters there are and may be."""
        parameters = self._node.parameters
        return {
            "url": f"ws://{self._node.urls()['ip']}:{self._port}/",
            "maxNumEventChannels": parameters.get("MAX_NUM_EVENT_CHANNELS"),
            "numEventChannels": len(self._channels),
            "maxNumEventFilters": parameters.get("MAX_NUM_EVENT_FILTERS"),
            "numEventFilters": len(self._filters),
        }

    def filter_info(self) -> Facts:
        """Every filter by its id."""
        return {filter_id: one.to_json() for filter_id, one in self._filters.items()}

    def channel_info(self) -> Facts:
        """Every channel by its id."""
        now_ms = self._node.now_ms()
        return {channel_id: channel.to_json(now_ms) for channel_id, channel in self._channels.items()}

    def status(self) -> Facts:
        """All of it, as the status of a node shows it."""
        parameters, channels = self._node.parameters, self.channel_info()
        return {
            "isEnabled": True,
            "networkInfo": self.network_info(),
            "channelStatus": {
                "maxNumEventChannels": parameters.get("MAX_NUM_EVENT_CHANNELS"),
                "numEventChannels": len(channels),
                "channelLifeTimeLimitSecs": parameters.get("EVENT_HANDLER_CHANNEL_LIFE_TIME_LIMIT_SECS"),
                "channelIdleTimeLimitSecs": parameters.get("EVENT_HANDLER_CHANNEL_IDLE_TIME_LIMIT_SECS"),
                "maxChannelLifeTimeMs": max((one["lifeTimeMs"] for one in channels.values()), default=0),
                "maxChannelIdleTimeMs": max((one["idleTimeMs"] for one in channels.values()), default=0),
                "channelInfo": channels,
            },
            "filterStatus": {
                "maxNumEventFilters": parameters.get("MAX_NUM_EVENT_FILTERS"),
                "numEventFilters": len(self._filters),
                "filterInfo": self.filter_info(),
            },
        }

    def has_room(self) -> bool:
        """Whether one more channel and one more filter would be taken."""
        number = self._node.parameters.number
        return len(self._channels) < number("MAX_NUM_EVENT_CHANNELS") and len(self._filters) < number(
            "MAX_NUM_EVENT_FILTERS"
        )

    # -- what happens in the chain ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Hears of writes only while somebody wants to know; looking up what stood there before costs time."""
        wants_values = bool(self._values)
        self._node.listen(
            Listener(
                state_changed=self._tell_state,
                block_final=self._tell_block,
                user_writes=(lambda transaction: self._writes_of(transaction, FROM_USER))
                if wants_values
                else None,
                block_writes=(lambda transaction: self._writes_of(transaction, FROM_BLOCK))
                if wants_values
                else None,
            )
        )

    def _tell_block(self, number: int, block_hash: str) -> None:
        payload = {"block_number": number, "block_hash": block_hash}
        for one in list(self._filters.values()):
            if one.type == BLOCK_FINALIZED and one.config.get("block_number") in (None, number):
                self._emit(one, payload)

    def _tell_state(self, wire: Wire, before: str | None, after: str) -> None:
        filters = self._by_transaction.get(wire["hash"])
        if not filters:
            return
        payload = {"transaction": wire, "tx_state": {"before": before, "after": after}}
        for one in list(filters.values()):
            self._forget_timeout(one)
            self._emit(one, payload)
            if after in END_STATES:
                self._delete(one, END_STATE_REACHED)

    def _writes_of(self, transaction: Transaction, source: str) -> WriteObserver:
        """Who is told what a transaction writes."""
        now_ms = self._node.now_ms()

        def written(auth: Auth, labels: list[str], before: Any, after: Any) -> None:
            for one in list(self._values.values()):
                wanted = one.config.get("event_source")
                if (wanted and wanted != source) or not one.fits_path(labels):
                    continue
                wire = {**transaction.to_json(), "extra": {"created_at": now_ms, "executed_at": now_ms}}
                payload = {
                    "filter_path": one.config["path"],
                    "matched_path": "/" + "/".join(labels),
                    "params": one.params_of(labels),
                    "auth": auth.to_json(),
                    "transaction": wire,
                    "event_source": source,
                    "values": {"before": before, "after": after},
                }
                self._emit(one, payload)

        return written

    def _emit(self, one: Filter, payload: Facts) -> None:
        channel = self._channels.get(one.channel_id)
        if channel is not None:
            channel.emit(one.name, one.type, payload)

    # -- channels ---------------------------------------------------------------------------------------------------

    async def _serve(self, connection: Connection) -> None:
        now_ms = self._node.now_ms()
        if len(self._channels) >= self._node.parameters.number("MAX_NUM_EVENT_CHANNELS"):
            return
        channel_id = str(now_ms + secrets.randbelow(CHANNEL_ID_SPREAD))
        while channel_id in self._channels:
            channel_id = str(int(channel_id) + 1)
        channel = Channel(channel_id, connection, now_ms)
        self._channels[channel_id] = channel
        try:
            while (text := await connection.receive()) is not None:
                self._take(channel, text)
        finally:
            for one in list(channel.filters.values()):
                self._forget(one)
            del self._channels[channel_id]

    def _take(self, channel: Channel, text: str) -> None:
        try:
            message = parse_json(text, bytes_max=MESSAGE_BYTES_MAX)
        except Refusal:
            return
        if message is None:
            return
        try:
            self._work(channel, message if isinstance(message, dict) else {}, text)
        except _Told as told:
            channel.send("EMIT_ERROR", told.facts)

    def _work(self, channel: Channel, message: Facts, text: str) -> None:
        kind, data = message.get("type"), message.get("data")
        if not kind:
            raise _Told(NO_MESSAGE_TYPE, f"No message type in ({text})")
        # Empty objects and lists count as something, as they do in JavaScript.
        if not data and not isinstance(data, dict | list):
            raise _Told(NO_MESSAGE_DATA, f"No message data in ({text})")
        if kind == "PONG":
            channel.is_alive = True
            return
        channel.last_message_ms = self._node.now_ms()
        fields: Facts = data if isinstance(data, dict) else {}
        if kind == "SET_CUSTOM_CLIENT_ID":
            self._name_client(channel, fields.get("customClientId"))
        elif kind == "REGISTER_FILTER":
            self._register(channel, fields, data)
        elif kind == "DEREGISTER_FILTER":
            name = shown_text(fields.get("id"))
            one = channel.filters.get(name)
            if one is not None:
                self._forget(one)
            channel.emit(name, FILTER_DELETED, {"filter_id": fields.get("id"), "reason": DELETED_BY_USER})
        else:
            raise _Told(MESSAGE_TYPE, f"Invalid message type: {shown_text(kind)}")

    def _name_client(self, channel: Channel, client_id: Any) -> None:
        if not isinstance(client_id, str):
            raise _Told(CLIENT_ID, f"Invalid custom client id: {shown_text(client_id)}")
        length = int(self._node.parameters.number("EVENT_HANDLER_MAX_CUSTOM_CLIENT_ID_LENGTH"))
        channel.client_id = client_id[: max(0, length)]

    def _register(self, channel: Channel, fields: Facts, data: Any) -> None:
        given = fields.get("id")
        name = shown_text(given)
        try:
            one = self._checked(channel, name, fields, data)
        except FilterRefused as refused:
            told = f"Failed to register filter with filter ID: {name} due to error: {refused}"
            raise _Told(NOT_REGISTERED, told, given) from None
        channel.filters[name] = one
        self._filters[one.id] = one
        if one.type == VALUE_CHANGED:
            self._values[one.id] = one
            self._listen()
        elif one.type == TX_STATE_CHANGED:
            tx_hash: str = one.config["tx_hash"]
            self._by_transaction.setdefault(tx_hash, {})[one.id] = one
            self._tell_present_state(one, tx_hash)

    def _checked(self, channel: Channel, name: str, fields: Facts, data: Any) -> Filter:
        number = self._node.parameters.number
        most, most_per_channel = number("MAX_NUM_EVENT_FILTERS"), number("MAX_NUM_EVENT_FILTERS_PER_CHANNEL")
        if len(self._filters) >= most:
            raise FilterRefused(f"The number of event filters exceeds its limit ({most})")
        if len(channel.filters) >= most_per_channel:
            told = f"The number of event filters exceeds its limit per channel ({most_per_channel})"
            raise FilterRefused(told)
        kind, config = fields.get("type"), fields.get("config")
        if not kind:
            raise FilterRefused(f"Can't find eventType from message.data ({js_json(data)})")
        if not config and not isinstance(config, dict | list):
            raise FilterRefused(f"Can't find config from message.data ({js_json(data)})")
        if name in channel.filters:
            raise FilterRefused(f"Event filter ID {channel.id}:{name} is already in use")
        return checked_filter(channel.id, name, kind, config)

    def _tell_present_state(self, one: Filter, tx_hash: str) -> None:
        """A transaction that is known is told at once; of one that never comes the filter goes after a while."""
        info = self._node.chain.transaction_info(tx_hash)
        if info is not None:
            payload = {
                "transaction": info.get("transaction"),
                "tx_state": {"before": None, "after": info.get("state")},
            }
            self._emit(one, payload)
            return
        seconds = float(self._node.parameters.number("EVENT_HANDLER_FILTER_DELETION_TIMEOUT_MS")) / 1000
        loop = asyncio.get_running_loop()
        self._timeouts[one.id] = loop.call_later(seconds, self._delete, one, FILTER_TIMEOUT)

    def _delete(self, one: Filter, reason: str) -> None:
        """Ends a filter and tells its client why."""
        channel = self._channels.get(one.channel_id)
        self._forget(one)
        if channel is not None:
            channel.emit(one.name, FILTER_DELETED, {"filter_id": one.name, "reason": reason})

    def _forget(self, one: Filter) -> None:
        self._forget_timeout(one)
        self._filters.pop(one.id, None)
        channel = self._channels.get(one.channel_id)
        if channel is not None:
            channel.filters.pop(one.name, None)
        if self._values.pop(one.id, None) is not None and not self._values:
            self._listen()
        if one.type == TX_STATE_CHANGED:
            filters = self._by_transaction.get(one.config["tx_hash"], {})
            filters.pop(one.id, None)
            if not filters:
                self._by_transaction.pop(one.config["tx_hash"], None)

    def _forget_timeout(self, one: Filter) -> None:
        timeout = self._timeouts.pop(one.id, None)
        if timeout is not None:
            timeout.cancel()

    # -- who stays --------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Asks all clients at the same moments whether they are there; who did not answer the last time goes."""
        while True:
            await asyncio.sleep(
                float(self._node.parameters.number("EVENT_HANDLER_HEARTBEAT_INTERVAL_MS")) / 1000
            )
            for channel in list(self._channels.values()):
                if not channel.is_alive:
                    channel.connection.terminate()
                    continue
                channel.is_alive = False
                channel.send("PING", {})

    async def _let_go_idle(self) -> None:
        """Ends channels that are idle or old."""
        number = self._node.parameters.number
        while True:
            await asyncio.sleep(float(number("EVENT_HANDLER_CHANNEL_IDLE_CHECK_INTERVAL_MS")) / 1000)
            now_ms = self._node.now_ms()
            idle_ms_max = float(number("EVENT_HANDLER_CHANNEL_IDLE_TIME_LIMIT_SECS")) * 1000
            life_ms_max = float(number("EVENT_HANDLER_CHANNEL_LIFE_TIME_LIMIT_SECS")) * 1000
            for channel in list(self._channels.values()):
                is_idle = now_ms - channel.last_message_ms > idle_ms_max
                if is_idle or now_ms - channel.created_at_ms > life_ms_max:
                    with contextlib.suppress(OSError):
                        channel.connection.terminate()
