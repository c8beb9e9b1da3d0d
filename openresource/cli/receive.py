"""What a remote's hook runs: decides a push, and makes the commit live before git moves the branch.

Git calls it with one line for each ref (`old new ref`) and shows what it prints to whoever pushes. When it ends with 0
the refs move; with anything else none of them does, and the version that was live before still is.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from openresource.cli.output import note, report_failure
from openresource.cli.remotes import Remote, load_remote
from openresource.client.homes import PASSPHRASE_FILE_VARIABLE, Home, HomeInUse, Lock
from openresource.primitives.errors import Refusal

REFS_MAX: Final = 100
LINES_BYTES_MAX: Final = 64 * 1024
HEADS: Final = "refs/heads/"
TAGS: Final = "refs/tags/"


class RefNotTaken(Refusal):
    template = "{ref} is not taken here."
    way_out = "Push branches and tags: git push openresource {branch}"


class TooManyRefs(Refusal):
    template = "The push names more than {limit} branches and tags."
    way_out = "Push the live branch alone: git push openresource {branch}"


class LiveBranchStays(Refusal):
    template = "{branch} is the live branch of {name} and cannot be deleted."
    way_out = "What was published stays on the chain. To stop serving it, stop the providers that run it."


class PushUnderWay(Refusal):
    template = "Another push to {name} is being made live."
    way_out = "Wait until it has ended, then fetch and push again."


class BranchMoved(Refusal):
    template = "{branch} moved while this push was on its way."
    way_out = "Fetch it, merge, and push again."


@dataclass(frozen=True, slots=True)
class Update:
    """One ref of a push."""

    old: str
    new: str
    ref: str

    @property
    def is_deletion(self) -> bool:
        """Whether the ref goes away."""
        return set(self.new) == {"0"}


class Timed:
    """Progress as lines with the seconds since the push began; git shows them as they come.

    Where nobody listens any more, `left` is called, and from then on it is silent.
    """

    def __init__(self, left: Callable[[], object] = lambda: None) -> None:
        self._began = time.monotonic()
        self._last = ""
        self._left = left

    def __call__(self, text: str) -> None:
        """Say what is happening now."""
        if text != self._last:
            self._last = text
            self.say(f"{time.monotonic() - self._began:6.1f} s  {text}")

    def say(self, text: str) -> None:
        """Say something without its time."""
        try:
            note(text)
        except BrokenPipeError:
            hush()
            self._left()


def hush() -> None:
    """Let what is said from now on go nowhere, as its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)


def read_updates(lines: str, branch: str) -> list[Update]:
    """What a push wants to change."""
    updates = []
    for line in lines.splitlines():
        old, new, ref = line.split(" ", 2)
        if not ref.startswith((HEADS, TAGS)):
            raise RefNotTaken(ref=ref, branch=branch)
        updates.append(Update(old, new, ref))
    if len(updates) > REFS_MAX:
        raise TooManyRefs(limit=REFS_MAX, branch=branch)
    return updates


