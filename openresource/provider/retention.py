"""Remembers which releases stay on this machine's disk: the last few of each service, so that a rollback is quick."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

RELEASES_KEPT: Final = 3
SERVICES_KEPT_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 4 * 1024 * 1024


class Retention:
    """The programs that were served here, by service, the newest last."""

    def __init__(self, file: Path, *, releases_kept: int = RELEASES_KEPT) -> None:
        self._file = file
        self._releases_kept = releases_kept
        self._programs = _read(file)

    @property
    def programs(self) -> set[str]:
        """What stays on the disk."""
        return {program for kept in self._programs.values() for program in kept}

    def note(self, service: str, program: str) -> None:
        """A version is served here; what is older than the last few of its service may go."""
        before = self._programs.pop(service, [])
        kept = [one for one in before if one != program][-(self._releases_kept - 1) :]
        # The service that was served last stands last.
        self._programs[service] = [*kept, program] if self._releases_kept > 1 else [program]
        while len(self._programs) > SERVICES_KEPT_MAX:
            del self._programs[next(iter(self._programs))]
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._programs))
        os.replace(fresh, self._file)


def _read(file: Path) -> dict[str, list[str]]:
    """What was kept; a file that cannot be read keeps nothing, and releases are fetched again."""
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            return {}
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(service): [str(one) for one in programs]
        for service, programs in found.items()
        if isinstance(programs, list)
    }
