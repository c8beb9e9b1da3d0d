"""Calls of other services that a program asks for: the buyer of its call makes them, within the allowance it gave.

A call with an allowance is a node of a tree. Its program's requests are fetched from its provider, checked against the
buyer's word (budget, depth, services, no circles), made with the buyer's own wallet and handed back with their receipts.
Whatever a provider or a program claims, nothing is spent that this module has not set aside first.

A provider that dies is asked anew, or another one is, and its program begins again: what the first run was answered
already is handed to the second, as far as it asks the same, so that no inner call is paid twice for one answer.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from openresource.client.envelopes import RECEIPT_HEADER
from openresource.client.inner_asks import ASKS_BYTES_MAX, Ask, asks_of
from openresource.client.wires import ProviderAway, Wire
from openresource.market.allowances import (
    LINE_SECRET_BYTES,
    TREE_CALLS_MAX,
    Allowance,
    AllowanceUsedUp,
    Chain,
    Grant,
    Link,
    Spending,
    Way,
    check_count,
    check_declared,
    check_depth,
    check_service,
    grant_header,
    left_uain,
    reserve,
    settle,
)
from openresource.market.manifests import Calls as Declared
from openresource.market.receipts import CHILDREN_MAX
from openresource.market.services import is_open_to_all
from openresource.primitives.encoding import base64url
from openresource.primitives.errors import Refusal

if TYPE_CHECKING:
    from openresource.client.replies import Answer, Plan
    from openresource.client.services import Choice

LOOK_SECONDS: Final = 40.0
HAND_IN_SECONDS: Final = 30.0
HAND_IN_TRIES_MAX: Final = 4
PAUSE_SECONDS_FIRST: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0
AT_ONCE_MAX: Final = 16
# Requests that are taken from one provider for one call; an honest one passes on no more than a program may make.
ASKED_MAX: Final = 4 * CHILDREN_MAX
# The program is through and did not wait for them: they may end, so that it is known what they cost.
GRACE_SECONDS: Final = 5.0
HANDED_IN_BYTES_MAX: Final = 4 << 20
ONE: Final = "one"


class InnerPolicyNotServed(Refusal):
    template = "The caller of this program asks for no jobs, so the policy {policy} is not to be had."
    way_out = "Leave policy out: then the service is called and answers at once."


class InnerAnswerTooLong(Refusal):
    template = "The answer of {service} is longer than the {bytes_max} bytes that a program takes."
    way_out = "Ask for less at once. The call was paid, and its receipt is in the caller's books."


@dataclass(frozen=True, slots=True)
class InnerResult:
    """What became of one request of a program; `cost_uain` is with everything below it."""

    service: str
    method: str
    cost_uain: int
    # What may be charged for it yet, as nobody knows its end.
    at_risk_uain: int = 0
    answer: Answer | None = None
    # In place of an answer where a job was asked for.
    job: InnerJob | None = None
    error: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """For a reader, with the calls below."""
        told: dict[str, Any] = {"service": self.service, "method": self.method, "cost_uain": self.cost_uain}
        if self.answer is not None:
            told |= {
                "service": self.answer.service,
                "version": self.answer.version,
                "provider": self.answer.provider,
                "price_uain": self.answer.price_uain,
                "receipt_id": self.answer.receipt_id,
                "inner": [one.to_json() for one in self.answer.inner],
            }
        if self.job is not None:
            told["job"] = self.job.job
        if self.at_risk_uain:
            told["at_risk_uain"] = self.at_risk_uain
        if self.error is not None:
            told["error"] = dict(self.error)
        return told


@dataclass(slots=True)
class _Errand:
    """One request on its way, for the runs that asked it."""

    ask: Ask
    runs: set[str]
    plan: Plan | None = None
    charge: Charged | None = None
    task: asyncio.Task[InnerResult] = field(init=False)


@dataclass(slots=True)
class Charge:
    """What a job has cost, and what it may cost yet."""

    charged_uain: int = 0
    lost_uain: int = 0


@dataclass(frozen=True, slots=True)
class InnerJob:
    """An accepted job: its output, and what proves it to who reads the chain."""

    job: str
    salt: bytes
    body: bytes
    paid_uain: int


class Charged(Protocol):
    """What a call or a job has cost, and what it may cost yet as nobody saw its end."""

    charged_uain: int
    lost_uain: int


@dataclass(slots=True)
class Promise:
    """What a tree of calls may cost yet, kept free of the day's limit for it."""

    left_uain: int


