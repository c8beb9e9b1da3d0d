"""Calls of REST functions: when a write sets one off, this node tells the function's server, if it was started so.

The answer never matters: the chain goes on without it, and nodes that make no calls come to the same state. Calls are
bounded in number and time; what comes beyond is dropped and logged.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

import httpx2

from openresource.ledger.context import RestCaller, TxContext
from openresource.ledger.execution import TxRestCaller
from openresource.ledger.functions import Trigger
from openresource.ledger.transactions import Transaction
from openresource.ledger.verdicts import Auth
from openresource.node.ain.parameters import NodeParameters
from openresource.node.rpc import encode

CALLS_WAITING_MAX: Final = 1_000
CALLS_AT_ONCE_MAX: Final = 50

Facts = dict[str, Any]
_log = logging.getLogger("openresource.node.ain.rest")


class CallingNode(Protocol):
    """What the calls need of the node."""

    @property
    def parameters(self) -> NodeParameters: ...

    def now_ms(self) -> int: ...

    def chain_id(self) -> int: ...

    def network_id(self) -> int: ...


class RestCalls:
    """All calls of one node; they run beside its other work."""

    def __init__(self, node: CallingNode) -> None:
        self._node = node
        self._client = httpx2.AsyncClient(trust_env=False, follow_redirects=False)
        self._room = asyncio.Semaphore(CALLS_AT_ONCE_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def caller(self, source: str) -> TxRestCaller:
        """Calls for executions of one kind, USER or BLOCK."""

        def of_transaction(transaction: Transaction) -> RestCaller:
            now_ms = self._node.now_ms()

            def call(entry: Facts, trigger: Trigger, auth: Auth, context: TxContext) -> None:
                self._begin(entry, self._told(entry, trigger, auth, context, transaction, source, now_ms))

            return call

        return of_transaction

    async def stop(self) -> None:
        """Gives up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _told(
        self,
        entry: Facts,
        trigger: Trigger,
        auth: Auth,
        context: TxContext,
        transaction: Transaction,
        source: str,
        now_ms: int,
    ) -> Facts:
        """What the function's server is told."""
        times = {
            "timestamp": context.timestamp,
            "blockNumber": context.block_number,
            "blockTime": context.block_time,
        }
        function_id = entry.get("function_id")
        return {
            "fid": function_id,
            "function": entry,
            "valuePath": trigger.labels,
            "functionPath": trigger.function_labels,
            "value": trigger.value,
            "prevValue": trigger.previous,
            "params": trigger.params,
            "executedAt": now_ms,
            "transaction": {
                **transaction.to_json(),
                "extra": {"created_at": now_ms, "executed_at": now_ms},
            },
            **times,
            "options": {**times, "eventSource": source},
            "eventSource": source,
            "auth": {**auth.to_json(), "fid": function_id, "fids": list(auth.fids or ())},
            "chainId": self._node.chain_id(),
            "networkId": self._node.network_id(),
        }

    def _begin(self, entry: Facts, told: Facts) -> None:
        if len(self._tasks) >= CALLS_WAITING_MAX:
            _log.warning("too many calls wait; one is dropped", extra={"facts": {"fid": told["fid"]}})
            return
        # Encoded at once: the values belong to a state that goes on changing.
        task = asyncio.get_running_loop().create_task(self._call(str(entry["function_url"]), encode(told)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, url: str, body: bytes) -> None:
        seconds = float(self._node.parameters.number("REST_FUNCTION_CALL_TIMEOUT_MS")) / 1000
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/plain, */*"}
        try:
            async with self._room, asyncio.timeout(seconds):
                request = self._client.build_request(
                    "POST", url, content=body, headers=headers, timeout=seconds
                )
                response = await self._client.send(request, stream=True)
                await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as error:
            _log.info(
                "a REST function was not reached", extra={"facts": {"url": url[:200], "reason": str(error)}}
            )
