"""Which drivers this machine gets, in the order in which programs are offered to them."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from openresource.sandbox.driver import Sandbox
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.tongues import Channel, Opening, add_tongue

# Interpreters that people keep in their own folders; programs see what lies below /usr anyway.
TOOLS = ("node",)


def find_drivers(*, registries: Sequence[str] = (), cluster: str = "", ray: str = "") -> Drivers:
    """The drivers of this machine, the preferred first; none is started before somebody asks.

    `registries` are those that may be asked for images by their digest; `cluster` is NAMESPACE or NAMESPACE/RUNTIMECLASS
    of the Kubernetes cluster that kubectl reaches; `ray` is the address of a Ray cluster of this operator's machines.
    """
    from openresource.adapters.bubblewrap.driver import Bubblewrap
    from openresource.adapters.confined.driver import Confined
    from openresource.adapters.gvisor.driver import Gvisor
    from openresource.adapters.kubernetes.driver import Cluster, Kubernetes
    from openresource.adapters.oci.driver import Oci
    from openresource.adapters.wasm.driver import Wasm
    from openresource.provider.runtimes import cache_folder
    from openresource.sandbox.gpus import Devices, discover

    add_tongue("grpc", _open_grpc)
    namespace, _, runtime_class = cluster.partition("/")
    kubectl = shutil.which("kubectl") or ""
    tools = own_tools()
    bubblewrap, confined = Bubblewrap(tools=tools), Confined(tools=tools)
    wasm = Wasm([bubblewrap, confined], cache=cache_folder() / "wasm")
    devices = Devices(discover())
    sandboxes: list[Sandbox] = [
        bubblewrap,
        wasm,
        Oci(registries=registries),
        Bubblewrap(tools=tools, devices=devices),
        Oci(registries=registries, devices=devices),
        Gvisor(tools=tools, devices=devices),
        Gvisor(tools=tools),
        Kubernetes(Cluster(kubectl, "", namespace, runtime_class, tuple(registries))),
        confined,
    ]
    if ray:
        from openresource.adapters.ray.driver import RayPlacement

        sandboxes.insert(0, RayPlacement(ray))
    return Drivers(sandboxes)


async def _open_grpc(opening: Opening) -> Channel:
    """gRPC by its own library, which is loaded with the first program that speaks it."""
    from openresource.adapters.grpc.extras import require_grpc

    require_grpc()
    from openresource.adapters.grpc.channel import open_grpc

    return await open_grpc(opening)


def own_tools() -> tuple[Path, ...]:
    """Interpreters on this machine's PATH that lie outside of /usr: each is shown to programs as that one file."""
    found = []
    for name in TOOLS:
        path = shutil.which(name)
        if path is not None and not os.path.realpath(path).startswith("/usr/"):
            found.append(Path(path))
    return tuple(found)
