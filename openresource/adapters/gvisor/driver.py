"""The driver: from a release to a running instance inside gVisor, and back to nothing.

The runtime and all its helpers live below a supervisor of our own and inside control groups where there are any, so
that what holds a plain program holds the kernel in user space as well.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from openresource.adapters.gvisor.bundles import write_bundle
from openresource.sandbox.broker import Broker
from openresource.sandbox.commands import command_of, find_command, wire_of
from openresource.sandbox.driver import Capabilities, KindNotServed, Limits, Release, SandboxUnavailable
from openresource.sandbox.folders import make_folder, remove_folder
from openresource.sandbox.gpus import (
    UNTESTED,
    Devices,
    Gpu,
    Need,
    described,
    device_environment,
    gvisor_options,
)
from openresource.sandbox.groups import make_groups
from openresource.sandbox.instances import RunningInstance, Watched, start_instance
from openresource.sandbox.launching import become_subreaper
from openresource.sandbox.layout import environment, interpreter_of
from openresource.sandbox.probing import probe_by_start
from openresource.sandbox.processes import open_ends, remove_groups
from openresource.sandbox.releases import make_readable
from openresource.sandbox.supervised import SupervisedProcess, start_supervised
from openresource.sandbox.views import view_of

LEVEL: Final = "gvisor"
GPU_LEVEL: Final = "gvisor+gpu"
KINDS: Final = ("python", "jsonl", "cli")
NO_BINARY: Final = "runsc is not installed: apt install runsc, or see gvisor.dev for a newer one"
# The newest first: which ones a binary knows and a machine allows is found by starting.
PLATFORMS: Final = ("systrap", "ptrace")
# The kernel in user space, its file server and their threads, beside the program's own.
OWN_MEMORY_BYTES: Final = 96 << 20
OWN_PROCESSES: Final = 256
# Threads of this machine for each process inside.
THREADS_EACH: Final = 8
# Its file server holds one for each file that the program has seen.
DESCRIPTORS_MAX: Final = 16_384
PIPE_BYTES: Final = 1 << 20
VERSION_SECONDS_MAX: Final = 10.0


class Gvisor:
    """The sandbox of level `gvisor`."""

    def __init__(
        self,
        *,
        tools: Sequence[Path] = (),
        binary: Path | None = None,
        platform: str = "",
        uses_groups: bool = True,
        devices: Devices | None = None,
    ) -> None:
        """Of `devices` each program leases those that it needs, and the level is another; `platform` is the runtime's way to catch system calls; empty takes the first that starts."""
        self._tools = tuple(tools)
        found = shutil.which("runsc")
        self._binary = binary or (Path(found) if found else None)
        self._platform = platform
        self._uses_groups = uses_groups
        self._devices = devices
        self._level = LEVEL if devices is None else GPU_LEVEL
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """What this driver reaches here, found once by a real start."""
        if self._capabilities is None:
            self._capabilities = self._probe()
        return self._capabilities

    async def start(self, release: Release, limits: Limits) -> RunningInstance:
        """A running program."""
        if self._binary is None:
            raise SandboxUnavailable(level=LEVEL, why_not=NO_BINARY)
        wire = wire_of(release.manifest.run)
        if wire not in KINDS:
            raise KindNotServed(
                kind=release.manifest.run.kind,
                level=LEVEL,
                reason="connections cannot be handed out of a network that the kernel of this machine does not know",
            )
        interpreter = interpreter_of(release.runtime)
        find_command(release, (*self._tools, interpreter.executable))
        become_subreaper()
        async with AsyncExitStack() as held:
            await asyncio.to_thread(make_readable, release.folder)
            broker = await Broker.open()
            held.push_async_callback(broker.close)
            groups = make_groups(_with_own_share(limits)) if self._uses_groups else None
            if groups is not None:
                held.push_async_callback(remove_groups, groups)
            gpus: tuple[Gpu, ...] = ()
            wanted = release.manifest.resources
            if self._devices is not None and wanted.gpu_count:
                lease = self._devices.lease(
                    Need(wanted.gpu_count, wanted.gpu_vendor, wanted.gpu_memory_bytes)
                )
                held.callback(lease.release)
                gpus = lease.gpus
            folder = make_folder("gvisor")
            held.callback(remove_folder, folder)
            ends = open_ends(wire)
            # Writing to a full pipe fails in there with EAGAIN instead of waiting, so it should not be full soon.
            fcntl.fcntl(ends.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            held.callback(ends.close_ours)
            held.callback(ends.close_theirs)
            view = view_of(release, interpreter, broker.folder, self._tools)
            command = command_of(release, view.layout, limits)
            values = environment(view.layout, release, limits, command.environment)
            write_bundle(folder, view, limits, {**values, **device_environment(gpus)}, command.words, gpus)
            process = await start_supervised(
                self._plan(folder, groups, gpus), ends, groups, make=SupervisedProcess
            )
            process.cleanups.append(held.pop_all().aclose)
        return await start_instance(
            process,
            ends,
            release,
            limits,
            Watched(descriptors_max=DESCRIPTORS_MAX, own_bytes=OWN_MEMORY_BYTES),
            broker,
        )

    def _plan(self, folder: Path, groups: Any, gpus: Sequence[Gpu]) -> dict[str, Any]:
        words = [
            str(self._binary),
            f"-root={folder / 'state'}",
            f"-platform={self._platform or PLATFORMS[-1]}",
            "-network=none",
            "-host-uds=open",
            # Groups of ours hold the whole; those that the runtime would make are not needed.
            "-ignore-cgroups",
            "-log=/dev/null",
            *gvisor_options(gpus),
        ]
        if os.geteuid() != 0:
            words.append("-rootless")
        words += ["run", f"-bundle={folder}", folder.name]
        plan: dict[str, Any] = {"argv": words, "folder": str(folder), "env": {"PATH": os.defpath}}
        if groups is not None:
            plan["groups"] = groups.enter_files
        return plan

    def _probe(self) -> Capabilities:
        if self._devices is not None and not self._devices:
            return Capabilities(GPU_LEVEL, False, "no GPU was found", kinds=KINDS)
        if self._binary is None:
            return Capabilities(self._level, False, NO_BINARY, kinds=KINDS)
        gpus = self._devices.gpus if self._devices is not None else ()
        known = (("gpus", described(gpus)), ("devices", UNTESTED)) if gpus else ()
        capabilities = Capabilities(self._level, False, "no platform was tried", kinds=KINDS)
        for platform in (self._platform,) if self._platform else PLATFORMS:
            self._platform = platform
            capabilities = probe_by_start(
                self,
                self._level,
                gpus=len(gpus),
                gpu_kinds=tuple((gpu.vendor, gpu.memory_bytes) for gpu in gpus),
                disk="tmpfs",
                uses_groups=self._uses_groups,
                kinds=KINDS,
                details=(("runsc", _version(self._binary)), ("platform", platform), *known),
            )
            if capabilities.available:
                break
        return capabilities


def _with_own_share(limits: Limits) -> Limits:
    return replace(
        limits,
        memory_bytes=limits.memory_bytes + OWN_MEMORY_BYTES,
        processes=limits.processes * THREADS_EACH + OWN_PROCESSES,
    )


def _version(binary: Path) -> str:
    try:
        said = subprocess.run(
            [str(binary), "-version"],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS_MAX,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"unknown ({problem})"
    return said.splitlines()[0].removeprefix("runsc version ").strip() if said else "unknown"
