"""Providers that misbehave on purpose, so that tests and the tour show what becomes of them. No command starts one.

    python -m openresource.cli.faults liar --home DIR --node URL --share 0.1

A fault touches the work on jobs alone: the program starts and passes its smoke test as everywhere. The rest of the
provider is the honest one, and keeps its word about whatever its program seems to have answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from openresource.sandbox.driver import ProgramCall, ProgramReply

FAULTS: Final = ("liar", "crasher", "sleeper")
NAP_SECONDS: Final = 3_600.0


class FaultyRunner:
    """A program's runner whose answers to jobs go wrong in one way, in a share of cases."""

    def __init__(self, runner: Any, fault: str, *, share: float = 1.0, chance: random.Random | None = None):
        assert fault in FAULTS
        self._runner = runner
        self._fault = fault
        self._share = share
        self._chance = chance or random.Random()
        self.strikes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    async def call(self, call: ProgramCall) -> ProgramReply:
        """What the program answers, or what the fault makes of it; only jobs are calls that end with their caller."""
        if not call.ends_with_caller or self._chance.random() >= self._share:
            reply: ProgramReply = await self._runner.call(call)
            return reply
        self.strikes += 1
        if self._fault == "sleeper":
            await asyncio.sleep(NAP_SECONDS)
        if self._fault == "crasher":
            # The machine loses its power in the middle of the work.
            os.kill(os.getpid(), signal.SIGKILL)
        reply = await self._runner.call(call)
        if isinstance(reply.body, bytes):
            reply.body = json.dumps(changed(json.loads(reply.body))).encode()
        return reply


def changed(value: Any) -> Any:
    """A value of the same shape that is not true."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1 if value + 1 != value else -value
        case str():
            return value[::-1] if value[::-1] != value else value + "!"
        case list():
            return [changed(value[0]), *value[1:]] if value else [0]
        case dict():
            first = next(iter(value), None)
            return {**value, first: changed(value[first])} if first is not None else {"more": True}
        case _:
            return "nothing"


def wrapper(fault: str, *, share: float = 1.0, seed: int | None = None) -> Callable[[Any], FaultyRunner]:
    """What `Provider.wrap_runners` takes to make a provider misbehave."""
    chance = random.Random(seed)
    return lambda runner: FaultyRunner(runner, fault, share=share, chance=chance)


async def _misbehave(arguments: argparse.Namespace) -> None:
    from openresource.cli.provide import Providing, defaults
    from openresource.client.homes import Home

    options = {
        **defaults(),
        "accept": arguments.accept,
        "bond_uain": arguments.bond_uain,
        "port": arguments.port,
    }
    wrap = wrapper(arguments.fault, share=arguments.share, seed=arguments.seed)
    await Providing(Home(arguments.home), arguments.node, options, True, wrap=wrap).run()


def main() -> None:
    """Reads the words and misbehaves until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--accept", default="all")
    parser.add_argument("--bond-uain", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int)
    asyncio.run(_misbehave(parser.parse_args()))


if __name__ == "__main__":
    main()
