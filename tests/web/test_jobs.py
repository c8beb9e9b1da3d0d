"""Pages about jobs: each kind of verdict as it looks, hostile texts as text, and a network without any job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openresource.client.job_stories import JobStory, folded_story, story_of
from openresource.client.job_views import Output
from openresource.market.bonds import Bond
from openresource.market.jobs.states import folded_text
from openresource.market.records import ProviderRecord
from openresource.web.jobs import JobBook
from openresource.web.providers import Fault, Standing
from openresource.web.site import Site
from tests.support import job_records
from tests.support.job_records import Walk, address
from tests.support.network import NodeProcess, local_node_process
from tests.web.support import TOKEN, Page, visit

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
MADE: tuple[Callable[[], Walk], ...] = (
    job_records.accepted_from_one,
    job_records.quorum_with_a_liar,
    job_records.audited_and_right,
    job_records.audited_liar,
    job_records.nobody_came,
    job_records.failed_program,
    lambda: Walk("audited"),
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with local_node_process(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, "http://127.0.0.1:9", token=TOKEN)


def rendered(site: Site, template: str, **context: Any) -> Page:
    page = Page()
    page.feed(site.render(template, is_owner=True, here="/jobs/x", **context))
    page.close()
    page.check()
    return page


def job_page(site: Site, story: JobStory, **context: Any) -> Page:
    return rendered(site, "job.html", **({"story": story, "output": None, "output_trouble": ""} | context))


@pytest.mark.parametrize("made", MADE)
def test_every_kind_of_job_has_a_whole_page(site: Site, made: Callable[[], Walk]) -> None:
    walk = made()
    story = story_of(walk.job, walk.record)
    page = job_page(site, story)
    assert story.headline in page.text
    for run in story.runs:
        assert run.sentence[1:] in page.text and run.provider in str(page.elements)
    assert ("openresource job explain " + walk.job in page.text) == story.is_final
    # All of these walk through an exact program.
    assert ("openresource job dispute " + walk.job in page.text) == (story.status == "ACCEPTED")
    row = rendered(site, "jobs.html", stories=[story])
    assert story.headline in row.text and row.all("a", href=f"/jobs/{walk.job}")


def test_a_liar_is_shown_with_its_loss_and_who_judged_it(site: Site) -> None:
    walk = job_records.audited_liar()
    page = job_page(site, story_of(walk.job, walk.record))
    assert "Refuted: the referees' runs show that the worker's result is wrong." in page.text
    assert "It lost 1 AIN of its bond." in page.text and "Slashed: 1 AIN of a bond." in page.text
    assert "what a proven fault costs" in page.text and "Who came to the same result:" in page.text
    states = [found["class"] for found in page.all("span") if found.get("class", "").startswith("state ")]
    assert "state punished" in states and "state refuted" in states and "state agrees" in states


def test_a_result_that_nobody_checked_says_so(site: Site) -> None:
    walk = Walk("audited:1")
    walk.run("ann")
    story = story_of(walk.job, walk.record)
    early = job_page(site, story, output=Output({"text": "soon"}, address("ann"), "0x00", False))
    assert "Provisional result" in early.text and "nobody has checked it yet" in early.text
    assert "sealed" in early.text
    sealed = job_page(site, story, output_trouble="The output cannot be read.")
    assert "The output cannot be read." in sealed.text


def test_texts_of_strangers_stay_texts(site: Site) -> None:
    walk = Walk()
    walk.lease("ann")
    walk.finish("ann", "FAILED", HOSTILE)
    record = walk.record
    record["request"]["name"] = record["request"]["method"] = HOSTILE
    story = story_of(walk.job, record)
    page = job_page(site, story, output=Output(HOSTILE, address("ann"), "0x00", True))
    assert "<script>alert(1)</script>" in page.text
    assert not page.all("img") and all(found.get("src") for found in page.all("script"))
    assert not rendered(site, "jobs.html", stories=[story]).all("img")


def test_a_job_that_is_kept_in_short_has_a_page_too(site: Site) -> None:
    walk = job_records.audited_and_right()
    kept = folded_text(walk.current, walk.record["verdict"], 77)
    page = job_page(site, folded_story(walk.job, kept))
    assert "kept in short" in page.text and page.all("a", href="/blocks/77")


def test_providers_are_shown_with_record_bond_and_faults(site: Site) -> None:
    walk = job_records.audited_liar()
    story = story_of(walk.job, walk.record)
    fault = Fault(story, story.slashed_uain, "the referees' runs show that its result is wrong")
    liar = Standing(address("liar"), (), ProviderRecord(faults=1), Bond(address("liar"), 1_000_000), (fault,))
    good = Standing(address("ann"), (), ProviderRecord(valid=3, streak=2), Bond(address("ann"), 2_000_000))
    page = rendered(site, "providers.html", standings=[good, liar])
    assert "Results verified 3" in page.text and "In a row 2" in page.text and "Proven faults 1" in page.text
    assert "1 AIN slashed" in page.text and page.all("a", href=f"/jobs/{walk.job}")
    assert "Nobody runs a service here yet." in rendered(site, "providers.html", standings=[]).text


def test_a_network_without_jobs_says_how_to_ask_for_one(node: NodeProcess, tmp_path: Path) -> None:
    async def run() -> None:
        async with visit(tmp_path, node.url) as here:
            jobs = Page.of(await here.get("/jobs"))
            jobs.check()
            assert "Nobody has asked for a job yet." in jobs.text and "openresource job run" in jobs.text
            providers = Page.of(await here.get("/providers"))
            providers.check()
            assert "Nobody runs a service here yet." in providers.text
            for missing in ("ab" * 16, "nothing", "%3Cscript%3E"):
                answer = await here.get(f"/jobs/{missing}")
                assert answer.status_code == 404 and "no job" in answer.text
                Page.of(answer).check()

    asyncio.run(run())


def test_the_book_reads_a_job_again_only_when_something_happened(node: NodeProcess, tmp_path: Path) -> None:
    async def run() -> None:
        site = Site(tmp_path, node.url, token=TOKEN)
        try:
            assert await JobBook(site).newest() == []
            assert await JobBook(site).slashes() == {}
        finally:
            await site.close()

    asyncio.run(run())
