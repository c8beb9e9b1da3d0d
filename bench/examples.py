"""What each example service costs and how good it is: start, call, memory, size, and the quality by its own evaluate.py.

Run `python bench/examples.py [NAME ...] [--json] [--write]`. Runtimes must be prepared (`scripts/runtimes`), and for
`listen` Debian's package pocketsphinx-testdata must be there. `--write` keeps the figures in examples/figures.json, from
which `scripts/make-docs` fills docs/examples.md; `--cost` leaves the quality as it was. A call is the first example of the
service's page, the mean of five. Figures are processor time, so that a busy machine does not lie.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.provider.runtimes import cache_folder, choose_runtime, list_runtimes
from openresource.sandbox.driver import ProgramCall, Runtime, limits_of
from openresource.sandbox.releases import load_manifest, load_release

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FIGURES = EXAMPLES / "figures.json"
ROUNDS = 5
EVALUATION_SECONDS_MAX = 900.0


def main() -> None:
    """Measure the named examples, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="examples (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help="keep the figures in examples/figures.json")
    parser.add_argument("--cost", action="store_true", help="do not measure the quality anew")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.parent.name for path in EXAMPLES.glob("*/evaluate.py"))
    measured: dict[str, Any] = {}
    for name in names:
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        quality = known[name] if arguments.cost and name in known else evaluate(name)
        measured[name] = quality | asyncio.run(measure(name))
        if not arguments.json:
            show(name, measured[name])
        if arguments.write:
            known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
            FIGURES.write_text(
                json.dumps(dict(sorted({**known, name: measured[name]}.items())), indent=2) + "\n"
            )
    if arguments.json:
        print(json.dumps(measured))


def runtime_of(name: str) -> Runtime:
    """The runtime that an example names."""
    runtime = choose_runtime(load_manifest(EXAMPLES / name), list_runtimes(cache_folder()))
    assert runtime is not None
    return runtime


async def measure(name: str) -> dict[str, Any]:
    """Start and call an example in the sandbox."""
    runtime = runtime_of(name)
    release = load_release(EXAMPLES / name, runtime)
    method = release.manifest.methods[0]
    assert isinstance(method.example, dict)
    body = json.dumps(method.example["input"]).encode()
    instance = await Bubblewrap().start(release, limits_of(release.manifest))
    try:
        started = await instance.usage()
        for _ in range(ROUNDS):
            await instance.call(ProgramCall(method.name, method.path, body, deadline_seconds=60))
        usage = await instance.usage()
    finally:
        await instance.stop()
    files = (path for path in runtime.folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        "method": method.name,
        "start_ms": started.cpu_ms,
        "call_ms": float(f"{max(1, usage.cpu_ms - started.cpu_ms) / ROUNDS:.2g}"),
        "memory_mb": round(usage.peak_rss_bytes / 1e6),
        "runtime": runtime.name,
        "runtime_mb": round(sum(path.stat().st_size for path in files) / 1e6),
    }


def evaluate(name: str) -> dict[str, Any]:
    """The quality of an example, by its own script in its own runtime."""
    command = [
        str(runtime_of(name).python),
        "-I",
        str(EXAMPLES / name / "evaluate.py"),
        str(cache_folder() / "runtimes"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=EVALUATION_SECONDS_MAX)
    if done.returncode != 0:
        sys.exit(f"{name} could not be evaluated:\n{done.stderr[-2_000:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def show(name: str, one: dict[str, Any]) -> None:
    """A few lines for people."""
    print(f"{name}: {one['headline']}")
    print(f"  on {one['set']}")
    print(
        f"  {one['method']} {one['call_ms']} ms, start {one['start_ms']} ms, {one['memory_mb']} MB of memory,"
        f" runtime {one['runtime']} {one['runtime_mb']} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
