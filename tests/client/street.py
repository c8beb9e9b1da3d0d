"""Shops on a real chain: a node process, real gateways whose programs are functions of the tests, buyers with homes.

    async with Street(node, tmp_path) as street:
        service = await street.publish("echo")
        shop = await street.open(service, echo)
        async with await street.buyer() as buyer: ...

What a shop sends may be changed on its way out, for providers that lie; `CuttingProxy` breaks connections.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import os
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openresource.client import AsyncClient
from openresource.client.chain import Chain, set_value
from openresource.client.homes import Home
from openresource.client.services import KEPT_SECONDS, Directory
from openresource.ledger.draft import NetworkDomain
from openresource.market.manifests import Calls as Declared
from openresource.market.manifests import Manifest, Method, Run
from openresource.market.placements import Placement, placement_record, sign_tls_key
from openresource.market.prices import Price
from openresource.market.programs import Program, program_record
from openresource.market.services import Permissions, Version, version_record
from openresource.primitives.cids import folder_cid
from openresource.primitives.encoding import base64url_bytes
from openresource.primitives.keys import PrivateKey, generate_key
from openresource.provider.admission import Admission
from openresource.provider.answers import Answers
from openresource.provider.books import Books
from openresource.provider.calls import Calls
from openresource.provider.claims import Claims
from openresource.provider.gateway import Gateway
from openresource.provider.inner_calls import Lines, Proofs
from openresource.provider.journal import Journal
from openresource.provider.lanes import Lane
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Offer, Offers
from openresource.provider.server import GatewayServer
from openresource.provider.service import clock_ms
from openresource.provider.tls import load_or_make_identity, server_context
from openresource.sandbox.driver import Limits, ProgramCall, ProgramFailed, ProgramReply
from tests.provider.support import FunctionRunner
from tests.support.network import NodeProcess
from tests.support.ports import hold_port, port_of

ASK_UAIN = 80
ROYALTY_UAIN = 20
PRICE_UAIN = ASK_UAIN + ROYALTY_UAIN
# What a buyer's wallet holds at first.
START_UAIN = 5_000_000
FEE_PPM = 20_000
TEXT_INPUT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
METHODS = (
    Method("shout", "/shout", input=TEXT_INPUT),
    Method("count", "/count", input={"type": "object"}, stream=True),
)

Program_ = Callable[[ProgramCall], Awaitable[ProgramReply]]
Change = Callable[[dict[str, Any]], dict[str, Any] | None]


async def shout(call: ProgramCall) -> ProgramReply:
    """In capitals, as JSON."""
    text = json.loads(call.body)["text"]
    return ProgramReply(200, "application/json", json.dumps(text.upper()).encode(), cpu_ms=1, wall_ms=1)


@dataclass(frozen=True)
class Service:
    """A published version."""

    publisher: PrivateKey
    name: str
    version: Version
    # What its manifest says of calls of others.
    calls: Declared | None = None

    @property
    def full_name(self) -> str:
        return f"{self.publisher.address}/{self.name}"


@dataclass
class Shop:
    """A provider with one offer, whose program is a function."""

    street: Street
    service: Service
    key: PrivateKey
    folder: Path
    runner: FunctionRunner
    signs_with: PrivateKey
    price: Price = field(default_factory=lambda: Price(ASK_UAIN, ROYALTY_UAIN, FEE_PPM))
    capacity: int = 64
    permissions: Permissions = field(default_factory=Permissions)
    # Sees every ASGI message that goes out and may change it, or swallow it with None.
    change: Change | None = None
    port: int = 0
    requests: list[str] = field(default_factory=list)

    async def start(self) -> None:
        """Opens the books where they were and listens, at the same port if there was one."""
        self.books = Books(self.folder / "provider.sqlite")
        self.books.open()
        answers = Answers(self.folder / "answers", self.books)
        answers.open()
        self.journal = Journal(self.folder / "journal")
        self.admission = Admission(
            chain=self.street.chain,
            journal=self.journal,
            books=self.books,
            answers=answers,
            provider=self.key.address,
            network=self.street.network,
            clock_ms=clock_ms,
        )
        self.admission.start(self.journal.open())
        metrics = Metrics()
        self.claims = Claims(
            admission=self.admission,
            chain=self.street.chain,
            key=self.key,
            books=self.books,
            metrics=metrics,
            clock_ms=clock_ms,
        )
        self.lines = Lines(
            Proofs(Directory(self.street.chain, kept_seconds=KEPT_SECONDS), self.street.network)
        )
        calls = Calls(
            admission=self.admission,
            answers=answers,
            network=self.street.network,
            key=self.signs_with,
            metrics=metrics,
            clock_ms=clock_ms,
            random_bytes=os.urandom,
            lines=self.lines,
        )
        self.offers = Offers()
        self.offers.put(self._offer())
        gateway = Gateway(
            self.offers,
            calls,
            self.claims,
            overview=dict,
            health=lambda: (True, {}),
            gauges=dict,
        )
        now = datetime.datetime.now(datetime.UTC)
        self.identity = load_or_make_identity(self.folder / "tls.pem", "127.0.0.1", now=now)
        context = server_context(self.identity)
        if not self.port:
            # Held until nobody knows this shop any more: whoever comes back finds its port free.
            holder = hold_port()
            self.port = port_of(holder)
            weakref.finalize(self, holder.close)
        self.server = GatewayServer(self._app(gateway), context, "127.0.0.1", self.port)
        gateway.endpoint = self.endpoint
        await self.server.start()
        self._claiming = asyncio.create_task(self.claims.run())

    async def stop(self) -> None:
        """Leaves without a word, as after a power cut; its books stay where they are."""
        self._claiming.cancel()
        await asyncio.gather(self._claiming, return_exceptions=True)
        await self.server.stop(1)
        await self.admission.close()
        await self.journal.close()
        await self.books.close()

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def tabs(self) -> list[Any]:
        return [account.tab for account in self.admission.accounts]

    @property
    def spent_uain(self) -> int:
        return sum(tab.spent_uain for tab in self.tabs)

    async def has_earned(self, amount_uain: int) -> None:
        """Returns when calls for so much are counted, and all that were counted are written down.

        What is counted and not written yet is still under way for who asks what became of it.
        """

        def is_written() -> bool:
            return self.spent_uain == amount_uain and not any(one.waiting for one in self.admission.accounts)

        await until(is_written)

    async def announce(self, status: str = "PLACED", **changes: Any) -> None:
        """Writes the placement's next step."""
        placement = Placement(
            self.service.publisher.address,
            self.service.name,
            self.service.version.program,
            self.key.address,
            status,
        )
        if status not in ("OFFERED", "GONE", "REFUSED"):
            tls_key = bytes.fromhex(self.identity.key_hash[2:])
            placement = replace(
                placement,
                endpoint=changes.get("endpoint", self.endpoint),
                tls_key=changes.get("tls_key", tls_key),
                capacity=self.capacity,
                ask_uain=self.price.ask_uain,
                isolation="confined",
            )
            signature = sign_tls_key(placement.endpoint, placement.tls_key, self.key, self.street.network)
            placement = replace(placement, tls_signature=signature)
        path = f"/placements/{placement.publisher}/{placement.name}/{placement.program}/{placement.provider}"
        await self.street.chain.write(path, placement_record(placement), self.key)

    def _offer(self) -> Offer:
        service = self.service
        return Offer(
            publisher=service.publisher.address,
            name=service.name,
            version=service.version,
            manifest=Manifest(
                service.name, Run("python", entry="service:call"), methods=METHODS, calls=service.calls
            ),
            methods=METHODS,
            price=self.price,
            isolation="confined",
            runtime="",
            limits=Limits(input_bytes=200_000, call_seconds=100.0),
            runner=self.runner,
            permissions=self.permissions,
            lane=Lane(self.capacity),
        )

    def _app(self, gateway: Gateway) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.requests.append(f"{scope['method']} {scope['path']}")

            async def sending(message: dict[str, Any]) -> None:
                changed = message if self.change is None else self.change(message)
                if changed is not None:
                    await send(changed)

            await gateway(scope, receive, sending)

        return app


