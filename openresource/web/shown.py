"""How amounts, times, names and JSON look on a page: every value becomes one of a few shapes, within bounds."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from openresource.primitives.amounts import text_from_uain

PARTS_MAX: Final = 1_500
DEPTH_MAX: Final = 8
ITEMS_MAX: Final = 100
NUMBERS_MAX: Final = 24
COLUMNS_MAX: Final = 8
SHORT_CHARACTERS_MAX: Final = 40
TEXT_CHARACTERS_MAX: Final = 20_000
RAW_CHARACTERS_MAX: Final = 200_000
PICTURE_BYTES_MAX: Final = 8 * 1024 * 1024
PICTURE_TYPES: Final = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
SOUND_TYPES: Final = frozenset(("audio/wav", "audio/x-wav", "audio/mpeg", "audio/ogg"))

Kind = Literal["text", "number", "word", "nothing", "record", "table", "list", "words", "numbers", "more"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A JSON value as a template draws it; which members count depends on the kind."""

    kind: Kind
    text: str = ""
    items: tuple[Shape, ...] = ()
    names: tuple[str, ...] = ()
    rows: tuple[tuple[Shape, ...], ...] = ()
    hidden: int = 0


@dataclass(slots=True)
class _Budget:
    """How many parts may still be drawn."""

    left: int = PARTS_MAX

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


@dataclass(frozen=True, slots=True)
class Media:
    """A file as an answer: shown where a browser can do so safely, and always there to be saved."""

    content_type: str
    size: int
    address: str = field(repr=False)
    is_picture: bool = False
    is_sound: bool = False


def shape_of(value: Any) -> Shape:
    """The shape of any JSON value."""
    return _shape(value, 0, _Budget())


def media_of(body: bytes, content_type: str) -> Media:
    """A file as an answer; only the types named here are ever given to the browser as what they say they are."""
    kind = content_type.partition(";")[0].strip().lower()
    is_picture = kind in PICTURE_TYPES and len(body) <= PICTURE_BYTES_MAX
    is_sound = kind in SOUND_TYPES and len(body) <= PICTURE_BYTES_MAX
    shown_type = kind if is_picture or is_sound else "application/octet-stream"
    address = ""
    if len(body) <= PICTURE_BYTES_MAX:
        address = f"data:{shown_type};base64,{base64.b64encode(body).decode()}"
    return Media(kind or "unknown", len(body), address, is_picture, is_sound)


def raw_json(value: Any) -> str:
    """The value as JSON text, for those who want to copy it."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return text if len(text) <= RAW_CHARACTERS_MAX else text[:RAW_CHARACTERS_MAX] + "\n…"


def ain(amount_uain: Any) -> str:
    """An amount as a person reads it, with spaces between thousands."""
    if not isinstance(amount_uain, int) or isinstance(amount_uain, bool):
        return "?"
    whole, point, decimals = text_from_uain(abs(amount_uain)).partition(".")
    sign = "-" if amount_uain < 0 else ""
    return sign + f"{int(whole):,}".replace(",", "\u202f") + point + decimals


def count(number: Any) -> str:
    """A whole number with spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f") if isinstance(number, int) else "?"


def percent(ppm: Any) -> str:
    """Parts of a million as a percentage."""
    return f"{ppm / 10_000:g} %" if isinstance(ppm, int) else "?"


def short(text: Any, head: int = 8, tail: int = 6) -> str:
    """A hash, an address or a CID with its middle left out."""
    whole = str(text)
    return whole if len(whole) <= head + tail + 1 else f"{whole[:head]}…{whole[-tail:]}"


def moment(at_ms: Any) -> str:
    """A time in words, in UTC; a dash for what is no time."""
    found = _time(at_ms)
    return "—" if found is None else f"{found:%d %b %Y, %H:%M:%S} UTC"


def iso(at_ms: Any) -> str:
    """A time as machines read it."""
    found = _time(at_ms)
    return "" if found is None else found.isoformat(timespec="milliseconds")


def size(number: Any) -> str:
    """A number of bytes as a person reads it."""
    if not isinstance(number, int):
        return "?"
    amount = float(number)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def span(milliseconds: Any) -> str:
    """A duration as a person reads it."""
    if not isinstance(milliseconds, int | float):
        return "?"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    for unit, length in (("s", 60), ("min", 60), ("h", 24)):
        if seconds < length:
            return f"{seconds:.1f} {unit}".replace(".0 ", " ")
        seconds /= length
    return f"{seconds:.1f} days"


def _time(at_ms: Any) -> datetime | None:
    if not isinstance(at_ms, int | float) or isinstance(at_ms, bool) or not 0 < at_ms < 253402300799000:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _shape(value: Any, depth: int, budget: _Budget) -> Shape:
    if not budget.take():
        return Shape("more")
    if value is None:
        return Shape("nothing")
    if isinstance(value, bool):
        return Shape("word", "true" if value else "false")
    if isinstance(value, int | float):
        return Shape("number", json.dumps(value))
    if isinstance(value, str):
        hidden = max(0, len(value) - TEXT_CHARACTERS_MAX)
        return Shape("text", value[:TEXT_CHARACTERS_MAX], hidden=hidden)
    if depth >= DEPTH_MAX:
        return Shape("more")
    if isinstance(value, Mapping):
        return _record(value, depth, budget)
    if isinstance(value, Sequence):
        return _list(value, depth, budget)
    return Shape("text", str(value)[:TEXT_CHARACTERS_MAX])


def _record(value: Mapping[Any, Any], depth: int, budget: _Budget) -> Shape:
    shown = list(value.items())[:ITEMS_MAX]
    return Shape(
        "record",
        names=tuple(str(name) for name, _ in shown),
        items=tuple(_shape(item, depth + 1, budget) for _, item in shown),
        hidden=len(value) - len(shown),
    )


def _list(value: Sequence[Any], depth: int, budget: _Budget) -> Shape:
    shown = list(value[:ITEMS_MAX])
    hidden = len(value) - len(shown)
    if len(shown) > 3 and all(_is_number(item) for item in shown):
        numbers = shown[:NUMBERS_MAX]
        text = ", ".join(json.dumps(item) for item in numbers)
        return Shape("numbers", text, hidden=len(value) - len(numbers))
    if shown and all(isinstance(item, str) and _is_short(item) for item in shown):
        return Shape("words", items=tuple(_shape(item, depth + 1, budget) for item in shown), hidden=hidden)
    columns = _columns(shown)
    if columns:
        rows = tuple(tuple(_shape(item.get(name), depth + 1, budget) for name in columns) for item in shown)
        return Shape("table", names=columns, rows=rows, hidden=hidden)
    return Shape("list", items=tuple(_shape(item, depth + 1, budget) for item in shown), hidden=hidden)


def _columns(items: list[Any]) -> tuple[str, ...]:
    """The columns of a list whose members are all flat records of the same form; empty if they are not."""
    if not items or not all(isinstance(item, Mapping) and item for item in items):
        return ()
    names = tuple(str(name) for name in items[0])
    if len(names) > COLUMNS_MAX or any(tuple(str(name) for name in item) != names for item in items):
        return ()
    is_flat = all(not isinstance(part, Mapping | list) for item in items for part in item.values())
    return names if is_flat else ()


def _is_short(text: str) -> bool:
    return len(text) <= SHORT_CHARACTERS_MAX and "\n" not in text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
