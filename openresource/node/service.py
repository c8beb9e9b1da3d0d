"""A node's whole life: open the home, begin or go on with the chain, listen, serve, stop.

`NodeService(home).run()` serves until SIGTERM or SIGINT and then writes down what is pending. Supervisors need not
poll: `on_ready` is called once, when the first request can come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from openresource import __version__
from openresource.ledger import tree
from openresource.ledger.nodes import Branch
from openresource.ledger.views import View
from openresource.node.announcements import decoded_block
from openresource.node.content import QUOTA_BYTES, SWEEP_SECONDS, ContentStore
from openresource.node.door import LOCAL_NAMES, Door
from openresource.node.engine import Engine
from openresource.node.homes import NodeHome, blocks_from, store_first_block
from openresource.node.memory import collect_garbage_seldom
from openresource.node.metrics import Metrics
from openresource.node.server import Server
from openresource.node.store import Store
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.primitives.paths import VALUES
from openresource.protocol import begin, resume

DEFAULT_PORT = 8080
LOOPBACK = "127.0.0.1"
JOBS_PER_TURN = 200

_log = logging.getLogger("openresource.node")


class NodeFailed(Refusal):
    template = "The node stopped by itself: {reason}."
    way_out = "Look at its log; everything that was final is on the disk, so it can be started again."


class WrongProducer(Refusal):
    template = "The chain in {home} is made by {producer}; the key in {file} belongs to {address}."
    way_out = "Put the producer's key back, or start with an empty home."


class NodeService:
    """One node. `home` is the whole home; the node's files lie in its folder `node`."""

    def __init__(
        self,
        home: Path | str,
        network: str = "local",
        *,
        port: int = DEFAULT_PORT,
        host: str | None = None,
        content_quota_bytes: int = QUOTA_BYTES,
        on_ready: Callable[[NodeService], None] | None = None,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        """Without `host` the node listens on this machine only and checks the names that requests use; port 0 is any."""
        self.home = NodeHome(Path(home).expanduser())
        self.network = network
        self._port = port
        self._host = host
        self._content_quota_bytes = content_quota_bytes
        self._on_ready = on_ready
        self._clock_ms = _wall_clock_ms if clock_ms is None else clock_ms
        self._stop_wanted = asyncio.Event()
        self._engine: Engine | None = None
        self._server: Server | None = None
        self._content: ContentStore | None = None
        self._store: Store | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that the node listens on."""
        assert self._server is not None, "the node has not been started"
        return self._server.port

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def genesis_hash(self) -> str:
        """What distinguishes this network from all others."""
        return self.engine.machine.genesis_hash

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "the node has not been started"
        return self._engine

    def funding_key(self) -> PrivateKey:
        """The key that pays first money on a local network."""
        return self.home.funding_key()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises a refusal if the node cannot start or fails."""
        collect_garbage_seldom()
        run_in_loop(self._run_with_signals())

    async def serve(self) -> None:
        """Start, serve until `request_stop`, stop; for callers that have a loop of their own."""
        await self.start()
        try:
            await self._until_stopped()
        finally:
            await self.stop()

    def request_stop(self) -> None:
        """Ask for a graceful stop; call it from the loop's own thread."""
        self._stop_wanted.set()

    async def start(self) -> None:
        """Open everything; when this returns the node answers."""
        started = time.perf_counter()
        self.home.ensure()
        # The port first: it is the likeliest refusal, and nothing has happened yet.
        host = LOOPBACK if self._host is None else self._host
        self._server = Server(host, self._port)
        try:
            self._engine = self._opened_engine()
            self._content = ContentStore(self.home.content, self._content_quota_bytes)
            names = LOCAL_NAMES if self._host is None else None
            door = Door(self._engine, self._content, __version__, names)
            self._engine.start()
            await self._server.start(door.application, door.lane)
        except BaseException:
            await self.stop()
            raise
        self._sweeper = asyncio.create_task(self._sweep_content(), name="content-sweeper")
        facts = {
            "url": self.url,
            "network": self.network,
            "genesis_hash": self.genesis_hash,
            "height": self._engine.last_height(),
            "start_ms": round((time.perf_counter() - started) * 1000),
            "kernel": "plain" if str(tree.__file__).endswith(".py") else "compiled",
        }
        _log.info("ready", extra={"facts": facts})
        if self._on_ready is not None:
            self._on_ready(self)

    async def stop(self) -> None:
        """Let answers end, write down what is pending, close the home."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        if self._engine is not None:
            # Readers first: their streams would hold the server open.
            await self._engine.stop()
        if self._server is not None:
            await self._server.stop()
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._engine is not None:
            _log.info("stopped", extra={"facts": {"height": self._engine.last_height()}})

    def _opened_engine(self) -> Engine:
        # The store's lock comes before the first key: two nodes must not make two geneses.
        self._store = store = Store.open(self.home.chain)
        document = self.home.genesis(self.network, self._clock_ms())
        producer = self.home.key(self.home.producer_file, "producer")
        if document.get("producer") != producer.address:
            raise WrongProducer(
                home=str(self.home.folder),
                producer=document.get("producer"),
                file=str(self.home.producer_file),
                address=producer.address,
            )
        tree = store.tree("canonical")
        if store.height < 0:
            machine = begin(document, tree)
            store_first_block(store, machine.tip, tree)
        else:
            raw_tip, raw_first = store.block(store.height), store.block(0)
            assert raw_tip is not None and raw_first is not None, "the store knows its own heights"
            tip = decoded_block(raw_tip)
            genesis_hash = decoded_block(raw_first)["hash"]
            machine = resume(document, tree, tip, genesis_hash)
            machine.recall(blocks_from(store, machine.recall_from_ms))
        return Engine(
            machine=machine,
            tree=tree,
            store=store,
            producer=producer,
            clock_ms=self._clock_ms,
            metrics=Metrics(),
        )

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        try:
            await self.serve()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _until_stopped(self) -> None:
        assert self._server is not None
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._stop_wanted.wait()),
            asyncio.create_task(self.engine.failed.wait()),
        ]
        served = self._server.task()
        try:
            await asyncio.wait([*waits, served], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        failure = self.engine.failure
        if failure is not None:
            raise (
                failure if isinstance(failure, Refusal) else NodeFailed(reason=type(failure).__name__)
            ) from failure
        if served.done() and not self._stop_wanted.is_set():
            raise NodeFailed(reason="the server ended")

    async def _sweep_content(self) -> None:
        content = self._content
        assert content is not None
        await asyncio.to_thread(content.measure)
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            roots = await content_roots(self.engine.final())
            dropped = await asyncio.to_thread(content.sweep, roots)
            if dropped:
                _log.info(
                    "content dropped", extra={"facts": {"blocks": dropped, "used_bytes": content.used_bytes}}
                )


async def content_roots(final: View) -> list[str]:
    """What the chain refers to: programs, and the sealed inputs and outputs of jobs until those are folded."""
    programs, jobs = final.node([VALUES, "programs"]), final.node([VALUES, "jobs"])
    roots = [label for label, _ in programs.children()] if isinstance(programs, Branch) else []
    for place, (job, _) in enumerate(list(jobs.children()) if isinstance(jobs, Branch) else []):
        record: Any = final.get([VALUES, "jobs", job])
        if not isinstance(record, dict) or "request" not in record:
            continue
        named = [record["request"].get("input_cid")]
        named += [run.get("output_cid") for run in (record.get("executions") or {}).values()]
        roots += [cid for cid in named if isinstance(cid, str)]
        if place % JOBS_PER_TURN == 0:
            # Others want the loop too.
            await asyncio.sleep(0)
    return roots


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run in the quickest event loop at hand."""
    factory: Any = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def _wall_clock_ms() -> int:
    return int(time.time() * 1000)
