"""Calls that running programs ask for: who made the outer call makes them and pays, and brings back proven answers.

A call that came with an allowance has a line. What its program asks is put on the line, the caller fetches it there,
calls the other service with its own wallet, and hands in the answer with the receipt. So this provider pays for nobody,
the program holds no key, and no more can be spent than the caller spends by itself. An answer reaches the program only
if the receipt proves it: signed by a provider that the chain knows for that service, about this very input and output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.envelopes import JSON_DEPTH_MAX, JSON_TYPE, value_of
from openresource.client.job_views import JobView, view_of
from openresource.client.services import Directory
from openresource.ledger.draft import NetworkDomain
from openresource.market.allowances import (
    DEPTH_MAX,
    AllowanceDepthReached,
    AllowanceUsedUp,
    Grant,
    check_count,
    check_declared,
    parse_grant,
)
from openresource.market.jobs.policies import policy_text
from openresource.market.jobs.requests import policy_of, salted_digest
from openresource.market.manifests import Calls as Declared
from openresource.market.papers import hex_text
from openresource.market.receipts import (
    CHILDREN_MAX,
    body_digest,
    receipt_digest,
    receipt_from_json,
    receipt_inner_uain,
    receipt_salt,
    recover_receipt_signer,
)
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.provider.statuses import CONFLICT, NOT_FOUND, UNAVAILABLE, UNFIT, register
from openresource.sandbox.driver import InnerAnswer, InnerRequest

LINES_MAX: Final = 1_024
LINE_WAITERS_MAX: Final = 256
# A caller may fetch before its call has arrived.
LINE_SECONDS_MAX: Final = 10.0
# So long a caller may be silent while its program waits; each look at the line is shorter.
CALLER_SECONDS_MAX: Final = 15.0
LOOK_SECONDS: Final = 1.0
ANSWER_BYTES_MAX: Final = 4 << 20
JOB_SECONDS_MAX: Final = 5.0
JOB_LOOK_SECONDS: Final = 0.1
ERROR_BYTES_MAX: Final = 16 << 10
ERROR_DEPTH_MAX: Final = 8
WORDS_CHARACTERS_MAX: Final = 500
CODE_CHARACTERS_MAX: Final = 64
ERROR_FACTS_MAX: Final = 16
RUN_BYTES: Final = 8


class LineUnknown(Refusal):
    template = "No call that is running has this line."
    way_out = (
        "Fetch what a program asks while its call runs, with the secret of its OpenResource-Allowance header."
    )


class TooManyLines(Refusal):
    template = "{lines_max} calls with an allowance are running here, and no more are taken just now."
    way_out = "Nothing was charged. Try again in a moment, or call another provider."


class InnerCallUnknown(Refusal):
    template = "The program did not ask for a call {number}, or has its answer."
    way_out = "Hand in answers to what the line gives, under its numbers."


class InnerAnswerNotProven(Refusal):
    template = "The answer that the caller brought from {service} is not proven by its receipt: {reason}."
    way_out = (
        "The program did not get it. Hand in the answer as it came, with its receipt and the same input."
    )


class InnerCallFailed(Refusal):
    template = "The call of {service} came to nothing."


class CallerGone(Refusal):
    template = "The caller has not asked for {seconds:g} seconds what this program needs; the call of {service} was not made."
    way_out = "Nothing was paid for it. End this call; whoever wants its answer calls again."


class CallHasEnded(Refusal):
    template = "The call that {service} was to be called for has ended."
    way_out = "Ask while the call runs, and wait for the answer before its own is given."


register(LineUnknown, NOT_FOUND)
register(TooManyLines, UNAVAILABLE)
register(InnerCallUnknown, CONFLICT)
register(InnerAnswerNotProven, UNFIT)


@dataclass(slots=True)
class _Asked:
    """A request that waits for its answer."""

    number: int
    request: InnerRequest
    body: str
    answer: asyncio.Future[InnerAnswer]

    def to_json(self) -> dict[str, Any]:
        request = self.request
        return {
            "number": self.number,
            "service": request.service,
            "method": request.method,
            # The very text that the other provider is to get, as its receipt is about those bytes.
            "body": self.body,
            "max_price_uain": request.max_price_uain,
            "allowance_uain": request.allowance_uain,
            "deadline_seconds": request.deadline_seconds,
            "policy": request.policy,
        }


class Line:
    """One running call's way to its caller; the program's side is `ask`, the caller's the rest."""

    def __init__(self, grant: Grant, declared: Declared | None, proofs: Proofs) -> None:
        self.run = secrets.token_hex(RUN_BYTES)
        self.listeners = 0
        self._grant = grant
        self._declared = declared
        self._proofs = proofs
        self._asked: dict[int, _Asked] = {}
        self._count = 0
        self._children: list[tuple[str, int]] = []
        # Jobs whose accepted outputs the program has got; what they cost stands on the chain.
        self.jobs: list[str] = []
        self._has_more = asyncio.Event()
        self._has_ended = False
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()

    @property
    def children(self) -> tuple[str, ...]:
        """The receipts whose answers the program has got, in that order."""
        return tuple(child for child, _ in self._children)

    @property
    def inner_uain(self) -> int:
        """What those calls have cost with everything below them."""
        return sum(cost_uain for _, cost_uain in self._children)

    # ── The program's side ───────────────────────────────────────────────────────────────────────────────────

    def left(self) -> dict[str, Any]:
        """What the program may know of its allowance."""
        allowance = self._grant.allowance
        return {
            "budget_uain": allowance.budget_uain,
            "spent_uain": self.inner_uain,
            "left_uain": max(0, allowance.budget_uain - self.inner_uain),
            "depth": allowance.depth,
            "services": list(allowance.services),
            "calls_left": CHILDREN_MAX - self._count,
        }

    async def ask(self, request: InnerRequest) -> InnerAnswer:
        """Put a request on the line and wait for its proven answer."""
        service, allowance = request.service, self._grant.allowance
        if self._has_ended:
            raise CallHasEnded(service=service)
        check_declared(self._declared.services if self._declared else (), service, service)
        if allowance.depth < 1 or not self._grant.line:
            raise AllowanceDepthReached(service=service, depth=allowance.depth, depth_max=DEPTH_MAX)
        if request.max_price_uain is not None and request.max_price_uain > allowance.budget_uain:
            # The caller decides; this much is certain beforehand and spares the way.
            raise AllowanceUsedUp(
                service=service,
                required_uain=request.max_price_uain,
                left_uain=allowance.budget_uain - self.inner_uain,
                budget_uain=allowance.budget_uain,
            )
        check_count(self._count, CHILDREN_MAX, "this call")
        self._count += 1
        body = json.dumps(request.input, ensure_ascii=False)
        asked = _Asked(self._count, request, body, self._loop.create_future())
        self._asked[asked.number] = asked
        self._has_more.set()
        try:
            return await self._answer_of(asked)
        finally:
            self._asked.pop(asked.number, None)

    async def _answer_of(self, asked: _Asked) -> InnerAnswer:
        while True:
            await asyncio.wait((asked.answer,), timeout=LOOK_SECONDS)
            if asked.answer.done():
                return asked.answer.result()
            if not self.listeners and self._loop.time() - self._heard_at > CALLER_SECONDS_MAX:
                raise CallerGone(service=asked.request.service, seconds=CALLER_SECONDS_MAX)

    # ── The caller's side ────────────────────────────────────────────────────────────────────────────────────

    async def wait_for_more(self, after: int) -> None:
        """Returns when something was asked after a number, or the call has ended."""
        self.listeners += 1
        try:
            while not self._has_ended and not any(number > after for number in self._asked):
                self._has_more.clear()
                await self._has_more.wait()
        finally:
            self.listeners -= 1
            self._heard_at = self._loop.time()

    def asked_after(self, after: int) -> dict[str, Any]:
        """What was asked after a number and has no answer yet."""
        waiting = [asked.to_json() for number, asked in sorted(self._asked.items()) if number > after]
        return {"run": self.run, "asks": waiting, "ended": self._has_ended}

    async def answered(self, number: int, body: bytes, content_type: str, receipt: dict[str, Any]) -> None:
        """Hands a proven answer to the program; what is not proven fails the request."""
        asked = self._waiting(number)
        try:
            identifier, cost_uain, facts = await self._proofs.check(
                asked.request, asked.body.encode(), body, receipt
            )
            if any(child == identifier for child, _ in self._children):
                raise InnerAnswerNotProven(
                    service=asked.request.service, reason="it answers another call already"
                )
        except Refusal as refusal:
            raise self._unproven(asked, refusal) from refusal
        if asked.answer.done() or self._has_ended:
            raise InnerCallUnknown(number=number)
        self._children.append((identifier, cost_uain))
        asked.answer.set_result(InnerAnswer(_plain(body, content_type), facts))

    async def settled(self, number: int, body: bytes, job: str, salt: bytes) -> None:
        """Hands the accepted output of a job to the program, if the chain says that it is that."""
        asked = self._waiting(number)
        try:
            facts = await self._proofs.check_job(asked.request, body, job, salt)
        except Refusal as refusal:
            raise self._unproven(asked, refusal) from refusal
        if asked.answer.done() or self._has_ended:
            raise InnerCallUnknown(number=number)
        self.jobs.append(job)
        asked.answer.set_result(InnerAnswer(_plain(body, JSON_TYPE), facts))

    def _unproven(self, asked: _Asked, refusal: Refusal) -> InnerAnswerNotProven:
        """The request fails with this: both sides hear it."""
        problem = refusal
        if not isinstance(problem, InnerAnswerNotProven):
            problem = InnerAnswerNotProven(service=asked.request.service, reason=refusal.message.rstrip("."))
        if not asked.answer.done():
            asked.answer.set_exception(problem)
        return problem

    def refused(self, number: int, content: bytes) -> None:
        """Tells the program that a call came to nothing, in the caller's words."""
        asked = self._waiting(number)
        asked.answer.set_exception(_told(asked.request.service, content))

    def close(self) -> None:
        """The call has ended: nothing that is still asked will be answered."""
        self._has_ended = True
        self._has_more.set()
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(CallHasEnded(service=asked.request.service))
                # A program that has ended does not look at it.
                asked.answer.exception()

    def _waiting(self, number: int) -> _Asked:
        self._heard_at = self._loop.time()
        asked = self._asked.get(number)
        if asked is None or asked.answer.done():
            raise InnerCallUnknown(number=number)
        return asked


