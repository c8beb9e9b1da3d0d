"""The driver: from a release that names an image to a running container, and back to nothing.

The engine holds the limits; the watch looks at the sum as everywhere. A server in the container is reached by `door.py`,
which stands in the container's empty network, so nothing is added to an image and no port is opened anywhere.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final

from openresource.adapters.oci.engines import (
    BROKER_FOLDER,
    LEVEL,
    RELEASE_FOLDER,
    Engine,
    client_environment,
    engines_here,
    run_words,
)
from openresource.adapters.oci.images import image_id_of, is_digest_reference, probe_archive, write_nameless
from openresource.adapters.oci.profiles import seccomp_profile
from openresource.market.manifests import MANIFEST_FILE, parse_manifest
from openresource.sandbox import proc
from openresource.sandbox.broker import Broker
from openresource.sandbox.commands import port_of, wire_of
from openresource.sandbox.driver import (
    Capabilities,
    KindNotServed,
    Limits,
    ProgramCall,
    ProgramDidNotStart,
    Release,
    SandboxUnavailable,
)
from openresource.sandbox.gpus import (
    UNTESTED,
    Devices,
    Gpu,
    Need,
    described,
    device_environment,
    engine_devices,
)
from openresource.sandbox.groups import groups_of, held_bytes
from openresource.sandbox.instances import RunningInstance, Watched, start_instance
from openresource.sandbox.launching import become_subreaper
from openresource.sandbox.layout import BROKER_NAME, Layout, environment
from openresource.sandbox.probing import WHY_NOT_CHARACTERS_MAX, in_own_loop
from openresource.sandbox.processes import open_ends
from openresource.sandbox.releases import make_readable
from openresource.sandbox.supervised import SupervisedProcess, start_supervised
from openresource.sandbox.uids import take_uid
from openresource.sandbox.views import HOME

GPU_LEVEL: Final = "oci+gpu"
KINDS: Final = ("oci",)
WIRES: Final = ("http", "jsonl", "grpc")
DOOR: Final = Path(__file__).with_name("door.py")
PLAIN_USERS: Final = range(10_000, 60_000)
STARTED_SECONDS_MAX: Final = 60.0
LOOK_SECONDS: Final = 0.05
PROBE_SECONDS_MAX: Final = 60.0
NO_ENGINE: Final = "neither podman nor docker is installed"
PROBE_LIMITS: Final = Limits(memory_bytes=64 << 20, disk_bytes=1 << 20, processes=8, startup_seconds=20.0)
_PROBE_MANIFEST: Final = 'name = "probe"\n[run]\nkind = "oci"\nimage = "probe.tar"\nspeaks = "jsonl"\n[[methods]]\nname = "answer"\n'
_users = itertools.cycle(PLAIN_USERS)


class ContainerProcess(SupervisedProcess):
    """The engine's client below a supervisor, and the container wherever the engine keeps it."""

    engine: Engine
    container: str
    container_pid: int = 0
    door: subprocess.Popen[bytes] | None = None

    def tree(self) -> list[int]:
        """The processes in the container."""
        return proc.descendants(self.container_pid) if self.container_pid else []

    def find_main(self) -> int:
        """The container's first process."""
        return self.container_pid

    def kill(self) -> None:
        """The first process, and with it the whole process namespace; engines lose count if theirs are killed too."""
        if self.container_pid:
            try:
                os.kill(self.container_pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                # Without root it is another user's; the engine may.
                return

    async def reap(self) -> None:
        """The engine removes the container, then the supervisor ends what is left."""
        if self.door is not None:
            self.door.kill()
            self.door.wait()
        await self.engine.remove(self.container)
        super().kill()
        await super().reap()


class Oci:
    """The sandbox of level `oci`."""

    def __init__(
        self,
        *,
        engine: Engine | None = None,
        registries: Sequence[str] = (),
        devices: Devices | None = None,
    ) -> None:
        """`registries` are those that may be asked for images that are not here; of `devices` each program leases
        those that it needs, and the level is another."""
        self._level = LEVEL if devices is None else GPU_LEVEL
        self._engine = engine
        self._is_chosen = engine is not None
        self._registries = tuple(registries)
        self._devices = devices
        self._loading = asyncio.Lock()
        self._held: frozenset[str] = frozenset()
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """What this driver reaches here, found once by a real start."""
        if self._capabilities is None:
            self._capabilities = self._probe()
        return self._capabilities

    async def start(self, release: Release, limits: Limits) -> RunningInstance:
        """A running program."""
        if self._engine is None:
            await asyncio.to_thread(self.probe)
        engine = self._engine
        if engine is None:
            raise SandboxUnavailable(level=LEVEL, why_not=NO_ENGINE)
        run = release.manifest.run
        wire = wire_of(run)
        if run.kind not in KINDS or wire not in WIRES:
            raise KindNotServed(
                kind=f"{run.kind} ({wire})", level=LEVEL, reason=f"images speak {', '.join(WIRES)} here"
            )
        image = await self._image(engine, release)
        become_subreaper()
        await asyncio.to_thread(make_readable, release.folder)
        async with AsyncExitStack() as held:
            theirs = held.enter_context(ExitStack())
            user = next(_users)
            if os.geteuid() == 0:
                uid = take_uid(LEVEL)
                held.callback(uid.release)
                user = uid.number
            broker = await Broker.open()
            held.push_async_callback(broker.close)
            ends = open_ends(wire)
            held.callback(ends.close_ours)
            held.callback(ends.close_theirs)
            door_end = -1
            if wire != "jsonl":
                # The control socket is the door's; the program reads nothing.
                door_end = os.dup(ends.child_stdin)
                theirs.callback(os.close, door_end)
                ends.child_stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            errors = os.dup(ends.child_stderr)
            theirs.callback(os.close, errors)
            container = f"openresource-{os.getpid()}-{secrets.token_hex(6)}"
            wanted = release.manifest.resources
            gpus: tuple[Gpu, ...] = ()
            if self._devices is not None and wanted.gpu_count:
                lease = self._devices.lease(
                    Need(wanted.gpu_count, wanted.gpu_vendor, wanted.gpu_memory_bytes)
                )
                held.callback(lease.release)
                gpus = lease.gpus
            values = {**_environment(release, limits, wire), **device_environment(gpus)}
            words = run_words(
                container,
                user,
                limits,
                values,
                await asyncio.to_thread(self._profile_file, held),
                {RELEASE_FOLDER: os.path.realpath(release.folder), BROKER_FOLDER: str(broker.folder)},
                engine_devices(gpus),
                is_podman=engine.is_podman,
            )
            plan: dict[str, Any] = {
                "argv": engine.words(*words, image, *run.command),
                "env": client_environment(),
                # Engines without root make their user namespace by a setuid helper.
                "keeps_privileges": True,
            }
            process = await start_supervised(plan, ends, None, make=ContainerProcess)
            process.engine, process.container = engine, container
            try:
                await self._enter(engine, process)
                if wire != "jsonl":
                    process.door = subprocess.Popen(
                        [sys.executable, "-I", "-S", str(DOOR), str(process.container_pid), str(port_of(run))],
                        stdin=door_end, stdout=subprocess.DEVNULL, stderr=errors, env={}, start_new_session=True,
                    )  # fmt: skip
            except BaseException:
                words_said = process.last_words()
                await process.end()
                if process.container_pid == 0:
                    raise ProgramDidNotStart(
                        reason=f"{engine.name} started no container", stderr=words_said
                    ) from None
                raise
            finally:
                # What the program holds must close when the program ends.
                theirs.close()
            process.cleanups.append(held.pop_all().aclose)
        watched = Watched(inner_folders=(HOME, "/dev/shm"))
        return await start_instance(process, ends, release, limits, watched, broker)

    def _profile_file(self, held: AsyncExitStack) -> Path:
        """The list of refused system calls as a file that the client reads at the start."""
        descriptor, name = tempfile.mkstemp(prefix="openresource-seccomp-", suffix=".json")
        held.callback(Path(name).unlink, True)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(seccomp_profile())
        return Path(name)

    async def _enter(self, engine: Engine, process: ContainerProcess) -> None:
        """Wait until the container has its first process, and find the groups that the engine has put it into."""
        async with asyncio.timeout(STARTED_SECONDS_MAX):
            while True:
                pid = await engine.pid_of(process.container)
                if pid:
                    break
                if process.has_ended.is_set():
                    raise ProgramDidNotStart(reason="it ended at once", stderr=process.last_words())
                await asyncio.sleep(LOOK_SECONDS)
        process.container_pid = pid
        process.groups = groups_of(pid)
        if process.groups is not None and held_bytes(process.groups):
            self._held = process.groups.controllers
        else:
            # Somebody else's count of a whole session would say nothing of this program.
            process.groups, self._held = None, frozenset()

    async def _image(self, engine: Engine, release: Release) -> str:
        """What the engine knows the image by; it is on this machine when this returns."""
        image = release.manifest.run.image
        async with self._loading:
            if is_digest_reference(image):
                if not await engine.has_image(image):
                    registry = image.partition("/")[0]
                    if registry not in self._registries:
                        raise ImageNotHere(image=image, registry=registry)
                    await engine.pull(image)
                return image
            archive = _archive(release, image)
            identity = await asyncio.to_thread(image_id_of, archive)
            if not await engine.has_image(identity):
                with tempfile.TemporaryDirectory(prefix="openresource-image-") as name:
                    nameless = Path(name) / "image.tar"
                    await asyncio.to_thread(write_nameless, archive, nameless)
                    await engine.load(nameless)
                if not await engine.has_image(identity):
                    raise ProgramDidNotStart(reason=f"{image} holds another image than it says", stderr="")
            return identity

    def _probe(self) -> Capabilities:
        if self._devices is not None and not self._devices:
            return Capabilities(GPU_LEVEL, False, "no GPU was found", kinds=KINDS)
        archive = probe_archive()
        if not archive:
            return Capabilities(
                self._level, False, "no probe is known for this kind of processor", kinds=KINDS
            )
        tried: list[str] = []
        for engine in [self._engine] if self._engine is not None else engines_here():
            self._engine = engine
            why_not = in_own_loop(lambda: _try(self, archive))
            if not why_not:
                return self._reached(engine)
            tried.append(f"{engine.name}: {why_not}")
        self._engine = None
        return Capabilities(
            self._level, False, "; ".join(tried)[:WHY_NOT_CHARACTERS_MAX] or NO_ENGINE,
            as_root=os.geteuid() == 0, kinds=KINDS,
        )  # fmt: skip

    def _reached(self, engine: Engine) -> Capabilities:
        removed = engine.remove_orphans()
        gpus = self._devices.gpus if self._devices is not None else ()
        return Capabilities(
            self._level,
            True,
            memory="engine" if "memory" in self._held else "watch",
            processes="engine" if "pids" in self._held else "rlimit",
            cpu="engine" if "cpu" in self._held else "none",
            disk="tmpfs",
            gpus=len(gpus),
            gpu_kinds=tuple((gpu.vendor, gpu.memory_bytes) for gpu in gpus),
            as_root=os.geteuid() == 0,
            kinds=KINDS,
            details=(
                ("engine", engine.name),
                *((("gpus", described(gpus)), ("devices", UNTESTED)) if gpus else ()),
                *((("orphans removed", str(removed)),) if removed else ()),
            ),
        )


class ImageNotHere(SandboxUnavailable):
    template = "The image {image} is not on this machine, and the registry {registry} may not be asked."
    way_out = "Publish it as an archive in the release, or ask an operator who allows the registry."


async def _try(sandbox: Oci, archive: bytes) -> str:
    """Why the probe does not run; empty if it answers."""
    with tempfile.TemporaryDirectory(prefix="openresource-probe-") as name:
        folder = Path(name)
        (folder / MANIFEST_FILE).write_text(_PROBE_MANIFEST)
        (folder / "probe.tar").write_bytes(archive)
        release = Release(folder, parse_manifest(_PROBE_MANIFEST))
        async with asyncio.timeout(PROBE_SECONDS_MAX):
            instance = await sandbox.start(release, PROBE_LIMITS)
            try:
                reply = await instance.call(ProgramCall("answer", "/answer", b"{}", deadline_seconds=10.0))
                return "" if reply.body == b"42" else "a program gave a wrong answer"
            finally:
                await instance.stop()


def _archive(release: Release, image: str) -> Path:
    """The archive's file: of the release, or of an artifact that is shown to it."""
    inside = Path(os.path.realpath(release.folder / image))
    if inside.is_relative_to(os.path.realpath(release.folder)) and inside.is_file():
        return inside
    for mount in release.mounts:
        if mount.target.rstrip("/").endswith(f"/{image.strip('/')}") and mount.source.is_file():
            return mount.source
    raise ProgramDidNotStart(reason=f"there is no image archive {image}", stderr="")


def _environment(release: Release, limits: Limits, wire: str) -> dict[str, str]:
    """What we add to the environment that the image brings; its PATH stays its own."""
    layout = Layout(app="/", guest="", python="", home=HOME, broker=f"{BROKER_FOLDER}/{BROKER_NAME}")
    port = str(port_of(release.manifest.run))
    extra = {} if wire == "jsonl" else {"PORT": port, "HOST": "127.0.0.1"}
    values = environment(layout, release, limits, extra)
    for name in ("PATH", "PYTHONPATH"):
        values.pop(name, None)
    return values