class Maker(Protocol):
    """Who plans and makes calls; given by the client's calls."""

    async def choice_of(self, service: str) -> Choice: ...

    async def permissions_of(self, choice: Choice) -> Any: ...

    async def plan(
        self,
        service: str,
        method: str | None,
        inputs: Mapping[str, Any],
        *,
        max_price_uain: int | None = None,
        deadline_seconds: float = ...,
        choice: Choice | None = None,
        within: InnerCalls | None = None,
        allowance_uain: int | None = None,
        body: bytes | None = None,
    ) -> Plan: ...

    async def call(self, plan: Plan) -> Answer: ...

    async def run_job(
        self,
        node: InnerCalls,
        choice: Choice,
        method: str,
        inputs: dict[str, Any],
        policy: str,
        *,
        max_price_uain: int | None,
        deadline_seconds: float,
        charge: Charge,
    ) -> InnerJob: ...

    def was_spent(self, promise: Promise, cost_uain: int) -> None: ...


class InnerCalls:
    """One call of a tree and the calls below it."""

    def __init__(
        self,
        maker: Maker,
        allowance: Allowance,
        link: Link,
        declared: Declared | None,
        above: InnerCalls | None = None,
        budget_uain: int | None = None,
    ) -> None:
        self.allowance = allowance
        self.above = above
        self.root: InnerCalls = self if above is None else above.root
        self.chain: Chain = (link,) if above is None else (*above.chain, link)
        self.declared = declared
        own_uain = allowance.budget_uain if budget_uain is None else min(budget_uain, allowance.budget_uain)
        self.spending = Spending(own_uain)
        self.promise = Promise(0)
        self.calls = 0
        # Of the buyer's own call alone: how many were made below it.
        self.tree_calls = 0
        self._maker = maker
        self._errands: list[_Errand] = []
        self._made: dict[str, int] = {}
        # The accepted jobs that its program asked for.
        self.jobs: set[str] = set()

    @property
    def way(self) -> Way:
        """The spendings from the buyer's own call down to this one."""
        return (*(() if self.above is None else self.above.way), self.spending)

    @property
    def left_uain(self) -> int:
        """What one more call below may cost."""
        return left_uain(self.way)

    @property
    def depth_left(self) -> int:
        """How many calls deep this one may still go."""
        return max(0, self.allowance.depth - len(self.chain) + 1)

    @property
    def is_heard(self) -> bool:
        """Whether its program may ask at all."""
        return self.declared is not None and self.depth_left > 0

    @property
    def made(self) -> Mapping[str, int]:
        """What each answered call below has cost in all, by its receipt."""
        return self._made

    @property
    def results(self) -> tuple[InnerResult, ...]:
        """What became of the requests that have ended."""
        return tuple(_result(errand) for errand in self._errands if errand.task.done())

    @contextmanager
    def set_aside(self, price_uain: int, service: str, charge: Charged) -> Iterator[None]:
        """Keeps a price free in the whole way until a call has ended, and spends of it what that cost.

        A call whose end nobody saw may be charged yet, so it counts as if it were.
        """
        self._put(reserve(self.way, price_uain, service))
        try:
            yield
        finally:
            cost_uain = min(charge.charged_uain + charge.lost_uain, price_uain)
            self._put(settle(self.way, price_uain, cost_uain))
            self._maker.was_spent(self.root.promise, cost_uain)

    def _put(self, way: Way) -> None:
        node: InnerCalls | None = self
        for spending in reversed(way):
            assert node is not None
            node.spending, node = spending, node.above

    def header(self, line: bytes) -> str:
        """What its provider is told."""
        told = Allowance(max(0, self.left_uain), self.depth_left, self.allowance.services)
        return grant_header(Grant(line if self.is_heard else b"", told))

    def listen(self, wire: Wire, plan: Plan) -> Listening:
        """Begin to hear what the program asks at a provider."""
        return Listening(self, wire, plan)

    async def end(self) -> None:
        """Nobody waits for more; what is under way may end for a moment, and is broken off then."""
        running = [one.task for one in self._errands if not one.task.done()]
        if running:
            await asyncio.wait(running, timeout=GRACE_SECONDS)
            await self.abort()

    async def abort(self) -> None:
        """Break off what is under way; its providers are asked about it before their next call."""
        running = [one.task for one in self._errands if not one.task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def errand(self, ask: Ask, run: str, plan: Plan) -> _Errand:
        """The work on a request: what an earlier run asked just so serves this one too."""
        for errand in self._errands:
            if errand.ask.key == ask.key and run not in errand.runs and not _has_failed(errand.task):
                errand.runs.add(run)
                return errand
        errand = _Errand(ask, {run})
        errand.task = asyncio.ensure_future(self._result_of(errand, plan))
        self._errands.append(errand)
        return errand

    def moved(self, link: Link, declared: Declared | None) -> None:
        """Another version of the service is asked in its place."""
        self.chain = (*self.chain[:-1], link)
        self.declared = declared

    async def _result_of(self, errand: _Errand, plan: Plan) -> InnerResult:
        ask = errand.ask
        try:
            choice = await self._checked_choice(ask)
            plan.progress(f"its program calls {choice.service}")
            if ask.policy not in ("", ONE):
                return await self._job_for(errand, choice, plan)
            answer = await self._answer_to(errand, choice, plan)
        except Refusal as refusal:
            return _failed(errand, refusal.to_json())
        self._made[answer.receipt_id] = answer.total_uain
        return InnerResult(ask.service, ask.method, answer.total_uain, answer=answer)

    async def _checked_choice(self, ask: Ask) -> Choice:
        """The version that a request means, if it may be called here and now."""
        check_depth(self.allowance, self.chain, ask.service)
        check_count(self.calls, CHILDREN_MAX, "this call")
        check_count(self.root.tree_calls, TREE_CALLS_MAX, "the buyer's call")
        self.calls += 1
        self.root.tree_calls += 1
        choice = await self._maker.choice_of(ask.service)
        declared = () if self.declared is None else self.declared.services
        check_declared(declared, ask.service, choice.service)
        is_for_everyone = is_open_to_all(await self._maker.permissions_of(choice))
        link = Link(choice.service, choice.program)
        check_service(self.allowance, self.chain, ask.service, link, is_for_everyone=is_for_everyone)
        return choice

    async def _answer_to(self, errand: _Errand, choice: Choice, plan: Plan) -> Answer:
        ask = errand.ask
        errand.plan = errand.charge = await self._maker.plan(
            ask.service,
            ask.method or None,
            ask.input,
            max_price_uain=ask.max_price_uain,
            deadline_seconds=_seconds(ask, plan),
            choice=choice,
            within=self,
            allowance_uain=ask.allowance_uain,
            body=ask.body,
        )
        return await self._maker.call(errand.plan)

    async def _job_for(self, errand: _Errand, choice: Choice, plan: Plan) -> InnerResult:
        ask = errand.ask
        errand.charge = Charge()
        job = await self._maker.run_job(
            self,
            choice,
            ask.method,
            ask.input,
            ask.policy,
            max_price_uain=ask.max_price_uain,
            deadline_seconds=_seconds(ask, plan),
            charge=errand.charge,
        )
        self.jobs.add(job.job)
        return InnerResult(choice.service, ask.method, job.paid_uain, job=job)


class Listening:
    """Fetches what a program asks at one provider, and hands the answers in, until its call has ended."""

    def __init__(self, node: InnerCalls, wire: Wire, plan: Plan) -> None:
        self._node = node
        self._wire = wire.beside()
        self._plan = plan
        self._secret = secrets.token_bytes(LINE_SECRET_BYTES)
        self._asked: set[tuple[str, int]] = set()
        self._working: set[asyncio.Task[None]] = set()
        self._task = asyncio.ensure_future(self._listen()) if node.is_heard else None

    @property
    def header(self) -> str:
        """The header that goes with the call."""
        return self._node.header(self._secret)

    def stop(self) -> None:
        """The call has ended at this provider."""
        for task in (*self._working, *(() if self._task is None else (self._task,))):
            task.cancel()

    async def _listen(self) -> None:
        run, after, pause_seconds = "", 0, PAUSE_SECONDS_FIRST
        while True:
            try:
                status, _, content = await self._wire.request(
                    "GET",
                    f"/inner?after={after}&run={run}",
                    headers={"OpenResource-Line": self._secret.hex()},
                    seconds=LOOK_SECONDS,
                    bytes_max=ASKS_BYTES_MAX,
                )
            except ProviderAway:
                status, content = 0, b""
            if status != 200:
                # It is away, or the call has not arrived there yet, or it has ended and its answer is on the way.
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)
                continue
            pause_seconds = PAUSE_SECONDS_FIRST
            found, asks, has_ended = asks_of(content)
            if found != run:
                run, after = found, 0
            for ask in asks:
                after = max(after, ask.number)
                if (run, ask.number) in self._asked or len(self._asked) >= ASKED_MAX:
                    continue
                while len(self._working) >= AT_ONCE_MAX:
                    await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
                self._asked.add((run, ask.number))
                self._keep(self._serve(ask, run))
            if has_ended:
                await asyncio.sleep(pause_seconds)

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _serve(self, ask: Ask, run: str) -> None:
        errand = self._node.errand(ask, run, self._plan)
        # It goes on when this provider is given up: another may ask the same.
        await asyncio.wait((errand.task,))
        result = _result(errand)
        headers = {"OpenResource-Line": self._secret.hex(), "OpenResource-Run": run}
        answer = result.answer
        if result.job is not None and len(result.job.body) <= HANDED_IN_BYTES_MAX:
            body = result.job.body
            headers["Content-Type"] = "application/json"
            headers["OpenResource-Job"] = f"{result.job.job};{result.job.salt.hex()}"
        elif answer is not None and len(answer.body) <= HANDED_IN_BYTES_MAX:
            body = answer.body
            headers["Content-Type"] = answer.content_type or "application/json"
            headers[RECEIPT_HEADER] = base64url(json.dumps(answer.receipt, ensure_ascii=False).encode())
        else:
            error = result.error
            if error is None:
                error = InnerAnswerTooLong(service=ask.service, bytes_max=HANDED_IN_BYTES_MAX).to_json()
            headers["OpenResource-Refused"] = "1"
            body = json.dumps({"error": error}).encode()
        for number in range(HAND_IN_TRIES_MAX):
            try:
                await self._wire.request(
                    "POST",
                    f"/inner/{ask.number}",
                    body=body,
                    headers=headers,
                    seconds=HAND_IN_SECONDS,
                    bytes_max=1 << 16,
                )
                return
            except ProviderAway:
                await asyncio.sleep(PAUSE_SECONDS_FIRST * 2**number)


