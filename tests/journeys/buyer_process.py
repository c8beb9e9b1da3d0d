"""A buyer in a process of its own: pays for calls without end and writes every answer down, on the disk, before the next.

Each line of its log is something that it was told is so: an answer with its receipt, or a transaction that is final.
What it was not told it does not count on; that is what a kill may take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from openresource.client import AsyncClient, calls
from openresource.client.chain import set_value
from openresource.primitives.amounts import ain_number
from openresource.primitives.errors import Refusal

CALLERS = 2
PAUSE_SECONDS = 0.05
# A provider that was killed is back soon here: it is not passed by for long.
calls.DOUBT_SECONDS = 0.5  # type: ignore[misc]


class Log:
    """Lines of JSON, each on the disk before anything else happens."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # A line that a kill cut off stays alone on its line.
        os.write(self._file, b"\n")

    def write(self, record: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(record).encode() + b"\n")
        os.fsync(self._file)


async def keep_calling(client: AsyncClient, service: str, log: Log, name: str) -> None:
    number = 0
    while True:
        number += 1
        text = f"{name} {number}"
        try:
            answer = await client.call(service, text=text, deadline_seconds=20)
        except Refusal as refusal:
            log.write({"refused": refusal.code})
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        assert answer.value == text.upper()
        log.write(
            {
                "answer": answer.receipt_id,
                "price_uain": answer.price_uain,
                "provider": answer.provider,
                "channel": answer.receipt["channel"],
            }
        )


async def keep_sending(client: AsyncClient, to: str, log: Log) -> None:
    """One µAIN after the other to a friend, each final before the next."""
    key = client.key()
    while True:
        path = f"/transfer/{key.address}/{to}/{secrets.token_hex(8)}/value"
        try:
            info = await client.chain.submit_final(set_value(path, ain_number(1)), key, deadline_seconds=20)
            log.write({"final": info.tx_hash})
        except Refusal as refusal:
            log.write({"refused": refusal.code})
        await asyncio.sleep(PAUSE_SECONDS)


async def main(arguments: argparse.Namespace) -> None:
    log = Log(arguments.log)
    async with AsyncClient(arguments.home, arguments.node) as client:
        works: list[Callable[[], Awaitable[None]]] = [
            lambda: keep_sending(client, arguments.friend, log),
            *(
                (lambda name=f"caller {n}": keep_calling(client, arguments.service, log, name))
                for n in range(CALLERS)
            ),
        ]
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work())  # type: ignore[arg-type]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    for option in ("--node", "--service", "--friend"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
