"""What most commands need: the home, the node's chain, a client that pays, and an event loop to run them in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from openresource.client.chain import Chain
from openresource.client.homes import Home, WalletLocked
from openresource.client.node_wire import TIMEOUT_SECONDS
from openresource.primitives.keys import PrivateKey

if TYPE_CHECKING:
    from openresource.client import AsyncClient

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's asynchronous part to its end; what it waits for long is said."""
    logger = logging.getLogger("openresource.client.waiting")
    if not logger.handlers:
        logger.addHandler(_Said())
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return asyncio.run(work)


class _Said(logging.Handler):
    """Waits go to standard error as they are, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        from openresource.cli.output import note, wants_json

        if not wants_json():
            note(f"  {record.getMessage()}")


def run_server(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a long-lived command in the quickest event loop at hand."""
    factory: Any = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


@asynccontextmanager
async def chain_of(
    home: Home, node_url: str | None, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> AsyncIterator[Chain]:
    """The chain of a home's network; another network than the home knows is refused."""
    config = home.config()
    genesis = config.get("genesis_hash") if node_url is None else None
    chain = Chain(
        home.node_url(node_url),
        timeout_seconds=timeout_seconds,
        genesis_hash=genesis if isinstance(genesis, str) else None,
    )
    try:
        yield chain
    finally:
        await chain.close()


@asynccontextmanager
async def client_of(home: str | None, node_url: str | None) -> AsyncIterator[AsyncClient]:
    """A client that finds, calls and pays; the passphrase of an encrypted wallet is asked for on a terminal."""
    from openresource.client import AsyncClient

    async with AsyncClient(home, node_url) as client:
        place = client.home
        if place.has_wallet() and place.is_encrypted() and place.passphrase_from_file() is None:
            phrase = _asked_passphrase()
            if phrase is not None:
                client.unlock(phrase)
        yield client


def key_of(home: Home) -> PrivateKey:
    """The wallet's key; asks for a passphrase only on a terminal."""
    try:
        return home.wallet()
    except WalletLocked:
        phrase = _asked_passphrase()
        if phrase is None:
            raise
        return home.wallet(phrase)


def _asked_passphrase() -> str | None:
    """The passphrase, asked for on a terminal; None where there is none."""
    import sys

    import click

    if not sys.stdin.isatty():
        return None
    phrase: str = click.prompt("Passphrase of the wallet", hide_input=True, err=True)
    return phrase
