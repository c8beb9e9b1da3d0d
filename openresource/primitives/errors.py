"""Refusals: what every part of the system says when it will not do something, with the facts and the way out."""

from __future__ import annotations

import re
from typing import Any, ClassVar

# Facts may quote hostile input; a message shows at most this much of each.
FACT_CHARACTERS_MAX = 200

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class _FactsShown(dict[str, Any]):
    """Facts as a message shows them: clipped, and a question mark where one was not given."""

    def __missing__(self, name: str) -> str:
        return "?"


class Refusal(Exception):
    """A typed "no" that carries its facts as attributes and names the way out."""

    template: ClassVar[str] = "This was refused."
    way_out: ClassVar[str] = ""
    code: ClassVar[str] = "refusal"

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "code" not in cls.__dict__:
            cls.code = _WORD_START.sub("-", cls.__name__).lower()

    def __init__(self, message: str = "", /, *, remedy: str = "", **facts: Any) -> None:
        """A message or a remedy given here replaces the class's own text."""
        super().__init__(message)
        self.facts: dict[str, Any] = facts
        self._message = message
        self._remedy = remedy

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts")
        if facts is not None and name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no fact named {name}")

    @property
    def message(self) -> str:
        """What happened, as a sentence for a person."""
        return self._message or self._filled(self.template)

    @property
    def remedy(self) -> str:
        """What to do next, as a sentence for a person; empty if there is nothing to do."""
        return self._remedy or self._filled(self.way_out)

    def to_json(self) -> dict[str, Any]:
        """The refusal as an object that any of our doors may send."""
        return {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "facts": {name: _plain(fact) for name, fact in self.facts.items()},
        }

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self._message, self._remedy, self.facts)

    def _filled(self, text: str) -> str:
        if "{" not in text:
            return text
        return text.format_map(_FactsShown({name: _shown(fact) for name, fact in self.facts.items()}))


class InvalidInput(Refusal):
    """Something that came from outside does not have the form it must have."""

    template = "The {what} is not valid: {reason}."


def _rebuilt(kind: type[Refusal], message: str, remedy: str, facts: dict[str, Any]) -> Refusal:
    return kind(message, remedy=remedy, **facts)


def _shown(fact: Any) -> Any:
    if isinstance(fact, bool | int | float):
        return fact
    text = fact.hex() if isinstance(fact, bytes) else str(fact)
    return text if len(text) <= FACT_CHARACTERS_MAX else text[:FACT_CHARACTERS_MAX] + "…"


def _plain(fact: Any) -> Any:
    if fact is None or isinstance(fact, bool | int | float):
        return fact
    if isinstance(fact, list | tuple | set | frozenset):
        return [_plain(item) for item in fact]
    if isinstance(fact, dict):
        return {str(name): _plain(item) for name, item in fact.items()}
    return _shown(fact)
