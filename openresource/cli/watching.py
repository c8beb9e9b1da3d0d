"""`publish` of somebody's repository: its newest commit as a service, once, or each time that a branch moves."""

import asyncio
import json
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import click

from openresource.adapters.git.repositories import accepted_address, accepted_branch, branch_tip, clone_tip
from openresource.adapters.git.trees import Exported, export_tree
from openresource.cli.output import Progress, note, plain, report_failure
from openresource.cli.publication import Publication, prepare_folder, trial_record
from openresource.cli.receive import live_text
from openresource.cli.remotes import plain_name
from openresource.cli.session import key_of
from openresource.client.homes import Home
from openresource.primitives.errors import Refusal

# While the repository cannot be asked, the looks become rarer, up to so many times the interval.
AWAY_INTERVALS_MAX: Final = 10


class Watching:
    """A repository elsewhere, on its way to a service of this home."""

    def __init__(
        self, source: str, place: Home, node_url: str | None, deadline_seconds: float, *, as_json: bool
    ) -> None:
        self._url = accepted_address(str(Path(source).resolve()) if Path(source).is_dir() else source)
        self._place = place
        self._node_url = node_url
        self._deadline_seconds = deadline_seconds
        self._as_json = as_json
        self._progress = Progress(quiet=as_json)
        # The service that the first commit has published; who may commit here may not replace another one.
        self._name = ""

    async def once(self, branch: str, *, dry_run: bool) -> dict[str, Any]:
        """Publish the newest commit, or only try it."""
        async with self._exported(branch) as (folder, commit):
            if dry_run:
                prepared = await prepare_folder(folder, self._progress, quiet=self._as_json)
                outcome = {**trial_record(prepared), "dry_run": True, "commit": commit}
            else:
                outcome = await self._publication().deploy(folder, commit)
        self._progress.clear()
        return outcome

    async def follow(self, branch: str, interval_seconds: float) -> None:
        """Publish each new commit until SIGINT or SIGTERM; one that fails is told once, and the one before stays live."""
        accepted_branch(branch)
        # Asked for before the first commit comes, perhaps at night.
        key = key_of(self._place)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        self._tell(
            {"ready": True, "url": self._url, "branch": branch, "interval_seconds": interval_seconds},
            f"Watching {branch} of {self._url}, every {interval_seconds:g} s. Ctrl-C ends it.",
        )
        publication = self._publication(key)
        seen, trouble, missed = "", "", 0
        while not stopping.is_set():
            try:
                tip = await branch_tip(self._url, branch)
                trouble, missed = "", 0
            except Refusal as refusal:
                missed += 1
                if refusal.message != trouble:
                    trouble = refusal.message
                    self._refused("", refusal)
                tip = seen
            if tip != seen:
                seen = tip
                await self._unless(stopping, self._deploy(publication, branch, tip))
            await _rest(stopping, interval_seconds * min(1 + missed, AWAY_INTERVALS_MAX))
        self._tell({"stopped": True}, "Watching no more; what is live stays live.")

    async def _deploy(self, publication: Publication, branch: str, tip: str) -> None:
        began = time.monotonic()
        self._tell({"commit": tip}, f"{tip[:10]} is new")
        try:
            async with self._exported(branch) as (folder, commit):
                outcome = await publication.deploy(folder, commit, name=self._name)
            self._name = str(outcome["service"]).rpartition("/")[2]
        except Refusal as refusal:
            self._refused(tip, refusal)
            return
        seconds = round(time.monotonic() - began, 1)
        self._tell({"deployed": outcome, "seconds": seconds}, f"{live_text(outcome)} ({seconds} s)")

    async def _unless(self, stopping: asyncio.Event, work: Any) -> None:
        """Do the work unless it is time to end; then it is broken off, and callers keep what they had."""
        working, ending = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait([working, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            if not working.done():
                working.cancel()
        try:
            await working
        except asyncio.CancelledError:
            if not stopping.is_set():
                raise

    @asynccontextmanager
    async def _exported(self, branch: str) -> AsyncIterator[tuple[Path, str]]:
        """The files of a branch's newest commit, in a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="openresource-clone-") as name:
            self._progress(f"cloning {self._url}")
            repository = Path(name) / "repository.git"
            commit = await clone_tip(self._url, branch, repository)
            # A program without a manifest is called after its repository.
            folder = Path(name) / (
                plain_name(self._url.rstrip("/").rpartition("/")[2].removesuffix(".git")) or "program"
            )
            folder.mkdir()
            exported: Exported = await export_tree(repository, commit, folder, takes_links=True)
            self._progress(f"{commit[:10]}: {exported.files} files, {exported.bytes} bytes")
            for remark in exported.remarks:
                note(f"  {remark}")
            yield folder, commit

    def _publication(self, key: Any = None) -> Publication:
        return Publication(
            self._place, self._node_url, self._progress, self._deadline_seconds, quiet=self._as_json, key=key
        )

    def _refused(self, commit: str, refusal: Refusal) -> None:
        self._progress.clear()
        if self._as_json:
            self._tell({"commit": commit, "error": refusal.to_json()}, "")
        else:
            report_failure(refusal)

    def _tell(self, facts: dict[str, Any], text: str) -> None:
        self._progress.clear()
        click.echo(json.dumps(facts, ensure_ascii=False, default=str) if self._as_json else plain(text))


async def _rest(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
