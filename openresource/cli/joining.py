"""`provide --join`: this machine works for another provider of the same operator; no wallet, no coins, no open port."""

import asyncio
import os
import platform
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openresource.client.homes import Home
from openresource.primitives.errors import InvalidInput

JOINED_FOLDER = "joined"
KEY_CHARACTERS_MAX = 2_000


def key_text(given: str) -> str:
    """The join key: itself, or the file that `@` names, so that it need not stand among this machine's processes."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text()[:KEY_CHARACTERS_MAX].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"The join key in {given[1:]} cannot be read ({error}).", remedy="Name another file."
        ) from None


async def join(
    home: Home,
    given: str,
    options: Mapping[str, Any],
    say: Callable[[dict[str, Any], str], None],
) -> None:
    """Work for the provider that the key names, until SIGINT or SIGTERM."""
    from openresource.builds.cache import Cache
    from openresource.builds.languages import find_languages
    from openresource.builds.workshop import Workshop
    from openresource.cli.machines import cache_with
    from openresource.cli.sandboxes import find_drivers
    from openresource.provider.join_keys import read_join_key
    from openresource.provider.joining import Joining, Workplace
    from openresource.provider.runtimes import cache_folder, list_runtimes
    from openresource.sandbox.budgets import MEMORY_SHARE, machine_memory_bytes

    key = read_join_key(key_text(given))
    folder = home.ensure() / JOINED_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    drivers = find_drivers()
    await asyncio.to_thread(drivers.required)
    cache = cache_with(options["runtimes"], folder) or cache_folder()
    languages = await asyncio.to_thread(find_languages)
    place = Workplace(
        name=platform.node()[:64],
        folder=folder,
        drivers=drivers,
        workshop=lambda get_block: Workshop(Cache(cache / "builds"), drivers, languages, get_block=get_block),
        runtimes=await asyncio.to_thread(list_runtimes, cache),
        memory_bytes=options.get("memory_bytes") or int(machine_memory_bytes() * MEMORY_SHARE),
        cpu=len(os.sched_getaffinity(0)),
        min_level=options["min_level"],
    )
    joining = Joining(key, place, lambda text: say({"join": text}, text))
    loop = asyncio.get_running_loop()
    working = asyncio.create_task(joining.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    with home.lock("joined"):
        say({"ready": True, "joins": joining.endpoint}, f"Joining {joining.endpoint}. Ctrl-C ends it.")
        try:
            await working
        except asyncio.CancelledError:
            say({"stopped": True, "calls": joining.calls}, f"Gone; {joining.calls} calls were worked on.")
