"""The pages in a real Chromium: how one is opened and looked at; pictures are kept in `artefacts/pages`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.cli.support import Serving

PICTURES = Path(__file__).parents[2] / "artefacts" / "pages"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SWITCHES = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
)
DESK, PHONE = 1280, 390
WAIT_MS = 60_000
# What a page shows by events takes longer on a busy machine; the condition is the same.
expect.set_options(timeout=WAIT_MS)


@contextmanager
def opened(
    browser: Browser, link: str, width: int = DESK, scheme: Any = "light", **options: Any
) -> Iterator[Page]:
    """A page that was let in; what a browser complains about fails the test."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # The status of a page that is a refusal is no fault of the page.
        if (
            message.type in ("error", "warning")
            and "the server responded with a status of" not in message.text
        ):
            complaints.append(f"{message.type}: {message.text} ({message.location})")

    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        permissions=["clipboard-read", "clipboard-write"],
        **options,
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    try:
        page.goto(link, wait_until="domcontentloaded")
        yield page
        assert not complaints, complaints
    finally:
        context.close()


def go(page: Page, pages: Serving, path: str) -> None:
    page.goto(address(pages) + path, wait_until="domcontentloaded")


def address(pages: Serving) -> str:
    return str(pages.facts["url"]).partition("/?")[0]


def picture(page: Page, name: str, width: int, scheme: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True)


def assert_no_overflow(page: Page) -> None:
    wide = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            return [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > width)
                .map(e => e.tagName + "." + e.className).slice(0, 5);
        }"""
    )
    assert wide == [], (page.url, wide)
