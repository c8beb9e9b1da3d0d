"""Speaks with podman or docker by their command lines: what to say for a hardened start, and short questions."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openresource.sandbox.driver import Limits, SandboxUnavailable
from openresource.sandbox.views import HOME

log = logging.getLogger("openresource.adapters.oci")

LEVEL: Final = "oci"
ASK_SECONDS_MAX: Final = 60.0
LOAD_SECONDS_MAX: Final = 600.0
REMOVE_ATTEMPTS_MAX: Final = 5
REMOVE_PAUSE_SECONDS: Final = 0.2
SHARED_MEMORY_BYTES_MAX: Final = 32 << 20
LABEL: Final = "openresource.owner"
# What a command-line client needs of our environment to find its engine; programs get none of it.
CLIENT_ENVIRONMENT: Final = ("PATH", "HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST", "TMPDIR")
BROKER_FOLDER: Final = "/sock"
# Not `/app`, where many images keep their own files.
RELEASE_FOLDER: Final = "/release"


class EngineRefused(SandboxUnavailable):
    template = "The container engine refused: {reason}."
    way_out = "Run the same by hand to see why: {command}"


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine's client and how it must be called here."""

    binary: str
    options: tuple[str, ...] = ()

    @property
    def is_podman(self) -> bool:
        """podman and docker differ in a few words."""
        return Path(self.binary).name.startswith("podman")

    @property
    def name(self) -> str:
        """As an operator would type it."""
        return " ".join((Path(self.binary).name, *self.options))

    def words(self, *words: str) -> list[str]:
        """A whole command."""
        return [self.binary, *self.options, *words]

    async def ask(self, *words: str, seconds: float = ASK_SECONDS_MAX) -> str:
        """What a short command prints, or a refusal with what it complained of."""
        return await asyncio.to_thread(self.ask_now, *words, seconds=seconds)

    def ask_now(self, *words: str, seconds: float = ASK_SECONDS_MAX) -> str:
        """The same, waiting for it."""
        command = self.words(*words)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False,
                env=client_environment(), stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EngineRefused(reason=f"no answer within {seconds:g} seconds", command=self.name) from None
        except OSError as problem:
            raise EngineRefused(reason=problem.strerror or str(problem), command=self.name) from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["no reason given"]
            raise EngineRefused(reason=lines[-1][:300], command=" ".join([self.name, *words[:2]]))
        return done.stdout.strip()

    async def has_image(self, image: str) -> bool:
        """Whether an image is on this machine."""
        try:
            await self.ask("image", "inspect", "--format", "{{.Id}}", image)
        except EngineRefused:
            return False
        return True

    async def load(self, archive: Path) -> None:
        """Take over the images of an archive."""
        await self.ask("load", "--input", str(archive), seconds=LOAD_SECONDS_MAX)

    async def pull(self, image: str) -> None:
        """Fetch an image by its digest."""
        await self.ask("pull", image, seconds=LOAD_SECONDS_MAX)

    async def pid_of(self, container: str) -> int:
        """The number of a container's first process; 0 while it has none."""
        try:
            return int(await self.ask("inspect", "--format", "{{.State.Pid}}", container))
        except (EngineRefused, ValueError):
            return 0

    async def remove(self, container: str) -> None:
        """A container and everything in it, at once."""
        for _ in range(REMOVE_ATTEMPTS_MAX):
            try:
                await self.ask("rm", "--force", *self._at_once, container)
                return
            except EngineRefused as refusal:
                if "no such container" in refusal.message.lower():
                    return
                log.info("%s is removed at the next attempt: %s", container, refusal.message)
            await asyncio.sleep(REMOVE_PAUSE_SECONDS)
        log.warning("%s is left to the next start of a provider", container)

    def remove_orphans(self) -> int:
        """Containers of providers that are gone; how many there were."""
        count = 0
        shown = '{{.ID}} {{.Label "' + LABEL + '"}}'
        try:
            listed = self.ask_now("ps", "--all", "--filter", f"label={LABEL}", "--format", shown)
            for line in listed.splitlines():
                container, _, owner = line.partition(" ")
                if owner.strip().isdigit() and not os.path.exists(f"/proc/{owner.strip()}"):
                    self.ask_now("rm", "--force", *self._at_once, container)
                    count += 1
        except EngineRefused as refusal:
            # Somebody else removes the same, or the listing met one that was going.
            log.info("orphaned containers are left to the next start: %s", refusal.message)
        return count

    @property
    def _at_once(self) -> tuple[str, ...]:
        return ("--time", "0") if self.is_podman else ()


def engines_here() -> list[Engine]:
    """Clients on this machine's path, the preferred first; whether they work is found by starting."""
    found: list[Engine] = []
    podman, docker = shutil.which("podman"), shutil.which("docker")
    if podman is not None:
        found.append(Engine(podman))
        if shutil.which("runc") is not None:
            # Some versions of crun refuse machines with control groups of both versions.
            found.append(Engine(podman, ("--runtime", "runc")))
    if docker is not None:
        found.append(Engine(docker))
    return found


def run_words(
    name: str,
    user: int,
    limits: Limits,
    environment: Mapping[str, str],
    profile: Path,
    shown: Mapping[str, str],
    devices: Sequence[str],
    *,
    is_podman: bool,
) -> list[str]:
    """The options of `run`: no network, nothing writable but one folder in memory, no privilege, every bound."""
    words = [
        "run", "--interactive", "--name", name, "--label", f"{LABEL}={os.getpid()}",
        "--pull", "never", "--network", "none", "--hostname", "program", "--log-driver", "none",
        "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--security-opt", f"seccomp={profile}",
        "--user", f"{user}:{user}",
        "--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes),
        "--pids-limit", str(limits.processes), "--cpus", f"{limits.cpu:g}",
        "--shm-size", str(min(limits.disk_bytes, SHARED_MEMORY_BYTES_MAX)),
        "--tmpfs", f"{HOME}:rw,nosuid,nodev,size={limits.disk_bytes},mode=1777",
        "--ulimit", _ulimit("core", 0, resource.RLIMIT_CORE),
        "--ulimit", _ulimit("nofile", limits.open_files, resource.RLIMIT_NOFILE),
        "--ulimit", _ulimit("nproc", limits.processes, resource.RLIMIT_NPROC),
        "--ulimit", _ulimit("data", limits.memory_bytes, resource.RLIMIT_DATA),
        "--ulimit", _ulimit("fsize", limits.disk_bytes, resource.RLIMIT_FSIZE),
    ]  # fmt: skip
    if is_podman:
        # Else it adds writable folders in memory of its own, without a bound.
        words += ["--read-only-tmpfs=false", "--security-opt", "mask=/sys/kernel"]
    for target, source in shown.items():
        words += ["--volume", f"{source}:{target}:ro"]
    for device in devices:
        words += ["--device", device]
    for key, value in environment.items():
        words += ["--env", f"{key}={value}"]
    return words


def client_environment() -> dict[str, str]:
    """The environment of the client, never of a program."""
    return {name: os.environ[name] for name in CLIENT_ENVIRONMENT if name in os.environ}


def _ulimit(name: str, value: int, limit: int) -> str:
    """No higher than our own hard limit, which only a privileged engine could raise."""
    hard = resource.getrlimit(limit)[1]
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return f"{name}={bounded}:{bounded}"
