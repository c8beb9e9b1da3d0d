"""The words that models packaged for Cog are written in, so that they load without Cog's own server.

It comes last in the search path: a program that brings the real package gets that.
"""

import collections.abc
import pathlib
import typing

Item = typing.TypeVar("Item")
MISSING: typing.Any = object()


class InputField:
    """A parameter's default, description and bounds; what describes functions to callers reads the note."""

    def __init__(self, default: typing.Any, note: dict[str, typing.Any]) -> None:
        self.is_required = default is MISSING
        self.default = None if self.is_required else default
        self.openresource_note = note


def Input(
    default: typing.Any = MISSING,
    description: str | None = None,
    ge: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    regex: str | None = None,
    choices: collections.abc.Sequence[typing.Any] | None = None,
    deprecated: bool | None = None,
    **others: typing.Any,
) -> typing.Any:
    """What a parameter takes."""
    told = {
        "description": description,
        "minimum": ge,
        "maximum": le,
        "minLength": min_length,
        "maxLength": max_length,
        "enum": list(choices) if choices else None,
    }
    default = MISSING if default is ... else default
    return InputField(default, {name: value for name, value in told.items() if value is not None})


class BasePredictor:
    """What a model is derived from; it defines `predict`, and `setup` for what is loaded once."""

    def setup(self) -> None:
        """Nothing to load."""


class Path(type(pathlib.Path())):  # type: ignore[misc]
    """A file: callers send and get its content."""


class ConcatenateIterator(collections.abc.Iterator[Item]):
    """An answer in pieces that belong together."""


class AsyncConcatenateIterator(collections.abc.AsyncIterator[Item]):
    """The same, asynchronously."""


class Secret(str):
    """A text that should not be shown."""

    def get_secret_value(self) -> str:
        """The text."""
        return str(self)


class BaseModel:
    """A record with named members."""

    def __init__(self, **members: typing.Any) -> None:
        for name in typing.get_type_hints(type(self)):
            if name in members or hasattr(type(self), name):
                setattr(self, name, members.get(name, getattr(type(self), name, None)))
            else:
                raise TypeError(f"{name} is missing")

    def _asdict(self) -> dict[str, typing.Any]:
        return dict(vars(self))
