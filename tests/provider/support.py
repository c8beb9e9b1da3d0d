"""What the provider's tests share: a buyer with a channel on a ledger in memory, and the papers that she signs."""

from __future__ import annotations

import base64
import contextlib
import datetime
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from openresource.ledger.draft import NetworkDomain
from openresource.market.accounts import channel_account
from openresource.market.channels import Terms, channel_record, open_channel
from openresource.market.manifests import Manifest, Method, Run
from openresource.market.papers import SCHEME
from openresource.market.prices import Price
from openresource.market.receipts import CallReceipt, receipt_from_json
from openresource.market.services import Permissions, Version
from openresource.market.tabs import CallKey
from openresource.market.vouchers import NO_RECEIPTS, Voucher, session_hash, sign_voucher, voucher_to_json
from openresource.primitives.encoding import base64url_bytes
from openresource.primitives.keys import PrivateKey, generate_key
from openresource.provider.admission import Admission
from openresource.provider.answers import Answers
from openresource.provider.books import Books
from openresource.provider.calls import Calls
from openresource.provider.gateway import Gateway
from openresource.provider.journal import Journal
from openresource.provider.lanes import Lane
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Offer, Offers
from openresource.provider.records import CallPaid
from openresource.provider.server import GatewayServer
from openresource.provider.tls import load_or_make_identity, server_context
from openresource.sandbox.driver import JSON_TYPE, Limits, ProgramCall, ProgramReply

NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "ab" * 32)
OTHER_NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "cd" * 32)
PROGRAM = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
OTHER_PROGRAM = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
DAY_MS = 24 * 60 * 60 * 1000


def key_of(name: str) -> PrivateKey:
    return generate_key(name.encode().ljust(32, b"."))


BUYER, PROVIDER, PUBLISHER, STRANGER = (
    key_of(name) for name in ("buyer", "provider", "publisher", "stranger")
)


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class MemoryLedger:
    """The final state of a chain, as far as a provider reads it."""

    values: dict[str, Any] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    reads: int = 0

    async def read(self, path: str) -> Any:
        self.reads += 1
        return self.values.get(path)

    async def balance(self, account: str) -> int:
        return self.balances.get(account, 0)

    def open(
        self,
        channel_id: str,
        *,
        deposit_uain: int,
        at_ms: int,
        lifetime_ms: int = DAY_MS,
        buyer: PrivateKey = BUYER,
        signer: PrivateKey | None = None,
        provider: PrivateKey = PROVIDER,
        program: str = PROGRAM,
        ask_uain: int = 80,
        royalty_uain: int = 20,
    ) -> str:
        terms = Terms(
            PUBLISHER.address,
            "echo",
            program,
            provider.address,
            ask_uain,
            royalty_uain,
            PUBLISHER.address,
            20_000,
        )
        channel, _ = open_channel(
            buyer.address,
            (signer or buyer).address,
            provider.address,
            deposit_uain,
            at_ms + lifetime_ms,
        )
        name = f"{buyer.address}/{channel_id}"
        self.values[f"/channels/{name}/state"] = channel_record(channel, terms, at_ms)
        self.balances[channel_account(buyer.address, channel_id)] = deposit_uain
        return name

    def change(self, name: str, *, value_uain: int | None = None, **members: Any) -> None:
        record = self.values[f"/channels/{name}/state"]
        self.values[f"/channels/{name}/state"] = {**record, **members}
        if value_uain is not None:
            buyer, _, channel_id = name.partition("/")
            self.balances[channel_account(buyer, channel_id)] = value_uain


@dataclass
class Purse:
    """A buyer's side of one channel, written down here anew so that the tests do not lean on the client."""

    channel: str
    key: PrivateKey = BUYER
    secret: bytes = b"\x07" * 32
    network: NetworkDomain = NETWORK
    nonce: int = 0

    def voucher(
        self, total_uain: int, *, acknowledged: int = 0, receipts: bytes = NO_RECEIPTS, **changes: Any
    ) -> Voucher:
        members: dict[str, Any] = {
            "channel": self.channel,
            "nonce": self.nonce,
            "total_uain": total_uain,
            "session": session_hash(self.secret),
            "acknowledged": acknowledged,
            "receipts": receipts,
        }
        return sign_voucher(Voucher(**{**members, **changes}), self.key, self.network)

    def header(self, total_uain: int, **changes: Any) -> bytes:
        return payment_header(voucher_to_json(self.voucher(total_uain, **changes)))

    def call(self, sequence: int) -> CallKey:
        return CallKey(session_hash(self.secret), sequence)

    def session_header(self, sequence: int) -> bytes:
        return f"{self.channel};{self.secret.hex()};{sequence}".encode()


