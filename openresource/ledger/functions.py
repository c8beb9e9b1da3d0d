"""Which functions a write calls: those at its path, and those bound to paths inside the value written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openresource.ledger.matching import FunctionMatch, match_function
from openresource.ledger.state_reader import StateReader
from openresource.ledger.urls import is_whitelisted
from openresource.primitives.encoding import property_order
from openresource.primitives.paths import format_path

# Names for readers of this module; matching has them.
__all__ = ["SubtreeTriggers", "Trigger", "Triggers", "may_call_url", "triggered_functions", "triggers_of"]


class Trigger:
    """One config whose functions are called, with what they are told; labels are those of the value."""

    __slots__ = ("config", "function_labels", "labels", "params", "previous", "value", "value_path")

    def __init__(
        self,
        config: dict[str, Any],
        labels: list[str],
        value: Any,
        previous: Any,
        params: dict[str, str],
        value_path: str,
        function_labels: list[str],
    ) -> None:
        self.config: dict[str, Any] = config
        self.labels: list[str] = labels
        self.value: Any = value
        self.previous: Any = previous
        self.params: dict[str, str] = params
        # Where in the written value it lies, as results name it; empty for the exact match.
        self.value_path: str = value_path
        # Where the config stands, with its variables.
        self.function_labels: list[str] = function_labels


class SubtreeTriggers:
    """One config below the path, under the key that results have for it; perhaps nothing matched it."""

    __slots__ = ("key", "triggers")

    def __init__(
        self,
        key: str,
        triggers: list[Trigger],
    ) -> None:
        self.key: str = key
        self.triggers: list[Trigger] = triggers


class Triggers:
    """Everything that a write calls, in order."""

    __slots__ = ("exact", "subtrees")

    def __init__(
        self,
        exact: Trigger | None,
        subtrees: list[SubtreeTriggers],
    ) -> None:
        self.exact: Trigger | None = exact
        self.subtrees: list[SubtreeTriggers] = subtrees

    def __iter__(self) -> Iterator[Trigger]:
        if self.exact is not None:
            yield self.exact
        for subtree in self.subtrees:
            yield from subtree.triggers


def triggered_functions(state: StateReader, labels: list[str], value: Any, previous: Any) -> Triggers:
    """What a write of a value below /values calls, given the value before."""
    return triggers_of(match_function(state, labels), labels, value, previous)


def triggers_of(match: FunctionMatch, labels: list[str], value: Any, previous: Any) -> Triggers:
    """What a write calls, with the match at hand."""
    params = match.params()
    exact = None
    if match.config:
        exact = Trigger(match.config, labels, value, previous, params, "", match.target_labels)
    subtrees: list[SubtreeTriggers] = []
    for below in match.subtree:
        config: dict[str, Any] = below.config if isinstance(below.config, dict) else {}
        triggers: list[Trigger] = []
        function_labels = [*match.target_labels, *below.labels]
        found = _matches(value, below.labels)
        before = _matches(previous, below.labels)
        for path, was in before.items():
            if path not in found:
                triggers.append(_trigger(config, function_labels, labels, was, None, was.value, params))
        for path, now in found.items():
            old = before[path].value if path in before else None
            triggers.append(_trigger(config, function_labels, labels, now, now.value, old, params))
        subtrees.append(SubtreeTriggers(format_path(below.labels), triggers))
    return Triggers(exact, subtrees)


def may_call_url(state: StateReader, url: Any) -> bool:
    """Whether a REST function may call a URL: some developer's whitelist covers it."""
    whitelist: Any = state.get(["values", "developers", "rest_functions", "url_whitelist"])
    if not isinstance(whitelist, dict):
        return False
    items: list[Any] = []
    for urls in whitelist.values():
        if isinstance(urls, dict):
            items.extend(urls.values())
    return is_whitelisted(url, items)


class _Found:
    """A place in a value that a config's relative path leads to."""

    __slots__ = ("bound", "labels", "value")

    def __init__(self, labels: list[str], value: Any, bound: dict[str, str]) -> None:
        self.labels: list[str] = labels
        self.value: Any = value
        self.bound: dict[str, str] = bound


def _matches(value: Any, pattern: list[str]) -> dict[str, _Found]:
    """The places, by their path's text: a variable stands for every key, a literal for itself."""
    places: list[_Found] = [_Found([], value, {})]
    for label in pattern:
        further: list[_Found] = []
        for place in places:
            inner: Any = place.value
            if not isinstance(inner, dict):
                continue
            if label.startswith("$"):
                for key in property_order(inner):
                    further.append(_Found([*place.labels, key], inner[key], {**place.bound, label[1:]: key}))
            elif label in inner:
                further.append(_Found([*place.labels, label], inner[label], place.bound))
        places = further
    return {format_path(place.labels): place for place in places}


def _trigger(
    config: dict[str, Any],
    function_labels: list[str],
    labels: list[str],
    found: _Found,
    value: Any,
    previous: Any,
    params: dict[str, str],
) -> Trigger:
    return Trigger(
        config,
        [*labels, *found.labels],
        value,
        previous,
        {**params, **found.bound},
        format_path(found.labels),
        function_labels,
    )