class Lines:
    """The lines of all calls that are running, found by their secrets."""

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs
        self._lines: dict[bytes, Line] = {}
        self._waiting: dict[bytes, list[asyncio.Future[Line]]] = {}
        self._waiters = 0

    def __len__(self) -> int:
        return len(self._lines)

    def open(self, header: bytes, declared: Declared | None) -> tuple[bytes, Line]:
        """The line of a call that was admitted."""
        grant = parse_grant(header)
        line = Line(grant, declared, self._proofs)
        if not grant.line:
            return b"", line
        former = self._lines.pop(grant.line, None)
        if former is not None:
            # The same call once more, as its caller lost the connection: it hears the new run only.
            former.close()
        if len(self._lines) >= LINES_MAX:
            raise TooManyLines(lines_max=LINES_MAX)
        self._lines[grant.line] = line
        for waiter in self._waiting.pop(grant.line, ()):
            if not waiter.done():
                waiter.set_result(line)
        return grant.line, line

    def close(self, secret: bytes, line: Line) -> None:
        """The call has ended."""
        line.close()
        if self._lines.get(secret) is line:
            del self._lines[secret]

    async def find(self, secret: bytes, *, waits: bool) -> Line:
        """A line by its secret; one that fetches may be quicker than its call, and waits a little."""
        line = self._lines.get(secret)
        if line is not None:
            return line
        if not waits or self._waiters >= LINE_WAITERS_MAX:
            raise LineUnknown()
        waiter: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(secret, []).append(waiter)
        self._waiters += 1
        try:
            async with asyncio.timeout(LINE_SECONDS_MAX):
                return await waiter
        except TimeoutError:
            raise LineUnknown() from None
        finally:
            self._waiters -= 1
            mine = self._waiting.get(secret, [])
            if waiter in mine:
                mine.remove(waiter)
            if not mine:
                self._waiting.pop(secret, None)


