"""The example services under test: in the real sandbox, and beside them the plain libraries in the same runtime."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openresource.market.manifests import Manifest
from openresource.provider.runtimes import cache_folder, list_runtimes
from openresource.sandbox.driver import Instance, ProgramCall, Runtime, Sandbox, limits_of
from openresource.sandbox.releases import load_manifest, load_release

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/evaluate.py"))
RECORDING = HERE / "recordings" / "sense-and-sensibility.wav"
START_SECONDS_MAX, PLAIN_SECONDS_MAX, CALL_SECONDS_MAX = 60.0, 120.0, 60.0
ROUNDS, ROUND_SECONDS_MAX = 4, 2.0


@dataclass(frozen=True)
class Plain:
    """What a plain program did: the method that stands for it, its input and output, its quickest round."""

    method: str
    input: dict[str, Any]
    output: Any
    milliseconds: float


def manifest_of(name: str) -> Manifest:
    """An example's page."""
    return load_manifest(EXAMPLES / name)


def runtime_of(name: str) -> Runtime:
    """The prepared runtime that an example names."""
    build = manifest_of(name).build
    found = list_runtimes(cache_folder()).get(build.lock)
    if found is None:
        not_here(f"the runtime {build.runtime} is not prepared; scripts/runtimes {name} does that")
    return found


def not_here(reason: str) -> Any:
    """A contributor may lack a part; our own runs may not."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run_plain(name: str, program: str) -> Plain:
    """Run a plain program by the runtime of an example; pictures come from the packages that ship them."""
    runtime = runtime_of(name)
    if name == "listen":
        arguments = [str(RECORDING)]
    elif runtime.name == "onnx":
        arguments = [str(path) for path in runtime_of("vision").folder.glob("lib/python3*/site-packages")]
    else:
        arguments = []
    done = subprocess.run(
        [str(runtime.python), "-P", str(HERE / "plain" / f"{program}.py"), *arguments],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(HERE / "plain"),
            "OMP_NUM_THREADS": "1",
            "HOME": "/nonexistent",
        },
        capture_output=True,
        timeout=PLAIN_SECONDS_MAX,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Plain(**json.loads(done.stdout.strip().splitlines()[-1]))


async def start(name: str, sandbox: Sandbox) -> tuple[Instance, float]:
    """A warm instance of an example, and how many seconds it took to get there."""
    release = load_release(EXAMPLES / name, runtime_of(name))
    began = time.monotonic()
    instance = await sandbox.start(release, limits_of(release.manifest))
    return instance, time.monotonic() - began


async def call(instance: Instance, method: str, given: dict[str, Any]) -> Any:
    """One answer."""
    body = json.dumps(given).encode()
    reply = await instance.call(ProgramCall(method, f"/{method}", body, deadline_seconds=CALL_SECONDS_MAX))
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)


async def quickest(instance: Instance, method: str, given: dict[str, Any]) -> tuple[Any, float]:
    """An answer, and the quickest of a few rounds in milliseconds."""
    answer, best, began = await call(instance, method, given), float("inf"), time.perf_counter()
    for _ in range(ROUNDS):
        start_at = time.perf_counter()
        answer = await call(instance, method, given)
        best = min(best, time.perf_counter() - start_at)
        if time.perf_counter() - began > ROUND_SECONDS_MAX:
            break
    return answer, best * 1e3


def same(told: Any, plain: Any, where: str = "answer") -> None:
    """Demand that an answer agrees with what a plain library says, in everything that the latter says."""
    if isinstance(plain, dict):
        for name, value in plain.items():
            assert name in told, f"{where} lacks {name}"
            same(told[name], value, f"{where}.{name}")
    elif isinstance(plain, list):
        assert len(told) == len(plain), f"{where} has {len(told)} entries and not {len(plain)}"
        for at, (one, other) in enumerate(zip(told, plain, strict=True)):
            same(one, other, f"{where}[{at}]")
    elif isinstance(plain, float):
        # Services round: to four digits after the point, or to seven in all.
        assert abs(told - plain) <= 6e-4 + 1e-6 * abs(plain), f"{where} is {told} and not {plain}"
    else:
        assert told == plain, f"{where} is {told!r} and not {plain!r}"
