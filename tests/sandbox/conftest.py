"""Workers that live as long as the session: starting one costs more than most attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.sandbox.workers import MODES, Worker, worker

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def workers() -> Iterator[Callable[[str], Worker]]:
    """A worker per identity, made when first asked for."""
    made: dict[str, Worker] = {}
    with ExitStack() as stack:

        def get(identity: str) -> Worker:
            if identity not in made:
                made[identity] = stack.enter_context(worker(identity))
            return made[identity]

        yield get


@pytest.fixture(params=MODES, ids=[f"{level}-{identity}" for level, identity in MODES])
def mode(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each level under each identity that this process can take."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def run(mode: tuple[str, str], workers: Callable[[str], Worker]) -> Run:
    """Starts a program in the mode, takes steps, stops it; nothing may be left afterwards."""
    level, identity = mode

    def start(files: dict[str, str], steps: list[Any], **options: Any) -> Any:
        outcome = workers(identity).run(level, files, steps, **options)
        assert outcome["left"] == [], "processes were left behind"
        return outcome

    return start