class Proofs:
    """Says of a receipt whether it proves an answer, from its bytes and from the chain."""

    def __init__(self, directory: Directory, network: NetworkDomain) -> None:
        self._directory = directory
        self._network = network

    async def check(
        self, request: InnerRequest, input_body: bytes, output_body: bytes, record: dict[str, Any]
    ) -> tuple[str, int, dict[str, Any]]:
        """A receipt's id, what it and those below it cost, and what the program may know; or why it proves nothing."""
        receipt = receipt_from_json(record)
        digest = receipt_digest(receipt, self._network)
        signer = recover_receipt_signer(receipt, self._network)
        facts, salt = receipt.facts, receipt_salt(receipt)
        if signer != facts["provider"]:
            raise self._wrong(request, f"{signer} signed it, not {facts['provider']}")
        if receipt.input != body_digest(salt, input_body):
            raise self._wrong(request, "it is about another input")
        if receipt.output != body_digest(salt, output_body):
            raise self._wrong(request, "it is about another output")
        choice = await self._directory.choose(request.service)
        if facts["service"] != choice.service:
            raise self._wrong(request, f"{facts['service']} answered instead of {choice.service}")
        if "@" in request.service and receipt.program != choice.program:
            raise self._wrong(request, "another version answered")
        interface = await self._directory.interface(receipt.program)
        if facts.get("method") != interface.method(request.method or None, choice.service).name:
            raise self._wrong(request, "another method answered")
        if not await self._directory.is_provider(choice, receipt.program, signer):
            raise self._wrong(request, f"the chain does not know {signer} as its provider")
        total_uain = receipt.price_uain + receipt_inner_uain(receipt)
        identifier = hex_text(digest)
        told = {
            "receipt": identifier,
            "price_uain": receipt.price_uain,
            "total_uain": total_uain,
            "service": choice.service,
            "version": facts["version"],
            "provider": signer,
        }
        return identifier, total_uain, told

    async def check_job(
        self, request: InnerRequest, output_body: bytes, job: str, salt: bytes
    ) -> dict[str, Any]:
        """What the program may know of a job that the chain has accepted for this very request and output."""
        output = parse_json(output_body, bytes_max=ANSWER_BYTES_MAX, depth_max=JSON_DEPTH_MAX)
        view = await self._settled_job(request, job)
        choice = await self._directory.choose(request.service)
        interface = await self._directory.interface(view.program)
        asked, found = view.request, f"{view.publisher}/{view.name}"
        if found != choice.service or ("@" in request.service and view.program != choice.program):
            raise self._wrong(request, f"the job is one of {found}")
        if asked.get("method") != interface.method(request.method or None, choice.service).name:
            raise self._wrong(request, "the job is one of another method")
        if policy_text(policy_of(asked)) != policy_text(policy_of({**asked, "policy": request.policy})):
            raise self._wrong(request, f"the job's policy is {view.policy}")
        if asked.get("input_digest") != hex_text(salted_digest(salt, request.input)):
            raise self._wrong(request, "the job is about another input")
        digest = hex_text(salted_digest(salt, output))
        winner = next((one for one in view.winners if view.executions[one].get("digest") == digest), None)
        if winner is None:
            raise self._wrong(request, "its verdict accepts another output")
        return {
            "job": job,
            "price_uain": view.paid_uain,
            "total_uain": view.paid_uain,
            "service": choice.service,
            "version": choice.version.version,
            "provider": winner,
        }

    async def _settled_job(self, request: InnerRequest, job: str) -> JobView:
        """A job whose acceptance is final; one that was accepted a moment ago is waited for a little."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + JOB_SECONDS_MAX
        while True:
            record = await self._directory.job(job)
            view = view_of(job, record) if isinstance(record, dict) else None
            if view is not None and view.is_accepted:
                return view
            if loop.time() > ends_at:
                raise self._wrong(request, f"the chain has accepted no job {job}")
            await asyncio.sleep(JOB_LOOK_SECONDS)

    def _wrong(self, request: InnerRequest, reason: str) -> InnerAnswerNotProven:
        return InnerAnswerNotProven(service=request.service, reason=reason)


def _plain(body: bytes, content_type: str) -> Any:
    """An answer as a program can read it: a value, or bytes as base64."""
    value = value_of(body, content_type)
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode(), "content_type": content_type or JSON_TYPE}
    return value


def _told(service: str, content: bytes) -> InnerCallFailed:
    """The caller's no as the program hears it: its words within bounds, whatever it sent."""
    try:
        said = parse_json(content, bytes_max=ERROR_BYTES_MAX, depth_max=ERROR_DEPTH_MAX)
    except Refusal:
        said = {}
    words = said.get("error") if isinstance(said, dict) else None
    words = words if isinstance(words, dict) else {}
    facts = words.get("facts")
    plain = {
        str(name)[:CODE_CHARACTERS_MAX]: fact if not isinstance(fact, str) else fact[:WORDS_CHARACTERS_MAX]
        for name, fact in list((facts if isinstance(facts, dict) else {}).items())[:ERROR_FACTS_MAX]
        if isinstance(fact, str | int | bool)
    }
    failed = InnerCallFailed(
        _text(words.get("message"), WORDS_CHARACTERS_MAX),
        remedy=_text(words.get("remedy"), WORDS_CHARACTERS_MAX),
        **{**plain, "service": service},
    )
    failed.code = _text(words.get("code"), CODE_CHARACTERS_MAX) or failed.code  # type: ignore[misc]
    return failed


def _text(value: Any, characters_max: int) -> str:
    return value[:characters_max] if isinstance(value, str) else ""
