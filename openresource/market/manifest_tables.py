"""Reading a manifest's tables, key by key: each refusal names the field, what was found and what was expected."""

from __future__ import annotations

import difflib
import re
from typing import Any

from openresource.market.schemas import shown
from openresource.primitives.errors import Refusal

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


class InvalidManifest(Refusal):
    template = "openresource.toml: {field} is {found}, but {expected}."
    way_out = "Mend this field and try again: `openresource publish --dry-run FOLDER`."


class UnknownKey(InvalidManifest):
    template = "openresource.toml: {field} is not known."


class NotSupported(InvalidManifest):
    template = "openresource.toml: {field} = {found} is not supported by this version."


class Table:
    """One table of the manifest; `finish` refuses keys that nobody asked for."""

    def __init__(self, values: dict[str, Any], path: str) -> None:
        self.values = values
        self.path = path
        self._seen: set[str] = set()

    def name(self, key: str) -> str:
        """A key's full name."""
        return f"{self.path}.{key}" if self.path else key

    def seen(self, key: str) -> None:
        """Marks a key as known."""
        self._seen.add(key)

    def wrong(self, key: str, found: str, expected: str) -> InvalidManifest:
        """The refusal of a key."""
        return InvalidManifest(field=self.name(key), found=found, expected=expected)

    def table(self, key: str, *, required: bool = False) -> Table:
        """A table below; missing reads as empty unless it is required."""
        self.seen(key)
        value = self.values.get(key, {})
        if required and key not in self.values:
            raise self.wrong(key, "missing", f"the manifest has a table [{self.name(key)}]")
        if not isinstance(value, dict):
            raise self.wrong(key, shown(value), "it is a table")
        return Table(value, self.name(key))

    def tables(self, key: str, count_max: int) -> list[Table]:
        """A list of tables, written [[key]]."""
        self.seen(key)
        values = self.values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.wrong(
                key, shown(values), f"it is a list of tables, each begun by [[{self.name(key)}]]"
            )
        if len(values) > count_max:
            raise self.wrong(key, f"{len(values)} long", f"at most {count_max} are read")
        return [Table(value, f"{self.name(key)}[{number}]") for number, value in enumerate(values)]

    def text(self, key: str, characters_max: int, *, required: bool = False) -> str:
        """A text without control characters; missing reads as empty."""
        self.seen(key)
        if key not in self.values:
            if required:
                raise self._missing(key)
            return ""
        value = self.values[key]
        if not isinstance(value, str):
            raise self.wrong(key, shown(value), "it is a text")
        if len(value) > characters_max or _CONTROL.search(value) is not None:
            raise self.wrong(
                key, shown(value), f"it is a text of at most {characters_max} printable characters"
            )
        return value

    def _missing(self, key: str) -> InvalidManifest:
        similar = _nearest(key, {str(other) for other in self.values})
        remedy = f"Did you write {self.name(similar)} instead?" if similar else ""
        return InvalidManifest(
            field=self.name(key), found="missing", expected="it is required", remedy=remedy
        )

    def matching(self, key: str, pattern: re.Pattern[str], expected: str, *, required: bool = False) -> str:
        """A text of a certain form; missing reads as empty."""
        text = self.text(key, 1_000, required=required)
        if key in self.values and pattern.fullmatch(text) is None:
            raise self.wrong(key, shown(text), expected)
        return text

    def choice(
        self, key: str, choices: tuple[str, ...], *, later: tuple[str, ...] = (), required: bool = False
    ) -> str:
        """One of a few words; those of a later version are refused as such."""
        text = self.text(key, 100, required=required)
        if text in later:
            raise NotSupported(
                field=self.name(key), found=f'"{text}"', remedy="Use " + " or ".join(choices) + "."
            )
        if key in self.values and text not in choices:
            raise self.wrong(key, shown(text), "it is one of " + ", ".join(choices) + _meant(text, choices))
        return text

    def texts(self, key: str, count_max: int, characters_max: int) -> list[str]:
        """A list of texts; missing reads as empty."""
        self.seen(key)
        values = self.values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.wrong(key, shown(values), 'it is a list of texts, such as ["a", "b"]')
        if len(values) > count_max or any(len(value) > characters_max or "\0" in value for value in values):
            raise self.wrong(
                key,
                f"{len(values)} long",
                f"at most {count_max} texts of {characters_max} characters are read",
            )
        return list(values)

    def words(self, key: str, count_max: int, pattern: re.Pattern[str], expected: str) -> list[str]:
        """A list of texts of a certain form."""
        values = self.texts(key, count_max, 1_000)
        for value in values:
            if pattern.fullmatch(value) is None:
                raise self.wrong(key, shown(value), expected)
        return values

    def integer(self, key: str, default: int, minimum: int, maximum: int) -> int:
        """A whole number within bounds."""
        self.seen(key)
        value = self.values.get(key, default)
        if type(value) is not int or not minimum <= value <= maximum:
            raise self.wrong(key, shown(value), f"it is a whole number from {minimum} to {maximum}")
        return value

    def number(self, key: str, default: float, minimum: float, maximum: float) -> float:
        """A number within bounds."""
        self.seen(key)
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.wrong(key, shown(value), f"it is a number from {minimum} to {maximum}")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false; missing reads as false."""
        self.seen(key)
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, shown(value), "it is true or false")
        return value

    def finish(self) -> None:
        """Refuses keys that nobody asked for: a misspelt key must not pass as a missing one."""
        for key in self.values:
            if key not in self._seen:
                meant = _nearest(key, self._seen)
                remedy = (
                    f"Did you mean {self.name(meant)}?"
                    if meant
                    else f"Known here: {', '.join(sorted(self._seen))}."
                )
                raise UnknownKey(
                    field=self.name(key), found="given", expected="", nearest=meant, remedy=remedy
                )


def _nearest(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def _meant(text: str, choices: tuple[str, ...]) -> str:
    meant = _nearest(text, set(choices))
    return f' (did you mean "{meant}"?)' if meant else ""
