"""What lives on a machine of the cluster: one actor holds one program in this machine's own sandbox.

Only plain data crosses between machines: texts, numbers, bytes.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path
from typing import Any

from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Instance, Limits, ProgramCall, Release
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.folders import make_folder, remove_folder
from openresource.sandbox.releases import load_manifest


class Keeper:
    """Holds one instance; Ray makes it an actor."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._instance: Instance | None = None

    async def probe(self) -> dict[str, Any]:
        """The level of this machine's own driver, and what it serves."""
        choice = await asyncio.to_thread(lambda: _drivers().capabilities)
        reached = [one for one in choice if one.available]
        if not reached:
            return {"level": "", "why_not": "; ".join(f"{one.level}: {one.why_not}" for one in choice)}
        first = reached[0]
        return {
            "level": first.level, "kinds": list(first.kinds), "memory": first.memory, "processes": first.processes,
            "cpu": first.cpu, "disk": first.disk,
        }  # fmt: skip

    async def start(self, archive: bytes, limits: dict[str, Any]) -> dict[str, Any]:
        """Starts a program from its release; the program's own word on its methods comes back."""
        try:
            self._folder = make_folder("ray")
            await asyncio.to_thread(_unpack, archive, self._folder)
            manifest = await asyncio.to_thread(load_manifest, self._folder)
            choice = await asyncio.to_thread(_drivers().choose, manifest)
            self._instance = await choice.sandbox.start(Release(self._folder, manifest), Limits(**limits))
            return {"interface": self._instance.interface, "level": choice.level}
        except Refusal as refusal:
            await self.stop()
            return told(refusal)

    async def call(self, call: dict[str, Any]) -> dict[str, Any]:
        """One call; a stream comes back whole."""
        assert self._instance is not None
        try:
            reply = await self._instance.call(ProgramCall(**call))
            if isinstance(reply.body, bytes):
                body: bytes | list[bytes] = reply.body
            else:
                body = [chunk async for chunk in reply.body]
        except Refusal as refusal:
            return {**told(refusal), "alive": self._instance.alive}
        return {
            "status": reply.status, "content_type": reply.content_type, "body": body, "cpu_ms": reply.cpu_ms,
            "wall_ms": reply.wall_ms, "alive": self._instance.alive,
        }  # fmt: skip

    async def usage(self) -> dict[str, int]:
        """What it has used."""
        assert self._instance is not None
        used = await self._instance.usage()
        return {name: getattr(used, name) for name in used.__dataclass_fields__}

    async def stop(self) -> None:
        """Stops the program and removes what was brought here."""
        if self._instance is not None:
            await self._instance.stop()
        if self._folder is not None:
            await asyncio.to_thread(remove_folder, self._folder)
            self._folder = None


def told(refusal: Refusal) -> dict[str, Any]:
    """A refusal as plain data."""
    facts = {name: value for name, value in refusal.facts.items() if isinstance(value, (str, int, float))}
    return {"refusal": type(refusal).__name__, "facts": facts}


def packed(folder: Path) -> bytes:
    """A release as one archive, with files and folders alone."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    return output.getvalue()


def _unpack(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def _drivers() -> Drivers:
    from openresource.adapters.bubblewrap.driver import Bubblewrap
    from openresource.adapters.confined.driver import Confined

    return Drivers([Bubblewrap(), Confined()])
