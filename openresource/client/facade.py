"""`AsyncClient` and `Client`: everything that a buyer or a builder does, in a few words.

`Client` runs an `AsyncClient` on a thread of its own, so that it works in scripts, notebooks and inside other loops.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from openresource.client.answers import Operation
from openresource.client.books import Books
from openresource.client.calls import CALL_SECONDS, Answer, Calls, Exchange
from openresource.client.chain import At, Chain, Event
from openresource.client.channels import Channels
from openresource.client.commands import PUBLISH_SECONDS, publish_by_command
from openresource.client.envelopes import EVENT_STARTS, JSON_TYPE, event_blocks, event_value, value_of
from openresource.client.homes import NODE_VARIABLE, Home
from openresource.client.inner_jobs import InnerJobs
from openresource.client.job_views import Explanation, JobResult, JobView, Output
from openresource.client.jobs import JOB_SECONDS, JobHandle, Jobs
from openresource.client.money import Money, money_of
from openresource.client.receipts import tree_of
from openresource.client.services import KEPT_SECONDS, Choice, Directory, Listing
from openresource.client.writes import Tree, addition, new_app, operation, transfer
from openresource.ledger.draft import NetworkDomain
from openresource.market.allowances import Allowance, allow
from openresource.market.placements import Placement
from openresource.market.prices import Price
from openresource.market.receipt_trees import ReceiptTree
from openresource.primitives.amounts import uain_from_text
from openresource.primitives.keys import PrivateKey

Result = TypeVar("Result")
BOOKS_FILE: Final = "client.sqlite"


async def values_of(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[Any, None]:
    """The values of a streamed answer, each as soon as it is whole; an answer at once is its only value."""
    pending, is_events = b"", False
    async with aclosing(pieces):
        async for piece in pieces:
            pending += piece
            is_events = is_events or pending.startswith(EVENT_STARTS)
            if is_events:
                *events, pending = event_blocks(pending)
                for event in events:
                    if event.startswith(b"data:"):
                        yield event_value(event)
    if is_events and pending.startswith(b"data:"):
        yield event_value(pending)
    elif pending and not is_events:
        yield value_of(pending, JSON_TYPE)


def _allowance(given: str | Allowance | None) -> Allowance | None:
    """What a buyer's words allow; without any nothing, as nobody spends more than they have said."""
    return allow(given) if isinstance(given, str) else given


