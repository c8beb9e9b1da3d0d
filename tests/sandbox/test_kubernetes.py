"""Kubernetes: what a cluster is asked for passes the API's own schema and is hardened; the driver against a stand-in for
kubectl; and against a real cluster where one answers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from openresource.adapters.kubernetes.driver import Cluster, Kubernetes
from openresource.adapters.kubernetes.manifests import (
    Workload,
    bundle,
    deployment,
    job,
    namespace,
    network_policy,
    runtime_class,
    service,
)
from openresource.adapters.oci.driver import ImageNotHere
from openresource.market.manifests import Calls, parse_manifest
from openresource.sandbox.driver import KindNotServed, Limits, ProgramCall, ProgramDidNotStart, Release

pytestmark = pytest.mark.sandbox
DIGEST = "sha256:" + "7" * 64
IMAGE = f"registry.example.org/sums@{DIGEST}"
LIMITS = Limits(memory_bytes=64 << 20, disk_bytes=1 << 20, cpu=0.5, startup_seconds=60.0)
WORKLOAD = Workload("or-1", IMAGE, LIMITS, environment={"LANG": "C"}, command=("serve",), health="/healthz")
VARIANTS = {
    "plain": WORKLOAD,
    "lines": replace(WORKLOAD, speaks="jsonl"),
    "gvisor": replace(WORKLOAD, runtime_class="gvisor"),
    "nvidia": replace(WORKLOAD, gpu_count=2),
    "amd": replace(WORKLOAD, gpu_count=1, gpu_vendor="amd"),
}
VERSIONS = ("1.30", "1.34")


def rendered(workload: Workload) -> list[dict[str, Any]]:
    """Everything that can be asked for a program."""
    return [
        job(workload), deployment(workload, 3), service(workload), network_policy(workload),
        network_policy(workload, callers={"app": "gateway"}), namespace(), runtime_class("gvisor"), runtime_class("kata"),
    ]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_object_passes_the_schema_of_the_api(version: str, variant: str) -> None:
    for document in rendered(VARIANTS[variant]):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_would_have_noticed_a_mistake() -> None:
    broken = job(WORKLOAD)
    broken["spec"]["template"]["spec"]["automountServiceAcountToken"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("render", [job, deployment])
def test_every_pod_is_hardened(variant: str, render: Any) -> None:
    pod = render(VARIANTS[variant])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert not any(pod[name] for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"))
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65_534
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]} and not security["privileged"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"]["memory"] == str(64 << 20)
    assert [volume["emptyDir"]["medium"] for volume in pod["volumes"]] == ["Memory"]
    assert "@sha256:" in container["image"]
    assert pod["dnsConfig"] == {"nameservers": ["127.0.0.1"]} and pod["dnsPolicy"] == "None"


def test_what_is_asked_for_is_in_the_right_places() -> None:
    pod = job(VARIANTS["nvidia"])["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert (
        job(VARIANTS["amd"])["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"][
            "amd.com/gpu"
        ]
        == "1"
    )
    assert job(VARIANTS["gvisor"])["spec"]["template"]["spec"]["runtimeClassName"] == "gvisor"
    assert runtime_class("gvisor")["handler"] == "runsc"
    spec = job(WORKLOAD)["spec"]
    assert (
        spec["activeDeadlineSeconds"] > 0
        and spec["ttlSecondsAfterFinished"] > 0
        and spec["backoffLimit"] == 0
    )
    lines = job(VARIANTS["lines"])["spec"]["template"]["spec"]["containers"][0]
    assert lines["stdin"] and lines["stdinOnce"] and "ports" not in lines


def test_nothing_gets_in_or_out() -> None:
    spec = network_policy(WORKLOAD)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"] and spec["ingress"] == [] and spec["egress"] == []
    labels = job(WORKLOAD)["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    opened = network_policy(WORKLOAD, callers={"app": "gateway"})["spec"]
    assert opened["egress"] == [] and opened["ingress"][0]["ports"] == [{"port": 8080, "protocol": "TCP"}]


def test_the_namespace_refuses_weaker_pods() -> None:
    assert namespace()["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_document_of_several_objects_can_be_applied_at_once() -> None:
    document = bundle(rendered(WORKLOAD))
    assert document["kind"] == "List" and len(document["items"]) == 8
    json.dumps(document)


# A stand-in for kubectl and a cluster: it keeps what it was asked for, and its pods are processes of this machine.
KUBECTL = """#!{python}
import json, os, socket, subprocess, sys, threading, time
folder = {folder!r}
words = sys.argv[1:]
with open(folder + "/asked", "a") as log:
    log.write(json.dumps(words) + "\\n")
def has(word): return word in words
if has("version"):
    print(json.dumps({{"serverVersion": {{"gitVersion": "v1.34.1-stand-in"}}}}))
elif has("create"):
    document = json.load(sys.stdin)
    if not has("--dry-run=server"):
        json.dump(document, open(folder + "/created", "w"))
elif has("get"):
    phase = open(folder + "/phase").read().strip()
    waiting = {{"state": {{"waiting": {{"reason": phase}}}}}} if phase.startswith("Err") else {{}}
    status = {{"phase": "Pending" if waiting else phase, "containerStatuses": [waiting] if waiting else []}}
    print(json.dumps({{"items": [{{"metadata": {{"name": "pod-1"}}, "status": status}}]}}))
elif has("attach"):
    for line in sys.stdin:
        call = json.loads(line)
        print(json.dumps({{"sum": call["a"] + call["b"]}}), flush=True)
