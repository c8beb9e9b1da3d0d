"""Opens a provider's machine to people: the shells, the door that carries them, and the chain's word about both."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from openresource.client.chain import Chain
from openresource.client.homes import Home
from openresource.primitives.keys import PrivateKey

SHELLS_FOLDER = "shells"
HOST_KEY_FILE = "host_key"
PORT_FILE = "port"


async def open_door(
    held: AsyncExitStack,
    home: Home,
    chain: Chain,
    key: PrivateKey,
    provider: Any,
    options: Mapping[str, Any],
) -> tuple[Any, str]:
    """Lets people in until `held` ends; gives the shells and the endpoint."""
    from openresource.cli.machines import PROVIDER_FOLDER
    from openresource.cli.sandboxes import find_drivers
    from openresource.cli.shell import ssh_part
    from openresource.market.machines import MachineOffer
    from openresource.provider.hardware import machine_hardware
    from openresource.provider.service import clock_ms
    from openresource.provider.shells import LEVEL_MIN, Shells
    from openresource.provider.visits import ShellSettings
    from openresource.sandbox.computers import prepare_computer

    keys, door = ssh_part("keys"), ssh_part("server")
    folder = home.ensure() / PROVIDER_FOLDER / SHELLS_FOLDER
    settings = ShellSettings(
        folder=folder,
        owner=options["shell_owner"] or key.address,
        name=options["shell_name"],
        price_uain=options["shell_rent_uain"],
        minutes_max=options["shell_minutes"],
        region=options["region"],
    )
    release = prepare_computer(folder / "computer")
    sandbox = find_drivers().for_program(release.manifest, LEVEL_MIN)
    shells = Shells(
        settings, chain=chain, key=key, network=provider.network, sandbox=sandbox, clock_ms=clock_ms
    )
    await shells.open()
    held.push_async_callback(shells.close)
    host_key = keys.load_or_make_key(folder / HOST_KEY_FILE)
    server = door.ShellServer(shells, host_key, options["host"], _kept_port(folder, options["shell_port"]))
    await server.start()
    held.push_async_callback(server.stop)
    (folder / PORT_FILE).write_text(str(server.port))
    host = options["host"]
    shown = f"[{host}]" if ":" in host else host
    endpoint = options["shell_endpoint"] or f"ssh://{shown}:{server.port}"
    public = keys.public_key_of(host_key)
    offer = MachineOffer(
        shells.machine, settings.owner, endpoint, public.text, "", hardware=machine_hardware()
    )
    await shells.announce(endpoint, public, offer)
    return shells, endpoint


def _kept_port(folder: Any, chosen: int) -> int:
    """The port that was asked for, else that of the last run."""
    try:
        return chosen or int((folder / PORT_FILE).read_text())
    except (OSError, ValueError):
        return 0
