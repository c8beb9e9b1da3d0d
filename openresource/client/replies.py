"""What comes back from a provider under one call's number, until its receipt is checked, counted and written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from openresource.client.books import Books, ChannelEntry
from openresource.client.channels import Channels
from openresource.client.envelopes import (
    ANSWER_BYTES_MAX,
    EVENTS_TYPE,
    REFUSAL_BYTES_MAX,
    AnswerNotReceipted,
    EventSplitter,
    ProgramFailedThere,
    receipt_record,
    refusal_of,
    value_of,
)
from openresource.client.inner_calls import InnerCalls, InnerResult
from openresource.client.purses import OpenChannel, StartedCall
from openresource.client.services import Choice, Directory, Method
from openresource.client.standings import Standings
from openresource.client.wires import Reply, Wire
from openresource.ledger.draft import NetworkDomain
from openresource.market.choices import Considered
from openresource.market.papers import hex_text
from openresource.market.receipt_trees import check_children
from openresource.market.receipts import CallReceipt, check_receipt, receipt_from_json
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal

ASK_SECONDS: Final = 10.0
WAIT_SECONDS_FIRST: Final = 0.2
RECEIPT_TRIES_MAX: Final = 4
CALL_NOT_ANSWERED: Final = "call-not-answered"


class DeadlinePassed(Refusal):
    template = "{service} gave no answer within {seconds} s."
    way_out = "Allow more time with --deadline. What has no answer costs nothing."


@dataclass(frozen=True, slots=True)
class FailedTry:
    """A provider that was asked and gave no answer."""

    provider: str
    reason: str
    # What it may charge all the same, because nobody knows what became of the call; more than 0 for who insists.
    at_risk_uain: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave: the value, what it cost, and the provider's signed receipt."""

    value: Any
    content_type: str
    body: bytes
    price_uain: int
    receipt: dict[str, Any]
    provider: str
    service: str
    version: str
    isolation: str
    milliseconds: float
    # Who was considered for the call, and whose tries came to nothing before.
    considered: tuple[Considered, ...] = ()
    failed: tuple[FailedTry, ...] = ()
    # What its program had others do for it, paid by this wallet too.
    inner: tuple[InnerResult, ...] = ()

    @property
    def inner_uain(self) -> int:
        """What the calls below it have cost."""
        return sum(one.cost_uain for one in self.inner)

    @property
    def total_uain(self) -> int:
        """What it has cost with everything below it."""
        return self.price_uain + self.inner_uain

    @property
    def total(self) -> str:
        """The whole cost as a text of AIN."""
        return text_from_uain(self.total_uain)

    @property
    def why(self) -> dict[str, Any]:
        """Why this provider: everybody who was considered with figures, and what failed before."""
        return why(self.considered, self.failed)

    @property
    def price(self) -> str:
        """The price as a text of AIN."""
        return text_from_uain(self.price_uain)

    @property
    def receipt_id(self) -> str:
        """The receipt's id, under which the provider shows it to anybody."""
        return str(self.receipt.get("id", ""))