class Receiving:
    """One push to one remote."""

    def __init__(
        self, remote: Remote, updates: list[Update], quarantine: Mapping[str, str], say: Timed
    ) -> None:
        self._remote = remote
        self._updates = updates
        self._quarantine = quarantine
        self._repository = Path(remote.repository)
        self._say = say

    async def run(self) -> None:
        """Make the live branch's commit live, if the push has one; whatever is raised refuses the whole push."""
        live = await self._live_update()
        for update in self._updates:
            if update is not live:
                short = update.ref.removeprefix(HEADS).removeprefix(TAGS)
                self._say.say(
                    f"{short} is {'deleted' if update.is_deletion else 'stored'}; {self._remote.branch} alone goes live"
                )
        if live is None:
            return
        remote = self._remote
        if live.is_deletion:
            raise LiveBranchStays(branch=remote.branch, name=remote.name)
        try:
            lock = Lock(self._repository, "push")
        except HomeInUse:
            raise PushUnderWay(name=remote.name) from None
        with lock:
            await self._check_in_place(live)
            await self._deploy(live)

    async def _live_update(self) -> Update | None:
        """The push's update of the live branch; before there is one, main and master both will do."""
        from openresource.adapters.git.repositories import BRANCHES, commit_of

        by_ref = {update.ref: update for update in self._updates}
        branch = self._remote.branch
        found = by_ref.get(HEADS + branch)
        if found is not None or branch not in BRANCHES:
            return found
        if await commit_of(self._repository, HEADS + branch) is not None:
            return None
        other = next((by_ref[HEADS + one] for one in BRANCHES if HEADS + one in by_ref), None)
        if other is not None:
            self._remote = replace(self._remote, branch=other.ref.removeprefix(HEADS))
        return other

    async def _check_in_place(self, update: Update) -> None:
        from openresource.adapters.git.repositories import commit_of

        if (await commit_of(self._repository, update.ref) or "0" * len(update.old)) != update.old:
            raise BranchMoved(branch=self._remote.branch)

    async def _deploy(self, update: Update) -> None:
        from openresource.adapters.git.commands import run_git
        from openresource.adapters.git.trees import export_tree
        from openresource.cli.publication import Publication

        remote = self._remote
        self._say.say(f"making {update.new[:10]} of {remote.branch} the live version of {remote.name}")
        with tempfile.TemporaryDirectory(prefix="openresource-push-") as name:
            folder = Path(name) / remote.name
            folder.mkdir()
            exported = await export_tree(self._repository, update.new, folder, variables=self._quarantine)
            self._say(f"{exported.files} files, {exported.bytes} bytes")
            for remark in exported.remarks:
                self._say(remark)
            publication = Publication(
                Home(remote.home), remote.node, self._say, remote.deadline_seconds, quiet=False
            )
            outcome = await publication.deploy(folder, update.new, name=remote.name)
        self._say(live_text(outcome))
        self._say.say(f"Call it:  {outcome['call']}")
        if remote != load_remote(self._repository):
            remote.save()
            await run_git(["symbolic-ref", "HEAD", update.ref], repository=self._repository)


def live_text(outcome: Mapping[str, Any]) -> str:
    """The last line of a deployment: what is live, where, and how its test call went."""
    placed = outcome["placed"]
    text = (
        f"live: {outcome['service']} {outcome['version']} at {placed['endpoint']}, for every call from now on"
    )
    test = outcome.get("test_call")
    return text if test is None else f"{text}; test call {test['milliseconds']} ms"


def take_quarantine(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Takes git's own variables out of the environment, where they would mislead every other git; gives those that we need."""
    from openresource.adapters.git.commands import QUARANTINE

    taken = {name: variables.pop(name) for name in list(variables) if name.startswith("GIT_")}
    return {name: taken[name] for name in QUARANTINE if name in taken}


async def _decided(repository: Path, lines: str) -> None:
    remote = load_remote(repository)
    quarantine = take_quarantine(os.environ)
    if remote.passphrase_file:
        os.environ.setdefault(PASSPHRASE_FILE_VARIABLE, remote.passphrase_file)
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # Whoever leaves in the middle leaves the old version live.
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    await Receiving(remote, read_updates(lines, remote.branch), quarantine, Timed(this.cancel)).run()


def main() -> int:
    """Decide a push; 0 lets git move the refs."""
    lines = sys.stdin.read(LINES_BYTES_MAX)
    try:
        asyncio.run(_decided(Path(sys.argv[1]), lines))
    except asyncio.CancelledError:
        Timed().say("Interrupted; what was live before still is.")
        return 130
    except BrokenPipeError:
        hush()
        return 1
    except Exception as error:  # The last line of defence: a refusal is explained, a defect is reported.
        code = report_failure(error)
        note("The push is refused, and what was live before still is.")
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
