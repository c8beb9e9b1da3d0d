"""[calls] in openresource.toml: which other services a program calls, and what that usually costs."""

from __future__ import annotations

import pytest

from openresource.market.manifest_tables import InvalidManifest, UnknownKey
from openresource.market.manifests import Calls, declared_calls, parse_manifest

SMALLEST = 'name = "echo"\n[run]\nkind = "python"\nentry = "echo:run"\n'


def test_a_program_without_the_section_calls_nobody() -> None:
    assert parse_manifest(SMALLEST).calls is None
    assert parse_manifest(SMALLEST + "[calls]\n").calls is None


def test_services_allowance_and_depth_are_read() -> None:
    address = "0x" + "Ab" * 20
    named = f'["gist", "{address}/scrub", "any", "gist@1.2.0"]'
    found = parse_manifest(SMALLEST + f'[calls]\nservices = {named}\nallowance = "0.002"\ndepth = 3\n')
    assert found.calls == Calls(("gist", f"{address}/scrub", "any", "gist@1.2.0"), 2_000, 3)
    assert parse_manifest(SMALLEST + '[calls]\nservices = ["gist"]\n').calls == Calls(("gist",), 0, 1)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("services = []", ["calls.services", "missing"]),
        ('allowance = "0.1"', ["calls.services", "missing"]),
        ('services = ["no spaces"]', ["calls.services", "no spaces"]),
        ('services = ["../gist"]', ["calls.services"]),
        (f"services = {['a'] * 17}", ["17 long"]),
        ('services = ["a"]\nallowance = 0.1', ["calls.allowance", "amounts are texts"]),
        ('services = ["a"]\nallowance = "-1"', ["calls.allowance"]),
        ('services = ["a"]\ndepth = 0', ["calls.depth"]),
        ('services = ["a"]\ndepth = 9', ["calls.depth"]),
    ],
)
def test_a_mistake_is_named(section: str, words: list[str]) -> None:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(SMALLEST + f"[calls]\n{section}\n")
    for word in words:
        assert word in str(refused.value)
    with pytest.raises(UnknownKey):
        parse_manifest(SMALLEST + '[calls]\nservices = ["a"]\nallowances = "1"\n')


def test_a_module_has_no_way_to_the_broker_and_is_told_so() -> None:
    module = 'name = "m"\n[run]\nkind = "wasm"\nmodule = "m.wasm"\n[calls]\nservices = ["gist"]\n'
    with pytest.raises(InvalidManifest, match="modules have no way to the broker"):
        parse_manifest(module)


def test_what_a_published_page_says_is_read_and_nonsense_says_nothing() -> None:
    assert declared_calls((SMALLEST + '[calls]\nservices = ["a"]\n').encode()) == Calls(("a",))
    for content in (b"", b"\xff\xfe", b"not toml", b"x" * 100_000):
        assert declared_calls(content) is None
