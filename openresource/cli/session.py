"""What most commands need: the home, the node's chain, and an event loop to run them in."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from openresource.client.chain import Chain
from openresource.client.homes import Home, WalletLocked
from openresource.primitives.keys import PrivateKey

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's asynchronous part to its end."""
    return asyncio.run(work)


@asynccontextmanager
async def chain_of(home: Home, node_url: str | None) -> AsyncIterator[Chain]:
    """The chain of a home's network; another network than the home knows is refused."""
    config = home.config()
    genesis = config.get("genesis_hash") if node_url is None else None
    chain = Chain(home.node_url(node_url), genesis_hash=genesis if isinstance(genesis, str) else None)
    try:
        yield chain
    finally:
        await chain.close()


def key_of(home: Home) -> PrivateKey:
    """The wallet's key; asks for a passphrase only on a terminal."""
    try:
        return home.wallet()
    except WalletLocked:
        import sys

        import click

        if not sys.stdin.isatty():
            raise
        return home.wallet(click.prompt("Passphrase of the wallet", hide_input=True, err=True))
