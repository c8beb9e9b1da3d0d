"""A job in words: every run has its sentence, every coin its way, and nothing is told that the chain does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from openresource.client.chain import Chain, NodeRefused
from openresource.client.job_stories import (
    MOVE_WORDS,
    JobStory,
    folded_story,
    holder_words,
    read_story,
    story_of,
)
from openresource.client.job_views import JobUnknown
from openresource.market.jobs.states import folded_text, read_moves
from openresource.market.jobs.terms import JOB, PAYER
from openresource.primitives.amounts import UAIN_PER_AIN
from tests.support import job_records
from tests.support.job_records import Walk, address

SETTLED = (
    job_records.accepted_from_one,
    job_records.quorum_with_a_liar,
    job_records.audited_and_right,
    job_records.audited_liar,
    job_records.nobody_came,
    job_records.failed_program,
)


def told(walk: Walk) -> JobStory:
    return story_of(walk.job, walk.record)


@pytest.mark.parametrize("made", SETTLED)
def test_every_coin_that_is_set_aside_is_followed_to_its_end(made: Callable[[], Walk]) -> None:
    walk = made()
    story = told(walk)
    assert story.moves[0].why == "budget" and story.moves[0].amount_uain == story.budget_uain
    assert [move.amount_uain for move in story.moves[1:]] == [
        move.amount_uain for move in read_moves(walk.moves)
    ]
    assert all(move.why in MOVE_WORDS for move in story.moves)
    assert PAYER not in {move.target for move in story.moves}
    into_the_job = sum(move.amount_uain for move in story.moves if move.target == JOB)
    assert into_the_job == sum(move.amount_uain for move in story.moves if move.source == JOB)


@pytest.mark.parametrize("made", SETTLED)
def test_a_story_says_the_same_as_json(made: Callable[[], Walk]) -> None:
    story = told(made())
    record = story.to_json()
    assert story.is_final and record["is_final"] and record["headline"] == story.headline
    assert [run["provider"] for run in record["executions"]] == [run.provider for run in story.runs]
    assert story.moments[0].text == "asked for" and story.moments[-1].text.startswith("settled")
    assert [moment.at_ms for moment in story.moments] == sorted(moment.at_ms for moment in story.moments)


def test_a_liar_that_was_audited_is_shown_with_what_it_lost() -> None:
    story = told(job_records.audited_liar())
    assert story.status == "REFUTED" and not story.is_good
    assert story.headline == "Refuted: the referees' runs show that the worker's result is wrong."
    roles = {run.provider: (run.role, run.mark) for run in story.runs}
    assert roles[address("liar")] == ("worker", "punished")
    assert roles[address("ann")] == ("auditor", "agrees")
    assert roles[address("bob")] == ("referee", "agrees")
    (liar,) = [run for run in story.runs if run.fault]
    assert liar.slashed_uain == story.slashed_uain == UAIN_PER_AIN
    assert liar.sentence == "the referees' runs show that its result is wrong"
    assert story.returned_uain == story.budget_uain and story.paid_uain == 0
    assert story.way == (
        "REQUESTED", "LEASED", "COMMITTED", "DRAWN", "REVEALING", "DISPUTED", "JUDGING", "REFUTED",
    )  # fmt: skip


def test_who_differs_in_a_quorum_is_named_and_loses_nothing() -> None:
    story = told(job_records.quorum_with_a_liar())
    assert story.headline == "Accepted: 2 of 3 results agree." and story.is_good
    marks = {run.provider: (run.mark, run.slashed_uain) for run in story.runs}
    assert marks[address("liar")] == ("differs", 0)
    assert marks[address("ann")] == marks[address("bob")] == ("agrees", 0)
    assert story.way == ("REQUESTED", "LEASED", "REVEALING", "ACCEPTED")


def test_who_was_checked_by_nobody_is_told_so() -> None:
    assert told(job_records.accepted_from_one()).headline.endswith("nobody checked it.")
    assert "1 other provider came to the same result" in told(job_records.audited_and_right()).headline
    assert told(job_records.nobody_came()).headline == "Expired: nobody finished it before its deadline."
    assert told(job_records.failed_program()).headline == "Failed: the program failed there."


def test_a_job_on_its_way_says_what_it_waits_for() -> None:
    walk = Walk("audited:1")
    assert told(walk).headline == "It waits for a provider that takes it."
    walk.lease("ann")
    story = told(walk)
    assert (story.runs[0].mark, story.runs[0].sentence) == ("leased", "it is at work")
    assert story.way == ("REQUESTED", "LEASED")
    walk.commit("ann")
    story = told(walk)
    assert story.status == "COMMITTED" and story.runs[0].mark == "committed" and not story.is_final
    walk.secret()
    assert told(walk).way == ("REQUESTED", "LEASED", "COMMITTED", "DRAWN")


def test_a_job_that_is_kept_in_short_still_says_how_it_ended() -> None:
    walk = job_records.audited_and_right()
    kept = folded_text(walk.current, walk.record["verdict"], 77)
    story = folded_story(walk.job, kept)
    assert (story.status, story.paid_uain, story.folded_height) == ("ACCEPTED", walk.current.paid_uain, 77)
    assert story.to_json()["verdict"] is None


def test_a_folded_job_is_read_where_all_of_it_still_stood() -> None:
    walk = job_records.audited_liar()
    kept = {"folded": folded_text(walk.current, walk.record["verdict"], 77)}

    class Heights:
        """A chain that folded the job after block 77, and may have forgotten what was before."""

        def __init__(self, records: dict[Any, Any]) -> None:
            self.records = records

        async def read(self, path: str, at: Any) -> Any:
            assert path == f"/jobs/{walk.job}"
            if at not in self.records:
                raise NodeRefused(reason="this height is not kept")
            return self.records[at]

    whole = asyncio.run(read_story(cast(Chain, Heights({"pending": kept, 77: walk.record})), walk.job))
    assert whole.folded_height == 77 and whole.runs == told(walk).runs and whole.moves == told(walk).moves
    short = asyncio.run(read_story(cast(Chain, Heights({"pending": kept})), walk.job))
    assert short.folded_height == 77 and short.status == "REFUTED" and not short.runs
    with pytest.raises(JobUnknown):
        asyncio.run(read_story(cast(Chain, Heights({"pending": None})), walk.job))


def test_accounts_have_names() -> None:
    assert holder_words(JOB) == ("the job's budget", "")
    assert holder_words("bond:" + address("ann")) == ("the bond of", address("ann"))
    assert holder_words(address("ann")) == ("", address("ann"))