class AsyncClient:
    """A home's wallet at work: use it within one event loop, and close it."""

    def __init__(self, home: str | Path | Home | None = None, node: str | None = None) -> None:
        self.home = home if isinstance(home, Home) else Home(home)
        given = node or os.environ.get(NODE_VARIABLE)
        # The home knows the network of its own node; who names another one may mean another network.
        genesis = None if given else self.home.config().get("genesis_hash")
        self.chain = Chain(
            self.home.node_url(given), genesis_hash=genesis if isinstance(genesis, str) else None
        )
        self.directory = Directory(self.chain, kept_seconds=KEPT_SECONDS)
        self._key: PrivateKey | None = None
        self._books: Books | None = None
        self._channels: Channels | None = None
        self._calls: Calls | None = None
        self._jobs: Jobs | None = None
        self._preparing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections and books; money stays where it is, and jobs go on."""
        if self._jobs is not None:
            await self._jobs.close()
        if self._calls is not None:
            await self._calls.close()
        if self._channels is not None:
            self._channels.close()
        if self._books is not None:
            self._books.close()
        await self.chain.close()

    def key(self) -> PrivateKey:
        """The wallet's key, read once; it stays in this process."""
        if self._key is None:
            self._key = self.home.wallet()
        return self._key

    def unlock(self, passphrase: str) -> None:
        """Open an encrypted wallet."""
        self._key = self.home.wallet(passphrase)

    @property
    def books(self) -> Books:
        """Channels, spendings and receipts of this home."""
        if self._books is None:
            self.home.ensure()
            self._books = Books(self.home.folder / BOOKS_FILE)
        return self._books

    async def network(self) -> NetworkDomain:
        """Chain id and genesis hash of the node's network."""
        return await self.chain.domain()

    async def channels(self) -> Channels:
        """The payment channels of this home."""
        await self.calls()
        assert self._channels is not None
        return self._channels

    async def calls(self) -> Calls:
        """The machinery of paid calls."""
        async with self._preparing:
            if self._calls is None:
                network = await self.chain.domain()
                self._channels = Channels(self.home, self.chain, self.books, self.key, network)
                self._calls = Calls(
                    self.home,
                    self.chain,
                    self.books,
                    self._channels,
                    self.directory,
                    network,
                    inner_jobs=lambda: InnerJobs(self.jobs, self.directory, self.key(), network),
                )
                await self._calls.look_back()
            return self._calls

    @property
    def jobs(self) -> Jobs:
        """The jobs of this home: asked for, watched, explained."""
        if self._jobs is None:
            self._jobs = Jobs(self.chain, self.directory, self.key)
        return self._jobs

    # Services

    async def services(self, query: str = "") -> list[Listing]:
        """Services that match some words."""
        return await self.directory.search(query)

    async def quote(self, service: str) -> tuple[Choice, list[tuple[Placement, Price]]]:
        """Who offers a service at which price."""
        return await (await self.calls()).quote(service)

    async def call(
        self,
        service: str,
        method: str | None = None,
        *,
        max_price: str | None = None,
        deadline_seconds: float = CALL_SECONDS,
        progress: Callable[[str], None] = lambda _: None,
        insists: bool = False,
        allowance: str | Allowance | None = None,
        **inputs: Any,
    ) -> Answer:
        """Call a service and pay for it; `max_price` and `allowance` are texts of AIN.

        Who `insists` has another provider called when one vanished with the call, although the first may charge yet.
        With an `allowance` its program may call other services that are open to everyone, one call deep, and this
        wallet pays for them; `allow(amount, depth=…, services=…)` says more. `answer.inner` has what they cost.
        """
        calls = await self.calls()
        plan = await calls.plan(
            service,
            method,
            inputs,
            max_price_uain=None if max_price is None else uain_from_text(max_price),
            deadline_seconds=deadline_seconds,
            progress=progress,
            insists=insists,
            allowance=_allowance(allowance),
        )
        return await calls.call(plan)

    async def stream(
        self,
        service: str,
        method: str | None = None,
        *,
        max_price: str | None = None,
        deadline_seconds: float = CALL_SECONDS,
        exchange: Exchange | None = None,
        insists: bool = False,
        allowance: str | Allowance | None = None,
        **inputs: Any,
    ) -> AsyncGenerator[Any, None]:
        """Call a streaming method; its values come as the program makes them.

        `exchange.answer` holds the receipt when the stream has ended. To cancel is to close the generator.
        """
        calls = await self.calls()
        plan = await calls.plan(
            service,
            method,
            inputs,
            max_price_uain=None if max_price is None else uain_from_text(max_price),
            deadline_seconds=deadline_seconds,
            insists=insists,
            allowance=_allowance(allowance),
        )
        async with aclosing(values_of(calls.stream(plan, exchange or Exchange()))) as values:
            async for value in values:
                yield value

    async def publish(
        self, folder: str | Path, *, deadline_seconds: float = PUBLISH_SECONDS
    ) -> dict[str, Any]:
        """Publish a folder and wait until somebody runs it; what `openresource publish --json` says."""
        return await publish_by_command(
            Path(folder), self.home.folder, self.chain.url, deadline_seconds=deadline_seconds
        )

    async def receipt_tree(self, receipt_id: str) -> ReceiptTree:
        """A receipt of this home's books with those of the calls below it, all checked; nothing is asked of anybody."""
        return tree_of(self.books, receipt_id, await self.network())

    # The chain

    async def read(self, path: str, at: At = "final", tree: Tree = "values") -> Any:
        """The value at a path, or the rules, functions or owners there."""
        return await self.chain.read(path, at, tree=tree)

    async def write(self, path: str, value: Any, tree: Tree = "values") -> str:
        """Write a value, rule, function or owner; final when this returns. Gives the transaction's hash."""
        return await self.change(operation(path, value, tree))

    async def add(self, path: str, amount: int | float) -> str:
        """Add to a number; final when this returns."""
        return await self.change(addition(path, amount))

    async def change(self, *operations: Operation) -> str:
        """Several writes as one: all of them take effect or none; final when this returns."""
        return (await self.chain.submit_final(operations, self.key())).tx_hash

    async def create_app(self, name: str, *, is_public: bool = False) -> str:
        """Make an app of which this wallet is the admin; its values live below /apps/NAME."""
        return await self.change(new_app(name, self.key().address, is_public=is_public))

    async def transfer(self, to: str, amount: str | int) -> str:
        """Send AIN to an address; final when this returns."""
        return await self.change(transfer(self.key().address, to, amount))

    async def watch(self, path: str, *, since: str | None = None) -> AsyncGenerator[Event, None]:
        """Final writes at or below a path, from now on or from a cursor."""
        async with aclosing(self.chain.events(path, since=since)) as events:
            async for event in events:
                yield event

    async def balance(self) -> int:
        """What the wallet holds outside of channels, in µAIN."""
        return await self.chain.balance(self.home.address())

    async def money(self) -> Money:
        """Where each coin of the wallet is, and when it returns."""
        return await money_of(self.home, self.chain, self.books)


