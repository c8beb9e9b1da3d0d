"""What the parts of a long run found, in a file as they end, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Key = tuple[Any, ...]


class LongResults:
    """One line of JSON for each part that has ended; without a file nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self.found: dict[Key, dict[str, Any]] = {}
        self._file = file
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    told = json.loads(line)
                    self.found[tuple(told["part"])] = told["result"]
                except (ValueError, KeyError, TypeError):
                    # The line at which the last run was killed: its part is done again.
                    continue

    def keep(self, part: Key, result: dict[str, Any]) -> None:
        """Writes down what a part found."""
        self.found[part] = result
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                # A line of its own, also after one that a killed run left unfinished.
                file.write("\n" + json.dumps({"part": part, "result": result}) + "\n")
