"""The chain as a client sees it: read, write, wait until final, follow events, keep content; all through one node.

A call that meets a node that is away tries again until its deadline and then says so (`NodeAway`). A transaction
that is sent again carries the same signature, so the chain takes it once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from openresource.client import content
from openresource.client.answers import (
    BadAnswer,
    Event,
    NodeAway,
    NodeRefused,
    NodeStatus,
    Operation,
    Reading,
    Submitted,
    TransactionDropped,
    TransactionInfo,
    TransactionNotFinal,
    TransactionRefused,
    WrongNetwork,
    failed_code,
    info_of,
    status_of,
)
from openresource.client.node_wire import (
    RETRY_SECONDS_FIRST,
    RETRY_SECONDS_MAX,
    TIMEOUT_SECONDS,
    WAIT_SECONDS_PER_CALL,
    Wire,
)
from openresource.ledger.draft import NetworkDomain, balance_labels
from openresource.ledger.results import ALREADY_IN_CHAIN, ALREADY_RECEIVED
from openresource.primitives.amounts import uain_of_number
from openresource.primitives.keys import PrivateKey, sign_transaction
from openresource.primitives.paths import format_path

__all__ = [
    "BadAnswer",
    "Chain",
    "Event",
    "NodeAway",
    "NodeRefused",
    "NodeStatus",
    "Operation",
    "Reading",
    "Submitted",
    "TransactionDropped",
    "TransactionInfo",
    "TransactionNotFinal",
    "TransactionRefused",
    "WrongNetwork",
    "set_function",
    "set_owner",
    "set_rule",
    "set_value",
]

FINAL_SECONDS = 60.0
CHILDREN_PER_PAGE = 1_000

At = Literal["pending", "final"] | int


def set_value(path: str, value: Any) -> Operation:
    """Write a value; None deletes."""
    return Operation("SET_VALUE", path, value)


def set_rule(path: str, rule: Any) -> Operation:
    """Write a rule."""
    return Operation("SET_RULE", path, rule)


def set_function(path: str, function: Any) -> Operation:
    """Write a function entry."""
    return Operation("SET_FUNCTION", path, function)


def set_owner(path: str, owner: Any) -> Operation:
    """Write an owner entry."""
    return Operation("SET_OWNER", path, owner)


class Chain:
    """One node's view of the chain; use it within one event loop and close it."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        genesis_hash: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url.rstrip("/")
        self._clock = clock
        self._wire = Wire(self.url, timeout_seconds, genesis_hash)
        self._domain: NetworkDomain | None = None
        self._last_timestamp_ms = 0

    async def __aenter__(self) -> Chain:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; nothing is lost by it."""
        await self._wire.close()

    # What the node and the network are.

    async def status(self) -> NodeStatus:
        """What the node says about itself and its network; another genesis than expected is refused."""
        status = status_of(await self._wire.call("ore_status", {}))
        expected = self._wire.genesis_hash
        if expected is not None and status.genesis_hash != expected:
            raise WrongNetwork(url=self.url, expected=expected, found=status.genesis_hash)
        self._domain = NetworkDomain(chain_id=status.chain_id, genesis_hash=status.genesis_hash)
        self._wire.genesis_hash = status.genesis_hash
        return status

    async def domain(self) -> NetworkDomain:
        """Chain id and genesis hash, which every signed paper of this network carries."""
        if self._domain is None:
            await self.status()
        assert self._domain is not None
        return self._domain

    async def wait_ready(self, deadline_seconds: float) -> NodeStatus:
        """Wait until the node answers."""
        return await self._wire.within(deadline_seconds, self.status, "waiting until it answers")

    # Reading.

    async def read(self, path: str, at: At = "final", *, tree: str = "values", shallow: bool = False) -> Any:
        """The value at a path; None if there is none."""
        params = {"ref": path, "tree": tree, "at": at, "shallow": shallow}
        return _member(await self.rpc("ore_read", params), "value")

    async def read_at(
        self, path: str, at: At = "final", *, tree: str = "values", proof: bool = True
    ) -> Reading:
        """The value at a path with the height it was read at and, if asked, the paper that proves it."""
        found = await self.rpc("ore_read", {"ref": path, "tree": tree, "at": at, "proof": proof})
        return Reading(
            value=_member(found, "value"),
            height=int(_member(found, "height")),
            at=str(_member(found, "at")),
            paper=found.get("proof"),
        )

    async def children(self, path: str, at: At = "final", *, tree: str = "values") -> AsyncIterator[str]:
        """The labels below a path, page by page."""
        async for label, _ in self.branches(path, at, tree=tree):
            yield label

    async def branches(
        self, path: str, at: At = "final", *, tree: str = "values"
    ) -> AsyncIterator[tuple[str, bool]]:
        """The labels below a path, each with whether there is more below it."""
        after: str | None = None
        while True:
            params = {"ref": path, "tree": tree, "at": at, "limit": CHILDREN_PER_PAGE}
            page = await self.rpc("ore_children", params if after is None else {**params, "after": after})
            branches = _member(page, "branches")
            for label in _member(page, "labels"):
                yield label, bool(branches.get(label))
            after = page.get("next")
            if after is None:
                return

    async def balance(self, account: str, at: At = "final") -> int:
        """What an address or a service account (`type|service|key`) holds, in µAIN."""
        number = await self.read(format_path(balance_labels(account)), at)
        return 0 if number is None else uain_of_number(number)

    async def transaction(self, tx_hash: str) -> TransactionInfo | None:
        """What the node knows about a transaction."""
        return info_of(tx_hash, await self.rpc("ain_getTransactionByHash", {"hash": tx_hash}))

    # Writing.

    async def sign(
        self,
        operations: Operation | Sequence[Operation],
        key: PrivateKey,
        *,
        nonce: int = -1,
        timestamp_ms: int | None = None,
    ) -> dict[str, Any]:
        """A signed transaction that may be sent any number of times and takes effect once."""
        domain = await self.domain()
        listed = [operations] if isinstance(operations, Operation) else list(operations)
        operation: dict[str, Any]
        if len(listed) == 1:
            operation = listed[0].to_json()
        else:
            operation = {"type": "SET", "op_list": [one.to_json() for one in listed]}
        timestamp = self._next_timestamp_ms() if timestamp_ms is None else timestamp_ms
        body = {"operation": operation, "nonce": nonce, "timestamp": timestamp, "gas_price": 0}
        return {"tx_body": body, "signature": sign_transaction(body, key, domain.chain_id)}

    async def send(self, transaction: Mapping[str, Any]) -> Submitted:
        """Send a signed transaction; it is pending when this returns. A refusal is raised, typed."""
        tx_hash = str(transaction["signature"])[:66]
        outcome = await self.rpc("ain_sendSignedTransaction", transaction)
        result = _member(outcome, "result")
        code, message = failed_code(result)
        if code in (ALREADY_RECEIVED, ALREADY_IN_CHAIN):
            # We sent it before and the answer was lost: what counts is what came of it then.
            known = await self.transaction(tx_hash)
            result = known.result if known is not None else result
            code, message = failed_code(result) if known is not None else (0, "")
        if code != 0:
            raise TransactionRefused(result_code=code, reason=message, tx_hash=tx_hash)
        return Submitted(tx_hash, result)

    async def submit(
        self,
        operations: Operation | Sequence[Operation],
        key: PrivateKey,
        *,
        nonce: int = -1,
        timestamp_ms: int | None = None,
    ) -> Submitted:
        """Sign and send operations as one transaction: all of them take effect or none."""
        return await self.send(await self.sign(operations, key, nonce=nonce, timestamp_ms=timestamp_ms))

    async def submit_final(
        self,
        operations: Operation | Sequence[Operation],
        key: PrivateKey,
        *,
        deadline_seconds: float = FINAL_SECONDS,
    ) -> TransactionInfo:
        """Submit and wait until it is final; what a node loses with its open block is sent again."""
        transaction = await self.sign(operations, key)
        deadline = time.monotonic() + deadline_seconds
        while True:
            submitted = await self.send(transaction)
            left_seconds = max(0.1, deadline - time.monotonic())
            try:
                return await self.wait_final(submitted.tx_hash, deadline_seconds=left_seconds)
            except TransactionDropped:
                if time.monotonic() >= deadline:
                    raise

    async def write(
        self,
        path: str,
        value: Any,
        key: PrivateKey,
        *,
        until: Literal["final", "pending"] = "final",
        deadline_seconds: float = FINAL_SECONDS,
    ) -> str:
        """Write one value and return the transaction's hash."""
        if until == "pending":
            return (await self.submit(set_value(path, value), key)).tx_hash
        return (
            await self.submit_final(set_value(path, value), key, deadline_seconds=deadline_seconds)
        ).tx_hash

    async def wait_final(self, tx_hash: str, *, deadline_seconds: float = FINAL_SECONDS) -> TransactionInfo:
        """Wait until a transaction is in a block that will not change; one that failed there is refused."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            left_seconds = deadline - time.monotonic()
            wait_seconds = max(0.0, min(left_seconds, WAIT_SECONDS_PER_CALL))
            params = {"hash": tx_hash, "timeout_ms": round(wait_seconds * 1000)}
            info = info_of(tx_hash, await self.rpc("ore_waitTransaction", params, extra_seconds=wait_seconds))
            if info is None:
                raise TransactionDropped(tx_hash=tx_hash)
            if info.is_final:
                code, message = failed_code(info.result)
                if code != 0 or info.state == "REVERTED":
                    raise TransactionRefused(result_code=code, reason=message or info.state, tx_hash=tx_hash)
                return info
            if left_seconds <= 0:
                raise TransactionNotFinal(
                    tx_hash=tx_hash, state=info.state, waited_seconds=round(deadline_seconds, 1)
                )

    # Following.

    async def events(
        self,
        patterns: str | Sequence[str] = (),
        *,
        since: str | int | None = None,
        pending: bool = False,
        blocks: bool = False,
        away_seconds_max: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Events at or below the patterns, from a cursor or from now on; a broken stream goes on where it broke.

        A node that is away for longer than `away_seconds_max` ends it with `NodeAway`; None waits for ever.
        """
        listed = [patterns] if isinstance(patterns, str) else list(patterns)
        position = None if since is None else str(since)
        away_since: float | None = None
        delay = RETRY_SECONDS_FIRST
        while True:
            try:
                async with aclosing(self._wire.events(listed, position, pending, blocks)) as stream:
                    async for cursor, event in stream:
                        away_since, delay = None, RETRY_SECONDS_FIRST
                        position = cursor or position
                        if event is not None:
                            yield event
            except NodeAway as away:
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if away_seconds_max is not None and now - away_since >= away_seconds_max:
                    raise NodeAway(
                        url=self.url,
                        doing="following its events",
                        waited_seconds=away_seconds_max,
                        reason=away.reason,
                    ) from away
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS_MAX)

    # Content.

    async def put_block(self, cid: str, data: bytes) -> None:
        """Give the node one block of content."""
        content.verify(cid, data)
        await self._wire.request("PUT", f"/content/{cid}", data)

    async def get_block(self, cid: str) -> bytes:
        """One block of content, verified against its name."""
        data = await self._wire.request("GET", f"/content/{cid}", None)
        content.verify(cid, data)
        return data

    async def has_block(self, cid: str) -> bool:
        """Whether the node keeps a block."""
        try:
            await self._wire.request("HEAD", f"/content/{cid}", None)
        except NodeRefused as refusal:
            if refusal.status == 404:
                return False
            raise
        return True

    async def put_folder(self, folder: Path) -> str:
        """Give the node a folder; returns the CID that names exactly these files."""
        return await content.put_folder(folder, self.put_block)

    async def put_files(self, files: Mapping[str, bytes]) -> str:
        """Give the node files by relative path, as one folder; returns its CID."""
        return await content.put_files(files, self.put_block)

    async def put_bytes(self, data: bytes) -> str:
        """Give the node one file; returns its CID."""
        return await content.put_bytes(data, self.put_block)

    async def get_bytes(self, cid: str, *, bytes_max: int = content.FOLDER_BYTES_MAX) -> bytes:
        """The bytes of one file, every block verified, within bounds."""
        return await content.get_bytes(cid, self.get_block, bytes_max=bytes_max)

    async def get_folder(
        self,
        cid: str,
        into: Path,
        *,
        bytes_max: int = content.FOLDER_BYTES_MAX,
        files_max: int = content.FOLDER_FILES_MAX,
    ) -> None:
        """Write the files of a folder below `into` (empty or new), every block verified, within bounds."""
        await content.get_folder(cid, into, self.get_block, bytes_max=bytes_max, files_max=files_max)

    async def get_files(
        self,
        cid: str,
        *,
        bytes_max: int = content.FOLDER_BYTES_MAX,
        files_max: int = content.FOLDER_FILES_MAX,
    ) -> dict[str, bytes]:
        """The files of a folder by relative path, every block verified, within bounds."""
        return await content.get_files(cid, self.get_block, bytes_max=bytes_max, files_max=files_max)

    # The wire.

    async def rpc(self, method: str, params: Mapping[str, Any], *, extra_seconds: float = 0.0) -> Any:
        """Call a method; an answer that carries a code is raised as `NodeRefused`."""
        return await self._wire.call(method, params, extra_seconds=extra_seconds)

    def _next_timestamp_ms(self) -> int:
        # Two equal writes in one millisecond would be one transaction.
        self._last_timestamp_ms = max(int(self._clock() * 1000), self._last_timestamp_ms + 1)
        return self._last_timestamp_ms


def _member(found: Any, name: str) -> Any:
    if not isinstance(found, dict) or name not in found:
        raise BadAnswer(url="the node", reason=f"it has no member {name}")
    return found[name]