class Client:
    """The same in plain calls: `Client().call("search", query="…", passages=[…]).value`."""

    def __init__(self, home: str | Path | Home | None = None, node: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="openresource-client", daemon=True
        )
        self._thread.start()
        self._is_closed = False
        try:
            self.asynchronous = self._run(self._make(home, node))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and books; twice does no harm."""
        if not self._is_closed:
            self._is_closed = True
            self._run(self.asynchronous.close())
            self._stop()

    @property
    def home(self) -> Home:
        """The home whose wallet pays."""
        return self.asynchronous.home

    def call(
        self,
        service: str,
        method: str | None = None,
        *,
        max_price: str | None = None,
        deadline_seconds: float = CALL_SECONDS,
        insists: bool = False,
        allowance: str | Allowance | None = None,
        **inputs: Any,
    ) -> Answer:
        """Call a service and pay for it; with an `allowance` its program may call others."""
        return self._run(
            self.asynchronous.call(
                service,
                method,
                max_price=max_price,
                deadline_seconds=deadline_seconds,
                insists=insists,
                allowance=allowance,
                **inputs,
            )
        )

    def stream(
        self,
        service: str,
        method: str | None = None,
        *,
        max_price: str | None = None,
        deadline_seconds: float = CALL_SECONDS,
        exchange: Exchange | None = None,
        allowance: str | Allowance | None = None,
        **inputs: Any,
    ) -> Iterator[Any]:
        """Call a streaming method; its values come as the program makes them. To cancel is to close the iterator."""
        return self._each(
            self.asynchronous.stream(
                service,
                method,
                max_price=max_price,
                deadline_seconds=deadline_seconds,
                exchange=exchange,
                allowance=allowance,
                **inputs,
            )
        )

    def job(
        self,
        service: str,
        method: str | None = None,
        *,
        policy: str = "one",
        budget: str | None = None,
        deadline_seconds: float = JOB_SECONDS,
        **inputs: Any,
    ) -> Job:
        """Ask for a run that is checked as the policy says; `budget` is a text of AIN."""
        budget_uain = None if budget is None else uain_from_text(budget)
        handle = self._run(
            self.asynchronous.jobs.run(
                service,
                method,
                inputs,
                policy=policy,
                budget_uain=budget_uain,
                deadline_seconds=deadline_seconds,
            )
        )
        return Job(self, handle)

    def jobs(self) -> list[JobView]:
        """The jobs that this wallet asked for, the newest first."""
        return self._run(self.asynchronous.jobs.list())

    def explain(self, job: str) -> Explanation:
        """A job's verdict computed anew from the chain alone."""
        return self._run(self.asynchronous.jobs.explain(job))

    def dispute(self, job: str, *, reason: str = "") -> JobResult:
        """Doubts an accepted result against as much of a bond as is needed, and waits for what referees find."""
        return self._run(self._dispute(job, reason))

    async def _dispute(self, job: str, reason: str) -> JobResult:
        jobs = self.asynchronous.jobs
        await jobs.dispute(job, reason=reason)
        return await jobs.resume(job).result()

    def services(self, query: str = "") -> list[Listing]:
        """Services that match some words."""
        return self._run(self.asynchronous.services(query))

    def quote(self, service: str) -> tuple[Choice, list[tuple[Placement, Price]]]:
        """Who offers a service at which price."""
        return self._run(self.asynchronous.quote(service))

    def publish(self, folder: str | Path, *, deadline_seconds: float = PUBLISH_SECONDS) -> dict[str, Any]:
        """Publish a folder and wait until somebody runs it."""
        return self._run(self.asynchronous.publish(folder, deadline_seconds=deadline_seconds))

    def receipt_tree(self, receipt_id: str) -> ReceiptTree:
        """A receipt of this home's books with those of the calls below it, all checked."""
        return self._run(self.asynchronous.receipt_tree(receipt_id))

    def read(self, path: str, at: At = "final", tree: Tree = "values") -> Any:
        """The value at a path, or the rules, functions or owners there."""
        return self._run(self.asynchronous.read(path, at, tree))

    def write(self, path: str, value: Any, tree: Tree = "values") -> str:
        """Write a value, rule, function or owner; final when this returns."""
        return self._run(self.asynchronous.write(path, value, tree))

    def add(self, path: str, amount: int | float) -> str:
        """Add to a number; final when this returns."""
        return self._run(self.asynchronous.add(path, amount))

    def change(self, *operations: Operation) -> str:
        """Several writes as one: all of them take effect or none."""
        return self._run(self.asynchronous.change(*operations))

    def create_app(self, name: str, *, is_public: bool = False) -> str:
        """Make an app of which this wallet is the admin; its values live below /apps/NAME."""
        return self._run(self.asynchronous.create_app(name, is_public=is_public))

    def transfer(self, to: str, amount: str | int) -> str:
        """Send AIN to an address; final when this returns."""
        return self._run(self.asynchronous.transfer(to, amount))

    def watch(self, path: str, *, since: str | None = None) -> Iterator[Event]:
        """Final writes at or below a path."""
        return self._each(self.asynchronous.watch(path, since=since))

    def balance(self) -> int:
        """What the wallet holds outside of channels, in µAIN."""
        return self._run(self.asynchronous.balance())

    def money(self) -> Money:
        """Where each coin of the wallet is, and when it returns."""
        return self._run(self.asynchronous.money())

    async def _make(self, home: str | Path | Home | None, node: str | None) -> AsyncClient:
        return AsyncClient(home, node)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C reaches the caller's thread alone; the work must not go on without it.
            future.cancel()
            raise

    def _each(self, values: AsyncGenerator[Result, None]) -> Iterator[Result]:
        async def following() -> tuple[bool, Any]:
            try:
                return True, await anext(values)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                is_there, value = self._run(following())
                if not is_there:
                    return
                yield value
        finally:
            if not self._is_closed:
                self._run(values.aclose())

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Job:
    """A job in plain calls: `client.job("shout", text="hello", policy="audited").result().value`."""

    def __init__(self, client: Client, handle: JobHandle) -> None:
        self._client = client
        self._handle = handle

    @property
    def id(self) -> str:
        """The job's name on the chain."""
        return self._handle.id

    def provisional(self) -> Output:
        """The first result that is there, before anybody has checked it."""
        return self._client._run(self._handle.provisional())

    def result(self) -> JobResult:
        """The verdict with the output that it accepts."""
        return self._client._run(self._handle.result())

    def events(self) -> Iterator[JobView]:
        """The job each time it has changed, until it is settled."""
        return self._client._each(self._handle.events())
