"""What the plain programs share: they are run by a runtime's own Python, beside the data that its packages ship."""

import base64
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS, SECONDS_MAX = 4, 2.0


def text(content: bytes) -> str:
    """Bytes as they travel in JSON."""
    return base64.b64encode(content).decode()


def told(method: str, given: dict[str, Any], work: Callable[[], Any]) -> None:
    """Do the work a few times and print what went in, what came out and how long the quickest round took."""
    output, best, began = work(), float("inf"), time.perf_counter()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        output = work()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - began > SECONDS_MAX:
            break
    print(json.dumps({"method": method, "input": given, "output": output, "milliseconds": best * 1e3}))


def shipped(package: str, path: str) -> Path:
    """A file of a package, in this runtime or in the one named as first argument."""
    for folder in (*sys.path, *sys.argv[1:]):
        file = Path(folder, package, path)
        if file.is_file():
            return file
    raise FileNotFoundError(f"{package}/{path}")
