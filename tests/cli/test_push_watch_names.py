"""Who may commit to a watched repository may replace the service that it publishes, and no other one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openresource.cli.watching import Watching
from openresource.client.homes import Home


class _Publication:
    """What a watch asks for, written down."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def deploy(self, folder: Path, commit: str, *, name: str = "") -> dict[str, Any]:
        self.names.append(name)
        placed = {"endpoint": "https://127.0.0.1:1"}
        return {"service": "0x00/first", "version": "1", "call": "", "placed": placed}


def test_a_watch_stays_with_the_service_of_its_first_commit(tmp_path: Path) -> None:
    watching = Watching("https://example.org/a.git", Home(tmp_path), None, 1.0, as_json=True)

    @asynccontextmanager
    async def exported(branch: str) -> AsyncIterator[tuple[Path, str]]:
        yield tmp_path, "c" * 40

    watching._exported = exported  # type: ignore[method-assign, assignment]
    publication: Any = _Publication()

    async def work() -> None:
        for tip in ("a" * 40, "b" * 40):
            await watching._deploy(publication, "main", tip)

    asyncio.run(work())
    assert publication.names == ["", "first"]
