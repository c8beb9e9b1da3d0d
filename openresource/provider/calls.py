"""One call from its admission to its receipt: check, take payment, run, count, sign; and what to undo when it fails.

No answer, no pay: a call that ends in anything but an answer gives its cover back. A stream counts from its first
byte on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from openresource.ledger.draft import NetworkDomain
from openresource.market.manifests import Method
from openresource.market.papers import sign_paper
from openresource.market.placements import check_test_call
from openresource.market.prices import price_text
from openresource.market.receipts import (
    SALT_BYTES,
    CallReceipt,
    Usage,
    body_digest,
    call_facts,
    receipt_digest,
    receipt_to_json,
)
from openresource.market.schemas import check_value
from openresource.market.services import CallNotPermitted, check_call_permitted
from openresource.market.tabs import CallKey
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.keys import PrivateKey
from openresource.provider.accounts import Account
from openresource.provider.admission import Admission
from openresource.provider.answers import INLINE_BYTES_MAX, Answer, Answers, answer_of, fingerprint_of
from openresource.provider.inner_calls import Line, Lines
from openresource.provider.lanes import UNBOUND, Place
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Draining, Offer
from openresource.provider.payments import PaymentMissing, parse_session
from openresource.provider.records import CallPaid
from openresource.provider.statuses import CONFLICT, FORBIDDEN, register
from openresource.sandbox.driver import JSON_TYPE, ProgramCall, ProgramFailed, ProgramRefused, ProgramReply

TEST_CALLS_MAX = 5
FREE_RECEIPTS_KEPT_MAX = 5_000
SALTS_AT_ONCE = 128
INPUT_DEPTH_MAX = 64
ERROR_TEXT_CHARACTERS_MAX = 500
# The channel of a receipt for a call that nobody had to pay.
FREE_CHANNEL = "0x" + "0" * 40 + "/" + "0" * 16
FREE_SESSION = bytes(32)

_encoder = msgspec.json.Encoder()


class TestCallsUsedUp(Refusal):
    template = "The {calls_max} free test calls of this version were used."
    way_out = "Pay for the call as everybody does: `openresource call` opens a channel by itself."


class TestCallReplayed(Refusal):
    template = "A test call signed for {timestamp_ms} or later was made already."
    way_out = "Sign anew for the present time."


class TestCallNotTheExample(Refusal):
    template = "A free test call takes the example's input only."
    way_out = "Send the example of the method as it is in interface.json, or pay for the call."


register(TestCallsUsedUp, FORBIDDEN)
register(TestCallReplayed, CONFLICT)
register(TestCallNotTheExample, FORBIDDEN)
register(CallNotPermitted, FORBIDDEN)


@dataclass(slots=True)
class Request:
    """A call as it came in."""

    offer: Offer
    method: Method
    body: bytes
    content_type: str = JSON_TYPE
    session: bytes = b""
    payment: bytes = b""
    test: bytes = b""
    # What its caller gives for calls of other services.
    allowance: bytes = b""
    # How long the client waits for its answer, as far as it says.
    patience_seconds: float | None = None


@dataclass(slots=True)
class StartedCall:
    """A call that was admitted and has a place in its lane."""

    request: Request
    account: Account | None
    key: CallKey
    fingerprint: bytes
    place: Place
    started_at_ms: int
    started: float
    is_ended: bool = False
    reply: ProgramReply | None = field(default=None)
    # By which it may ask for calls of other services, and the secret of its caller's end.
    line: Line | None = None
    line_secret: bytes = b""


class Calls:
    """Everything that a call needs besides its bytes."""

    def __init__(
        self,
        *,
        admission: Admission,
        answers: Answers,
        network: NetworkDomain,
        key: PrivateKey,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        lines: Lines | None = None,
    ) -> None:
        self.lines = lines
        self.admission = admission
        self.answers = answers
        self.network = network
        self.metrics = metrics
        self.is_draining = False
        self._key = key
        self._clock_ms = clock_ms
        self._random_bytes = random_bytes
        self._free_receipts: dict[bytes, bytes] = {}
        self._salts: list[bytes] = []
        self._labels: dict[tuple[str, str], tuple[str, str]] = {}

    @property
    def provider(self) -> str:
        return self._key.address

    # ── Beginning ────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, request: Request) -> StartedCall | Answer:
        """Admits a call and gives it a place, or finds the answer that it got before."""
        offer = request.offer
        value = check_input(request)
        if request.test:
            await self._check_test_call(request, value)
            account, key, fingerprint = None, CallKey(FREE_SESSION, 0), b""
            place = self._reserve(request, "")
        elif offer.price.total_uain == 0 and _is_for_everyone(offer):
            account, key, fingerprint = None, CallKey(FREE_SESSION, 0), b""
            place = self._reserve(request, "")
        else:
            if not request.session:
                raise PaymentMissing(price=price_text(offer.price))
            session = parse_session(request.session)
            account, key = await self.admission.account(session.channel), session.call
            check_call_permitted(offer.permissions, offer.publisher, offer.name, account.buyer)
            fingerprint = fingerprint_of(offer.program, request.method.path, request.body)
            is_known = self.answers.find(key) is not None or key in account.waiting
            # A place is promised before the voucher counts: who finds none has promised nothing.
            place = UNBOUND if is_known else self._reserve(request, account.buyer)
            try:
                answer = await self.admission.begin(account, offer.program, key, fingerprint, request.payment)
            except BaseException:
                place.leave()
                raise
            if answer is not None:
                place.leave()
                return answer
            if is_known:
                # The call that was waited for came to nothing, so this one is run after all.
                try:
                    place = self._reserve(request, account.buyer)
                except BaseException:
                    self.admission.release(account, key)
                    raise
        started = StartedCall(
            request, account, key, fingerprint, place, self._clock_ms(), time.perf_counter()
        )
        try:
            if request.allowance and self.lines is not None:
                started.line_secret, started.line = self.lines.open(request.allowance, offer.manifest.calls)
            await place.enter(request.patience_seconds)
        except BaseException:
            place.leave()
            self._give_back(started)
            raise
        return started

    async def run(self, started: StartedCall) -> ProgramReply:
        """Runs the program; whatever it raises, the call has been given back."""
        request, offer = started.request, started.request.offer
        try:
            reply = await offer.runner.call(
                ProgramCall(
                    method=request.method.name,
                    path=request.method.path,
                    body=request.body,
                    content_type=request.content_type,
                    deadline_seconds=self._deadline_seconds(started),
                    asker=started.line,
                )
            )
            if reply.status >= 400:
                await _refuse_reply(reply)
        except BaseException:
            self.release(started)
            raise
        started.reply = reply
        return reply

    def release(self, started: StartedCall) -> None:
        """Ends a call without an answer: nobody pays."""
        if not started.is_ended:
            started.is_ended = True
            started.place.leave()
            self._give_back(started)

    # ── Ending ───────────────────────────────────────────────────────────────────────────────────────────────

    async def complete(
        self,
        started: StartedCall,
        body: bytes,
        content_type: str,
        *,
        is_whole: bool = True,
        is_cancelled: bool = False,
    ) -> Answer:
        """Signs the receipt, counts the price and gives the answer once both are on disk.

        A body that is not whole is not kept for a retry: it is too long, or its reader has left.
        """
        assert not started.is_ended
        started.is_ended = True
        account = started.account
        started.place.leave()
        # What is still asked for it comes too late for its receipt.
        self._hang_up(started)
        try:
            body_file = ""
            if account is not None and is_whole and len(body) > INLINE_BYTES_MAX:
                body_file = await self.answers.write_body(started.key, body)
            paid = self._paid(started, body, content_type, body_file, is_whole, is_cancelled)
            if account is None:
                self._keep_free_receipt(paid)
            else:
                await self.admission.complete(account, started.key, paid)
        except BaseException:
            self._give_back(started)
            raise
        self._count(started, "cancelled" if is_cancelled else "answered", paid.price_uain)
        return (self.answers.find(started.key) if account is not None else None) or answer_of(paid)

    def free_receipt(self, receipt_id: bytes) -> bytes | None:
        """The receipt of a call that nobody had to pay, while it is remembered."""
        return self._free_receipts.get(receipt_id)

    def _paid(
        self,
        started: StartedCall,
        body: bytes,
        content_type: str,
        body_file: str,
        is_whole: bool,
        is_cancelled: bool,
    ) -> CallPaid:
        request, account, reply = started.request, started.account, started.reply
        offer = request.offer
        assert reply is not None
        finished_at_ms = self._clock_ms()
        salt = self._salt()
        facts = call_facts(
            service=offer.service,
            version=offer.version.version,
            method=request.method.name,
            provider=self._key.address,
            isolation=offer.isolation,
            usage=Usage(
                cpu_ms=reply.cpu_ms,
                wall_ms=reply.wall_ms,
                bytes_in=len(request.body),
                bytes_out=len(body),
                fuel=reply.fuel,
            ),
            started_at_ms=started.started_at_ms,
            finished_at_ms=finished_at_ms,
            salt=salt,
        )
        if is_cancelled:
            facts["cancelled"] = True
        if started.line is not None and started.line.children:
            # What the buyer has paid to others for this call, which is no part of its price.
            facts["children"] = list(started.line.children)
            facts["inner_uain"] = started.line.inner_uain
        if started.line is not None and started.line.jobs:
            facts["jobs"] = list(started.line.jobs)
        if account is None:
            offer.free_calls += 1
            channel, nonce, completed, price_uain = FREE_CHANNEL, 0, offer.free_calls, 0
        else:
            tab = account.tab
            channel, nonce, completed = account.name, tab.nonce, tab.completed + 1
            price_uain = account.price_uain
        receipt = CallReceipt(
            channel=channel,
            nonce=nonce,
            session=started.key.session,
            sequence=started.key.sequence,
            completed=completed,
            program=offer.program,
            input=body_digest(salt, request.body),
            output=body_digest(salt, body),
            price_uain=price_uain,
            facts=facts,
        )
        digest = receipt_digest(receipt, self.network)
        receipt_json = receipt_to_json(receipt, self.network, digest)
        receipt_json["signature"] = "0x" + sign_paper(digest, self._key).hex()
        return CallPaid(
            name=channel,
            nonce=nonce,
            session=started.key.session,
            sequence=started.key.sequence,
            price_uain=price_uain,
            receipt_id=digest,
            receipt_json=_encoder.encode(receipt_json),
            service=offer.service,
            program=offer.program,
            at_ms=finished_at_ms,
            fingerprint=started.fingerprint,
            status=200,
            content_type=content_type,
            body=b"" if body_file else body,
            body_file=body_file,
            is_whole=is_whole,
        )

    def _salt(self) -> bytes:
        """A salt of its own for every receipt; the system is asked for many at once."""
        if not self._salts:
            chance = self._random_bytes(SALT_BYTES * SALTS_AT_ONCE)
            self._salts = [chance[at : at + SALT_BYTES] for at in range(0, len(chance), SALT_BYTES)]
        return self._salts.pop()

    def _keep_free_receipt(self, paid: CallPaid) -> None:
        if len(self._free_receipts) >= FREE_RECEIPTS_KEPT_MAX:
            del self._free_receipts[next(iter(self._free_receipts))]
        self._free_receipts[paid.receipt_id] = paid.receipt_json

    def _give_back(self, started: StartedCall) -> None:
        self._hang_up(started)
        if started.account is not None:
            self.admission.release(started.account, started.key)
        self._count(started, "failed", 0)

    def _hang_up(self, started: StartedCall) -> None:
        if started.line is not None and self.lines is not None:
            self.lines.close(started.line_secret, started.line)

    def _count(self, started: StartedCall, outcome: str, price_uain: int) -> None:
        service = started.request.offer.service
        labels = self._labels.get((service, outcome))
        if labels is None:
            labels = (f'service="{service}"', f'service="{service}",outcome="{outcome}"')
            self._labels[(service, outcome)] = labels
        self.metrics.count("openresource_calls_total", labels[1])
        if outcome == "answered":
            self.metrics.observe(
                "openresource_call_seconds", labels[0], time.perf_counter() - started.started
            )
        if price_uain:
            self.metrics.count("openresource_earned_uain_total", labels[0], price_uain)

    def _check_takes_calls(self, offer: Offer) -> None:
        offer.check_not_stopped()
        if self.is_draining or offer.is_draining:
            raise Draining(service=offer.service)

    def _reserve(self, request: Request, buyer: str) -> Place:
        offer = request.offer
        self._check_takes_calls(offer)
        return offer.lane.reserve(buyer, request.patience_seconds)

    def _deadline_seconds(self, started: StartedCall) -> float:
        """No call may run past the time at which its channel has to be claimed."""
        seconds = started.request.offer.limits.call_seconds
        account = started.account
        if account is not None:
            left_ms = account.channel.expires_at_ms - account.claim_margin_ms // 2 - started.started_at_ms
            seconds = min(seconds, max(0.1, left_ms / 1000))
        return seconds

    # ── Test calls ───────────────────────────────────────────────────────────────────────────────────────────

    async def _check_test_call(self, request: Request, value: object) -> None:
        offer = request.offer
        publisher, timestamp_ms, signature = _parse_test_header(request.test)
        if publisher != offer.publisher:
            raise InvalidInput(
                what="OpenResource-Test header", reason="it does not name this version's publisher"
            )
        check_test_call(
            publisher, offer.program, timestamp_ms, signature, self.network, at_ms=self._clock_ms()
        )
        example = request.method.example
        if not isinstance(example, dict) or value != example.get("input"):
            raise TestCallNotTheExample()
        used = self.admission.test_calls(offer.program)
        if used.used >= TEST_CALLS_MAX:
            raise TestCallsUsedUp(calls_max=TEST_CALLS_MAX)
        if timestamp_ms <= used.timestamp_ms:
            raise TestCallReplayed(timestamp_ms=timestamp_ms)
        self._check_takes_calls(offer)
        offer.lane.check_room()
        await self.admission.count_test_call(offer.program, timestamp_ms)


def check_input(request: Request) -> object:
    """Refuses an input that does not fit the method's description; free, as no work was done."""
    method = request.method
    if (
        method.input is None
        and request.content_type != JSON_TYPE
        and request.offer.manifest.run.kind == "http"
    ):
        return None
    value = parse_json(
        request.body or b"{}", bytes_max=request.offer.limits.input_bytes, depth_max=INPUT_DEPTH_MAX
    )
    if not request.body:
        request.body = b"{}"
    if method.input:
        assert not isinstance(method.input, str), "schemas are read when a version is placed"
        check_value(method.input, value)
    return value


def _is_for_everyone(offer: Offer) -> bool:
    call = offer.permissions.call
    return call is None or (call.get("everyone", False) and all(call.values()))


def _parse_test_header(header: bytes) -> tuple[str, int, bytes]:
    parts = header.decode("latin-1").split(";")
    try:
        publisher, timestamp, signature = parts
        return publisher, int(timestamp), bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        raise InvalidInput(
            what="OpenResource-Test header", reason="it is not <publisher>;<milliseconds>;<signature>"
        ) from None


async def _refuse_reply(reply: ProgramReply) -> None:
    """A program's own error status is not an answer, and is not paid."""
    text = ""
    if isinstance(reply.body, bytes):
        text = reply.body[:ERROR_TEXT_CHARACTERS_MAX].decode("utf-8", "replace")
    else:
        await reply.body.aclose()
    kind = ProgramRefused if reply.status < 500 else ProgramFailed
    raise kind(reason=text or f"it answered with status {reply.status}", status=reply.status)
