"""`provide`: run other people's programs on this machine and be paid."""

import asyncio
import json
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from openresource.cli.output import (
    Progress,
    home_option,
    json_option,
    network_node_option,
    note,
    usage_error,
)
from openresource.cli.session import chain_of, key_of, run_server
from openresource.client.homes import Home, Lock
from openresource.market.placements import ISOLATION_LEVELS
from openresource.node.logs import log_to
from openresource.primitives.amounts import text_from_uain, uain_from_text
from openresource.primitives.errors import InvalidInput, Refusal

LOOK_SECONDS = 0.5
EARNINGS_SECONDS = 60.0


@click.command(
    epilog="""\b
Example:  openresource provide --accept own
          openresource provide --accept all --min-level bubblewrap --port 9000
          openresource provide --accept list --runtimes ~/.cache/openresource/runtimes/chat-51b6870a934d
\b
--accept list reads accept.toml in the home's folder provider/:
          publishers = ["0x…"]   services = ["0x…/name"]   programs = ["bafy…"]
and in every mode how many instances of some stay warm:
          [warm]
          "0x…/name" = 0
\b
Exit codes: 0 stopped by Ctrl-C or SIGTERM, drained and settled · 1 refused · 2 wrong usage · 3 node away"""
)
@click.option(
    "--accept",
    type=click.Choice(["all", "own", "list"]),
    default="own",
    show_default=True,
    help="Which published programs run here.",
)
@click.option(
    "--min-level",
    type=click.Choice(list(ISOLATION_LEVELS)),
    default="confined",
    show_default=True,
    help="The weakest isolation at which programs run here.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the gateway. Default: the last one, or any free.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--endpoint", help="What is announced, such as https://my.host:9000. Default: host and port.")
