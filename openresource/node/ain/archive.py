"""Where a chain keeps its final blocks: what it needs of a store, and one in memory."""

from __future__ import annotations

from typing import Any, Protocol


class Archive(Protocol):
    """Where final blocks are kept, the genesis block included."""

    def block(self, number: int) -> dict[str, Any] | None: ...

    def number_of(self, block_hash: str) -> int | None: ...

    def place_of(self, tx_hash: str) -> tuple[int, int] | None: ...

    def append(self, block: dict[str, Any]) -> None: ...


class MemoryArchive:
    """Final blocks in memory."""

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def block(self, number: int) -> dict[str, Any] | None:
        """A final block by its number."""
        return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def number_of(self, block_hash: str) -> int | None:
        """The number of a final block by its hash."""
        return self._numbers.get(block_hash)

    def place_of(self, tx_hash: str) -> tuple[int, int] | None:
        """Block and index of a final transaction."""
        return self._places.get(tx_hash)

    def append(self, block: dict[str, Any]) -> None:
        """Keeps the next final block."""
        assert block["number"] == len(self._blocks), "blocks come in order"
        self._numbers[block["hash"]] = len(self._blocks)
        for index, wire in enumerate(block["transactions"]):
            self._places[wire["hash"]] = len(self._blocks), index
        self._blocks.append(block)
