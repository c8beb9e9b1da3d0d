"""A pytest plugin that finds tests which count on what comes first: `scripts/long races`.

Short sleeps get a random length below their own, what threads have done is told late, and a socket's bytes are now and
then read a moment later. Nothing of it is wrong for a program to meet; a test that fails of it has lost a race which it
could have lost on any day.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from asyncio import base_events, selector_events
from collections.abc import Awaitable, Callable
from typing import Any, SupportsIndex

SHORT_SECONDS = 0.11
LATE_SECONDS = 0.05

_random = random.Random(int(os.environ.get("OPENRESOURCE_JITTER_SEED", "0")) or None)
_sleep = asyncio.sleep
_time_sleep = time.sleep
_run_in_executor = base_events.BaseEventLoop.run_in_executor
_reader = selector_events._SelectorSocketTransport._read_ready  # type: ignore[attr-defined]


async def _uneven_sleep(delay: float, result: Any = None) -> Any:
    if 0 < delay <= SHORT_SECONDS:
        delay *= _random.random()
    return await _sleep(delay, result)


def _uneven_time_sleep(seconds: float | SupportsIndex) -> None:
    seconds = float(seconds)
    is_short = 0 < seconds <= SHORT_SECONDS and threading.current_thread() is threading.main_thread()
    _time_sleep(seconds * _random.random() if is_short else seconds)


def _late_executor(loop: Any, executor: Any, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
    def late() -> Any:
        _time_sleep(_random.choice((0, 0, 0.001, LATE_SECONDS)) * _random.random())
        try:
            return work(*arguments)
        finally:
            _time_sleep(_random.choice((0, 0, 0.001, LATE_SECONDS)) * _random.random())

    return _run_in_executor(loop, executor, late)


def _late_reader(transport: Any) -> None:
    # The selector tells again in the loop's next turn that there is something to read.
    if _random.random() < 0.6:
        _reader(transport)


def pytest_configure() -> None:
    """Takes effect for the whole process."""
    asyncio.sleep = _uneven_sleep  # type: ignore[assignment]
    time.sleep = _uneven_time_sleep
    base_events.BaseEventLoop.run_in_executor = _late_executor  # type: ignore[assignment,method-assign]
    selector_events._SelectorSocketTransport._read_ready = _late_reader  # type: ignore[attr-defined]