def _has_result(task: asyncio.Task[InnerResult]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _has_failed(task: asyncio.Task[InnerResult]) -> bool:
    """Whether asking it anew may give another answer."""
    return task.done() and (not _has_result(task) or task.result().error is not None)


def _result(errand: _Errand) -> InnerResult:
    """What became of a request that has ended, if only by being broken off."""
    if _has_result(errand.task):
        return errand.task.result()
    return _failed(errand, {"code": "broken-off", "message": "The call that it was for had ended."})


def _failed(errand: _Errand, error: Mapping[str, Any]) -> InnerResult:
    """A request without an answer: calls below it may have had theirs, and its own price may be charged yet."""
    plan, ask = errand.plan, errand.ask
    below_uain = 0 if plan is None or plan.inner is None else plan.inner.spending.spent_uain
    charge = errand.charge or Charge()
    return InnerResult(
        ask.service, ask.method, below_uain + charge.charged_uain, charge.lost_uain, error=error
    )


def _seconds(ask: Ask, plan: Plan) -> float:
    """For how long a request may go on: no longer than its program's own call."""
    seconds = plan.left_seconds()
    return seconds if ask.deadline_seconds is None else min(seconds, ask.deadline_seconds)


def used_up(service: str, required_uain: int, node: InnerCalls) -> AllowanceUsedUp:
    """The refusal of a call that costs more than is left."""
    return AllowanceUsedUp(
        service=service,
        required_uain=required_uain,
        left_uain=node.left_uain,
        budget_uain=node.spending.budget_uain,
    )
