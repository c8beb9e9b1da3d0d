"""Calls that a person starts from a form: each runs once, in this process, and is paid by the home's wallet.

A form carries a number that is used once, so that a form which is sent twice, or a page that is loaded again, shows
the same answer and never pays a second time. A browser that goes away loses nothing: the call ends, its answer and
its receipt are kept for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openresource.client.calls import Answer, Exchange, Plan
from openresource.client.facade import AsyncClient, values_of
from openresource.client.services import Choice, Method
from openresource.market.allowances import Allowance
from openresource.primitives.errors import Refusal
from openresource.web.shown import Media, media_of

RUNS_KEPT: Final = 32
RUNS_AT_ONCE_MAX: Final = 8
RUN_SECONDS: Final = 120.0
ANSWER_BYTES_KEPT_MAX: Final = 4 * 1024 * 1024
PIECES_MAX: Final = 20_000
ONCE_CHARACTERS: Final = 32

log = logging.getLogger("openresource.web")


class TooManyRuns(Refusal):
    template = "{running} calls are running from these pages already, which is the limit."
    way_out = "Wait until one of them has ended; nothing was paid for this one."


class RunUnknown(Refusal):
    template = "This answer is not kept here any more."
    way_out = "Its receipt is: look under Money, in your receipts."


class FormUsedElsewhere(Refusal):
    template = "This form was sent for another service already."
    way_out = "Load the page again and send it from there; nothing was paid."


class Defect(Refusal):
    template = "Something went wrong in Open Resource itself ({kind})."
    way_out = "The log of these pages says where. If there is a receipt, it is under Money."


@dataclass(slots=True)
class Run:
    """One call: what is happening, the values that came, and how it ended."""

    once: str
    service: str
    method: str
    is_stream: bool
    price_uain: int | None
    progress: str = "looking for a provider"
    values: list[Any] = field(default_factory=list)
    answer: Answer | None = None
    refusal: Refusal | None = None
    # What its program may spend on calls of others.
    allowance: Allowance | None = None
    # An answer of this size is paid and receipted, but not kept in memory.
    is_too_long: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_ended(self) -> bool:
        """Whether there is an answer or a refusal."""
        return self.answer is not None or self.refusal is not None

    @property
    def text(self) -> str | None:
        """A streamed answer as one text, if all its values are text."""
        texts = [text_of(value) for value in self.values]
        return "".join(text for text in texts if text is not None) if texts and None not in texts else None

    @property
    def media(self) -> Media | None:
        """The answer as a file, if it is neither JSON nor text."""
        answer = self.answer
        if answer is None or not isinstance(answer.value, bytes):
            return None
        return media_of(answer.value, answer.content_type)

    def tell(self) -> None:
        """Wake those who watch."""
        self.changed.set()
        self.changed.clear()

    async def watch(self) -> AsyncIterator[int]:
        """How many values there are, at once and after every change, until the end."""
        while True:
            yield len(self.values)
            if self.has_ended:
                return
            seen = (len(self.values), self.progress)
            while seen == (len(self.values), self.progress) and not self.has_ended:
                await self.changed.wait()


class Runs:
    """The calls of these pages, the newest last."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def fresh(self) -> str:
        """A number for one form."""
        return secrets.token_hex(ONCE_CHARACTERS // 2)

    def find(self, once: str) -> Run:
        """A run by its form's number."""
        run = self._runs.get(once)
        if run is None:
            raise RunUnknown()
        return run

    def begin(
        self,
        once: str,
        choice: Choice,
        method: Method,
        inputs: Mapping[str, Any],
        max_price_uain: int | None,
        *,
        asked: str = "",
        allowance: Allowance | None = None,
    ) -> Run:
        """Start a call, or give the one that this form has started before; `asked` names a version if one was meant."""
        service = f"{choice.service}@{choice.program}"
        known = self._runs.get(once)
        if known is not None:
            # The version may have changed since the form was sent first.
            if (known.service.partition("@")[0], known.method) != (choice.service, method.name):
                raise FormUsedElsewhere()
            return known
        running = sum(1 for run in self._runs.values() if not run.has_ended)
        if running >= RUNS_AT_ONCE_MAX:
            raise TooManyRuns(running=running)
        run = Run(once or self.fresh(), service, method.name, method.stream, max_price_uain)
        run.allowance = allowance
        self._runs[run.once] = run
        while len(self._runs) > RUNS_KEPT:
            oldest = next((key for key, one in self._runs.items() if one.has_ended), None)
            if oldest is None:
                break
            del self._runs[oldest]
        task = asyncio.create_task(
            self._guarded(run, asked or choice.service, choice, inputs), name=f"call {run.once}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def close(self) -> None:
        """Calls in flight are cut off; what they promised shows in the books."""
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _guarded(self, run: Run, asked: str, choice: Choice, inputs: Mapping[str, Any]) -> None:
        try:
            await self._call(run, asked, choice, inputs)
        except Refusal as refusal:
            run.refusal = refusal
        except asyncio.CancelledError:
            run.refusal = Defect(kind="these pages are closing")
            raise
        except Exception as error:
            log.exception("a call from the pages failed")
            run.refusal = Defect(kind=type(error).__name__)
        finally:
            run.tell()

    async def _call(self, run: Run, asked: str, choice: Choice, inputs: Mapping[str, Any]) -> None:
        def progress(text: str) -> None:
            run.progress = text
            run.tell()

        calls = await self._client.calls()
        plan: Plan = await calls.plan(
            asked,
            run.method,
            inputs,
            choice=choice,
            max_price_uain=run.price_uain,
            deadline_seconds=RUN_SECONDS,
            progress=progress,
            allowance=run.allowance,
        )
        if not run.is_stream:
            run.answer = self._kept(run, await calls.call(plan))
            return
        exchange = Exchange()
        async for value in values_of(calls.stream(plan, exchange)):
            # What is beyond the bound is paid for and receipted all the same, only not shown.
            if len(run.values) < PIECES_MAX:
                run.values.append(value)
                run.tell()
        assert exchange.answer is not None, "a stream that ends without a refusal has its answer"
        run.answer = self._kept(run, exchange.answer)

    def _kept(self, run: Run, answer: Answer) -> Answer:
        run.is_too_long = len(answer.body) > ANSWER_BYTES_KEPT_MAX
        # A stream's values are kept one by one already.
        value = None if run.is_too_long or run.is_stream else answer.value
        return replace(answer, value=value, body=b"")


def text_of(value: Any) -> str | None:
    """What of a streamed value is plain text; None if it is more than that."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        (only,) = value.values()
        return only if isinstance(only, str) else None
    return None
