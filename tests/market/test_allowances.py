"""Allowances: no part of a tree of calls costs more than it was given, whatever happens to them, and who may be called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.market.allowances import (
    Allowance,
    AllowanceDepthReached,
    AllowanceUsedUp,
    CallsInCircle,
    Grant,
    Link,
    ServiceNotAllowed,
    ServiceNotDeclared,
    ServiceNotForEveryone,
    Spending,
    TooManyInnerCalls,
    check_count,
    check_declared,
    check_depth,
    check_service,
    checked_allowance,
    grant_header,
    left_uain,
    names_service,
    parse_grant,
    reserve,
    settle,
)
from openresource.primitives.errors import InvalidInput

ONE, OTHER = "0x" + "a1" * 20, "0x" + "b2" * 20


def test_a_price_is_set_aside_in_every_call_above_and_what_was_not_charged_is_free_again() -> None:
    way = (Spending(1_000), Spending(300))
    assert left_uain(way) == 300
    way = reserve(way, 200, "s")
    assert [one.left_uain for one in way] == [800, 100]
    with pytest.raises(AllowanceUsedUp) as refused:
        reserve(way, 101, "s")
    assert refused.value.facts == {
        "service": "s",
        "required_uain": 101,
        "left_uain": 100,
        "budget_uain": 300,
    }
    way = settle(way, 200, 150)
    assert way == (Spending(1_000, 150), Spending(300, 150))


class Tree:
    """Calls below each other with their spendings, as a client keeps them."""

    def __init__(self, budget_uain: int) -> None:
        self.nodes: list[Spending] = [Spending(budget_uain)]
        self.above: list[tuple[int, ...]] = [(0,)]
        self.open: list[tuple[tuple[int, ...], int, int]] = []
        self.charged_uain: dict[int, int] = {0: 0}

    def way(self, path: tuple[int, ...]) -> tuple[Spending, ...]:
        return tuple(self.nodes[index] for index in path)

    def put(self, path: tuple[int, ...], way: tuple[Spending, ...]) -> None:
        for index, spending in zip(path, way, strict=True):
            self.nodes[index] = spending


@settings(max_examples=200, deadline=None)
@given(
    budget_uain=st.integers(0, 5_000),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["call", "answer", "fail", "vanish", "nest"]),
            st.integers(0, 7),
            st.integers(0, 2_000),
        ),
        max_size=60,
    ),
)
def test_whatever_fails_no_part_of_a_tree_is_charged_more_than_it_was_given(
    budget_uain: int, steps: list[tuple[str, int, int]]
) -> None:
    tree = Tree(budget_uain)
    for step, which, amount in steps:
        path = tree.above[which % len(tree.above)]
        if step == "nest" and len(path) < 5:
            tree.nodes.append(Spending(min(amount, left_uain(tree.way(path)))))
            tree.charged_uain[len(tree.nodes) - 1] = 0
            tree.above.append((*path, len(tree.nodes) - 1))
        elif step == "call":
            before = tree.way(path)
            try:
                tree.put(path, reserve(before, amount, "s"))
            except AllowanceUsedUp:
                assert amount > left_uain(before)
                continue
            tree.open.append((path, amount, len(tree.open)))
        elif tree.open and step in ("answer", "fail", "vanish"):
            path, reserved_uain, _ = tree.open.pop(which % len(tree.open))
            # Nobody knows whether one that vanished was charged, so it counts as if it were.
            cost_uain = {"answer": min(amount, reserved_uain), "fail": 0, "vanish": reserved_uain}[step]
            tree.put(path, settle(tree.way(path), reserved_uain, cost_uain))
            for index in path:
                tree.charged_uain[index] += cost_uain
        for index, spending in enumerate(tree.nodes):
            assert spending.spent_uain == tree.charged_uain[index]
            assert spending.reserved_uain == sum(price for path, price, _ in tree.open if index in path)
            assert 0 <= spending.spent_uain + spending.reserved_uain <= spending.budget_uain


def test_depth_counts_the_calls_below_the_buyers_own() -> None:
    mine, child = Link(f"{ONE}/a", "bafya"), Link(f"{ONE}/b", "bafyb")
    check_depth(Allowance(1, depth=1), (mine,), "c")
    check_depth(Allowance(1, depth=2), (mine, child), "c")
    with pytest.raises(AllowanceDepthReached):
        check_depth(Allowance(1, depth=1), (mine, child), "c")
    with pytest.raises(AllowanceDepthReached):
        check_depth(Allowance(1, depth=0), (mine,), "c")


def test_a_circle_is_refused_under_another_version_and_under_another_name_too() -> None:
    chain = (Link(f"{ONE}/a", "bafya1"), Link(f"{ONE}/b", "bafyb"))
    for again in (Link(f"{ONE}/a", "bafya2"), Link(f"{OTHER}/copy", "bafya1")):
        with pytest.raises(CallsInCircle) as refused:
            check_service(Allowance(1), chain, "a", again, is_for_everyone=True)
        assert " → " in refused.value.message
    check_service(Allowance(1), chain, "c", Link(f"{ONE}/c", "bafyc"), is_for_everyone=True)


def test_only_services_that_the_buyer_named_are_called_or_else_those_open_to_everyone() -> None:
    link, chain = Link(f"{ONE}/secret", "bafys"), (Link(f"{ONE}/a", "bafya"),)
    with pytest.raises(ServiceNotForEveryone):
        check_service(Allowance(1), chain, "secret", link, is_for_everyone=False)
    with pytest.raises(ServiceNotAllowed):
        check_service(Allowance(1, services=("other",)), chain, "secret", link, is_for_everyone=True)
    for named in ("secret", f"{ONE}/secret"):
        check_service(Allowance(1, services=(named,)), chain, "secret", link, is_for_everyone=False)


def test_a_list_of_services_names_one_by_its_name_its_publisher_or_a_version() -> None:
    service = f"{ONE}/a"
    assert names_service(("a",), "a", service) and names_service((service,), "a", service)
    assert names_service(("any",), "a", service)
    assert not names_service((f"{OTHER}/a",), "a", service)
    assert names_service(("a@1.0.0",), "a@1.0.0", service)
    assert not names_service(("a@1.0.0",), "a", service)
    check_declared(("a",), "a", service)
    with pytest.raises(ServiceNotDeclared):
        check_declared(("b",), "a", service)


def test_a_program_makes_only_so_many_calls() -> None:
    check_count(63, 64, "one call")
    with pytest.raises(TooManyInnerCalls):
        check_count(64, 64, "one call")


@pytest.mark.parametrize(
    "grant",
    [
        Grant(bytes(range(32)), Allowance(0, 0)),
        Grant(b"", Allowance(12_345, 0)),
        Grant(b"\xff" * 32, Allowance(10**12, 8, ("a", f"{ONE}/b-c", f"{ONE}/b@1.2.0", "any"))),
    ],
)
def test_a_grant_comes_out_of_its_header_as_it_went_in(grant: Grant) -> None:
    assert parse_grant(grant_header(grant).encode()) == grant


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b";;",
        b"-;1",
        b"-;-1;1",
        b"-;01;1",
        b"-;1;9",
        b"-;1;10",
        b"AA" * 32 + b";1;1",
        b"-;99999999999999999;1",
        b"-;1;1;a b",
        b"-;1;1;a,,b",
        b"-;1;1;a,",
        b"-;1;1;" + b",".join(b"s%d" % number for number in range(17)),
        b"-;1;1;../../etc",
    ],
)
def test_a_header_of_another_form_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_grant(header)


@pytest.mark.parametrize(
    "arguments",
    [(-1, 1), (1, -1), (1, 9), (1, 1, ("a b",)), (1, 1, ("a",) * 17), (10**17, 1)],
)
def test_an_allowance_out_of_bounds_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInput):
        checked_allowance(*arguments)
