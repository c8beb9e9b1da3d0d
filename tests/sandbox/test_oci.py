"""Container images: what an archive says, how a container is started, and real ones where an engine runs."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.oci.driver import ImageNotHere, Oci
from openresource.adapters.oci.engines import Engine, run_words
from openresource.adapters.oci.images import image_id_of, is_digest_reference, make_archive, probe_archive
from openresource.adapters.oci.profiles import seccomp_profile
from openresource.market.manifests import parse_manifest
from openresource.sandbox.driver import KindNotServed, Limits, ProgramDidNotStart, Release
from openresource.sandbox.seccomp import FORBIDDEN
from tests.sandbox.containers import archive, engine_missing
from tests.sandbox.workers import IDENTITIES, Worker

pytestmark = pytest.mark.sandbox
DIGEST = "sha256:" + "5" * 64
SERVER = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"sum": asked["a"] + asked["b"], "uid": os.getuid()}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Server).serve_forever()
"""


def manifest(speaks: str = "http", image: str = "python.tar") -> str:
    """A program that comes as an image."""
    return (
        f'name = "web"\n[run]\nkind = "oci"\nimage = "{image}"\nspeaks = "{speaks}"\n'
        'command = ["python3", "-u", "/release/server.py"]\n[[methods]]\nname = "add"\n'
    )


def test_an_archive_tells_which_image_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(make_archive({"a": b"1"}, ["/a"]))
    first = image_id_of(file)
    assert first.startswith("sha256:") and len(first) == 71
    file.write_bytes(make_archive({"a": b"2"}, ["/a"]))
    assert image_id_of(file) != first


def test_an_archive_of_the_open_container_initiative_is_read_as_well(tmp_path: Path) -> None:
    def blob(data: object) -> tuple[str, bytes]:
        return f"sha256:{'a' * 64}", json.dumps(data).encode()

    digest, body = blob({"config": {"digest": DIGEST}})
    members = {
        "index.json": json.dumps({"manifests": [{"digest": digest}]}).encode(),
        f"blobs/{digest.replace(':', '/')}": body,
        "oci-layout": b"{}",
    }
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    (tmp_path / "image.tar").write_bytes(output.getvalue())
    assert image_id_of(tmp_path / "image.tar") == DIGEST


@pytest.mark.parametrize("data", [b"", b"no archive", make_archive({}, [])[:100], b"\0" * 10_240])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(data)
    with pytest.raises(ProgramDidNotStart) as caught:
        image_id_of(tmp_path / "image.tar")
    assert "image.tar is not an image" in caught.value.message


def test_only_a_digest_names_an_image() -> None:
    assert is_digest_reference(f"docker.io/library/python@{DIGEST}")
    for image in (
        "python:3.11",
        "python",
        f"--privileged@{DIGEST}",
        f"a b@{DIGEST}",
        "x@sha256:12",
        "image.tar",
    ):
        assert not is_digest_reference(image)