def payment_header(payload: Any) -> bytes:
    envelope = {"x402Version": 2, "accepted": {"scheme": SCHEME}, "payload": payload}
    return base64.b64encode(msgspec.json.encode(envelope))


@dataclass
class Desk:
    """An admission with everything behind it."""

    admission: Admission
    journal: Journal
    books: Books
    answers: Answers
    ledger: MemoryLedger
    clock: Clock

    async def close(self) -> None:
        await self.admission.close()
        await self.journal.close()
        await self.books.close()


def open_desk(
    folder: Path, ledger: MemoryLedger, clock: Clock, *, provider: PrivateKey = PROVIDER, **options: Any
) -> Desk:
    """Opens, or after a kill reopens, the payment state in a folder; within a running loop."""
    books = Books(folder / "provider.sqlite")
    books.open()
    answers = Answers(folder / "answers", books)
    answers.open()
    journal = Journal(folder / "journal", **options)
    admission = Admission(
        chain=ledger,
        journal=journal,
        books=books,
        answers=answers,
        provider=provider.address,
        network=NETWORK,
        clock_ms=clock,
    )
    admission.start(journal.open())
    return Desk(admission, journal, books, answers, ledger, clock)


def paid_call(
    desk: Desk, name: str, call: CallKey, price_uain: int, fingerprint: bytes = b"f" * 16
) -> CallPaid:
    """A completed call as the gateway would write it down."""
    account = desk.admission.known_account(name)
    assert account is not None
    number = account.tab.completed + 1
    return CallPaid(
        name=name,
        nonce=account.tab.nonce,
        session=call.session,
        sequence=call.sequence,
        price_uain=price_uain,
        receipt_id=number.to_bytes(4, "big") * 8,
        receipt_json=b'{"completed":%d}' % number,
        service="0x/echo",
        program=PROGRAM,
        at_ms=desk.clock.now_ms,
        fingerprint=fingerprint,
        status=200,
        content_type="application/json",
        body=b'"answer %d"' % call.sequence,
        body_file="",
        is_whole=True,
    )


# ── A gateway that listens ───────────────────────────────────────────────────────────────────────────────────


class FunctionRunner:
    """Runs a Python function in place of a program; the real sandbox has tests of its own."""

    def __init__(self, function: Callable[[ProgramCall], Awaitable[ProgramReply]]) -> None:
        self._function = function
        self.calls: list[ProgramCall] = []

    async def call(self, call: ProgramCall) -> ProgramReply:
        self.calls.append(call)
        return await self._function(call)

    async def close(self) -> None:
        return None


async def echo(call: ProgramCall) -> ProgramReply:
    return ProgramReply(200, "application/json", call.body, cpu_ms=1, wall_ms=2)


class LineStream:
    """A program's stream made of given chunks; an exception among them is raised in its turn."""

    def __init__(self, chunks: list[Any], pause: Callable[[], Awaitable[None]] | None = None) -> None:
        self._chunks = list(chunks)
        self._pause = pause
        self.is_closed = False

    def __aiter__(self) -> LineStream:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            if self._pause is not None:
                await self._pause()
            raise StopAsyncIteration
        chunk = self._chunks.pop(0)
        if isinstance(chunk, BaseException):
            raise chunk
        return bytes(chunk)

    async def aclose(self) -> None:
        self.is_closed = True


class NoSettler:
    async def settle(self, account: Any) -> str:
        return "0x" + "12" * 32


