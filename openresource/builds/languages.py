"""The languages that are built here: a name, who recognises one, who plans its build; other packages may add theirs.

A package registers a language by the entry point group `openresource.languages`; the entry point names a `Language`
or a function without parameters that returns one. See docs/runtimes.md for a complete one.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from openresource.builds.recipes import Recipe, Source
from openresource.builds.recipes.c import CRecipe
from openresource.builds.recipes.go import GoRecipe
from openresource.builds.recipes.java import JavaRecipe
from openresource.builds.recipes.node import NodeRecipe
from openresource.builds.recipes.plain import PlainRecipe
from openresource.builds.recipes.python import PythonRecipe
from openresource.builds.recipes.rust import RustRecipe
from openresource.primitives.errors import Refusal

log = logging.getLogger("openresource.builds.languages")

GROUP: Final = "openresource.languages"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
# What people write, and what they mean.
ALIASES: Final = {
    "javascript": "node", "typescript": "node", "js": "node", "ts": "node", "nodejs": "node", "golang": "go",
    "py": "python", "python3": "python", "cpp": "c", "c-cpp": "c", "bash": "shell", "sh": "shell", "awk": "shell",
    "kotlin": "java",
}  # fmt: skip


class LanguageUnknown(Refusal):
    template = "Nobody here knows how to build {language}; known are {known}."
    way_out = "Correct [build] language, leave it out if nothing is built, or install a package that adds it."


@dataclass(frozen=True, slots=True)
class Language:
    """A language by name. `detector` recognises a folder without a manifest; a recipe alone is enough for builds."""

    name: str
    recipe: Recipe
    detector: Callable[..., Any] | None = None


class Languages:
    """The languages of this machine, our own first."""

    def __init__(self, languages: tuple[Language, ...]) -> None:
        self._languages = {language.name: language for language in languages}

    def __iter__(self) -> Iterator[Language]:
        return iter(self._languages.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._languages)

    def named(self, name: str) -> Language:
        """A language by its name or by another name for it."""
        language = self._languages.get(name) or self._languages.get(ALIASES.get(name, ""))
        if language is None:
            raise LanguageUnknown(language=name, known=", ".join(self._languages))
        return language

    def of(self, source: Source) -> Language | None:
        """The language that a manifest names, else the first whose recipe suits the folder; None if none does."""
        if source.manifest.build.language:
            return self.named(source.manifest.build.language)
        return next((one for one in self if one.recipe.suits(source)), None)


def own_languages() -> tuple[Language, ...]:
    """The languages that this package builds itself."""
    return (
        Language("python", PythonRecipe()),
        Language("node", NodeRecipe()),
        Language("go", GoRecipe()),
        Language("rust", RustRecipe()),
        Language("java", JavaRecipe()),
        Language("c", CRecipe()),
        Language("shell", PlainRecipe("shell")),
        Language("perl", PlainRecipe("perl", "perl")),
        Language("any", PlainRecipe("any")),
    )


def find_languages() -> Languages:
    """Our own languages and those of installed packages; one that cannot be loaded is told and left out."""
    found = {language.name: language for language in own_languages()}
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            loaded = point.load()
            language = loaded if isinstance(loaded, Language) else loaded()
        except Exception as problem:
            # Somebody else's code: whatever it raises must not stop this machine.
            log.warning("the language %s cannot be loaded: %s", point.name, problem)
            continue
        if not isinstance(language, Language) or _NAME.fullmatch(language.name) is None:
            log.warning("the entry point %s gives no language with a fitting name", point.name)
            continue
        found[language.name] = language
    return Languages(tuple(found.values()))
