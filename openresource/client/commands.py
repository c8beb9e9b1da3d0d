"""Publishing from Python: a program is tried in a sandbox first, and sandboxes are wired by the command line, so that runs."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from openresource.primitives.errors import Refusal

PUBLISH_SECONDS: Final = 60.0
# Starting the program, its examples and the content come on top of the wait for a provider.
TRIAL_SECONDS_MAX: Final = 600.0


class PublishRefused(Refusal):
    """What the command said no to; its own code, message and remedy."""

    template = "{folder} was not published: {reason}"


async def publish_by_command(
    folder: Path, home: Path, node_url: str, *, deadline_seconds: float
) -> dict[str, Any]:
    """Run `openresource publish` and give what it says; a refusal keeps its code."""
    arguments = ["publish", str(folder), "--json", "--home", str(home), "--node", node_url]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openresource",
        *arguments,
        "--deadline",
        str(deadline_seconds),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(deadline_seconds + TRIAL_SECONDS_MAX):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = out.decode("utf-8", "replace").strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        found = {}
    if process.returncode == 0 and isinstance(found, dict):
        return found
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        raise PublishRefused(folder=str(folder), reason=err.decode("utf-8", "replace").strip()[-500:])
    refused = PublishRefused(
        str(error.get("message")), remedy=str(error.get("remedy") or ""), **(error.get("facts") or {})
    )
    refused.code = str(error.get("code"))  # type: ignore[misc]
    raise refused
