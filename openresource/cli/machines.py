"""Wires a provider together: this machine's drivers, warm instances, the operator's policy, the gateway."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from openresource.client.chain import Chain
from openresource.client.homes import Home
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey

PROVIDER_FOLDER = "provider"
ACCEPT_FILE = "accept.toml"


class RuntimeFolderInvalid(Refusal):
    template = "{folder} is not a prepared runtime: it has no runtime.json."
    way_out = "Name the folder that scripts/runtimes made, or its parent."


async def make_provider(
    home: Home,
    chain: Chain,
    key: PrivateKey,
    options: Mapping[str, Any],
    progress: Any,
) -> Any:
    """A provider that has not started yet."""
    from openresource.cli.sandboxes import find_drivers
    from openresource.provider.fleets import IDLE_SECONDS_DEFAULT, WARM_DEFAULT
    from openresource.provider.policies import Accept, load_policy
    from openresource.provider.service import Provider, Settings
    from openresource.provider.succession import GRACE_SECONDS_DEFAULT

    folder = home.ensure() / PROVIDER_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    policy = load_policy(cast(Accept, options["accept"]), options["min_level"], folder / ACCEPT_FILE)
    progress("starting each kind of sandbox to see what this machine gives; it takes some seconds")
    drivers = find_drivers(
        registries=options.get("registries", ()),
        cluster=options.get("cluster", ""),
        ray=options.get("ray", ""),
    )
    await asyncio.to_thread(drivers.required)
    settings = Settings(
        folder=folder,
        policy=policy,
        host=options["host"],
        port=options["port"],
        endpoint=options["endpoint"],
        ask_uain=options["ask_uain"],
        instances=int(options["capacity"]),
        warm=options.get("warm", WARM_DEFAULT),
        idle_seconds=options.get("idle_seconds", IDLE_SECONDS_DEFAULT),
        memory_bytes=options.get("memory_bytes"),
        sync=options.get("sync", "always"),
        grace_seconds=options.get("grace_seconds", GRACE_SECONDS_DEFAULT),
        cache=cache_with(options["runtimes"], folder),
        region=options.get("region", ""),
        joins=_joins(options),
        grpc_port=options.get("grpc_port"),
        allowed_network=options.get("allowed_network", ()),
    )
    open_grpc = None
    if settings.grpc_port is not None:
        from openresource.adapters.grpc.extras import require_grpc

        require_grpc()
        from openresource.adapters.grpc.door import open_door

        open_grpc = open_door
    return Provider(settings, key=key, chain=chain, drivers=drivers, open_grpc=open_grpc)


def _joins(options: Mapping[str, Any]) -> Any:
    """Where other machines join; None where none may."""
    if not options.get("takes_machines"):
        return None
    from openresource.provider.spread import JoinSettings

    return JoinSettings(
        host=options["host"],
        port=options["pool_port"],
        endpoint=options["pool_endpoint"],
        renews_key=options["pool_renew"],
    )


def cache_with(runtimes: tuple[Path, ...], folder: Path) -> Path | None:
    """A cache that holds exactly the named runtimes; None for the usual one."""
    if not runtimes:
        return None
    chosen = folder / "cache" / "runtimes"
    chosen.mkdir(parents=True, exist_ok=True)
    for old in chosen.iterdir():
        old.unlink()
    for runtime in runtimes:
        inner = [runtime] if (runtime / "runtime.json").is_file() else sorted(runtime.glob("*/"))
        found = [one for one in inner if (one / "runtime.json").is_file()]
        if not found:
            raise RuntimeFolderInvalid(folder=str(runtime))
        for one in found:
            (chosen / one.name).symlink_to(one.resolve(), target_is_directory=True)
    return folder / "cache"
