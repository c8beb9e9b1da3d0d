"""Builds a folder under whatever user this process has, and tells what came of it as a line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import ProgramCall, limits_of
from tests.builds.support import drivers, made, workshop


def main() -> None:
    """Arguments: the program's folder, a folder for the cache, the body of a call to its first method."""
    program, folder, body = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].encode()
    try:
        built = made(program, workshop(folder))
    except Refusal as refusal:
        print(json.dumps({"uid": os.getuid(), "refused": refusal.message}))
        return

    async def call() -> str:
        manifest = built.manifest
        instance = await drivers().for_program(manifest).start(built.release(), limits_of(manifest))
        try:
            method = manifest.methods[0]
            reply = await instance.call(ProgramCall(method.name, method.path, body))
            assert isinstance(reply.body, bytes)
            return reply.body.decode()
        finally:
            await instance.stop()

    print(json.dumps({"uid": os.getuid(), "answer": asyncio.run(call()), "cid": built.build_cid}))


if __name__ == "__main__":
    main()
