"""The versions of AI Network's protocol, and which versions of clients each serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COMPATIBLE_MIN_PROTOCOL_VERSION: Final = "1.0.0"
DATA_PROTOCOL_VERSION: Final = "1.1.0"
CONSENSUS_PROTOCOL_VERSION: Final = "1.0.0"

# Versions in their order, and the range that all of them serve.
_RANGES: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    ("0.3.2 0.3.3 0.4.0", {"min": "0.3.2", "max": "0.4"}),
    ("0.5.0 0.5.1 0.6.0", {"min": "0.5.0", "max": "0.6"}),
    ("0.7.0 0.7.1 0.7.2 0.7.3 0.7.4 0.7.5 0.7.6 0.7.7 0.8.0", {"min": "0.7.0", "max": "0.8"}),
    ("0.9.0 0.9.1 0.9.2 0.9.3", {"min": "0.9.0", "max": "0.9"}),
    (
        "1.0.0 1.0.1 1.0.2 1.0.3 1.0.4 1.0.5 1.0.6 1.0.7 1.0.8 1.0.9 1.0.10 1.0.11 1.0.12 1.0.13 1.0.14 1.0.15 "
        "1.1.0 1.1.1 1.1.2 1.1.3 1.1.4 1.2.0 1.3.0 1.3.1 1.4.0 1.4.1 1.4.2 1.5.0 1.5.1 1.5.2 1.6.0",
        {"min": "1.0.0"},
    ),
)

PROTOCOL_VERSION_MAP: Final[Mapping[str, Mapping[str, str]]] = {
    version: dict(served) for versions, served in _RANGES for version in versions.split()
}
