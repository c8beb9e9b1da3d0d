"""A provider in a process of its own, for tests that kill it: prints one line when it listens, stops on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import uvloop

from openresource.cli.sandboxes import find_drivers
from openresource.client.chain import Chain
from openresource.provider.policies import Policy
from openresource.provider.service import Provider, Settings
from tests.provider.support import key_of


async def main(arguments: argparse.Namespace) -> None:
    async with Chain(arguments.node) as chain:
        provider = Provider(
            Settings(
                folder=arguments.folder,
                policy=Policy("list", publishers=frozenset([arguments.publisher])),
                cache=arguments.folder / "cache",
                drain_seconds=60.0,
            ),
            key=key_of("provider"),
            chain=chain,
            drivers=find_drivers(),
        )
        await provider.start()
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        print(json.dumps({"endpoint": provider.endpoint, "address": provider.address}), flush=True)
        await stopped.wait()
        await provider.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--publisher", required=True)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    uvloop.run(main(parser.parse_args()))
