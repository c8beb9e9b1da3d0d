"""The driver for machines that refuse namespaces: from a release to a running instance, and back to nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from openresource.adapters.confined import landlock
from openresource.adapters.confined.stages import Stage, in_thread
from openresource.sandbox import proc, seccomp
from openresource.sandbox.broker import Broker
from openresource.sandbox.commands import PYTHON_NAMES, command_of, find_command, wire_of
from openresource.sandbox.driver import (
    Capabilities,
    KindNotServed,
    Limits,
    Release,
    SandboxUnavailable,
)
from openresource.sandbox.groups import Groups, make_groups
from openresource.sandbox.instances import RunningInstance, Watched, start_instance
from openresource.sandbox.launching import become_subreaper, resource_limits
from openresource.sandbox.layout import (
    GUEST_FOLDER,
    WASM_ENGINE,
    Layout,
    environment,
    interpreter_of,
    own_library_folder,
    packages_of,
)
from openresource.sandbox.probing import probe_by_start
from openresource.sandbox.processes import (
    open_ends,
    remove_groups,
)
from openresource.sandbox.supervised import SupervisedProcess, start_supervised
from openresource.sandbox.uids import Uid, take_uid

LEVEL: Final = "confined"
KINDS: Final = ("python", "jsonl", "cli")
READABLE: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/dev/urandom",
                   "/dev/random", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo")  # fmt: skip
DEVICES: Final = ("/dev/null",)
WITHOUT_BOTH: Final = (
    "this kernel has no Landlock and the provider is not root, so a program could read this user's files; "
    "start the provider as root, or on a newer kernel"
)


class Confined:
    """The sandbox of level `confined`."""

    def __init__(
        self,
        *,
        tools: Sequence[Path] = (),
        landlock_at_most: int = landlock.VERSION_MAX,
        uses_groups: bool = True,
    ) -> None:
        """`tools` are executables of this machine outside of /usr that programs may use; without
        `uses_groups` memory is held by limits and the watch alone."""
        self._tools = tuple(tools)
        self._uses_groups = uses_groups
        self._landlock = min(landlock.version(), landlock_at_most)
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """What this driver reaches here, found once by a real start."""
        if self._capabilities is None:
            self._capabilities = self._probe()
        return self._capabilities

    async def start(self, release: Release, limits: Limits) -> RunningInstance:
        """A running program."""
        why_not = self._why_not()
        if why_not:
            raise SandboxUnavailable(level=LEVEL, why_not=why_not)
        kind = release.manifest.run.kind
        # Modules come with the engine that runs them, and need no network.
        has_engine = any(mount.target == WASM_ENGINE for mount in release.mounts)
        if kind not in KINDS and not has_engine:
            raise KindNotServed(
                kind=kind, level=LEVEL, reason="programs have no network sockets at this level"
            )
        interpreter = interpreter_of(release.runtime)
        find_command(release, (*self._tools, interpreter.executable))
        become_subreaper()
        async with AsyncExitStack() as held:
            uid = take_uid(LEVEL) if os.geteuid() == 0 else None
            if uid is not None:
                held.callback(uid.release)
            broker = await Broker.open()
            held.push_async_callback(broker.close)
            groups = make_groups(limits) if self._uses_groups else None
            if groups is not None:
                held.push_async_callback(remove_groups, groups)
            stage = Stage(uid.number if uid is not None else None)
            held.push_async_callback(stage.remove)
            ends = open_ends(wire_of(release.manifest.run))
            held.callback(ends.close_ours)
            held.callback(ends.close_theirs)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.connect(str(broker.path))
                layout, readable = await in_thread(self._layout, release, stage, line.fileno())
                command = command_of(release, layout, limits)
                plan = self._plan(limits, layout, readable, stage, uid, groups)
                plan["argv"] = [_found(command.words[0], layout), *command.words[1:]]
                values = environment(layout, release, limits, command.environment)
                # A file that may not be read stops OpenSSL; one that says nothing does not.
                plan["env"] = {"OPENSSL_CONF": "/dev/null", **values}
                process = await start_supervised(plan, ends, groups, (line.fileno(),), make=SupervisedProcess)
            process.cleanups.append(held.pop_all().aclose)
        return await start_instance(process, ends, release, limits, Watched(disk_folder=stage.home), broker)

    def _layout(self, release: Release, stage: Stage, line: int) -> tuple[Layout, list[str]]:
        interpreter = interpreter_of(release.runtime)
        prefix = stage.interpreter(interpreter)
        python = prefix / interpreter.executable.relative_to(interpreter.prefix)
        guest = stage.shown(GUEST_FOLDER)
        app = stage.release(release.folder)
        readable = [str(path) for path in (prefix, guest, app, stage.tools)]
        packages = ""
        for name in PYTHON_NAMES:
            (stage.tools / name).symlink_to(python)
        for tool in self._tools:
            shown = stage.shown(tool)
            shown = shown if shown.is_file() else shown / tool.name
            (stage.tools / tool.name).symlink_to(shown)
            readable.append(str(shown))
        if release.runtime is not None:
            runtime = stage.shown(release.runtime.folder)
            packages = str(runtime / packages_of(release.runtime))
            readable.append(str(runtime))
            readable += [str(stage.shown(mount.source)) for mount in release.runtime.mounts]
        moved: list[tuple[str, str]] = [("/app", str(app))]
        if packages:
            moved.append(("/runtime", str(runtime)))
        for mount in release.mounts:
            shown = stage.shown(mount.source)
            shown = shown / mount.source.name if mount.source.is_file() and shown.is_dir() else shown
            moved.append((mount.target, str(shown)))
            readable.append(str(shown))
        layout = Layout(
            app=str(app),
            guest=str(guest),
            python=str(python),
            home=str(stage.home),
            packages=packages,
            library_path=str(prefix / "lib") if own_library_folder(interpreter) else "",
            tools=(str(stage.tools),),
            broker=f"fd:{line}",
            moved=tuple(moved),
        )
        return layout, readable

    def _plan(
        self,
        limits: Limits,
        layout: Layout,
        readable: list[str],
        stage: Stage,
        uid: Uid | None,
        groups: Groups | None,
    ) -> dict[str, Any]:
        wants = seccomp.Wants(
            sockets=True,
            hiding=True,
            signals=uid is None and self._landlock < landlock.SCOPED_VERSION,
            neighbours=uid is None,
            changes=self._landlock == 0,
        )
        filter_program = seccomp.filter_program(wants=wants)
        # A uid of its own has nothing else running; a shared one has all that its user runs.
        taken = 0 if uid is not None else proc.tasks_of_uid(os.getuid())
        plan: dict[str, Any] = {
            "limits": {**resource_limits(limits), "RLIMIT_NPROC": limits.processes + taken},
            "folder": layout.app,
            "filter": {"code": filter_program.code.hex(), "pid_offsets": filter_program.pid_offsets},
        }
        if uid is not None:
            plan["uid"] = uid.number
            plan["takes_over_uid"] = uid.is_new
        if groups is not None:
            plan["groups"] = groups.enter_files
        if self._landlock:
            existing = [path for path in READABLE if os.path.exists(path)]
            plan["landlock"] = landlock.rules(
                self._landlock,
                [*existing, *readable],
                [str(stage.home)],
                [path for path in DEVICES if os.path.exists(path)],
            )
        return plan

    def _why_not(self) -> str:
        if not seccomp.machine_supported():
            return "system calls cannot be filtered on this kind of processor"
        if os.geteuid() != 0 and self._landlock == 0:
            return WITHOUT_BOTH
        return ""

    def _probe(self) -> Capabilities:
        why_not = self._why_not()
        as_root = os.geteuid() == 0
        details = (
            ("landlock", f"version {self._landlock}" if self._landlock else "not in this kernel"),
            (
                "files",
                "only its own" if self._landlock else "it can read what every user of this machine can",
            ),
            ("uid", "of its own" if as_root else "the provider's"),
        )
        if why_not:
            return Capabilities(LEVEL, False, why_not, as_root=as_root, kinds=KINDS, details=details)
        return probe_by_start(
            self,
            LEVEL,
            disk="watched" if self._landlock else "none",
            uses_groups=self._uses_groups,
            kinds=KINDS,
            details=details,
        )


def _found(name: str, layout: Layout) -> str:
    """The first word of a command as a path, looked up where the program would look."""
    if "/" in name:
        return name if name.startswith("/") else os.path.join(layout.app, name)
    for folder in (*layout.tools, "/usr/local/bin", "/usr/bin", "/bin"):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    return name
