"""What the provider's tests share: a buyer with a channel on a ledger in memory, and the papers that she signs."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from openresource.ledger.draft import NetworkDomain
from openresource.market.accounts import channel_account
from openresource.market.channels import Terms, channel_record, open_channel
from openresource.market.papers import SCHEME
from openresource.market.tabs import CallKey
from openresource.market.vouchers import NO_RECEIPTS, Voucher, session_hash, sign_voucher, voucher_to_json
from openresource.primitives.keys import PrivateKey, generate_key
from openresource.provider.admission import Admission
from openresource.provider.answers import Answers
from openresource.provider.books import Books
from openresource.provider.journal import Journal
from openresource.provider.records import CallPaid

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
