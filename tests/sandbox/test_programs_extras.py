"""Where an extra is not installed, the refusal names it, and nothing else needs it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
for name in ("grpc", "grpc_tools", "google", "google.protobuf", "wasmtime"):
    sys.modules[name] = None
from openresource.adapters.grpc.extras import GrpcNotInstalled, require_grpc
from openresource.adapters.wasm.driver import NO_ENGINE, Wasm
from openresource.cli.sandboxes import find_drivers
from pathlib import Path
import openresource.cli.main
find_drivers()
try:
    require_grpc()
except GrpcNotInstalled as refusal:
    print(refusal)
found = Wasm([], cache=Path("/nonexistent")).probe()
assert not found.available
print(found.why_not)
"""


def test_programs_whose_extra_is_missing_are_refused_by_its_name() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "openresource[grpc]" in done.stdout and "openresource[wasm]" in done.stdout


def test_programs_of_other_kinds_cost_no_import_of_extras() -> None:
    code = (
        "import sys, openresource.cli.main, openresource.provider.service, openresource.client.connect\n"
        "from openresource.cli.sandboxes import find_drivers\nfind_drivers()\n"
        "print([name for name in ('grpc', 'google.protobuf', 'wasmtime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150)
    assert done.stdout.strip() == "[]", done.stderr