class Street:
    """A chain with publishers, shops and buyers."""

    def __init__(self, node: NodeProcess, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.chain = Chain(node.url)
        self.shops: list[Shop] = []
        self._number = 0

    async def __aenter__(self) -> Street:
        self.network: NetworkDomain = await self.chain.domain()
        return self

    async def __aexit__(self, *exception: object) -> None:
        for shop in self.shops:
            with contextlib.suppress(AttributeError):
                await shop.stop()
        await self.chain.close()

    async def publish(
        self,
        name: str = "",
        *,
        version: str = "1.0.0",
        publisher: PrivateKey | None = None,
        royalty_uain: int = ROYALTY_UAIN,
        calls: tuple[str, ...] = (),
    ) -> Service:
        """Publishes a version whose interface is `METHODS`, and which may call others if it says so."""
        publisher = publisher or new_key()
        name = name or "service-" + secrets.token_hex(4)
        interface = {
            "spec": 1,
            "methods": [
                {"name": one.name, "path": one.path, "input": one.input, "stream": one.stream}
                for one in METHODS
            ],
        }
        files = {"interface.json": json.dumps(interface).encode(), "about": f"{name} {version}".encode()}
        declared = Declared(calls) if calls else None
        if calls:
            manifest = f'name = "{name}"\n[run]\nkind = "python"\nentry = "service:call"\n'
            files["openresource.toml"] = f"{manifest}[calls]\nservices = {json.dumps(calls)}\n".encode()
        program = folder_cid(files)
        await self.chain.put_files(files)
        size = sum(map(len, files.values()))
        record = Version(
            program, version, "call", royalty_uain, None, "MIT", "In capitals.", "text", "bit_exact", size
        )
        operations = [
            set_value(
                f"/programs/{program}", program_record(Program(program, publisher.address, name, size))
            ),
            set_value(f"/services/{publisher.address}/{name}/versions/{program}", version_record(record)),
        ]
        if await self.chain.read(f"/programs/{program}") is not None:
            operations = operations[1:]
        await self.chain.submit_final(operations, publisher)
        return Service(publisher, name, record, declared)

    async def open(self, service: Service, program: Program_ = shout, **options: Any) -> Shop:
        """Opens a shop and announces it."""
        self._number += 1
        key = new_key()
        folder = self.folder / f"shop-{self._number}"
        folder.mkdir()
        options.setdefault("signs_with", key)
        shop = Shop(self, service, key, folder, FunctionRunner(program), **options)
        await shop.start()
        self.shops.append(shop)
        await shop.announce("OFFERED")
        await shop.announce("PLACED")
        return shop

    async def home(self, amount_uain: int = START_UAIN) -> Home:
        """A home whose wallet holds some coins."""
        self._number += 1
        home = Home(self.folder / f"buyer-{self._number}")
        key = home.create_wallet()
        if amount_uain:
            await self.node.fund(key.address, amount_uain)
        return home

    async def buyer(self, amount_uain: int = START_UAIN) -> AsyncClient:
        """A client with a wallet of its own."""
        return AsyncClient(await self.home(amount_uain), self.node.url)

    async def fund_somebody(self) -> None:
        """Any transaction, so that the chain's clock goes on."""
        await self.node.fund(new_key().address, 1)

    async def claimed_uain(self, buyer: AsyncClient) -> int:
        """What providers have claimed of all channels of a buyer and still may: what the chain says and what shops count."""
        claimed_uain = sum(shop.spent_uain for shop in self.shops)
        for name in await channel_names(buyer):
            claimed_uain += (await self.chain.read(f"/channels/{name}/state"))["claimed_uain"]
        return claimed_uain

    async def supply_uain(self) -> int:
        """All coins, counted holder by holder."""
        return int((await self.chain.rpc("ore_supply", {"at": "final"}))["total_uain"])


class CuttingProxy:
    """Passes bytes on to a shop and cuts connections after so many bytes of an answer; TLS stays as it is."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.cut_after = 0
        self.cuts_left = 0
        self.cuts = 0

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()

    def cut(self, times: int, after: int) -> None:
        """The next so many answers break off after some bytes."""
        self.cuts_left, self.cut_after = times, after

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        asked = answered = 0

        async def upwards() -> None:
            nonlocal asked
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    asked += len(data)
                    back.write(data)
                    await back.drain()

        going = asyncio.create_task(upwards())
        try:
            while data := await there.read(65536):
                if self.cuts_left and asked > ASKED_BYTES:
                    answered += len(data)
                    if answered > self.cut_after:
                        self.cuts_left -= 1
                        self.cuts += 1
                        break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # One of the two ends has gone; so does the other.
        finally:
            going.cancel()
            writer.transport.abort()
            back.transport.abort()


# More than a TLS handshake sends upwards, less than one with a paid call behind it.
ASKED_BYTES = 1_000


def new_key() -> PrivateKey:
    return generate_key(secrets.token_bytes(32))


def change_receipts(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Changes the receipt in an answer's header."""

    def changing(message: dict[str, Any]) -> dict[str, Any]:
        if message["type"] != "http.response.start":
            return message
        headers = []
        for name, value in message["headers"]:
            if name == b"openresource-receipt":
                receipt = change(json.loads(base64url_bytes(value.decode())))
                value = base64.urlsafe_b64encode(json.dumps(receipt).encode()).rstrip(b"=")
            headers.append((name, value))
        return {**message, "headers": headers}

    return changing


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits for a condition, which may be asynchronous."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def time_passes(seconds: float) -> None:
    """Whatever the loop was told to do within so many seconds is due now."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]


class Chunks:
    """A program's stream that tests feed, chunk by chunk."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.is_closed = False

    def put(self, *chunks: bytes | None) -> None:
        """Sends chunks; None ends the stream."""
        for chunk in chunks:
            self._queue.put_nowait(chunk)

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._queue.get()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self.is_closed = True


@contextlib.asynccontextmanager
async def open_street(node: NodeProcess, folder: Path) -> AsyncIterator[Street]:
    async with Street(node, folder) as street:
        yield street


async def crash(call: ProgramCall) -> ProgramReply:
    """A program that fails."""
    raise ProgramFailed(reason="it fell over", stderr="secret words")


class Slowly:
    """A program whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, call: ProgramCall) -> ProgramReply:
        self.begun.set()
        await self.go.wait()
        return await shout(call)


async def purse_of(buyer: AsyncClient, name: str = "") -> Any:
    """The purse of the only channel, or of a named one, as it lies on the disk."""
    network = await buyer.network()
    entries = buyer.books.channels(network.genesis_hash, with_closed=True)
    found = [entry for entry in entries if not name or entry.name == name]
    assert len(found) == 1
    return found[0].purse


async def channel_names(buyer: AsyncClient, *, with_closed: bool = True) -> list[str]:
    network = await buyer.network()
    return [entry.name for entry in buyer.books.channels(network.genesis_hash, with_closed=with_closed)]


def streaming(chunks: Chunks, content_type: str = "application/x-ndjson") -> Any:
    async def stream(call: ProgramCall) -> ProgramReply:
        if call.method != "count":
            return await shout(call)
        return ProgramReply(200, content_type, chunks)

    return stream
