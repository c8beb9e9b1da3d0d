"""What several tests of the client share: one node for each file, and a street on it for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.street import (
    Street,
    open_street,
)
from tests.support.network import NodeProcess, local_node_process


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with local_node_process() as node:
        yield node


@pytest.fixture
def on_a_street(node: NodeProcess, tmp_path: Path) -> Callable[..., Any]:
    def run(story: Callable[[Street], Awaitable[Any]], seconds: float = 170) -> Any:
        async def body() -> Any:
            async with open_street(node, tmp_path) as street:
                return await story(street)

        return asyncio.run(asyncio.wait_for(body(), seconds))

    return run
