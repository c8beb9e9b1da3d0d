"""What a cluster is asked for, as data: one job or deployment for a program, and the walls around it.

Every program gets a pod without a token, a network, a capability or a writable root, under a user that is not root, with
limits that equal its requests. How many processes a pod may have is the cluster's own setting (`podPidsLimit`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from openresource.sandbox.driver import Limits

NOBODY: Final = 65_534
MANAGER: Final = "openresource"
CONTAINER: Final = "program"
PROGRAM_LABEL: Final = "openresource.program"
HOME: Final = "/tmp"
GPU_RESOURCES: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/i915"}
# Handlers as container runtimes are usually configured for them.
RUNTIME_HANDLERS: Final = {"gvisor": "runsc", "kata": "kata"}
NAME_CHARACTERS_MAX: Final = 63
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Workload:
    """A program as a cluster runs it."""

    name: str
    image: str
    limits: Limits
    speaks: Literal["http", "jsonl"] = "http"
    port: int = 8080
    health: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    namespace: str = MANAGER
    runtime_class: str = ""
    gpu_count: int = 0
    gpu_vendor: str = "nvidia"
    lifetime_seconds: int = 3_600
    kept_seconds: int = 60

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), "names of objects are labels of DNS"


def job(workload: Workload) -> dict[str, Any]:
    """One instance that ends with its time and is cleared away by the cluster, whatever becomes of its provider."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(workload),
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": workload.lifetime_seconds,
            "ttlSecondsAfterFinished": workload.kept_seconds,
            "template": _template(workload, restart="Never"),
        },
    }


def deployment(workload: Workload, replicas: int = 1) -> dict[str, Any]:
    """Instances that the cluster keeps running, for operators who place programs there by hand."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(workload),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {PROGRAM_LABEL: workload.name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": _template(workload, restart="Always"),
        },
    }


def service(workload: Workload) -> dict[str, Any]:
    """A name for a deployment inside the cluster; only what the network policy lets in can use it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(workload),
        "spec": {
            "type": "ClusterIP",
            "selector": {PROGRAM_LABEL: workload.name},
            "ports": [
                {"name": "http", "port": workload.port, "targetPort": workload.port, "protocol": "TCP"}
            ],
        },
    }


def network_policy(workload: Workload, *, callers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """No connection in or out; with `callers`, pods with these labels in the same namespace may call the port."""
    ingress: list[dict[str, Any]] = []
    if callers:
        ingress.append(
            {
                "from": [{"podSelector": {"matchLabels": dict(callers)}}],
                "ports": [{"port": workload.port, "protocol": "TCP"}],
            }
        )
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(workload),
        "spec": {
            "podSelector": {"matchLabels": {PROGRAM_LABEL: workload.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [],
        },
    }


def namespace(name: str = MANAGER) -> dict[str, Any]:
    """A namespace in which the cluster itself refuses pods that are less hardened than ours."""
    level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": level}}


def runtime_class(name: str) -> dict[str, Any]:
    """How a cluster learns of a stronger wall: a name for pods, and the handler that its machines have for it."""
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": MANAGER}},
        "handler": RUNTIME_HANDLERS.get(name, name),
    }


def bundle(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several objects as one document."""
    return {"apiVersion": "v1", "kind": "List", "items": [dict(one) for one in objects]}


def _metadata(workload: Workload) -> dict[str, Any]:
    return {
        "name": workload.name,
        "namespace": workload.namespace,
        "labels": {"app.kubernetes.io/managed-by": MANAGER, PROGRAM_LABEL: workload.name},
    }


def _template(workload: Workload, *, restart: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": restart,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        "shareProcessNamespace": False,
        # Names are resolved by nobody: there is no network to use them in.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(workload, with_probe=restart == "Always")],
        "volumes": [
            {"name": "home", "emptyDir": {"medium": "Memory", "sizeLimit": str(workload.limits.disk_bytes)}}
        ],
    }
    if workload.runtime_class:
        spec["runtimeClassName"] = workload.runtime_class
    labels = {"app.kubernetes.io/managed-by": MANAGER, PROGRAM_LABEL: workload.name}
    return {"metadata": {"labels": labels}, "spec": spec}


def _container(workload: Workload, *, with_probe: bool) -> dict[str, Any]:
    limits = workload.limits
    amounts: dict[str, str] = {
        "cpu": f"{max(1, round(limits.cpu * 1000))}m",
        "memory": str(limits.memory_bytes),
        "ephemeral-storage": str(limits.disk_bytes),
    }
    if workload.gpu_count:
        amounts[GPU_RESOURCES[workload.gpu_vendor]] = str(workload.gpu_count)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": workload.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": value} for name, value in sorted(workload.environment.items())],
        "resources": {"limits": amounts, "requests": dict(amounts)},
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "home", "mountPath": HOME}],
    }
    if workload.command:
        container["args"] = list(workload.command)
    if workload.speaks == "jsonl":
        # Who lets go of it ends the program: nothing outlives its provider.
        container.update({"stdin": True, "stdinOnce": True})
        return container
    container["ports"] = [{"name": "http", "containerPort": workload.port, "protocol": "TCP"}]
    if with_probe:
        # A kubelet's probe comes from outside of the pod, so it needs a server that listens to others than itself.
        probe: dict[str, Any] = (
            {"httpGet": {"path": workload.health, "port": workload.port}}
            if workload.health
            else {"tcpSocket": {"port": workload.port}}
        )
        container["readinessProbe"] = {**probe, "periodSeconds": 2}
    return container
