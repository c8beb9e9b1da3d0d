"""What the extra `grpc` brings, loaded when it is first needed."""

from __future__ import annotations

import importlib.util
import os

from openresource.primitives.errors import Refusal


class GrpcNotInstalled(Refusal):
    template = "gRPC is not installed here."
    way_out = "Install it: pip install 'openresource[grpc]'"


def has_grpc() -> bool:
    """Whether the extra is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("grpc", "google.protobuf"))


def require_grpc() -> None:
    """Refuse where the extra is missing; call this before the first import of it."""
    try:
        found = has_grpc()
    except (ModuleNotFoundError, ValueError):
        found = False
    if not found:
        raise GrpcNotInstalled()
    # Its own log lines go to standard error of whoever runs us, and say nothing that we do not.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
