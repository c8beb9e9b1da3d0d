"""Pages under test: over a real node in this process, and a look at their HTML as a browser would take it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2

from openresource.web.app import Pages, make_app

TOKEN = "a-token-that-only-tests-know-0123456789"
BASE = "http://127.0.0.1:8081"
VOID = frozenset(("meta", "link", "input", "br", "img", "hr", "path", "use", "circle", "rect"))


@dataclass(slots=True)
class Visit:
    """The pages and a browser without scripts."""

    pages: Pages
    http: httpx2.AsyncClient

    async def let_in(self) -> None:
        answer = await self.http.get(f"/?token={TOKEN}")
        assert answer.status_code == 303

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.http.get(path, **options)

    async def post(self, path: str, data: dict[str, str], **options: Any) -> httpx2.Response:
        headers = {"origin": BASE, **options.pop("headers", {})}
        return await self.http.post(path, data=data, headers=headers, **options)


@contextlib.asynccontextmanager
async def visit(home: Path, node_url: str, **options: Any) -> AsyncIterator[Visit]:
    pages = make_app(home, node_url, token=TOKEN, **options)
    transport = httpx2.ASGITransport(app=pages, raise_app_exceptions=False)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url=BASE, timeout=60) as http:
            yield Visit(pages, http)
    finally:
        await pages.close()


@dataclass
class Page(HTMLParser):
    """What matters in a page: its elements, its texts, and whether they nest."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def of(cls, answer: httpx2.Response) -> Page:
        page = cls()
        page.feed(answer.text)
        page.close()
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"<{tag}> has an attribute twice: {names}")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open_tags or self.open_tags[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open_tags[-1:]}")
        while self.open_tags and self.open_tags.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            found
            for name, found in self.elements
            if name == tag
            and all(found.get(one.replace("_", "-")) == value for one, value in attributes.items())
        ]

    def check(self) -> None:
        """What every page owes its reader."""
        assert not self.faults, self.faults
        assert not [tag for tag in self.open_tags if tag not in ("html", "body")], self.open_tags
        assert len(self.all("h1")) == 1
        assert self.all("html", lang="en") and self.all("title")
        assert self.all("a", href="#main") and self.all("main", id="main")
        identifiers = [found["id"] for _, found in self.elements if "id" in found]
        assert len(identifiers) == len(set(identifiers)), "an id is there twice"
        labels = {found.get("for") for found in self.all("label")}
        for tag in ("input", "select", "textarea"):
            for found in self.all(tag):
                assert found.get("type") == "hidden" or found.get("id") in labels, found
        for found in self.all("button"):
            assert found.get("aria-label") or found.get("class") != "copy"
        for tag, found in self.elements:
            # Nothing inline: the policy would block it, and hostile text could hide in it.
            assert tag != "script" or found.get("src", "").startswith(("/vendor/", "/static/")), found
            assert tag != "style" and "style" not in found, (tag, found)
            assert not [name for name in found if name.startswith("on")], (tag, found)
            for name in ("src", "href"):
                assert not found.get(name, "").startswith(("http:", "https:", "//", "javascript:")), (
                    tag,
                    found,
                )
