"""The driver: from a release that names an image to a job in a cluster, spoken to by kubectl, and back to nothing.

A program of lines is attached to: its input and output pass through the cluster's own connection, and it ends when that
connection does. A server is reached by a forwarded port on this machine's loopback. What the cluster holds itself
(memory, processor) is told as such; how many processes a pod may have is the cluster's setting and none of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from openresource.adapters.kubernetes.manifests import (
    CONTAINER,
    GPU_RESOURCES,
    HOME,
    PROGRAM_LABEL,
    Workload,
    bundle,
    job,
    network_policy,
)
from openresource.adapters.oci.driver import DOOR, ImageNotHere
from openresource.adapters.oci.images import is_digest_reference
from openresource.sandbox.commands import port_of, wire_of
from openresource.sandbox.driver import (
    Capabilities,
    KindNotServed,
    Limits,
    ProgramDidNotStart,
    Release,
    SandboxUnavailable,
)
from openresource.sandbox.instances import RunningInstance, Watched, start_instance
from openresource.sandbox.launching import become_subreaper
from openresource.sandbox.layout import Layout, environment
from openresource.sandbox.processes import Ends, open_ends
from openresource.sandbox.supervised import SupervisedProcess, start_supervised

LEVEL: Final = "kubernetes"
KINDS: Final = ("oci",)
WIRES: Final = ("http", "jsonl")
NO_CLIENT: Final = "kubectl is not installed"
NOT_NAMED: Final = "no namespace of a cluster was named: openresource provide --cluster NAMESPACE"
ASK_SECONDS_MAX: Final = 30.0
REQUEST_TIMEOUT: Final = "--request-timeout=10s"
LOOK_SECONDS: Final = 0.25
FORWARD_SECONDS_MAX: Final = 20.0
FORWARD_BYTES_MAX: Final = 4_096
LAST_WORDS_LINES: Final = 20
# What kubectl needs of our environment; programs get none of it.
CLIENT_ENVIRONMENT: Final = (
    "PATH",
    "HOME",
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
)
# A pod in one of these will not get better by waiting.
HOPELESS: Final = (
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
    "RunContainerError", "ErrImageNeverPull",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cluster:
    """How an operator lets programs into a cluster."""

    kubectl: str = ""
    context: str = ""
    # Without one no cluster is used, whatever kubectl may be set up for.
    namespace: str = ""
    runtime_class: str = ""
    registries: tuple[str, ...] = ()
    gpu_count: int = 0
    gpu_vendor: str = "nvidia"
    options: tuple[str, ...] = field(default=())

    def words(self, *words: str) -> list[str]:
        """A whole command."""
        chosen = ("--context", self.context) if self.context else ()
        return [self.kubectl or "kubectl", *chosen, "--namespace", self.namespace, *self.options, *words]


class ClusterRefused(SandboxUnavailable):
    template = "The cluster refused: {reason}."
    way_out = "Run the same by hand to see why: {command}"


class JobProcess(SupervisedProcess):
    """A client on this machine, and a job in the cluster that goes with it."""

    driver: Kubernetes
    job_name: str
    helpers: list[subprocess.Popen[bytes]]

    def tree(self) -> list[int]:
        """What runs is elsewhere; the cluster holds its limits."""
        return []

    async def reap(self) -> None:
        """The job first, then the clients."""
        for helper in self.helpers:
            if helper.poll() is None:
                os.killpg(helper.pid, signal.SIGKILL)
            helper.wait()
        await self.driver.remove(self.job_name)
        super().kill()
        await super().reap()


class Kubernetes:
    """The sandbox of level `kubernetes`."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster or Cluster(kubectl=shutil.which("kubectl") or "")
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """What a cluster lets us do, found by its own check of a whole program, which it does not start."""
        if self._capabilities is None:
            self._capabilities = self._probe()
        return self._capabilities

    async def start(self, release: Release, limits: Limits) -> RunningInstance:
        """A running program."""
        if not self._cluster.kubectl or not self._cluster.namespace:
            raise SandboxUnavailable(level=LEVEL, why_not=self.probe().why_not)
        wire = wire_of(release.manifest.run)
        if release.manifest.run.kind not in KINDS or wire not in WIRES:
            raise KindNotServed(
                kind=f"{release.manifest.run.kind} ({wire})", level=LEVEL,
                reason=f"a cluster runs images that speak {' or '.join(WIRES)}",
            )  # fmt: skip
        if release.manifest.calls is not None:
            raise KindNotServed(
                kind=release.manifest.run.kind, level=LEVEL,
                reason="it calls other services, and there is no way to the broker out of a cluster",
            )  # fmt: skip
        workload = self._workload(release, limits, wire)
        become_subreaper()
        async with AsyncExitStack() as held:
            held.push_async_callback(self.remove, workload.name)
            await self._apply(workload)
            pod = await self._running_pod(workload, limits.startup_seconds)
            ends = open_ends(wire)
            held.callback(ends.close_ours)
            held.callback(ends.close_theirs)
            process = await self._speak(workload, pod, ends, wire)
            held.pop_all()
        return await start_instance(process, ends, release, limits, Watched())

    async def remove(self, name: str) -> None:
        """A job with its pod and its walls."""
        try:
            await self._ask(
                "delete", "job,networkpolicy", "--selector", f"{PROGRAM_LABEL}={name}",
                "--ignore-not-found", "--wait=false", "--cascade=background", "--grace-period=0", "--force",
            )  # fmt: skip
        except ClusterRefused:
            # The job's own deadline ends it, and the cluster clears it away.
            return

    def _workload(self, release: Release, limits: Limits, wire: str) -> Workload:
        run, cluster = release.manifest.run, self._cluster
        if not is_digest_reference(run.image):
            raise KindNotServed(
                kind="oci", level=LEVEL, reason="a cluster fetches images itself, by name and digest"
            )
        registry = run.image.partition("/")[0]
        if registry not in cluster.registries:
            raise ImageNotHere(image=run.image, registry=registry)
        values = environment(Layout(app="/", guest="", python="", home=HOME), release, limits, {})
        for name in ("PATH", "PYTHONPATH", "OPENRESOURCE_BROKER"):
            values.pop(name, None)
        if wire == "http":
            values.update({"PORT": str(port_of(run)), "HOST": "127.0.0.1"})
        return Workload(
            name=f"or-{os.getpid()}-{secrets.token_hex(6)}",
            image=run.image,
            limits=limits,
            speaks="jsonl" if wire == "jsonl" else "http",
            port=port_of(run),
            command=run.command,
            environment=values,
            namespace=cluster.namespace,
            runtime_class=cluster.runtime_class,
            gpu_count=release.manifest.resources.gpu_count,
            gpu_vendor=cluster.gpu_vendor,
        )

    async def _apply(self, workload: Workload) -> None:
        # The wall is there before what it is for.
        objects = bundle([network_policy(workload), job(workload)])
        await self._ask("create", "--filename", "-", document=objects)

    async def _running_pod(self, workload: Workload, seconds: float) -> str:
        """The name of the pod, once it runs."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            listed = json.loads(
                await self._ask(
                    "get", "pods", "--selector", f"{PROGRAM_LABEL}={workload.name}", "--output", "json"
                )
            )
            for pod in listed["items"]:
                phase, reason = pod.get("status", {}).get("phase", ""), _waits_for(pod)
                if phase == "Running":
                    return str(pod["metadata"]["name"])
                if phase in ("Failed", "Succeeded") or reason in HOPELESS:
                    words = await self._last_words(str(pod["metadata"]["name"]))
                    raise ProgramDidNotStart(
                        reason=f"its pod is {phase} ({reason or 'it ended'})", stderr=words
                    )
            if asyncio.get_running_loop().time() > deadline:
                raise ProgramDidNotStart(reason=f"its pod did not run within {seconds:g} seconds", stderr="")
            await asyncio.sleep(LOOK_SECONDS)

    async def _speak(self, workload: Workload, pod: str, ends: Ends, wire: str) -> JobProcess:
        plan: dict[str, Any] = {"env": _client_environment(), "keeps_privileges": True}
        if wire == "jsonl":
            plan["argv"] = self._argv("attach", "--stdin", "--quiet", "--container", CONTAINER, pod)
            process = await start_supervised(plan, ends, None, make=JobProcess)
            process.driver, process.job_name, process.helpers = self, workload.name, []
            return process
        with ExitStack() as theirs:
            door_end = os.dup(ends.child_stdin)
            theirs.callback(os.close, door_end)
            errors = os.dup(ends.child_stderr)
            theirs.callback(os.close, errors)
            ends.child_stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            told, said = os.pipe()
            theirs.callback(os.close, told)
            ends.child_stdout = said
            plan["argv"] = self._argv(
                "port-forward", "--address", "127.0.0.1", f"pod/{pod}", f":{workload.port}"
            )
            process = await start_supervised(plan, ends, None, make=JobProcess)
            process.driver, process.job_name, process.helpers = self, workload.name, []
            try:
                async with asyncio.timeout(FORWARD_SECONDS_MAX):
                    port = await _forwarded_port(told)
                logs = self._argv("logs", "--follow", "--container", CONTAINER, pod)
                door = [sys.executable, "-I", "-S", str(DOOR), "0", str(port)]
                process.helpers.append(_helper(logs, subprocess.DEVNULL, errors, _client_environment()))
                process.helpers.append(_helper(door, door_end, errors, {}))
            except (TimeoutError, OSError) as problem:
                await process.end()
                raise ProgramDidNotStart(
                    reason=f"its port could not be forwarded ({problem})", stderr=process.last_words()
                ) from None
            return process

    async def _last_words(self, pod: str) -> str:
        try:
            return await self._ask("logs", f"--tail={LAST_WORDS_LINES}", "--container", CONTAINER, pod)
        except ClusterRefused:
            return ""

    def _argv(self, *words: str) -> list[str]:
        argv = self._cluster.words(*words)
        return [shutil.which(argv[0]) or argv[0], *argv[1:]]

    async def _ask(self, *words: str, document: Any = None) -> str:
        return await asyncio.to_thread(self._ask_now, *words, document=document)

    def _ask_now(self, *words: str, document: Any = None) -> str:
        command = self._cluster.words(REQUEST_TIMEOUT, *words)
        try:
            done = subprocess.run(
                command, input=json.dumps(document) if document is not None else "", capture_output=True, text=True,
                timeout=ASK_SECONDS_MAX, check=False, env=_client_environment(),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise ClusterRefused(reason=str(problem)[:300], command="kubectl cluster-info") from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
            shown = " ".join([Path(command[0]).name, *words[:2]])
            raise ClusterRefused(reason=lines[-1][:300].rstrip("."), command=shown)
        return done.stdout

    def _probe(self) -> Capabilities:
        cluster = self._cluster
        if not cluster.kubectl or not cluster.namespace:
            why_not = NOT_NAMED if cluster.kubectl else NO_CLIENT
            return Capabilities(LEVEL, False, why_not, kinds=KINDS)
        try:
            version = json.loads(self._ask_now("version", "--output", "json"))
            workload = Workload(f"or-probe-{os.getpid()}", f"probe@sha256:{'0' * 64}", Limits(),
                                namespace=cluster.namespace, runtime_class=cluster.runtime_class)  # fmt: skip
            objects = bundle([network_policy(workload), job(workload)])
            self._ask_now("create", "--dry-run=server", "--filename", "-", document=objects)
        except SandboxUnavailable as refusal:
            return Capabilities(LEVEL, False, refusal.message, kinds=KINDS)
        except ValueError:
            return Capabilities(LEVEL, False, "kubectl said what is not JSON", kinds=KINDS)
        server = version.get("serverVersion", {}).get("gitVersion", "unknown")
        return Capabilities(
            LEVEL,
            True,
            memory="engine",
            processes="none",
            cpu="engine",
            disk="engine",
            gpus=cluster.gpu_count if cluster.gpu_vendor in GPU_RESOURCES else 0,
            kinds=KINDS,
            details=(
                ("cluster", server),
                ("namespace", cluster.namespace),
                ("runtime class", cluster.runtime_class or "the cluster's default"),
                ("checked", "by the cluster's own validation, without a start"),
            ),
        )


def _waits_for(pod: Any) -> str:
    for status in pod.get("status", {}).get("containerStatuses", []):
        for state in status.get("state", {}).values():
            if isinstance(state, dict) and state.get("reason"):
                return str(state["reason"])
    return ""


async def _forwarded_port(told: int) -> int:
    """The port on loopback, as kubectl tells it: `Forwarding from 127.0.0.1:40123 -> 8080`."""
    loop = asyncio.get_running_loop()
    os.set_blocking(told, False)
    data = b""
    while len(data) < FORWARD_BYTES_MAX:
        readable = asyncio.Event()
        loop.add_reader(told, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(told)
        part = os.read(told, FORWARD_BYTES_MAX)
        data += part
        if b"127.0.0.1:" in data and b"\n" in data:
            digits = data.partition(b"127.0.0.1:")[2].split()[0]
            if digits.isdigit():
                return int(digits)
        if not part:
            break
    raise OSError("kubectl named no port")


def _helper(
    command: Sequence[str], stdin: int, output: int, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command), stdin=stdin, stdout=output, stderr=output, env=environment, start_new_session=True
    )


def _client_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in CLIENT_ENVIRONMENT if name in os.environ}
