"""A process that starts programs as it is told, line by line: so that the same attacks run under any identity."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.confined.driver import Confined
from openresource.adapters.gvisor.driver import Gvisor
from openresource.adapters.oci.driver import Oci
from openresource.adapters.wasm.driver import Wasm
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.sandbox.driver import InnerAnswer, InnerRequest, Instance, Limits, ProgramCall, Sandbox
from openresource.sandbox.instances import RunningInstance
from openresource.sandbox.proc import descendants
from openresource.sandbox.releases import load_release
from openresource.sandbox.zygotes import zygote_pid

LEFT_SECONDS_MAX = 60.0
BODY_CHARACTERS_MAX = 100_000
# What this process has made for programs.
_folders: list[Path] = []
_make_folder = tempfile.mkdtemp


def _noted_folder(*arguments: Any, **options: Any) -> str:
    made = Path(_make_folder(*arguments, **options))
    if made.name.startswith("openresource-program-"):
        _folders.append(made)
    return str(made)


async def main() -> None:
    """Answer jobs until standard input ends."""
    tempfile.mkdtemp = _noted_folder  # type: ignore[assignment]
    drivers: dict[str, Sandbox] = {
        "bubblewrap": Bubblewrap(),
        "confined": Confined(),
        "wasm": Wasm([Bubblewrap()], cache=Path(tempfile.gettempdir(), f"openresource-wasm-{os.getuid()}")),
        "gvisor": Gvisor(),
        "oci": Oci(),
        "bubblewrap-bare": Bubblewrap(uses_groups=False),
        "confined-bare": Confined(uses_groups=False),
        "confined-old": Confined(landlock_at_most=3),
    }
    # It stays when programs go.
    zygote_pid()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        job = json.loads(line)
        if job.get("probe"):
            result: Any = _plain(drivers[job["level"]].probe())
        else:
            result = await run(drivers[job["level"]], job)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


async def run(sandbox: Sandbox, job: dict[str, Any]) -> dict[str, Any]:
    """Start a program, take its steps, stop it, and look what is left."""
    before = set(descendants(os.getpid()))
    _asked.clear()
    _answered.clear()
    _folders.clear()
    with tempfile.TemporaryDirectory(prefix="openresource-test-") as name:
        folder = Path(name)
        for path, text in job["files"].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        for path, source in job.get("copies", {}).items():
            shutil.copyfile(source, folder / path)
        for path, target in job.get("links", {}).items():
            (folder / path).symlink_to(target)
        outcome: dict[str, Any] = {"error": None, "replies": [], "seconds": []}
        try:
            release = load_release(folder)
            instance = await sandbox.start(release, Limits(**job["limits"]))
        except Refusal as refusal:
            outcome["error"] = _error(refusal)
        else:
            assert isinstance(instance, RunningInstance)
            outcome["interface"] = instance.interface
            try:
                for step in job["steps"]:
                    began = time.monotonic()
                    outcome["replies"].append(await take(instance, step))
                    outcome["seconds"].append(time.monotonic() - began)
            finally:
                outcome["alive"] = instance.alive
                began = time.monotonic()
                await instance.stop()
                outcome["stop_seconds"] = time.monotonic() - began
                usage = await instance.usage()
                outcome["usage"] = {"cpu_ms": usage.cpu_ms, "peak_rss_bytes": usage.peak_rss_bytes}
    began = time.monotonic()
    while (left := set(descendants(os.getpid())) - before) and time.monotonic() < began + LEFT_SECONDS_MAX:
        await asyncio.sleep(0.01)
    outcome["left"] = [_command(pid) for pid in left]
    outcome["folders"] = [str(folder) for folder in _folders if folder.exists()]
    return outcome


async def take(instance: Instance, step: dict[str, Any]) -> Any:
    """One step: a call, several at once, one that is left alone, a stream cut short, a wait for the end."""
    if "together" in step:
        return await asyncio.gather(*(take(instance, part) for part in step["together"]))
    if "until_dead" in step:
        deadline = time.monotonic() + step["until_dead"]
        while instance.alive and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return {"alive": instance.alive}
    if "until_free" in step:
        await asyncio.wait_for(instance.until_free(0), step["until_free"])
        return {"free": True}
    if "abandon_when" in step:
        # As soon as another call has told that this one has begun.
        task = asyncio.create_task(_call(instance, step))
        told = await _call(instance, step["abandon_when"])
        task.cancel()
        return {"abandoned": True, "told": told}
    if "abandon_after" in step:
        task = asyncio.create_task(_call(instance, step))
        await asyncio.sleep(step["abandon_after"])
        task.cancel()
        return {"abandoned": True}
    return await _call(instance, step)


# The labels of calls that have asked for something, and of those that are over, in one program's life.
_asked: set[str] = set()
_answered: set[str] = set()


class Echo:
    """Stands for whoever makes the calls that a program asks for: it answers with what was asked, and in whose name."""

    def __init__(self, label: str) -> None:
        self._label = label

    def left(self) -> dict[str, Any]:
        """Something to show."""
        return {"budget_uain": 7, "label": self._label}

    async def ask(self, request: InnerRequest) -> InnerAnswer:
        """Wait until those have asked who are named, and those are answered who are named, then say who was asked."""
        _asked.add(self._label)
        while not (
            _asked.issuperset(request.input.get("asked", ()))
            and _answered.issuperset(request.input.get("answered", ()))
        ):
            await asyncio.sleep(0.01)
        if request.service == "refuses":
            raise InvalidInput(what="input", reason="it was to be refused")
        output = {"for": self._label, "service": request.service, "input": request.input}
        return InnerAnswer(output, {"total_uain": 3})


async def _call(instance: Instance, step: dict[str, Any]) -> dict[str, Any]:
    body = base64.b64decode(step["raw"]) if "raw" in step else json.dumps(step.get("input", {})).encode()
    call = ProgramCall(
        step["call"],
        step.get("path", f"/{step['call']}"),
        body,
        content_type=step.get("content_type", "application/json"),
        deadline_seconds=step.get("deadline", 60.0),
        http_method=step.get("http_method", "POST"),
        asker=Echo(step["asks_for"]) if "asks_for" in step else None,
    )
    try:
        reply = await instance.call(call)
        if isinstance(reply.body, bytes):
            text = reply.body.decode("utf-8", "replace")[:BODY_CHARACTERS_MAX]
            return {
                "status": reply.status,
                "type": reply.content_type,
                "body": text,
                "length": len(reply.body),
            }
        chunks = []
        async for chunk in reply.body:
            chunks.append(chunk.decode("utf-8", "replace"))
            if len(chunks) == step.get("take"):
                await reply.body.aclose()
                # The program gets a moment to notice; its place is free when it has.
                await asyncio.wait_for(instance.until_free(0), 60)
                break
        return {"status": reply.status, "type": reply.content_type, "chunks": chunks}
    except Refusal as refusal:
        return _error(refusal)
    finally:
        _answered.add(step.get("asks_for", ""))


def _error(refusal: Refusal) -> dict[str, Any]:
    return {"error": type(refusal).__name__, **refusal.to_json(), "text": str(refusal)}


def _plain(capabilities: Any) -> dict[str, Any]:
    return {name: getattr(capabilities, name) for name in capabilities.__dataclass_fields__}


def _command(pid: int) -> str:
    try:
        return f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes()!r} {Path(f'/proc/{pid}/stat').read_text()[:60]}"
    except OSError:
        return f"{pid}"


if __name__ == "__main__":
    asyncio.run(main())
