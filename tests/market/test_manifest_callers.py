"""Callers who write the whole command line take turns, as one could read what is another's."""

from __future__ import annotations

import pytest

from openresource.market.manifests import NotSupported, parse_manifest

GENERIC = 'name = "tool"\n[run]\nkind = "cli"\ncommand = ["cat"]\n[resources]\nconcurrency = {count}\n'
DECLARED = GENERIC + '[[methods]]\nname = "say"\nargs = ["--text", "{{text}}"]\n'
MODULE = (
    'name = "tool"\n[run]\nkind = "wasm"\nmodule = "a.wasm"\nspeaks = "cli"\n[resources]\nconcurrency = 4\n'
)


def test_any_command_line_is_for_one_caller_at_a_time() -> None:
    with pytest.raises(NotSupported, match="concurrency"):
        parse_manifest(GENERIC.format(count=2))
    assert parse_manifest(GENERIC.format(count=1)).resources.concurrency == 1


def test_declared_methods_and_modules_may_take_more() -> None:
    assert parse_manifest(DECLARED.format(count=4)).resources.concurrency == 4
    # A module sees no file but its own.
    assert parse_manifest(MODULE).resources.concurrency == 4
