"""The machine with everything that can go wrong: every coin is booked, every wait ends, nobody honest is slashed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from openresource.market.jobs import lifecycle, machine, refusals
from openresource.market.jobs.draws import Candidate
from openresource.market.jobs.lifecycle import FINAL, LIFE_CYCLE, REASONS, REQUESTED, WAITS
from openresource.market.jobs.terms import JOB, PARAMETER_OF, POT, Offer, Settings, bond_name
from openresource.market.jobs.turns import checker_turn_ms, checkers
from openresource.market.jobs.verdicts import resolve
from openresource.market.natives.parameters import PARAMETERS
from openresource.primitives.errors import Refusal
from tests.market.job_play import BOND_UAIN, RIGHT, WRONG, Play

HONEST = tuple(f"honest{number}" for number in range(5))
LIARS = ("liar0", "liar1")
ALL = st.sampled_from((*HONEST, *LIARS))


class Jobs(RuleBasedStateMachine):
    """Anybody does anything at any time, twice or never; liars lie alike, honest providers reveal what they committed to."""

    @initialize(
        policy=st.sampled_from(("one", "quorum:2/3", "quorum:3/5", "audited", "audited:0", "audited:1")),
        exactness=st.sampled_from(("bit_exact", "class_exact")),
    )
    def begin(self, policy: str, exactness: str) -> None:
        self.play = Play(policy, (*HONEST, *LIARS), exactness=exactness)
        self.first_verdict: object = None

    def do(self, step: Callable[[], None]) -> None:
        before = self.play.job
        try:
            step()
        except Refusal as refusal:
            assert refusal.message and refusal.remedy
            assert self.play.job is before

    @rule(provider=ALL)
    def lease(self, provider: str) -> None:
        self.do(lambda: self.play.lease(provider))

    @rule(provider=ALL)
    def commit(self, provider: str) -> None:
        self.do(lambda: self.play.commit(provider, WRONG if provider in LIARS else RIGHT))

    @rule(provider=ALL)
    def reveal(self, provider: str) -> None:
        self.do(lambda: self.play.reveal(provider, WRONG if provider in LIARS else RIGHT))

    @rule(liar=st.sampled_from(LIARS), digest=st.sampled_from((RIGHT, WRONG)))
    def reveal_what_was_not_committed(self, liar: str, digest: bytes) -> None:
        self.do(lambda: self.play.reveal(liar, digest))

    @rule(provider=ALL, status=st.sampled_from(("DONE", "FAILED")))
    def finish(self, provider: str, status: str) -> None:
        self.do(lambda: self.play.finish(provider, status))

    @rule()
    def secret(self) -> None:
        self.do(self.play.tell_secret)

    @rule()
    def dispute(self) -> None:
        self.do(self.play.dispute)

    @rule(liar=st.sampled_from(LIARS))
    def report(self, liar: str) -> None:
        self.do(lambda: self.play.report(liar))

    @rule(milliseconds=st.sampled_from((1, 1_000, 20_000)))
    def wait(self, milliseconds: int) -> None:
        # Honest providers are back before their time to reveal is over.
        self.reveal_all()
        self.play.wait(milliseconds)

    @rule()
    def wait_long(self) -> None:
        for _ in range(8):
            self.reveal_all()
            self.play.wait(90_000)

    def reveal_all(self) -> None:
        for run in self.play.job.executions:
            if run.provider in HONEST and run.commitment and not run.revealed_at_ms:
                self.do(lambda provider=run.provider: self.play.reveal(provider))  # type: ignore[misc]

    @invariant()
    def nobody_honest_is_slashed(self) -> None:
        if not hasattr(self, "play"):
            return
        assert not [slash for slash in self.play.slashes if slash.provider in HONEST]
        assert all(self.play.balances[bond_name(provider)] == BOND_UAIN for provider in HONEST)

    @invariant()
    def what_is_settled_holds_nothing_and_stays(self) -> None:
        if not hasattr(self, "play"):
            return
        job = self.play.job
        if job.status in FINAL:
            assert self.play.balances[JOB] == 0 and not any(run.is_locked for run in job.executions)
        if job.verdict is None or (job.dispute is not None and job.dispute.disputer):
            return
        if self.first_verdict is None:
            self.first_verdict = job.verdict
        assert job.verdict == self.first_verdict
        at_ms = max(job.settled_at_ms, 0 if job.dispute is None else job.dispute.judged_at_ms)
        if job.status != "EXPIRED":
            assert resolve(reversed(job.executions), job.policy, at_ms) == job.verdict

    def teardown(self) -> None:
        """Whatever was left undone: time ends it, and every coin is somewhere."""
        if not hasattr(self, "play"):
            return
        for _ in range(30):
            self.reveal_all()
            self.play.wait(60_000)
        self.play.to_the_end()
        assert self.play.balances[JOB] == 0


Jobs.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestJobs = Jobs.TestCase


# -- the table ---------------------------------------------------------------------------------------------------------


def lease_ends(play: Play) -> None:
    play.lease("honest0")
    play.wait(60_000)
    play.lease("honest0")
    play.finish("honest0")


def fails(play: Play) -> None:
    play.lease("honest0")
    play.finish("honest0", "FAILED")


def deadline(play: Play) -> None:
    play.to_the_end()


def deadline_of_a_lease(play: Play) -> None:
    play.wait(590_000)
    play.lease("honest0")
    play.to_the_end()


def quorum(play: Play) -> None:
    play.lease("honest0")
    play.lease("honest1")
    play.commit("honest1")
    play.wait(60_000)
    play.work("honest2")
    play.wait(5_000)
    play.reveal("honest1")
    play.reveal("honest2")


def quorum_of_failures(play: Play) -> None:
    for provider in HONEST[:3]:
        play.lease(provider)
        play.commit(provider, b"", "FAILED")
    for provider in HONEST[:3]:
        play.reveal(provider, b"", "FAILED")


def quorum_of_nothing(play: Play) -> None:
    for provider in HONEST[:3]:
        play.work(provider, provider[-1].encode() * 32)
    for provider in HONEST[:3]:
        play.reveal(provider, provider[-1].encode() * 32)


def not_drawn_then_disputed(play: Play) -> None:
    play.work("honest0")
    play.tell_secret()
    play.reveal("honest0")
    play.dispute()
    with pytest.raises(refusals.NotYourTurn):
        play.lease("honest3")
    play.wait(1)
    play.lease("honest3")
    play.wait(60_000)
    play.to_the_end()


def kept_secret(play: Play) -> None:
    play.work("honest0")
    play.wait(30_000)
    play.lease("honest1")
    play.wait(60_000)
    play.to_the_end()


def caught(play: Play) -> None:
    play.work("liar0", WRONG)
    play.tell_secret()
    play.work("honest1")
    play.reveal("honest1")
    play.reveal("liar0", WRONG)
    play.wait(1)
    # Four of the five who were called.
    for provider in (*HONEST[2:], "honest0"):
        play.work(provider)
    play.wait(240_000)
    for provider in (*HONEST[2:], "honest0"):
        play.reveal(provider)


def split(play: Play) -> None:
    play.work("liar0", WRONG)
    play.tell_secret()
    play.work("honest1")
    play.reveal("honest1")
    play.reveal("liar0", WRONG)
    play.wait(1)
    play.work("honest2")
    play.work("liar1", WRONG)
    play.to_the_end()


def called_all(play: Play) -> None:
    play.work("liar0", WRONG)
    play.tell_secret()
    play.work("honest1")
    play.reveal("honest1")
    play.reveal("liar0", WRONG)
    play.wait(1)
    for provider in (*HONEST[2:], "liar1", "honest0"):
        play.work(provider)
    for provider in (*HONEST[2:], "liar1", "honest0"):
        play.reveal(provider)


SCRIPTS: dict[str, list[tuple[Callable[[Play], None], str]]] = {
    "one": [
        (lease_ends, "ACCEPTED"),
        (fails, "FAILED"),
        (deadline, "EXPIRED"),
        (deadline_of_a_lease, "EXPIRED"),
    ],
    "quorum:2/3": [(quorum, "ACCEPTED"), (quorum_of_failures, "FAILED"), (quorum_of_nothing, "UNRESOLVED")],
    "audited:0": [(not_drawn_then_disputed, "ACCEPTED"), (kept_secret, "UNRESOLVED")],
    "audited:1": [
        (caught, "REFUTED"),
        (called_all, "REFUTED"),
        (split, "UNRESOLVED"),
        (kept_secret, "UNRESOLVED"),
    ],
}


def test_the_life_cycle_is_walked_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: set[tuple[str, str]] = set()
    one_step = lifecycle.step

    def noted(job: str, status: str, name: str) -> str:
        target = one_step(job, status, name)
        walked.add((status, name))
        return target

    monkeypatch.setattr(machine, "step", noted)
    for policy, scripts in SCRIPTS.items():
        for script, status in scripts:
            play = Play(policy, (*HONEST, *LIARS))
            script(play)
            assert play.job.status == status, script.__name__
            # Scripts leave commitments unopened, which costs; being wrong never costs who is right.
            wrong = {slash.provider for slash in play.slashes if slash.reason != "no_reveal"}
            assert not wrong & set(HONEST)
    assert walked == {(status, name) for status, names in LIFE_CYCLE.items() for name in names}


def test_every_status_is_reached_and_every_wait_ends() -> None:
    reached, new = {REQUESTED, "REFUSED"}, [REQUESTED]
    while new:
        for target in LIFE_CYCLE[new.pop()].values():
            if target not in reached:
                reached.add(target)
                new.append(target)
    assert reached == set(LIFE_CYCLE) == set(WAITS)
    for waits in WAITS.values():
        for _, parameter, reason in waits:
            assert parameter in PARAMETERS and reason in REASONS
    assert all(WAITS[status] == (("fold", "job_keep_ms", "kept_long_enough"),) for status in FINAL)
    assert set(PARAMETER_OF.values()) <= set(PARAMETERS)


# -- single cases ------------------------------------------------------------------------------------------------------


def test_a_wrong_secret_and_a_wrong_reveal_are_refused() -> None:
    play = Play("audited:0", HONEST)
    play.work("honest0")
    with pytest.raises(refusals.SecretWrong):
        play.tell_secret(b"x" * 32)
    play.tell_secret()
    with pytest.raises(refusals.CommitmentNotOpened):
        play.reveal("honest0", WRONG)


def test_one_operator_has_one_run_and_a_requester_checks_nothing_of_its_own() -> None:
    play = Play("audited:1", HONEST)
    play.lease("honest0", operator="one")
    play.commit("honest0")
    play.tell_secret()
    for offer in ({"operator": "one"}, {"operator": "honest0"}, {"operator": "requester"}):
        with pytest.raises(refusals.SameOperator):
            play.lease("honest1", **offer)
    play.lease("honest1", operator="two")


def test_a_turn_is_waited_for() -> None:
    play = Play("audited:1", HONEST)
    with pytest.raises(refusals.NotYourTurn):
        play.lease("honest0", turn_at_ms=play.at + 1)
    play.lease("honest0", turn_at_ms=play.at)


def test_a_budget_covers_an_audit_that_its_buyer_may_have_to_pay() -> None:
    for budget, is_enough in ((1_199, False), (1_200, True)):
        play = Play("audited", HONEST)
        job, offer = replace(play.job, purse_uain=budget), Offer("honest0", 500, 200)
        if is_enough:
            machine.lease(job, offer, play.settings, play.at)
        else:
            with pytest.raises(refusals.BudgetTooSmall):
                machine.lease(job, offer, play.settings, play.at)


def test_a_draw_without_a_secret_is_made_by_the_next_beacon() -> None:
    play = Play("audited:1", HONEST, secret_hash=b"")
    play.work("honest0")
    play.wait(1)
    assert play.job.status == "DRAWN" and not play.job.kept_secret


def test_an_audit_that_the_pot_cannot_pay_is_paid_by_the_worker_and_one_that_it_can_by_the_pot() -> None:
    poor, rich = Play("audited:1", HONEST), Play("audited:1", HONEST)
    rich.balances["pot"] = 10_000
    rich.total += 10_000
    for play in (poor, rich):
        play.lease("honest0", streak=200)
        play.commit("honest0")
        play.tell_secret()
        play.work("honest1")
        play.reveal("honest1")
        play.reveal("honest0")
    # Its record asks for half a percent: that is what the worker gives, and the buyer the rest of what it wants.
    assert poor.balances["honest0"] == 486 - 2 - 1 and rich.balances["honest0"] == 486 - 2
    assert poor.balances["honest1"] == rich.balances["honest1"] == 500
    assert poor.balances["payer"] == rich.balances["payer"] == 100_000 - 700 - 497


def test_worker_auditor_and_referees_of_one_person_take_nothing_out_of_the_pot() -> None:
    for liar, bond in (("honest0", 0), ("honest0", 100), ("honest1", 100)):
        play = Play("audited:1", HONEST[:4], settings=Settings(job_bond_uain=100))
        for provider in HONEST[:4]:
            held = bond if provider == liar else BOND_UAIN
            play.total += held - play.balances[bond_name(provider)] + (10_000 if provider == liar else 0)
            play.balances[bond_name(provider)] = held
        play.balances[POT] = 10_000
        play.work("honest0", WRONG if liar == "honest0" else RIGHT)
        play.tell_secret()
        play.work("honest1", WRONG if liar == "honest1" else RIGHT)
        for provider in HONEST[:2]:
            play.reveal(provider, WRONG if provider == liar else RIGHT)
        assert play.job.status == "DISPUTED"
        play.wait(1)
        for provider in HONEST[2:4]:
            play.work(provider)
        for provider in HONEST[2:4]:
            play.reveal(provider)
        assert play.job.status == ("REFUTED" if liar == "honest0" else "ACCEPTED")
        assert play.balances[bond_name(liar)] == 0
        assert play.balances[POT] >= 10_000


def test_a_liar_that_is_drawn_cannot_say_that_its_run_had_failed() -> None:
    play = Play("audited:1", HONEST)
    play.work("honest0", WRONG)
    play.tell_secret()
    play.work("honest1")
    play.reveal("honest1")
    with pytest.raises(refusals.CommitmentNotOpened):
        play.reveal("honest0", WRONG, "FAILED")
    play.reveal("honest0", WRONG)
    assert play.job.status == "DISPUTED"


def test_who_came_late_shows_no_result_while_others_run() -> None:
    play = Play("quorum:2/3", HONEST)
    play.lease("honest0")
    play.wait(60_000)
    play.lease("honest1")
    play.commit("honest0")
    with pytest.raises(lifecycle.JobStepNotAllowed):
        play.reveal("honest0")
    play.commit("honest1")
    play.work("honest2")
    play.work("honest3")
    assert play.job.status == "REVEALING"
    play.reveal("honest0")
    assert play.job.of("honest0").is_late


@pytest.mark.parametrize(
    ("others_uain", "rate_ppm"),
    [
        (None, 5_000),
        # Nobody could look, whatever the rate.
        (0, 5_000),
        (BOND_UAIN * 3 // 2, 1_000_000),
        (BOND_UAIN * 3 // 2 + 1, 5_000),
    ],
)
def test_who_is_too_large_to_be_outweighed_has_every_result_audited(
    others_uain: int | None, rate_ppm: int
) -> None:
    play = Play("audited", HONEST)
    play.lease("honest0", streak=1_000_000, others_uain=others_uain)
    assert play.job.rate_ppm == rate_ppm


@pytest.mark.parametrize(("bond_uain", "status"), [(9_000_000, "UNRESOLVED"), (8_999_999, "REFUTED")])
def test_a_worker_is_convicted_by_more_coins_than_its_own_and_else_is_paid_nothing(
    bond_uain: int, status: str
) -> None:
    # An auditor and two referees with three AIN each; nobody else.
    play = Play("audited", ("big", *HONEST[:3]), bonds={"big": bond_uain})
    play.work("big", WRONG)
    play.tell_secret()
    play.work("honest0")
    play.reveal("honest0")
    play.reveal("big", WRONG)
    play.wait(1)
    for referee in HONEST[1:3]:
        play.work(referee)
    for referee in HONEST[1:3]:
        play.reveal(referee)
    assert play.job.status == status and "big" not in play.balances
    assert play.balances["payer"] == 100_000
    assert [slash.provider for slash in play.slashes] == (["big"] if status == "REFUTED" else [])
    assert play.job.verdict is not None
    assert play.job.verdict.ground == ("wrong_digest" if status == "REFUTED" else "outweighed")


def test_an_auditor_too_large_to_be_convicted_does_not_keep_an_honest_worker_from_its_pay() -> None:
    play = Play("audited", ("big", *HONEST[:4]), bonds={"big": 50_000_000})
    play.work("honest0")
    play.tell_secret()
    play.work("big", WRONG)
    play.reveal("honest0")
    play.reveal("big", WRONG)
    play.wait(1)
    for referee in HONEST[1:4]:
        play.work(referee)
    for referee in HONEST[1:4]:
        play.reveal(referee)
    assert play.job.status == "ACCEPTED" and play.job.verdict is not None and play.job.verdict.punished == ()
    assert play.slashes == [] and play.job.paid_uain == 700


def test_those_who_came_do_not_draw_the_next_ones_forward() -> None:
    """Else the five quickest of many would judge, not the five whom the lot named."""
    who = [Candidate(f"r{number}", 3) for number in range(12)]
    play = Play("audited", ("worker", "auditor", *(one.provider for one in who)))
    play.work("worker", WRONG)
    play.tell_secret()
    play.work("auditor")
    play.reveal("auditor")
    play.reveal("worker", WRONG)
    play.wait(1)
    order = checkers(play.job, who)
    begins = play.job.turns_from_ms
    for place in range(5):
        left = checkers(play.job, who)
        turns = [checker_turn_ms(play.job, left, provider, play.settings) for provider in order[place:]]
        assert turns == [begins + max(0, late - 4) * play.settings.call_ms for late in range(place, 12)]
        play.lease(order[place], turn_at_ms=begins)
    assert all(run.is_called for run in play.job.of_role("referee"))


def accepted_lie(policy: str = "audited:0") -> Play:
    """A lie of liar0 that no lot fell on."""
    play = Play(policy, (*HONEST, *LIARS))
    play.work("liar0", WRONG)
    play.tell_secret()
    play.reveal("liar0", WRONG)
    assert play.job.status == "ACCEPTED"
    return play


def test_a_doubt_that_proved_nothing_does_not_stand_in_the_way_of_another_one() -> None:
    """Else a friend of the liar would doubt it when nobody can look, and make it safe."""
    play = accepted_lie()
    play.wait(play.settings.dispute_ms - 1)
    play.dispute()
    with pytest.raises(Refusal):
        play.dispute()
    play.wait(play.settings.referee_ms + 1)
    assert play.job.status == "ACCEPTED" and play.balances["disputer"] == 1_000_000
    play.wait(play.settings.dispute_ms - 1_000)
    assert machine.dispute_bond_uain(play.job, play.settings, play.at) == 2 * play.settings.dispute_bond_uain
    play.dispute()
    play.wait(1)
    for referee in HONEST:
        play.lease(referee, turn_at_ms=play.job.turns_from_ms)
    for referee in HONEST:
        play.commit(referee)
    for referee in HONEST:
        play.reveal(referee)
    assert play.job.status == "REFUTED" and [slash.provider for slash in play.slashes] == ["liar0"]
    assert play.balances["payer"] == 100_000 and play.balances["disputer"] > 1_000_000


def test_referees_of_an_earlier_doubt_speak_on_in_the_next_one() -> None:
    play = accepted_lie()
    play.dispute()
    play.wait(1)
    for referee, digest in (("liar1", WRONG), ("honest0", RIGHT)):
        play.lease(referee, turn_at_ms=play.job.turns_from_ms)
        play.commit(referee, digest)
    play.wait(play.settings.referee_ms)
    play.reveal("liar1", WRONG)
    play.reveal("honest0")
    # Five were called and two came, who disagree.
    assert play.job.status == "ACCEPTED" and play.slashes == []
    play.dispute()
    assert play.job.checkers_wanted == 2 + 4
    play.wait(1)
    for referee in HONEST[1:4]:
        play.lease(referee, turn_at_ms=play.job.turns_from_ms)
        play.commit(referee)
    play.wait(play.settings.referee_ms)
    for referee in HONEST[1:4]:
        play.reveal(referee)
    # Four of all six agree.
    assert play.job.status == "REFUTED"
    assert sorted(slash.provider for slash in play.slashes) == ["liar0", "liar1"]


def test_what_referees_have_confirmed_is_not_doubted_again() -> None:
    play = Play("audited:0", (*HONEST, *LIARS))
    play.work("honest0")
    play.tell_secret()
    play.reveal("honest0")
    play.dispute()
    play.wait(1)
    for referee in HONEST[1:]:
        play.lease(referee, turn_at_ms=play.job.turns_from_ms)
        play.commit(referee)
    play.wait(play.settings.referee_ms)
    for referee in HONEST[1:]:
        play.reveal(referee)
    assert play.job.status == "ACCEPTED" and play.balances["disputer"] == 900_000
    with pytest.raises(refusals.DisputeNotPossible):
        play.dispute()
