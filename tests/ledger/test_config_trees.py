"""What may be set as a function or an owner on our own networks, beyond what vectors of AI Network say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.ledger.config_trees import (
    apply_function_change,
    apply_rule_change,
    check_function_tree,
    check_owner_tree,
    check_rule_tree,
)
from openresource.ledger.owners import eval_owner
from openresource.ledger.urls import is_absolute_url, is_private_url, is_valid_url, is_whitelisted
from openresource.ledger.verdicts import Auth
from tests.support.rules import state_of

ALICE = "0x00ADEc28B6a845a085e03591bE7550dd68673C1C"
ALL = {"branch_owner": True, "write_function": True, "write_owner": True, "write_rule": True}
PROGRAM = {
    "function_type": "PROGRAM",
    "function_id": "summarise",
    "cid": "bafyexample",
    "policy": "one",
    "budget": "0.01",
    "result_path": "/apps/a/results/$key",
}


def test_a_program_may_be_set_only_where_programs_exist() -> None:
    tree = {".function": {"summarise": PROGRAM}}
    assert check_function_tree(["apps", "a"], tree, has_programs=True) is None
    assert check_function_tree(["apps", "a"], tree) == "/.function/summarise"


@pytest.mark.parametrize(
    "change", [{"function_id": "other"}, {"budget": 1}, {"method": {"a": 1}}, {"function_type": "PROGRAMME"}]
)
def test_a_malformed_program_is_refused(change: dict[str, Any]) -> None:
    tree = {".function": {"summarise": {**PROGRAM, **change}}}
    assert check_function_tree(["apps", "a"], tree, has_programs=True) is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.dictionaries(
        st.sampled_from(
            [".rule", ".function", ".owner", "owners", "write", "state", "$a", "b", "*", "max_size"]
        ),
        inner,
        max_size=3,
    ),
    max_leaves=10,
)


@given(json_values, st.lists(st.sampled_from(["apps", "$a", "$b", "x"]), max_size=3))
def test_any_tree_is_judged(tree: Any, labels: list[str]) -> None:
    for found in (
        check_rule_tree(labels, tree, 10),
        check_function_tree(labels, tree, True),
        check_owner_tree(labels, tree, ["_transfer"]),
    ):
        assert found is None or found.startswith("/")


@given(json_values, json_values)
def test_a_change_never_touches_what_it_is_given(current: Any, change: Any) -> None:
    before = repr((current, change))
    apply_rule_change(current, change)
    apply_function_change(current, change)
    assert repr((current, change)) == before


def test_an_emptied_config_stays_as_an_empty_one() -> None:
    changed = apply_function_change({".function": {"a": {"x": 1}}, "k": 1}, {".function": {"a": None}})
    assert (changed.value, changed.is_merge) == ({".function": {}, "k": 1}, True)


def test_a_function_speaks_for_itself_and_not_for_its_signer() -> None:
    owners = {ALICE: ALL, "fid:_createApp": {**ALL, "write_rule": False}}
    tree = state_of({"owners": {".owner": {"owners": owners}}})
    assert eval_owner(tree, ["a"], "write_rule", Auth(ALICE)).is_allowed
    assert not eval_owner(tree, ["a"], "write_rule", Auth(ALICE, "_createApp")).is_allowed
    assert not eval_owner(tree, ["a"], "write_rule", Auth(ALICE, "_other")).is_allowed
    assert eval_owner(tree, ["a"], "write_function", Auth(ALICE, "_createApp")).is_allowed
    assert not eval_owner(tree, ["a"], "write_rule", Auth()).is_allowed
    assert not eval_owner(tree, ["a"], "write_rule", None).is_allowed


@pytest.mark.parametrize(
    ("url", "public", "private", "absolute"),
    [
        ("https://a.com", True, False, True),
        ("https://a.com.", True, False, True),
        ("https://a-b.example:8080/x?y#z", True, False, True),
        ("https://-a.com", False, False, True),
        ("https://a..com", False, False, True),
        ("http://user:pw@8.8.8.8", True, False, True),
        ("http://1.2.3.255", False, False, True),
        ("http://172.32.0.1", False, False, True),
        ("http://172.16.0.1:80/", False, True, True),
        ("http://192.168.1.1", False, True, True),
        ("ws://a.com", False, False, True),
        ("//a.com", False, False, False),
        ("https://[::1]/", False, False, True),
        ("https://[::g]/", False, False, False),
        ("https://a b.com", False, False, False),
        ("https://%zz.com", False, False, False),
        ("https://1.2.3.4.5", False, False, False),
        ("https://256.1.1.1", False, False, False),
        ("https://0x7f.1", False, False, True),
        ("data:text/plain,x", False, False, True),
        ("https://", False, False, False),
        ("foo://", False, False, True),
    ],
)
def test_urls(url: str, public: bool, private: bool, absolute: bool) -> None:
    assert (is_valid_url(url), is_private_url(url), is_absolute_url(url)) == (public, private, absolute)


@pytest.mark.parametrize(
    ("item", "url", "covers"),
    [
        ("https://*.a.com", "https://b.a.com/x", True),
        ("https://*.a.com", "https://.a.com", False),
        ("https://*.a.com", "https://a.com", False),
        ("https://a.*", "https://a.com", True),
        ("https://a.*", "https://a.", False),
        ("https://a.*.com", "https://a.b.c.com", True),
        ("https://*.a.*", "https://x.a.y", True),
        ("https://*.a.*", "https://x.a", False),
        ("a.com", "https://a.com/path", True),
        ("http://a.com", "https://a.com", False),
        ("https://a.com:1", "https://a.com:2", False),
        ("https://a.com", "https://a.com:2", True),
    ],
)
def test_whitelists(item: str, url: str, covers: bool) -> None:
    assert is_whitelisted(url, [item]) == covers


@given(st.text(max_size=40))
def test_any_text_is_judged_as_a_url(text: str) -> None:
    for prefix in ("", "https://", "http://x@", "foo://", "file://", "https://["):
        assert is_valid_url(prefix + text) in (True, False)
        assert is_absolute_url(prefix + text) in (True, False)