@click.option(
    "--region", help="Where this machine stands, such as kr-seoul; buyers and publishers may choose by it."
)
@click.option(
    "--bond", help="Keep a bond of so many AIN; publishers may ask for one. See `openresource bond`."
)
@click.option("--ask", help="What a call costs here, in AIN. Default: what the publisher suggests.")
@click.option(
    "--capacity", type=click.IntRange(1, 256), help="How many instances of a program run at once. Default: 1"
)
@click.option(
    "--warm",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="How many instances of a program stay when nobody calls; accept.toml may say otherwise for some.",
)
@click.option(
    "--idle",
    type=click.FloatRange(1, 86_400),
    default=300,
    show_default=True,
    help="Seconds without calls after which instances beyond those end.",
)
@click.option(
    "--memory",
    type=click.FloatRange(0.05, 1_000_000),
    help="GiB of memory that all programs may use together. Default: four fifths of the machine's.",
)
@click.option(
    "--grace",
    "grace_seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds without a call after which a version goes when another one serves its name.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Open a gRPC door as well, at this port; 0 takes any free one. Default: none.",
)
@click.option(
    "--sync",
    type=click.Choice(["always", "interval"]),
    default="always",
    show_default=True,
    help="When a paid answer may leave: once the disk has it, or at most 0.2 s before.",
)
@click.option(
    "--runtimes",
    type=click.Path(file_okay=False),
    multiple=True,
    help="Folders with prepared runtimes. Default: those in the cache.",
)
@click.option(
    "--allow-network",
    "allowed_network",
    multiple=True,
    metavar="HOST:PORT",
    help="What programs may reach that ask for it, or the word any; all of it is logged. Default: nothing.",
)
@click.option(
    "--allow-registry",
    "registries",
    multiple=True,
    metavar="HOST",
    help="A registry that may be asked for images, each by its digest. Default: none.",
)
@click.option(
    "--cluster",
    default="",
    metavar="NAMESPACE[/RUNTIMECLASS]",
    help="Run images in the Kubernetes cluster that kubectl reaches. Default: none.",
)
@click.option(
    "--pool", "takes_machines", is_flag=True, help="Let other machines of yours join; prints the join key."
)
@click.option("--pool-port", type=click.IntRange(0, 65535), default=0, help="Port where machines join.")
@click.option("--pool-endpoint", help="host:port that the join key names. Default: host and port.")
@click.option("--pool-renew", is_flag=True, help="Make a new join key; the old one opens nothing any more.")
@click.option(
    "--join",
    "join_key",
    metavar="KEY",
    help="Work for the provider that printed KEY (or @FILE with it): no wallet, no open port.",
)
@click.option(
    "--ray",
    default="",
    metavar="ADDRESS",
    help="Place programs on the machines of this Ray cluster, all of them yours. Default: none.",
)
@click.option(
    "--shell", "opens_shell", is_flag=True, help="Let the owner, guests and tenants in, each in a sandbox."
)
@click.option(
    "--shell-port", type=click.IntRange(0, 65535), default=0, help="Port of the shells' door (SSH)."
)
@click.option(
    "--shell-endpoint", help="What is announced, such as ssh://my.host:2222. Default: host and port."
)
@click.option("--shell-owner", help="Whose machine this is. Default: the provider's own wallet.")
@click.option("--shell-name", help="A name for the machine, such as attic.")
@click.option("--shell-rent", help="What a minute costs, in AIN. Default: not for rent.")
@click.option(
    "--shell-minutes",
    type=click.IntRange(1),
    default=24 * 60,
    show_default=True,
    help="For how long it is rented at most.",
)
@home_option
@network_node_option
@json_option
def provide(
    accept: str,
    min_level: str,
    port: int,
    host: str,
    endpoint: str | None,
    region: str | None,
    bond: str | None,
    ask: str | None,
    capacity: int | None,
    warm: int,
    idle: float,
    memory: float | None,
    grace_seconds: float,
    grpc_port: int | None,
    sync: str,
    runtimes: tuple[str, ...],
    allowed_network: tuple[str, ...],
    registries: tuple[str, ...],
    cluster: str,
    ray: str,
    takes_machines: bool,
    pool_port: int,
    pool_endpoint: str | None,
    pool_renew: bool,
    join_key: str | None,
    opens_shell: bool,
    shell_port: int,
    shell_endpoint: str | None,
    shell_owner: str | None,
    shell_name: str | None,
    shell_rent: str | None,
    shell_minutes: int,
    home: str | None,
    node_url: str | None,
    as_json: bool,
) -> None:
    """Take published programs, run them in sandboxes, sell calls, claim what was earned; until Ctrl-C.

    A provider needs no coins: its claims pay for themselves. Ctrl-C lets calls end, settles and says goodbye.
    """
    options = {
        "accept": accept,
        "min_level": min_level,
        "port": port,
        "host": host,
        "endpoint": endpoint or "",
        "region": region_of(region),
        "bond_uain": 0 if bond is None else uain_from_text(bond),
        "ask_uain": None if ask is None else uain_from_text(ask),
        "capacity": capacity or 1,
        "allowed_network": allowed_network,
        "registries": registries,
        "cluster": cluster,
        "ray": ray,
        "warm": warm,
        "idle_seconds": idle,
        "memory_bytes": None if memory is None else int(memory * 2**30),
        "sync": sync,
        "grace_seconds": grace_seconds,
        "grpc_port": grpc_port,
        "runtimes": tuple(Path(one) for one in runtimes),
        "takes_machines": takes_machines or pool_renew,
        "pool_port": pool_port,
        "pool_endpoint": pool_endpoint or "",
        "pool_renew": pool_renew,
        "opens_shell": opens_shell,
        "shell_port": shell_port,
        "shell_endpoint": shell_endpoint or "",
        "shell_owner": owner_of(shell_owner),
        "shell_name": region_of(shell_name),
        "shell_rent_uain": None if shell_rent is None else uain_from_text(shell_rent),
        "shell_minutes": shell_minutes,
    }
    if join_key is not None and (takes_machines or pool_renew or opens_shell):
        usage_error("A machine that joins another provider neither opens shells nor lets others join.")
    if join_key is not None:
        run_server(Providing(Home(home), node_url, options, as_json).join(join_key))
        return
    run_server(Providing(Home(home), node_url, options, as_json).run())


class WordInvalid(Refusal):
    template = "{word} names no region and no machine."
    way_out = "Use lower-case letters, digits and hyphens, at most 40, such as kr-seoul."


