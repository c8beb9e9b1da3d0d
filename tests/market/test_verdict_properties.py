"""Verdicts from executions alone: the same in every order, with every duplicate, and for no coalition below its quorum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from openresource.market.jobs.comparators import Verification, read_comparator
from openresource.market.jobs.lifecycle import ACCEPTED, DISPUTED, FAILED, REASONS, REFUTED, UNRESOLVED
from openresource.market.jobs.policies import Policy, read_policy
from openresource.market.jobs.states import job_of, read_verdict
from openresource.market.jobs.verdicts import (
    AUDITOR,
    DONE,
    PENDING,
    REFEREE,
    ROLES,
    Execution,
    Verdict,
    resolve,
    verdict_record,
)

RIGHT, WRONG, OTHER = (letter * 32 for letter in (b"r", b"w", b"o"))
UNTIL = 1_000
EXACT = Verification("bit_exact")
NEAR = Verification("tolerant", read_comparator({"name": "allclose", "atol": "1"}))
PROVIDERS = tuple(f"p{number}" for number in range(9))


def run(provider: str, digest: bytes = RIGHT, **changes: Any) -> Execution:
    """A run that was committed to and revealed in time."""
    return replace(
        Execution(
            provider,
            lease_at_ms=1,
            lease_until_ms=100,
            commitment=b"c" * 32,
            committed_at_ms=50,
            reveal_until_ms=UNTIL,
            status=DONE,
            digest=digest,
            output=digest[0],
            revealed_at_ms=500,
        ),
        **changes,
    )


@st.composite
def executions(draw: st.DrawFn) -> Execution:
    """An execution of any provider, at any stage, in any state of disorder."""
    committed_at = draw(st.sampled_from((0, 50, 99)))
    revealed_at = draw(st.sampled_from((0, 400, 999, 1_000, 1_500))) if committed_at else 0
    status = draw(st.sampled_from((DONE, DONE, DONE, FAILED))) if revealed_at else ""
    digest = draw(st.sampled_from((RIGHT, WRONG, OTHER))) if status == DONE else b""
    return Execution(
        provider=draw(st.sampled_from(PROVIDERS)),
        role=draw(st.sampled_from(ROLES)),
        runtime_class=draw(st.sampled_from(("", "a", "b"))),
        bond_uain=draw(st.sampled_from((0, 1, 2, 9))),
        is_called=draw(st.booleans()),
        lease_at_ms=draw(st.sampled_from((1, 2))),
        lease_until_ms=100,
        is_over=not committed_at and draw(st.booleans()),
        commitment=b"c" * 32 if committed_at else b"",
        committed_at_ms=committed_at,
        reveal_until_ms=draw(st.sampled_from((0, UNTIL))) if not revealed_at else UNTIL,
        status=status,
        digest=digest,
        output=digest[0] if digest else None,
        revealed_at_ms=revealed_at,
        is_late=bool(committed_at) and draw(st.sampled_from((False, False, False, True))),
        equivocated_at_ms=draw(st.sampled_from((0, 0, 0, 700))),
    )


POLICIES = st.builds(
    lambda text, verification, until, wanted, called, others: replace(
        read_policy(text, verification),
        referees_until_ms=until,
        referees_wanted=wanted,
        called_uain=called,
        able_uain=called + others,
    ),
    st.sampled_from(("one", "quorum:2/3", "quorum:3/5", "audited", "audited:0.5")),
    st.sampled_from((EXACT, NEAR, Verification("class_exact"))),
    st.sampled_from((0, 1_200)),
    st.integers(0, 3),
    st.integers(0, 12),
    st.sampled_from((0, 1, 30)),
)
TIMES = st.sampled_from((0, 60, 450, 999, 1_000, 1_100, 2_000))


@given(st.lists(executions(), max_size=12), POLICIES, TIMES, st.data())
def test_any_order_and_any_duplication_give_the_same_verdict(
    runs: list[Execution], policy: Policy, at_ms: int, data: st.DataObject
) -> None:
    expected = resolve(runs, policy, at_ms)
    shuffled = data.draw(st.permutations(runs))
    again = data.draw(st.lists(st.sampled_from(runs), max_size=6)) if runs else []
    assert resolve([*again, *shuffled, *again], policy, at_ms) == expected


@given(st.lists(executions(), max_size=12), POLICIES, st.data())
def test_what_is_not_there_yet_or_comes_too_late_changes_nothing(
    runs: list[Execution], policy: Policy, data: st.DataObject
) -> None:
    known = resolve(runs, policy, 999)
    later = [
        replace(one, revealed_at_ms=1_500, status=DONE, digest=WRONG, reveal_until_ms=UNTIL)
        if one.commitment and not one.revealed_at_ms and not one.is_late
        else one
        for one in runs
    ]
    assert resolve(later, policy, 999) == resolve(
        [
            # Nor is it known yet that it will come too late.
            replace(one, revealed_at_ms=0, status="", digest=b"", output=None, is_late=False)
            if one.revealed_at_ms > 999
            else one
            for one in later
        ],
        policy,
        999,
    )
    stranger = run("stranger", WRONG, lease_at_ms=5_000)
    assert resolve([*runs, stranger], policy, 999) == known


@given(st.lists(executions(), max_size=12), POLICIES, TIMES)
def test_every_verdict_is_told_in_full_and_read_back(
    runs: list[Execution], policy: Policy, at_ms: int
) -> None:
    verdict = resolve(runs, policy, at_ms)
    assert verdict.status in (ACCEPTED, FAILED, UNRESOLVED, REFUTED, DISPUTED, PENDING)
    if verdict.is_pending:
        assert verdict == Verdict(PENDING)
        return
    assert verdict.ground in REASONS
    assert all(reason in REASONS for _, reason in (*verdict.reasons, *verdict.punished))
    assert read_verdict(verdict_record(verdict)) == verdict
    shown = [provider for group in verdict.partition for provider in group]
    assert len(shown) == len(set(shown))
    assert set(verdict.winners).isdisjoint(provider for provider, _ in verdict.punished)


@given(
    st.integers(1, 9).flatmap(lambda size: st.tuples(st.integers(size // 2 + 1, size), st.just(size))),
    st.data(),
)
def test_a_coalition_below_the_quorum_never_wins(shape: tuple[int, int], data: st.DataObject) -> None:
    quorum, size = shape
    policy = read_policy(f"quorum:{quorum}/{size}", EXACT)
    liars = data.draw(st.integers(0, quorum - 1))
    runs = [
        run(provider, WRONG if place < liars else RIGHT) for place, provider in enumerate(PROVIDERS[:size])
    ]
    # Honest ones may be lost on their way, liars may say what they like about themselves.
    kept = [one for one in runs if one.digest == WRONG or data.draw(st.booleans())]
    late = [replace(one, is_late=True) for one in kept if data.draw(st.sampled_from((False, False, True)))]
    verdict = resolve(
        [one for one in kept if all(one.provider != it.provider for it in late)] + late, policy, UNTIL
    )
    assert verdict.digest != WRONG
    assert not any(reason == "wrong_digest" for _, reason in verdict.punished)


@given(st.integers(1, 5), st.integers(0, 5), st.data())
def test_nobody_honest_is_found_wrong_while_less_than_two_thirds_of_the_referees_lie(
    called: int, lying: int, data: st.DataObject
) -> None:
    lying = min(lying, called)
    if 3 * lying >= 2 * called:
        return
    policy = replace(read_policy("audited", EXACT), referees_until_ms=900, referees_wanted=called)
    wrong_is_worker = data.draw(st.booleans())
    worker = run("worker", WRONG if wrong_is_worker else RIGHT)
    auditor = run("auditor", RIGHT if wrong_is_worker else WRONG, role=AUDITOR)
    referees = [run(f"r{place}", WRONG if place < lying else RIGHT, role=REFEREE) for place in range(called)]
    present = [one for one in referees if one.digest == WRONG or data.draw(st.booleans())]
    verdict = resolve([worker, auditor, *present], policy, UNTIL)
    honest = {one.provider for one in (worker, auditor, *present) if one.digest == RIGHT}
    assert honest.isdisjoint(provider for provider, _ in verdict.punished)
    if verdict.status == ACCEPTED:
        assert verdict.digest == RIGHT
    if len([one for one in present if one.digest == RIGHT]) * 3 >= 2 * called:
        assert ("worker" if wrong_is_worker else "auditor") in dict(verdict.punished)


@given(st.lists(executions(), max_size=12), POLICIES, TIMES)
def test_only_faults_that_prove_themselves_are_punished(
    runs: list[Execution], policy: Policy, at_ms: int
) -> None:
    verdict = resolve(runs, policy, at_ms)
    by_provider: dict[str, list[Execution]] = {}
    for one in runs:
        by_provider.setdefault(one.provider, []).append(one)
    for provider, reason in verdict.punished:
        own = by_provider[provider]
        assert reason in ("no_reveal", "wrong_digest", "equivocation")
        if reason == "wrong_digest":
            # After referees, for a result, of an exact program alone.
            assert policy.verification.is_exact
            assert any(one.role == REFEREE for one in runs)
            assert any(one.status == DONE for one in own)
        if reason == "no_reveal":
            assert at_ms >= UNTIL and all(one.commitment for one in own if one.committed_at_ms)


@given(st.lists(executions(), max_size=12), POLICIES, TIMES)
def test_nobody_is_convicted_by_fewer_coins_than_its_own(
    runs: list[Execution], policy: Policy, at_ms: int
) -> None:
    verdict = resolve(runs, policy, at_ms)
    # At most, all who came to another result speak against it, and all who could have been called.
    for provider in (name for name, reason in verdict.punished if reason == "wrong_digest"):
        own = [one for one in runs if one.provider == provider]
        against = {one.provider: max(0, one.bond_uain) for one in runs if one.provider != provider}
        for one in runs:
            if one.provider in against:
                against[one.provider] = max(against[one.provider], one.bond_uain)
        most = sum(against.values()) + max(0, policy.able_uain - policy.called_uain)
        assert most > min(one.bond_uain for one in own) or any(one.bond_uain == 0 for one in own)


@given(
    st.integers(0, 60),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(0, 40),
    st.booleans(),
)
def test_a_worker_falls_if_and_only_if_more_coins_speak_against_it(
    own: int, bonds: list[int], others: int, is_dispute: bool
) -> None:
    called = sum(bonds)
    policy = replace(
        read_policy("audited", EXACT),
        referees_until_ms=900,
        referees_wanted=len(bonds),
        called_uain=called,
        able_uain=called + others,
    )
    referees = [
        run(f"r{place}", role=REFEREE, bond_uain=bond, is_called=True) for place, bond in enumerate(bonds)
    ]
    auditor = [] if is_dispute else [run("auditor", role=AUDITOR, bond_uain=5)]
    verdict = resolve([run("worker", WRONG, bond_uain=own), *auditor, *referees], policy, UNTIL)
    against = called + others + (0 if is_dispute else 5)
    if own and own >= against:
        assert verdict.status == (ACCEPTED if is_dispute else UNRESOLVED) and verdict.punished == ()
        assert verdict.ground == "outweighed"
    else:
        assert verdict.status == REFUTED and dict(verdict.punished) == {"worker": "wrong_digest"}


def test_small_referees_beside_a_large_one_that_did_not_come_speak_for_few_coins() -> None:
    # The lot named a referee with 100 coins and four with one; six more with one could have been called.
    policy = replace(
        read_policy("audited", EXACT),
        referees_until_ms=900,
        referees_wanted=5,
        called_uain=104,
        able_uain=110,
    )
    small = [run(f"r{place}", role=REFEREE, bond_uain=1, is_called=True) for place in range(4)]
    next_one = run("next", role=REFEREE, bond_uain=1)
    for own, status in ((4, REFUTED), (5, ACCEPTED), (50, ACCEPTED)):
        worker = run("worker", WRONG, bond_uain=own)
        assert resolve([worker, *small, next_one], policy, UNTIL).status == status


def test_records_of_before_bonds_were_weighed_give_the_verdict_that_they_gave() -> None:
    policy = replace(read_policy("audited", EXACT), referees_until_ms=900, referees_wanted=3)
    referees = [run(f"r{place}", role=REFEREE) for place in range(3)]
    verdict = resolve([run("worker", WRONG), run("auditor", role=AUDITOR), *referees], policy, UNTIL)
    assert verdict.status == REFUTED and dict(verdict.punished) == {"worker": "wrong_digest"}
    state = {"status": "DISPUTED", "payer": "p", "dispute": {"disputer": "", "referees": 3, "until_ms": 900}}
    asked = {"requester": "p", "publisher": "q", "policy": "audited", "budget_uain": 1}
    times = {"requested_at_ms": 0, "deadline_ms": 1}
    job = job_of("j", {"request": {**asked, **times}, "state": state})
    assert job.policy.able_uain == 0 and job.dispute is not None and not job.dispute.is_lot


def test_a_run_that_failed_proves_nothing_about_a_result() -> None:
    policy = read_policy("audited", EXACT)
    failed = replace(run("auditor", role=AUDITOR), status=FAILED, digest=b"")
    verdict = resolve([run("worker"), failed], policy, UNTIL)
    assert verdict.status == ACCEPTED and not verdict.is_verified and verdict.punished == ()
    worker = replace(run("worker"), status=FAILED, digest=b"")
    assert resolve([worker, run("auditor", role=AUDITOR)], policy, UNTIL).status == FAILED


def test_runs_of_different_runtime_classes_are_never_held_against_each_other() -> None:
    policy = read_policy("audited", Verification("class_exact"))
    worker, auditor = run("worker", runtime_class="a"), run("auditor", WRONG, role=AUDITOR, runtime_class="b")
    verdict = resolve([worker, auditor], policy, UNTIL)
    assert verdict.status == ACCEPTED and not verdict.is_verified and verdict.punished == ()
    same = replace(auditor, runtime_class="a")
    assert resolve([worker, same], policy, UNTIL).status == DISPUTED


def test_a_provider_that_says_two_things_has_said_nothing() -> None:
    policy = read_policy("quorum:2/3", EXACT)
    runs = [run("a"), run("b", WRONG), run("c", WRONG), run("c", RIGHT)]
    verdict = resolve(runs, policy, UNTIL)
    assert verdict.status == UNRESOLVED and dict(verdict.punished) == {"c": "equivocation"}


def test_where_agreement_is_not_transitive_the_largest_circle_around_one_result_counts() -> None:
    policy = read_policy("quorum:3/5", NEAR)
    runs = [run(f"p{output}", bytes([output]) * 32) for output in (10, 11, 12, 20, 30)]
    verdict = resolve(runs, policy, UNTIL)
    assert verdict.status == ACCEPTED and verdict.winners == ("p10", "p11", "p12")
    assert verdict.digest == bytes([11]) * 32 and verdict.partition[0] == ("p10", "p11", "p12")


def test_policy_one_trusts_the_first_and_shows_the_rest() -> None:
    first, second = run("b", WRONG, revealed_at_ms=5), run("a", revealed_at_ms=6)
    verdict = resolve([second, first], Policy(), UNTIL)
    assert verdict.digest == WRONG and verdict.winners == ("b",)
    assert dict(verdict.reasons) == {"a": "differs", "b": "agrees"} and verdict.punished == ()