def test_a_start_takes_everything_away_that_a_program_does_not_need() -> None:
    limits = Limits(memory_bytes=64 << 20, disk_bytes=1 << 20, processes=7, open_files=99, cpu=0.5)
    words = run_words(
        "n", 60_600, limits, {"A": "b c"}, Path("/p.json"), {"/release": "/somewhere"}, ["nvidia.com/gpu=0"],
        is_podman=True,
    )  # fmt: skip
    pairs = set(itertools.pairwise(words))
    assert {
        ("--network", "none"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges"),
        ("--security-opt", "seccomp=/p.json"), ("--user", "60600:60600"), ("--pids-limit", "7"),
        ("--memory", str(64 << 20)), ("--memory-swap", str(64 << 20)), ("--cpus", "0.5"), ("--pull", "never"),
        ("--volume", "/somewhere:/release:ro"), ("--device", "nvidia.com/gpu=0"), ("--env", "A=b c"),
        ("--ulimit", "core=0:0"),
    } <= pairs  # fmt: skip
    assert "--read-only" in words and "--read-only-tmpfs=false" in words
    assert not {"--privileged", "--publish", "-p", "--pid", "--ipc", "--userns"} & set(words)


def test_the_profile_forbids_what_the_other_drivers_forbid() -> None:
    profile = json.loads(seccomp_profile("x86_64"))
    refused = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    assert set(FORBIDDEN) <= refused and {"clone3", "memfd_create"} <= refused
    assert profile["architectures"] == ["SCMP_ARCH_X86_64"]
    namespaces = [rule["args"][0]["value"] for rule in profile["syscalls"] if rule["names"] == ["clone"]]
    assert 0x10000000 in namespaces and sum(namespaces) == 0x7E020080


def test_the_probe_is_an_executable_of_this_machine(tmp_path: Path) -> None:
    data = probe_archive()
    if not data:
        pytest.skip("no probe is known for this kind of processor")
    (tmp_path / "probe.tar").write_bytes(data)
    with tarfile.open(tmp_path / "probe.tar") as tar:
        layer = next(name for name in tar.getnames() if name.endswith(".tar"))
        with tarfile.open(fileobj=tar.extractfile(layer)) as inner:
            file = inner.extractfile("answer")
            assert file is not None
            (tmp_path / "answer").write_bytes(file.read())
    (tmp_path / "answer").chmod(0o755)
    import subprocess

    said = subprocess.run(
        [tmp_path / "answer"], input=b"hello\n", capture_output=True, timeout=60, check=True
    )
    assert said.stdout == b"42\n"


def test_an_engine_that_does_not_answer_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "docker"
    broken.write_text("#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit 1\n")
    broken.chmod(0o755)
    capabilities = Oci(engine=Engine(str(broken))).probe()
    assert not capabilities.available and "Cannot connect to the daemon" in capabilities.why_not


def test_no_registry_is_asked_unless_the_operator_names_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    engine = tmp_path / "podman"
    engine.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexit 1\n')
    engine.chmod(0o755)
    release = Release(tmp_path, parse_manifest(manifest(image=f"docker.io/library/python@{DIGEST}")))

    async def start() -> None:
        await Oci(engine=Engine(str(engine)), registries=("quay.io",)).start(release, Limits())

    with pytest.raises(ImageNotHere):
        asyncio.run(start())
    assert "pull" not in log.read_text()


def test_an_image_outside_of_its_release_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "outside.tar").write_bytes(probe_archive() or b"x")
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "image.tar").symlink_to(tmp_path / "outside.tar")

    async def start() -> None:
        release = Release(folder, parse_manifest(manifest(image="image.tar")))
        await Oci(engine=Engine("/bin/false")).start(release, Limits())

    with pytest.raises(ProgramDidNotStart) as caught:
        asyncio.run(start())
    assert "no image archive" in caught.value.message


def test_what_an_image_cannot_speak_is_refused(tmp_path: Path) -> None:
    async def start(text: str) -> None:
        await Oci(engine=Engine("/bin/false")).start(Release(tmp_path, parse_manifest(text)), Limits())

    for text in (manifest("cli"), 'name = "a"\n[run]\nkind = "python"\nentry = "a:b"\n'):
        with pytest.raises(KindNotServed):
            asyncio.run(start(text))


def test_a_server_in_a_container_answers_without_any_network(workers: Callable[[str], Worker]) -> None:
    if engine_missing():
        pytest.skip(engine_missing())
    outcome: Any = workers(IDENTITIES[0]).run(
        "oci", {"server.py": SERVER},
        [{"call": "add", "input": {"a": 2, "b": 3}}, {"call": "add", "input": {"a": 1, "b": 1}}],
        manifest=manifest(), copies={"python.tar": archive()},
    )  # fmt: skip
    answers = [json.loads(reply["body"]) for reply in outcome["replies"]]
    assert [answer["sum"] for answer in answers] == [5, 2]
    assert answers[0]["uid"] not in (0, os.getuid())
    assert outcome["left"] == []


def test_a_container_that_ends_at_once_says_why(workers: Callable[[str], Worker]) -> None:
    if engine_missing():
        pytest.skip(engine_missing())
    outcome: Any = workers(IDENTITIES[0]).run(
        "oci", {"server.py": "raise SystemExit('no model here')"}, [], manifest=manifest(),
        copies={"python.tar": archive()},
    )  # fmt: skip
    assert outcome["error"]["error"] == "ProgramDidNotStart"
    assert "no model here" in outcome["error"]["text"]
    assert outcome["left"] == []