elif has("port-forward"):
    listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
    print("Forwarding from 127.0.0.1:%d -> 8080" % listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        def serve(connection=connection):
            data = b""
            while b"\\r\\n\\r\\n" not in data:
                part = connection.recv(65536)
                if not part: return
                data += part
            body = b'{{"sum": 5}}'
            connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body)
            time.sleep(0.2)
        threading.Thread(target=serve, daemon=True).start()
elif has("logs"):
    print("the model is missing")
elif has("delete"):
    os.replace(folder + "/created", folder + "/deleted")
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with a stand-in for kubectl."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable, folder=str(tmp_path)))
    kubectl.chmod(0o755)
    (tmp_path / "phase").write_text("Running")
    return tmp_path


def release(folder: Path, speaks: str, image: str = IMAGE) -> Release:
    """A program that comes as an image."""
    text = f'name = "sums"\n[run]\nkind = "oci"\nimage = "{image}"\nspeaks = "{speaks}"\n[[methods]]\nname = "add"\n'
    return Release(folder, parse_manifest(text))


def cluster(folder: Path, **options: Any) -> Kubernetes:
    """The driver over the stand-in."""
    known = {"registries": ("registry.example.org",), "namespace": "programs", **options}
    return Kubernetes(Cluster(kubectl=str(folder / "kubectl"), **known))


@pytest.mark.parametrize("speaks", ["jsonl", "http"])
def test_a_program_is_started_called_and_cleared_away(stand_in: Path, speaks: str) -> None:
    async def work() -> None:
        driver = cluster(stand_in, runtime_class="gvisor")
        instance = await driver.start(release(stand_in, speaks), LIMITS)
        reply = await instance.call(ProgramCall("add", "/add", b'{"a": 2, "b": 3}'))
        assert isinstance(reply.body, bytes) and json.loads(reply.body) == {"sum": 5}
        assert not (stand_in / "deleted").exists()
        await instance.stop()

    asyncio.run(work())
    created = json.loads((stand_in / "deleted").read_text())
    for document in created["items"]:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    assert [document["kind"] for document in created["items"]] == ["NetworkPolicy", "Job"]
    assert created["items"][1]["spec"]["template"]["spec"]["runtimeClassName"] == "gvisor"


@pytest.mark.parametrize("phase", ["Failed", "ErrImagePull"])
def test_a_pod_that_does_not_run_says_why_and_is_cleared_away(stand_in: Path, phase: str) -> None:
    (stand_in / "phase").write_text(phase)

    async def work() -> None:
        await cluster(stand_in).start(release(stand_in, "http"), LIMITS)

    with pytest.raises(ProgramDidNotStart) as caught:
        asyncio.run(work())
    assert "the model is missing" in str(caught.value)
    assert (stand_in / "deleted").exists()


def test_what_a_cluster_cannot_run_is_refused(stand_in: Path) -> None:
    async def work(one: Release, **options: Any) -> None:
        await cluster(stand_in, **options).start(one, LIMITS)

    with pytest.raises(KindNotServed):
        asyncio.run(work(release(stand_in, "http", "image.tar")))
    with pytest.raises(KindNotServed):
        asyncio.run(work(release(stand_in, "cli")))
    with pytest.raises(ImageNotHere):
        asyncio.run(work(release(stand_in, "http"), registries=()))
    image = release(stand_in, "http")
    calling = replace(image, manifest=replace(image.manifest, calls=Calls(("gist",))))
    with pytest.raises(KindNotServed, match="no way to the broker"):
        asyncio.run(work(calling))
    assert not (stand_in / "created").exists()


def test_capabilities_say_what_the_cluster_holds_and_what_nobody_does(stand_in: Path) -> None:
    capabilities = cluster(stand_in).probe()
    assert capabilities.available and capabilities.memory == "engine" and capabilities.processes == "none"
    assert ("cluster", "v1.34.1-stand-in") in capabilities.details
    silent = Kubernetes(Cluster(kubectl="/bin/false", namespace="programs")).probe()
    assert not silent.available and silent.why_not


def test_no_cluster_is_used_that_nobody_has_named(stand_in: Path) -> None:
    capabilities = Kubernetes(Cluster(kubectl=str(stand_in / "kubectl"))).probe()
    assert not capabilities.available and "--cluster NAMESPACE" in capabilities.why_not
    assert not (stand_in / "asked").exists()


def test_a_real_cluster_starts_and_clears_away(tmp_path: Path) -> None:
    """Set OPENRESOURCE_TEST_IMAGE to an image by digest that answers lines with lines, such as one with `cat`."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed on this machine")
    image = os.environ.get("OPENRESOURCE_TEST_IMAGE", "")
    driver = Kubernetes(
        Cluster(
            kubectl="kubectl", namespace=os.environ.get("OPENRESOURCE_TEST_NAMESPACE", "default"),
            registries=(image.partition("/")[0],),
        )
    )  # fmt: skip
    capabilities = driver.probe()
    if not capabilities.available:
        pytest.skip(f"no cluster answers: {capabilities.why_not}")
    if not image:
        pytest.skip("OPENRESOURCE_TEST_IMAGE names no image that the cluster may fetch")

    async def work() -> None:
        instance = await driver.start(
            release(tmp_path, "jsonl", image), replace(LIMITS, startup_seconds=120.0)
        )
        try:
            reply = await instance.call(ProgramCall("add", "/add", b'{"a": 2}'))
            assert isinstance(reply.body, bytes) and json.loads(reply.body) == {"a": 2}
        finally:
            await instance.stop()

    asyncio.run(work())
