"""What a sandbox costs: start, warm call, memory of an idle instance and density, beside the same program without one.

    .venv/bin/python bench/runtime.py            a table
    .venv/bin/python bench/runtime.py --json     one line of JSON

Every figure is the least of several rounds, as other work on the machine only ever adds; the load is told beside them.
The bare process is spoken to by the same channels as the sandboxed one, so that the difference is the sandbox alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.confined.driver import Confined
from openresource.adapters.gvisor.driver import Gvisor
from openresource.adapters.oci.driver import Oci
from openresource.adapters.oci.images import probe_archive
from openresource.adapters.wasm.driver import Wasm
from openresource.market.manifests import parse_manifest
from openresource.primitives.errors import Refusal
from openresource.sandbox import proc
from openresource.sandbox.commands import command_of, wire_of
from openresource.sandbox.driver import Instance, Limits, ProgramCall, Release
from openresource.sandbox.instances import RunningInstance, Watched, start_instance
from openresource.sandbox.layout import GUEST_FOLDER, Layout
from openresource.sandbox.processes import GuestProcess, open_ends

ROUNDS_DEFAULT = 10
CALLS_PER_ROUND = 300
SETTLE_SECONDS = 0.2
LIMITS = Limits(memory_bytes=256 << 20)
BODY = b'{"a":1}'
# A program that does nothing, so that what is measured is the way to it.
LINES = 'name = "echo"\n[run]\nkind = "jsonl"\ncommand = ["cat"]\n[[methods]]\nname = "call"\n'
PYTHON = 'name = "echo"\n[run]\nkind = "python"\nentry = "echo:call"\n'
IMAGE = (
    'name = "echo"\n[run]\nkind = "oci"\nimage = "echo.tar"\nspeaks = "jsonl"\n[[methods]]\nname = "call"\n'
)
MODULE = (
    'name = "echo"\n[run]\nkind = "wasm"\nmodule = "echo.wat"\nspeaks = "jsonl"\n[[methods]]\nname = "call"\n'
)
# Writes out what it reads.
WAT = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 4096))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.load (i32.const 8))
        (then
          (i32.store (i32.const 4) (i32.load (i32.const 8)))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (br $more))))))"""
SOURCE = "def call(a: int) -> int:\n    return a\n"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one driver costs for one kind of program."""

    driver: str
    kind: str
    start_ms: float
    start_median_ms: float
    cycle_cpu_ms: float
    call_ms: float
    call_median_ms: float
    memory_bytes: int
    processes: int
    details: str = ""


class Bare:
    """A process of this machine without any wall; only for comparison."""

    async def start(self, release: Release, limits: Limits) -> RunningInstance:
        """A running program."""
        ends = open_ends(wire_of(release.manifest.run))
        layout = Layout(app=str(release.folder), guest=str(GUEST_FOLDER), python=sys.executable, home="/tmp")
        words = command_of(release, layout, limits).words
        popen = subprocess.Popen(
            [shutil.which(words[0]) or words[0], *words[1:]], stdin=ends.child_stdin, stdout=ends.child_stdout,
            stderr=ends.child_stderr, cwd=release.folder, start_new_session=True,
        )  # fmt: skip
        ends.close_theirs()
        process = GuestProcess(popen, ends, None)
        return await start_instance(process, ends, release, limits, Watched())


def main() -> None:
    """Measure every driver that starts here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS_DEFAULT)
    parser.add_argument("--drivers", default="", help="names, with commas; default: all that start here")
    arguments = parser.parse_args()
    wanted = set(filter(None, arguments.drivers.split(",")))
    began = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="openresource-bench-") as name:
        figures, absent = asyncio.run(measure_all(Path(name), arguments.rounds, wanted))
    outcome = report(figures, absent, load=(began, os.getloadavg()[0]))
    print(json.dumps(outcome) if arguments.json else text(outcome))


async def measure_all(folder: Path, rounds: int, wanted: set[str]) -> tuple[list[Figures], dict[str, str]]:
    """Figures of every driver, and why some have none."""
    (folder / "echo.py").write_text(SOURCE)
    (folder / "echo.tar").write_bytes(probe_archive())
    (folder / "echo.wat").write_text(WAT)
    figures: list[Figures] = []
    absent: dict[str, str] = {}
    for name, make, kinds in drivers(folder / "cache"):
        if wanted and name not in wanted | {"bare"}:
            continue
        try:
            sandbox = make()
            details = ""
            if name != "bare":
                capabilities = await asyncio.to_thread(sandbox.probe)
                if not capabilities.available:
                    absent[name] = capabilities.why_not
                    continue
                details = ", ".join(f"{key} {value}" for key, value in capabilities.details)
            for kind, manifest_text in kinds:
                manifest = parse_manifest(manifest_text)
                figures.append(await measure(name, kind, sandbox, Release(folder, manifest), rounds, details))
        except Refusal as refusal:
            absent[name] = str(refusal)
    return figures, absent


