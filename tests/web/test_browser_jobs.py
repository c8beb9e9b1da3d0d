"""The demo in a real Chromium: a provider that lies, its judges and its loss, as they are seen on a desk and on a phone."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from openresource.client.facade import AsyncClient
from openresource.primitives.keys import generate_key
from tests.cli.support import environment, free_up_port, run_cli
from tests.web.browsing import DESK, PHONE, assert_no_overflow, opened, picture

pytestmark = [pytest.mark.browser, pytest.mark.journey, pytest.mark.timeout(300)]

STOP_SECONDS_MAX = 90.0
NOBODY = generate_key(b"nobody".ljust(32, b".")).address


@dataclass(frozen=True)
class Demo:
    """A whole network that has shown its journey and stays."""

    link: str
    buyer: Path
    node_url: str
    job: str

    @property
    def pages(self) -> str:
        return self.link.partition("/?")[0]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder, port = tmp_path_factory.mktemp("demo"), free_up_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "openresource", "up", "--port", str(port), "--home", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C ends everything" in line:
                break
        link = re.search(r"(http://127\.0\.0\.1:\d+/\?token=\S+)", said)
        job = re.search(r"a liar is caught: job ([0-9a-f]{32})", said)
        assert link is not None and job is not None, said
        yield Demo(link[1], folder / "buyer", f"http://127.0.0.1:{port}", job[1])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_liar_its_judges_and_its_loss_are_shown(
    browser: Browser, demo: Demo, width: int, scheme: str
) -> None:
    with opened(browser, demo.link, width, scheme) as page:
        row = page.locator(f"#job-{demo.job}")
        expect(row).to_contain_text("1 AIN slashed.")
        assert_no_overflow(page)
        picture(page, "front-with-jobs", width, scheme)
        page.goto(f"{demo.pages}/jobs", wait_until="domcontentloaded")
        expect(page.locator("#job-rows > li").first).to_be_visible()
        assert_no_overflow(page)
        picture(page, "jobs", width, scheme)
        row.locator("a").click()
        expect(page.locator("h1")).to_have_text("A job of gist")
        expect(page.locator("#job-body tbody tr")).to_have_count(3)
        expect(page.locator("#job-body .state.punished").first).to_be_visible()
        expect(page.locator("#job-body")).to_contain_text("It lost 1 AIN of its bond.")
        expect(page.locator("#job-side")).to_contain_text("Slashed: 1 AIN of a bond.")
        # Sealed for the wallet that asked, which is the one whose pages these are.
        expect(page.locator("main")).to_contain_text(
            "The rain began at noon and filled the river within an hour."
        )
        assert_no_overflow(page)
        picture(page, "job", width, scheme)
        page.goto(f"{demo.pages}/providers", wait_until="domcontentloaded")
        expect(page.locator("main .panel")).to_have_count(3)
        liar = page.locator("main .panel").filter(has=page.locator(".state.punished"))
        expect(liar).to_contain_text("1 AIN slashed")
        assert_no_overflow(page)
        picture(page, "providers-of-jobs", width, scheme)
        liar.locator(".rows a").first.click()
        expect(page.locator("h1")).to_have_text("A job of gist")


def test_who_did_not_ask_sees_the_verdict_and_not_the_result(browser: Browser, demo: Demo) -> None:
    with opened(browser, f"{demo.pages}/jobs/{demo.job}") as page:
        expect(page.locator("#job-body .state.punished").first).to_be_visible()
        assert "filled the river" not in page.locator("main").inner_text()


def test_jobs_appear_and_change_without_reloading(browser: Browser, demo: Demo) -> None:
    with opened(browser, demo.link) as page, ThreadPoolExecutor(1) as other:
        page.goto(f"{demo.pages}/jobs", wait_until="domcontentloaded")
        expect(page.locator("#chain-state .dot.good")).to_be_visible()
        page.evaluate("window.stayed = true")
        words = (
            "job",
            "run",
            "gist",
            "haiku",
            "text=An old silent pond.",
            "--policy",
            "quorum:2/3",
            "--json",
        )
        # The browser's own loop runs in this thread.
        done = other.submit(run_cli, *words, "--home", str(demo.buyer)).result()
        assert done.code == 0, done.err
        row = page.locator(f"#job-{done.json['job']}")
        expect(row).to_contain_text("Accepted: 2 of 3 results agree.")
        assert page.evaluate("window.stayed") is True


def test_the_page_of_a_job_follows_it_to_its_end(browser: Browser, demo: Demo) -> None:
    async def asking() -> str:
        async with AsyncClient(demo.buyer, demo.node_url) as client:
            inputs = {"text": "Nobody reads this."}
            handle = await client.jobs.run(
                "gist", "haiku", inputs, deadline_seconds=30, executors=(NOBODY,), budget_uain=500
            )
            return handle.id

    with opened(browser, demo.link) as page, ThreadPoolExecutor(1) as other:
        job = other.submit(lambda: asyncio.run(asking())).result()
        page.goto(f"{demo.pages}/jobs/{job}", wait_until="domcontentloaded")
        expect(page.locator("#job-way")).to_contain_text("It waits for a provider that takes it.")
        page.evaluate("window.stayed = true")
        expect(page.locator("#job-way")).to_contain_text(
            "Expired: nobody finished it before its deadline.", timeout=120_000
        )
        expect(page.locator("#job-side")).to_contain_text("what was not spent")
        expect(page.locator("#job-side")).to_contain_text("openresource job explain")
        assert page.evaluate("window.stayed") is True
