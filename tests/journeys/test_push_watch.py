"""Somebody's repository as a service: published by its address, watched, and refused where its address means harm."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Serving, run_cli
from tests.journeys.push_stage import Repository, Stage, figures, stage

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

INTERVAL_SECONDS = 0.2


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("watch")) as made:
        yield made


def next_line(watch: Serving) -> dict[str, Any]:
    """The next thing that a watch says."""
    return dict(json.loads(watch.next_line()))


def test_a_repository_is_published_by_its_address(scene: Stage) -> None:
    work = Repository(scene.folder / "tool-work", "tool", "trunk")
    commit = work.commit("one")
    tried = scene.cli("publish", f"file://{work.folder}", "--dry-run", "--json")
    assert tried.code == 0 and tried.json["dry_run"] and tried.json["commit"] == commit, tried.err
    published = scene.cli("publish", f"file://{work.folder}", "--json")
    assert published.code == 0, published.err
    assert published.json["version"] == "0.1.0" and published.json["commit"] == commit
    bare = scene.folder / "tool.git"
    work.commit("two")
    work.git("clone", "--quiet", "--bare", str(work.folder), str(bare))
    again = scene.cli("publish", str(bare))
    assert again.code == 0 and "0.1.0+" in again.out, again.err


def test_a_watched_branch_goes_live_commit_by_commit_and_a_bad_one_is_told_once(scene: Stage) -> None:
    work = Repository(scene.folder / "seen-work", "seen")
    work.commit("one")
    words = (
        "publish",
        f"file://{work.folder}",
        "--watch",
        "main",
        "--interval",
        str(INTERVAL_SECONDS),
        "--json",
    )
    watch = Serving(*words, "--home", str(scene.publisher.folder), "--node", scene.node.url)
    with scene.client() as client:
        assert "commit" in next_line(watch)
        first = next_line(watch)
        assert first["deployed"]["version"] == "0.1.0", first
        assert client.call("seen", text="a").value == "one"

        work.commit("bad", program="while read -r line; do exit 3; done\n")
        assert "commit" in next_line(watch)
        bad = next_line(watch)
        assert bad["error"]["code"] == "example-failed", bad
        assert client.call("seen", text="a").value == "one"

        began = time.monotonic()
        commit = work.commit("two")
        assert next_line(watch)["commit"] == commit, "the bad commit was told once"
        live = next_line(watch)
        figures(
            "watched commit", commit_to_live_s=round(time.monotonic() - began, 2), deploy_s=live["seconds"]
        )
        assert live["deployed"]["version"] == f"0.1.0+{commit[:10]}"
        assert client.call("seen", text="a").value == "two"

        hidden = work.folder.rename(scene.folder / "hidden")
        away = next_line(watch)
        assert away["error"]["code"] == "git-failed", away
        assert client.call("seen", text="a").value == "two"
        hidden.rename(work.folder)
        commit = work.commit("three")
        assert next_line(watch)["commit"] == commit
        assert next_line(watch)["deployed"]["commit"] == commit
    watch.send(signal.SIGTERM)
    ended = watch.stop()
    assert ended.code == 0 and ended.json == {"stopped": True}, ended.err


def test_a_watch_that_ends_in_the_middle_leaves_the_version_before(scene: Stage) -> None:
    work = Repository(scene.folder / "left-work", "left")
    work.commit("one")
    assert scene.cli("publish", f"file://{work.folder}").code == 0
    live = scene.latest("left")
    scene.provider.send(signal.SIGSTOP)
    try:
        work.commit("two")
        words = ("publish", f"file://{work.folder}", "--watch", "main", "--json")
        watch = Serving(*words, "--home", str(scene.publisher.folder), "--node", scene.node.url)
        assert "commit" in next_line(watch)
        ends = time.monotonic() + 60
        while scene.latest("left") == live:
            assert time.monotonic() < ends
        ended = watch.stop()
    finally:
        scene.provider.send(signal.SIGCONT)
    assert ended.code == 0, ended.err
    assert scene.latest("left") == live


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("ext::sh -c 'touch {marker}' %G/repository.git", "address-not-accepted"),
        ("ext::sh%20-c%20touch%20{marker}", "address-not-accepted"),
        ("http://127.0.0.1:9/tool.git", "address-not-accepted"),
        ("git://127.0.0.1/tool.git", "address-not-accepted"),
        ("ssh://-oProxyCommand=touch%20{marker}/tool.git", "address-not-accepted"),
        ("-oProxyCommand=touch {marker}@host:tool.git", "address-not-accepted"),
        ("https://name:secret@127.0.0.1:9/tool.git", "address-not-accepted"),
        ("file://host/tool.git", "address-not-accepted"),
        ("file:///nothing/there.git", "git-failed"),
    ],
)
def test_an_address_that_means_something_else_is_refused(
    scene: Stage, tmp_path: Path, source: str, code: str
) -> None:
    marker = tmp_path / "marker"
    home = ("--home", str(scene.publisher.folder), "--node", scene.node.url)
    refused = run_cli("publish", "--json", *home, "--", source.format(marker=marker))
    assert refused.code == 1 and refused.json["error"]["code"] == code, refused.out + refused.err
    assert not marker.exists() and "secret" not in refused.out


def test_a_branch_that_is_not_there_is_said(scene: Stage) -> None:
    work = Repository(scene.folder / "few-work", "few")
    work.commit("one")
    gone = scene.folder / "nowhere"
    refused = scene.cli("publish", "--git", str(gone), "--json")
    assert refused.code == 1 and refused.json["error"]["code"] == "name-not-clear"
    odd = scene.cli("publish", f"file://{work.folder}", "--watch", "--upload-pack=touch x", "--json")
    assert odd.code == 1 and odd.json["error"]["code"] == "branch-not-there"