@dataclass(slots=True)
class Plan:
    """Everything about a call that is known before a provider is asked."""

    choice: Choice
    method: Method
    body: bytes
    max_price_uain: int | None
    deadline_seconds: float
    ends_at: float
    progress: Callable[[str], None]
    # What was asked for, in case another version serves it meanwhile.
    asked: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    # Whether another provider is called although one that vanished may still charge for the first try.
    insists: bool = False
    considered: tuple[Considered, ...] = ()
    failed: list[FailedTry] = field(default_factory=list)
    # The calls below it, and the call that it is one of.
    inner: InnerCalls | None = None
    within: InnerCalls | None = None
    # What it cost by its receipt, and what tries whose end nobody saw may cost yet.
    charged_uain: int = 0
    lost_uain: int = 0

    def left_seconds(self) -> float:
        """Time until the deadline; a refusal once there is none."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self) -> DeadlinePassed:
        """The refusal of a call that took too long."""
        return DeadlinePassed(service=self.choice.service, seconds=f"{self.deadline_seconds:g}")


@dataclass(frozen=True, slots=True)
class Desk:
    """What every attempt needs of its client."""

    books: Books
    channels: Channels
    directory: Directory
    network: NetworkDomain
    clock_ms: Callable[[], int]
    standings: Standings


class NumberedCall:
    """One call with its number, until its receipt is counted."""

    def __init__(
        self,
        desk: Desk,
        plan: Plan,
        provider: str,
        held: OpenChannel | None,
        started: StartedCall | None,
        began: float,
    ) -> None:
        self.held = held
        self._desk = desk
        self._plan = plan
        self._provider = provider
        self._started = started
        self._began = began
        self._has_ended = False
        self.on_end: Callable[[], None] = _nothing

    def answered(self, body: bytes, content_type: str, record: dict[str, Any]) -> Answer:
        """Check the receipt against what was sent and received, count it, and write both down."""
        entry = None
        try:
            receipt, digest = self._checked(record, body)
            if self.held is not None and self._started is not None:
                self.held.delivered(self._started)
                entry = self.held.count(self._started.sequence, receipt, digest)
        except Refusal as refusal:
            self._desk.books.save_disputed(record, refusal.message, self._desk.clock_ms())
            raise not_receipted(self._provider, refusal) from refusal
        self._ends()
        write_down(self._desk, entry, receipt, digest, record)
        choice = self._plan.choice
        return Answer(
            value=value_of(body, content_type),
            content_type=content_type,
            body=body,
            price_uain=receipt.price_uain,
            receipt=record,
            provider=self._provider,
            service=choice.service,
            version=choice.version.version,
            isolation=str(receipt.facts.get("isolation", "")),
            milliseconds=(time.monotonic() - self._began) * 1000,
            considered=self._plan.considered,
            failed=tuple(self._plan.failed),
        )

    def refused(self) -> None:
        """The provider did not do it: nothing is owed."""
        if self._ends() and self.held is not None and self._started is not None:
            self.held.refused(self._started.sequence)

    def not_done(self) -> None:
        """The provider says that it has no answer of it; should that prove wrong, its count explains itself."""
        if self._ends() and self.held is not None and self._started is not None:
            self.held.give_up(self._started.sequence)
            self.held.deliver_again()

    def lose(self) -> None:
        """It ended without a word that could be trusted."""
        if self._ends() and self.held is not None and self._started is not None:
            self.held.lose(self._started.sequence)
            self._plan.lost_uain += self._started.price_uain

    @property
    def plan(self) -> Plan:
        """What was asked for."""
        return self._plan

    @property
    def sequence(self) -> int:
        """Its number in its session; a call that nobody has to pay has none and says 0."""
        return 0 if self._started is None else self._started.sequence

    @property
    def session_header(self) -> str:
        """The header under which the gateway knows it; empty for a call that nobody has to pay."""
        return "" if self._started is None else self._started.session_header

    def _ends(self) -> bool:
        is_first, self._has_ended = not self._has_ended, True
        if is_first:
            self.on_end()
        return is_first

    def _checked(self, record: dict[str, Any], body: bytes) -> tuple[CallReceipt, bytes]:
        receipt = receipt_from_json(record)
        held, started = self.held, self._started
        digest = check_receipt(
            receipt,
            self._desk.network,
            provider=self._provider,
            channel=held.entry.name if held is not None else receipt.channel,
            nonce=started.nonce if started is not None else receipt.nonce,
            session=started.session if started is not None else receipt.session,
            sequence=started.sequence if started is not None else receipt.sequence,
            program=self._plan.choice.program,
            price_uain=started.price_uain if started is not None else 0,
            input_body=self._plan.body,
            output_body=body,
        )
        inner = self._plan.inner
        check_children(receipt, {} if inner is None else inner.made, () if inner is None else inner.jobs)
        return receipt, digest


class Streaming:
    """A stream of a program's bytes; at its end stands the receipt. Closed before, the call's end is asked for later."""

    def __init__(
        self,
        reply: Reply,
        call: NumberedCall,
        wire: Wire,
        content_type: str,
        distrust: Callable[[], None],
    ) -> None:
        self.answer: Answer | None = None
        self._reply = reply
        self._call = call
        self._wire = wire
        self._content_type = content_type
        self._distrust = distrust
        self._splitter = EventSplitter()
        self._body = bytearray()
        self._first = b""

    async def begin(self) -> None:
        """Wait for the first bytes, as long as the call may still be tried anew."""
        self._first = await self._next()

    async def next_piece(self) -> bytes:
        """The program's next bytes; empty when the stream has ended and its receipt is counted."""
        if self._first:
            first, self._first = self._first, b""
            return first
        if self.answer is not None:
            return b""
        try:
            return await self._next()
        except AnswerNotReceipted:
            self._call.lose()
            self._distrust()
            raise
        except RefusedThere as refused:
            self._call.refused()
            raise refused.refusal from None
        except BaseException:
            self._call.lose()
            raise

    async def close(self) -> None:
        """Break it off, if it has not ended."""
        self._call.lose()
        await self._reply.close()

    async def _next(self) -> bytes:
        while True:
            try:
                async with asyncio.timeout(self._call.plan.left_seconds()):
                    piece = await self._reply.next_piece()
            except TimeoutError:
                raise self._call.plan.late() from None
            if not piece:
                return await self._end()
            if self._content_type == EVENTS_TYPE:
                given = self._splitter.feed(piece)
            else:
                given = piece
                self._body += piece
            if self._splitter.size + len(self._body) > ANSWER_BYTES_MAX:
                raise self._not_receipted("its answer is too long")
            if given:
                return given

    async def _end(self) -> bytes:
        rest, body = b"", bytes(self._body)
        if self._content_type == EVENTS_TYPE:
            rest, body, receipt_text = self._split()
        else:
            receipt_text = await self._asked_receipt()
        record = receipt_record(receipt_text, self._wire.placement)
        self.answer = self._call.answered(body, self._content_type, record)
        return rest

    def _split(self) -> tuple[bytes, bytes, str]:
        try:
            return self._splitter.end(self._wire.placement)
        except AnswerNotReceipted:
            if self._splitter.size == 0:
                raise
            # Cut off between two events: it may be the connection alone.
            raise self._wire.away("its stream ended before the receipt", was_sent=True) from None
        except Refusal as refusal:
            raise RefusedThere(refusal) from None

    async def _asked_receipt(self) -> str:
        """Bytes of any kind have no place for a receipt; the gateway gives it under the call's number."""
        if self._call.held is None:
            raise self._not_receipted("a stream of bytes has no place for one")
        for number in range(RECEIPT_TRIES_MAX):
            status, _, content = await self._wire.request(
                "GET",
                f"/channels/{self._call.held.entry.name}/receipt",
                headers={"OpenResource-Session": self._call.session_header},
                seconds=ASK_SECONDS,
                bytes_max=REFUSAL_BYTES_MAX,
            )
            if status == 200:
                return content.decode("utf-8", "replace")
            if refusal_of(status, content, self._wire.placement).code == CALL_NOT_ANSWERED:
                placement = self._wire.placement
                raise RefusedThere(
                    ProgramFailedThere(
                        f"The program at {placement.provider} failed in the middle of its stream.",
                        remedy="Nothing was paid for it. Try again, or choose another provider.",
                        provider=placement.provider,
                    )
                )
            await asyncio.sleep(min(WAIT_SECONDS_FIRST * 2**number, self._call.plan.left_seconds()))
        raise self._not_receipted("the provider does not give it")

    def _not_receipted(self, reason: str) -> AnswerNotReceipted:
        return AnswerNotReceipted(provider=self._wire.placement.provider, reason=reason)


def _nothing() -> None:
    """A call without calls below it ends by itself."""


class RefusedThere(Exception):
    """A gateway's clear no, on its way to whoever asked."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def why(considered: Sequence[Considered], failed: Sequence[FailedTry]) -> dict[str, Any]:
    """Whom a call could go to and why in this order, and who was asked before in vain."""
    return {
        "considered": [one.to_json() for one in considered],
        "failed": [
            {"provider": one.provider, "reason": one.reason, "at_risk_uain": one.at_risk_uain}
            for one in failed
        ],
    }


def write_down(
    desk: Desk, entry: ChannelEntry | None, receipt: CallReceipt, digest: bytes, record: dict[str, Any]
) -> None:
    """An answered call comes into the books: purse, spending and receipt in one step."""
    record["id"] = hex_text(digest)
    desk.books.save_call(
        entry,
        receipt_id=record["id"],
        receipt=record,
        amount_uain=receipt.price_uain,
        service=str(receipt.facts.get("service", "")),
        at_ms=desk.clock_ms(),
    )


def not_receipted(provider: str, refusal: Refusal) -> AnswerNotReceipted:
    return AnswerNotReceipted(provider=provider, reason=refusal.message.rstrip("."))
