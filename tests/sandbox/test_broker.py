"""The broker answers every request with a typed refusal, keeps its bounds, and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import stat

from openresource.sandbox.broker import CONNECTIONS_MAX, REQUEST_BYTES_MAX, Broker


def test_requests_are_refused_by_name_and_nonsense_is_explained() -> None:
    async def main() -> None:
        broker = await Broker.open()
        try:
            assert stat.S_IMODE(broker.folder.parent.stat().st_mode) == 0o700
            reader, writer = await asyncio.open_unix_connection(broker.path)
            answers = []
            for line in (
                b'{"service": "search", "input": {}}\n',
                b"[1]\n",
                b"{not json\n",
                b"[" * 5_000 + b"\n",
            ):
                writer.write(line)
                answers.append(json.loads(await reader.readline())["error"])
            assert [answer["code"] for answer in answers] == [
                "broker-closed",
                "broker-closed",
                "broker-request-invalid",
                "broker-request-invalid",
            ]
            assert answers[0]["facts"]["service"] == "search" and answers[0]["remedy"]
            assert broker.requests == 4
            writer.write(b"x" * (REQUEST_BYTES_MAX + 2))
            assert json.loads(await reader.readline())["error"]["code"] == "broker-request-invalid"
            assert await reader.read() == b""
            writer.close()
        finally:
            await broker.close()
        assert not broker.folder.parent.exists()

    asyncio.run(main())


def test_connections_are_bounded() -> None:
    async def main() -> None:
        broker = await Broker.open()
        try:
            pairs = [await asyncio.open_unix_connection(broker.path) for _ in range(CONNECTIONS_MAX)]
            for reader, writer in pairs:
                writer.write(b"{}\n")
                assert b"broker-closed" in await reader.readline()
            reader, writer = await asyncio.open_unix_connection(broker.path)
            assert await reader.read() == b""
            writer.close()
            for _, writer in pairs:
                writer.close()
        finally:
            await broker.close()

    asyncio.run(main())