def make_offer(
    function: Callable[[ProgramCall], Awaitable[ProgramReply]] = echo,
    *,
    ask_uain: int = 80,
    royalty_uain: int = 20,
    capacity: int = 8,
    permissions: Permissions | None = None,
    **limits: Any,
) -> Offer:
    methods = (
        Method("echo", "/echo"),
        Method(
            "double",
            "/double",
            input={
                "type": "object",
                "properties": {"number": {"type": "integer"}},
                "required": ["number"],
                "additionalProperties": False,
            },
            example={"input": {"number": 21}},
        ),
        Method("count", "/count", stream=True),
    )
    version = Version(
        PROGRAM, "1.0.0", "call", royalty_uain, None, "MIT", "Says it again.", "text", "bit_exact", 1000
    )
    return Offer(
        publisher=PUBLISHER.address,
        name="echo",
        version=version,
        manifest=Manifest("echo", Run("python", entry="echo:call"), methods=methods),
        methods=methods,
        price=Price(ask_uain, royalty_uain, 20_000),
        isolation="confined",
        runtime="",
        limits=Limits(**{"input_bytes": 200_000, "call_seconds": 5.0, **limits}),
        runner=FunctionRunner(function),
        permissions=permissions or Permissions(),
        lane=Lane(capacity),
    )


@dataclass
class Shop:
    """A provider's gateway on a free port, and a client that trusts exactly its certificate."""

    desk: Desk
    offer: Offer
    calls: Calls
    server: GatewayServer
    http: httpx2.AsyncClient
    purse: Purse

    async def call(
        self,
        path: str,
        body: Any = None,
        *,
        sequence: int | None = None,
        total_uain: int | None = None,
        **headers: str,
    ) -> httpx2.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if sequence is not None:
            sent["OpenResource-Session"] = self.purse.session_header(sequence).decode()
        if total_uain is not None:
            sent["PAYMENT-SIGNATURE"] = self.purse.header(total_uain).decode()
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.http.post(
            self.offer.path + path, content=content, headers={"content-type": JSON_TYPE, **sent}
        )

    @property
    def tab(self) -> Any:
        account = self.desk.admission.known_account(self.purse.channel)
        assert account is not None
        return account.tab


@contextlib.asynccontextmanager
async def open_shop(folder: Path, offer: Offer | None = None, **options: Any) -> AsyncIterator[Shop]:
    offer = offer or make_offer()
    ledger, clock = options.pop("ledger", None) or MemoryLedger(), Clock()
    name = f"{BUYER.address}/{'aa' * 8}"
    if f"/channels/{name}/state" not in ledger.values:
        ledger.open(
            "aa" * 8,
            deposit_uain=1_000_000,
            at_ms=clock(),
            ask_uain=offer.price.ask_uain,
            royalty_uain=offer.price.royalty_uain,
        )
    offers = options.pop("offers", Offers())
    desk = open_desk(folder, ledger, clock, **options)
    calls = Calls(
        admission=desk.admission,
        answers=desk.answers,
        network=NETWORK,
        key=PROVIDER,
        metrics=Metrics(),
        clock_ms=clock,
        random_bytes=os.urandom,
    )
    offers.put(offer)
    offers.has_looked = True
    gateway = Gateway(
        offers,
        calls,
        NoSettler(),
        overview=lambda: {"provider": PROVIDER.address},
        health=lambda: (True, {"status": "ok"}),
        gauges=lambda: {"openresource_offers": len(offers)},
    )
    identity = load_or_make_identity(folder / "tls.pem", "127.0.0.1", now=datetime.datetime.now(datetime.UTC))
    server = GatewayServer(gateway, server_context(identity), "127.0.0.1", 0)
    gateway.endpoint = f"https://127.0.0.1:{server.port}"
    await server.start()
    trust = ssl.create_default_context(cafile=str(identity.path))
    http = httpx2.AsyncClient(base_url=gateway.endpoint, verify=trust, trust_env=False, timeout=60)
    try:
        yield Shop(desk, offer, calls, server, http, Purse(name))
    finally:
        await http.aclose()
        await server.stop(1)
        await desk.close()


def receipt_of(response: httpx2.Response) -> CallReceipt:
    return receipt_from_json(msgspec.json.decode(base64url_bytes(response.headers["openresource-receipt"])))