def drivers(cache: Path) -> list[tuple[str, Callable[[], Any], list[tuple[str, str]]]]:
    """Each driver with the programs on which it is measured."""
    both = [("lines", LINES), ("python", PYTHON)]
    found: list[tuple[str, Callable[[], Any], list[tuple[str, str]]]] = [
        ("bare", Bare, both),
        ("bubblewrap", Bubblewrap, both),
        ("confined", Confined, both),
        ("gvisor", Gvisor, both),
        ("oci", Oci, [("lines", IMAGE)]),
        ("wasm", lambda: Wasm([Bubblewrap(), Confined()], cache=cache), [("lines", MODULE)]),
    ]
    return found


async def measure(
    driver: str, kind: str, sandbox: Any, release: Release, rounds: int, details: str
) -> Figures:
    """Start, call, look and stop, several times over."""
    starts: list[float] = []
    calls: list[float] = []
    memory_bytes = processes = 0
    for number in range(rounds + 1):
        began = time.perf_counter()
        instance: Instance = await sandbox.start(release, LIMITS)
        # Programs of lines say nothing before they are asked.
        await instance.call(ProgramCall("call", "/call", BODY))
        took = time.perf_counter() - began
        for _ in range(CALLS_PER_ROUND):
            began = time.perf_counter()
            await instance.call(ProgramCall("call", "/call", BODY))
            calls.append(time.perf_counter() - began)
        if number == rounds:
            await asyncio.sleep(SETTLE_SECONDS)
            assert isinstance(instance, RunningInstance)
            # Everything that is there for it: wrappers, supervisors, kernels in user space.
            pids = proc.descendants(instance.pid)
            outer = _ancestors_below_us(instance.pid)
            everything = sorted({*pids, *outer})
            memory_bytes, processes = _own_bytes(everything), len(everything)
        await instance.stop()
        if number:
            # The first one warms the disk's cache.
            starts.append(took)
    cycles = []
    for _ in range(rounds):
        before = _cpu_seconds()
        instance = await sandbox.start(release, LIMITS)
        await instance.call(ProgramCall("call", "/call", BODY))
        await instance.stop()
        cycles.append(_cpu_seconds() - before)
    return Figures(
        driver, kind, min(starts) * 1e3, statistics.median(starts) * 1e3, min(cycles) * 1e3, min(calls) * 1e3,
        statistics.median(calls) * 1e3, memory_bytes, processes, details,
    )  # fmt: skip


def _cpu_seconds() -> float:
    """Processor time of ourselves and of every child that has ended, which a busy machine does not change."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _ancestors_below_us(pid: int) -> list[int]:
    found: list[int] = []
    while pid > 1 and pid != os.getpid():
        found.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
    return found


def _own_bytes(pids: list[int]) -> int:
    """Memory that would come back if these ended: pages that they share with nobody else."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Dirty:", "Pss_Shmem:"))
        )
    return total


def report(figures: list[Figures], absent: dict[str, str], load: tuple[float, float]) -> dict[str, Any]:
    """The figures and their ratios to the bare process."""
    bare = {one.kind: one for one in figures if one.driver == "bare"}
    available_bytes = _available_bytes()
    rows = []
    for one in figures:
        base = bare[one.kind]
        rows.append(
            {
                **asdict(one),
                "start_over_bare_ms": one.start_ms - base.start_ms,
                "start_ratio": one.start_ms / base.start_ms,
                "cycle_cpu_over_bare_ms": one.cycle_cpu_ms - base.cycle_cpu_ms,
                "call_over_bare_ms": one.call_ms - base.call_ms,
                "call_ratio": one.call_ms / base.call_ms,
                "instances_per_gib": (1 << 30) // max(1, one.memory_bytes),
                "instances_here": available_bytes // max(1, one.memory_bytes),
            }
        )
    return {
        "bench": "runtime",
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "as_root": os.geteuid() == 0,
        "load_before": load[0],
        "load_after": load[1],
        "rows": rows,
        "absent": absent,
    }


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def text(outcome: dict[str, Any]) -> str:
    """The outcome for people."""
    lines = [
        f"Python {outcome['python']}, Linux {outcome['kernel']}, {outcome['cores']} cores, "
        f"load {outcome['load_before']:.1f} before and {outcome['load_after']:.1f} after; least of the rounds",
        "start: until the first answer; cpu: processor time of start, first call and stop together",
        "",
        f"{'driver':<12}{'program':<9}{'start':>10}{'over bare':>11}{'ratio':>7}{'cpu':>10}{'call':>10}{'over bare':>11}"
        f"{'ratio':>7}{'memory':>10}{'per GiB':>9}",
    ]
    lines += [
        f"{row['driver']:<12}{row['kind']:<9}{row['start_ms']:>7.1f} ms{row['start_over_bare_ms']:>8.1f} ms"
        f"{row['start_ratio']:>7.1f}{row['cycle_cpu_ms']:>7.1f} ms{row['call_ms']:>7.3f} ms{row['call_over_bare_ms']:>8.3f} ms"
        f"{row['call_ratio']:>7.2f}{row['memory_bytes'] / (1 << 20):>6.1f} MiB{row['instances_per_gib']:>9}"
        for row in outcome["rows"]
    ]
    lines += [f"{name:<12}not measured: {why}" for name, why in outcome["absent"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