def region_of(text: str | None) -> str:
    """A region or a machine's name from the command line; empty if none is given."""
    from openresource.market.hardware import is_region

    if text is not None and not is_region(text):
        raise WordInvalid(word=text)
    return text or ""


def owner_of(text: str | None) -> str:
    """An address from the command line; empty if none is given."""
    from openresource.primitives.keys import checksum_address, is_address

    if text is not None and not is_address(text):
        raise InvalidInput(f"{text} is not an address.", remedy="An address is 0x and 40 hex digits.")
    return checksum_address(text) if text else ""


def defaults() -> dict[str, Any]:
    """The options of somebody who gives none."""
    from openresource.provider.fleets import IDLE_SECONDS_DEFAULT, WARM_DEFAULT

    return {
        "accept": "own",
        "min_level": "confined",
        "port": 0,
        "host": "127.0.0.1",
        "endpoint": "",
        "bond_uain": 0,
        "ask_uain": None,
        "capacity": 1,
        "warm": WARM_DEFAULT,
        "idle_seconds": IDLE_SECONDS_DEFAULT,
        "runtimes": (),
        "opens_shell": False,
    }


class Providing:
    """A provider in this process, and what it says."""

    def __init__(
        self,
        home: Home,
        node_url: str | None,
        options: dict[str, Any],
        as_json: bool,
        *,
        wrap: Callable[[Any], Any] | None = None,
    ) -> None:
        self._wrap = wrap
        self._home = home
        self._node_url = node_url
        self._options = options
        self._as_json = as_json
        self._said: dict[str, str] = {}
        self._progress = Progress(quiet=as_json)

    async def run(self) -> None:
        """Provide until SIGINT or SIGTERM, then leave in order."""
        # Under a supervisor the log is a file to look into later; a person sees only what is wrong.
        log_to(level=logging.INFO if self._as_json else logging.WARNING)
        home = self._home
        if not home.has_wallet():
            made = home.create_wallet()
            self._say({"wallet": made.address}, f"Made a wallet for this machine: {made.address}")
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        lock: Lock = home.lock("provider")
        with lock:
            async with chain_of(home, self._node_url) as chain:
                provider = await self._made(chain)
                self._progress(f"asking the node at {chain.url} which network this is, for at most a minute")
                if not await _started(provider, stopping):
                    return
                doors = AsyncExitStack()
                try:
                    await self._bonded(chain)
                    self._ready(provider)
                    await self._opened(doors, chain, provider)
                    await self._watch(provider, stopping)
                finally:
                    await doors.aclose()
                    self._say({"stopping": True}, "Leaving: calls in flight end, channels are settled …")
                    await provider.stop()
                    self._say(
                        {"stopped": True, "balance_uain": await _balance(chain, provider.address)}, "Gone."
                    )

    async def _opened(self, doors: AsyncExitStack, chain: Any, provider: Any) -> None:
        """Opens the machine to people, if the operator wants that."""
        if not self._options["opens_shell"]:
            return
        from openresource.cli.doors import open_door

        shells, endpoint = await open_door(
            doors, self._home, chain, key_of(self._home), provider, self._options
        )
        settings = shells.settings
        rent = (
            "it is not for rent"
            if settings.price_uain is None
            else f"{text_from_uain(settings.price_uain)} AIN a minute"
        )
        self._say(
            {
                "shell": endpoint,
                "machine": shells.machine,
                "owner": settings.owner,
                "rent_uain": settings.price_uain,
            },
            f"Shells at {endpoint} for {settings.owner} and its guests; {rent}. "
            f"Come in:  openresource shell {settings.name or shells.machine}",
        )

    async def _bonded(self, chain: Any) -> None:
        """Adds to the bond what the operator asked for; a provider without the money serves all the same."""
        wanted_uain = self._options["bond_uain"]
        if not wanted_uain:
            return
        from openresource.client.bonds import keep_bond

        try:
            added_uain = await keep_bond(chain, key_of(self._home), wanted_uain)
        except Refusal as refusal:
            self._say({"bond": refusal.to_json()}, f"No bond: {refusal.message} {refusal.remedy}")
            return
        if added_uain:
            self._say({"bonded_uain": added_uain}, f"Bonded {text_from_uain(added_uain)} AIN.")

    async def join(self, key: str) -> None:
        """Work for another provider until SIGINT or SIGTERM."""
        from openresource.cli.joining import join

        log_to(level=logging.INFO if self._as_json else logging.WARNING)
        await join(self._home, key, self._options, self._say)

    async def _made(self, chain: Any) -> Any:
        from openresource.cli.machines import make_provider

        provider = await make_provider(self._home, chain, key_of(self._home), self._options, self._progress)
        if self._wrap is not None:
            provider.wrap_runners(self._wrap)
        return provider

    def _ready(self, provider: Any) -> None:
        facts = {
            "ready": True,
            "provider": provider.address,
            "endpoint": provider.endpoint,
            "isolation": provider.isolation,
            "accept": self._options["accept"],
        }
        door = ""
        if provider.grpc_port:
            facts["grpc_port"] = provider.grpc_port
            door = f" gRPC clients find it at port {provider.grpc_port}."
        self._progress.clear()
        self._say(
            facts,
            f"Provider {provider.address} listens at {provider.endpoint}, isolation {provider.isolation}; "
            f"it accepts {_accept_words(self._options['accept'])}.{door} Ctrl-C ends it.",
        )
        if provider.join_key:
            # Logs are read by many, the file by its owner alone.
            self._say(
                {"join_key_file": str(provider.join_key_file)},
                f"Other machines of yours join with:  openresource provide --join {provider.join_key}",
            )

    async def _watch(self, provider: Any, stopping: asyncio.Event) -> None:
        earned: dict[str, Any] = {}
        quiet_seconds = 0.0
        while not stopping.is_set():
            for entry in provider.placements.summary:
                self._placement(entry)
            self._machines(provider.machines)
            if quiet_seconds >= EARNINGS_SECONDS:
                quiet_seconds = 0.0
                earned = await self._earnings(provider, earned)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                quiet_seconds += LOOK_SECONDS

    def _machines(self, machines: list[dict[str, Any]]) -> None:
        text = ", ".join(f"{one['name']} ({one['instances']} instances)" for one in machines)
        if self._said.get("machines", "") != text:
            self._said["machines"] = text
            self._say({"machines": machines}, f"  machines that have joined: {text or 'none'}")

    def _placement(self, entry: dict[str, Any]) -> None:
        name = f"{entry['publisher']}/{entry['name']} {entry['program'][-8:]}"
        reason = entry.get("reason") or ""
        text = f"{entry['status']}{': ' + reason if reason else ''}"
        if self._said.get(name) != text:
            self._said[name] = text
            self._say({"placement": entry}, f"  {entry['name']} of {entry['publisher']}: {text}")

    async def _earnings(self, provider: Any, before: dict[str, Any]) -> dict[str, Any]:
        now: dict[str, Any] = await provider.earnings()
        if now.get("calls") != before.get("calls"):
            self._say(
                {"earnings": now},
                f"  {now['calls']} calls, {text_from_uain(now['receipts_uain'])} AIN in receipts, "
                f"{text_from_uain(now['paid_out_uain'])} AIN paid out, {text_from_uain(now['unclaimed_uain'])} AIN not claimed yet",
            )
        return now

    def _say(self, facts: dict[str, Any], text: str) -> None:
        if self._as_json:
            click.echo(json.dumps(facts, ensure_ascii=False, default=str))
        else:
            note(text)


async def _started(provider: Any, stopping: asyncio.Event) -> bool:
    """Start a provider; false if it was told to end before it stood, while it waited for the node perhaps."""
    starting = asyncio.ensure_future(provider.start())
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False
    starting.result()
    return True


def _accept_words(accept: str) -> str:
    return {
        "all": "every published program",
        "own": "programs of its own wallet",
        "list": "what is on its list",
    }[accept]


async def _balance(chain: Any, address: str) -> int | None:
    from openresource.client.chain import NodeAway, NodeRefused

    try:
        return int(await chain.balance(address))
    except (NodeAway, NodeRefused):
        return None
