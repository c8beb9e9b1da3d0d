"""A publisher's git remotes: bare repositories in the home whose hook makes a push live, and what to type for one."""

import getpass
import json
import os
import re
import shlex
import socket
import sys
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from openresource.client.homes import PASSPHRASE_FILE_VARIABLE, Home
from openresource.market.manifests import MANIFEST_FILE
from openresource.market.services import is_service_name
from openresource.primitives.errors import Refusal

REMOTES: Final = "git"
RECORD_FILE: Final = "openresource.json"
RECORD_BYTES_MAX: Final = 64 * 1024
MANIFEST_BYTES_MAX: Final = 1024 * 1024
REMOTE_NAME: Final = "openresource"
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")

HOOK: Final = """\
#!/bin/sh
# Written by `openresource publish --git`: decides a push to {branch}, which makes it the live version of {name}.
exec {python} -I -m openresource.cli.receive {repository}
"""


class NameNotClear(Refusal):
    template = "{text} is neither a folder nor the name of a service."
    way_out = "Name the folder of your repository, or the service: openresource publish --git my-service"


class RemoteUnreadable(Refusal):
    template = "The remote {repository} cannot be used: {reason}."
    way_out = "Write its settings anew in your repository: openresource publish --git ."


@dataclass(frozen=True, slots=True)
class Remote:
    """What a remote's hook knows: whose home it publishes for, at which node, and which branch is live."""

    repository: str
    name: str
    branch: str
    home: str
    node: str
    deadline_seconds: float
    passphrase_file: str = ""

    def save(self) -> None:
        """Write it down beside the repository's own settings."""
        file = Path(self.repository) / RECORD_FILE
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1) + "\n")
        fresh.replace(file)


def load_remote(repository: Path) -> Remote:
    """What was written when the remote was made."""
    file = repository / RECORD_FILE
    try:
        with open(file, encoding="utf-8") as opened:
            record = json.loads(opened.read(RECORD_BYTES_MAX))
        return Remote(**{**record, "repository": str(repository)})
    except (OSError, ValueError, TypeError) as problem:
        raise RemoteUnreadable(repository=str(repository), reason=str(problem)) from None


async def make_remote(
    wanted: str, place: Home, node_url: str | None, deadline_seconds: float
) -> dict[str, Any]:
    """The remote of a folder's service, made or brought up to date; what was pushed before stays."""
    from openresource.adapters.git.repositories import PUSH_BYTES_MAX, current_branch, is_bare, make_bare

    name, branch = name_of(wanted), None
    if Path(wanted).is_dir():
        branch = await current_branch(Path(wanted))
    # A push must not end with the news that there is no wallet.
    place.address()
    folder = place.ensure() / REMOTES
    folder.mkdir(mode=0o700, exist_ok=True)
    repository = (folder / f"{name}.git").resolve()
    is_new = not is_bare(repository)
    if not is_new:
        branch = branch or load_remote(repository).branch
    chosen = branch or "main"
    if is_new:
        settings = {
            "core.hooksPath": str(repository / "hooks"),
            "core.sharedRepository": "0600",
            "transfer.fsckObjects": "true",
            "receive.maxInputSize": str(PUSH_BYTES_MAX),
            # A push with --force is how somebody goes back in history; that is a publication like any other.
            "receive.denyNonFastForwards": "false",
        }
        await make_bare(repository, chosen, settings)
    passphrase_file = os.environ.get(PASSPHRASE_FILE_VARIABLE, "")
    remote = Remote(
        repository=str(repository),
        name=name,
        branch=chosen,
        home=str(place.folder.resolve()),
        node=place.node_url(node_url),
        deadline_seconds=deadline_seconds,
        passphrase_file=str(Path(passphrase_file).resolve()) if passphrase_file else "",
    )
    remote.save()
    _write_hook(remote)
    return {
        "name": name,
        "branch": chosen,
        "repository": str(repository),
        "ssh": f"ssh://{getpass.getuser()}@{socket.gethostname()}{repository}",
        "node": remote.node,
        "is_new": is_new,
        "commands": [
            f"git remote add {REMOTE_NAME} {shlex.quote(str(repository))}",
            f"git push {REMOTE_NAME} {chosen}",
        ],
    }


def name_of(wanted: str) -> str:
    """The service's name that a folder or a name stands for."""
    folder = Path(wanted)
    if not folder.is_dir():
        if is_service_name(wanted):
            return wanted
        raise NameNotClear(text=wanted)
    manifest = folder / MANIFEST_FILE
    if manifest.is_file():
        with open(manifest, "rb") as file:
            content = file.read(MANIFEST_BYTES_MAX)
    else:
        content = _detected_manifest(folder)
    try:
        named = tomllib.loads(content.decode()).get("name")
    except ValueError as problem:
        raise NameNotClear(
            f"{manifest} cannot be read: {problem}.", remedy="Correct it: openresource check"
        ) from None
    name = named if isinstance(named, str) else plain_name(folder.resolve().name)
    if not is_service_name(name):
        raise NameNotClear(text=wanted)
    return name


def _detected_manifest(folder: Path) -> bytes:
    """What the folder's detection would write; nothing where there is nothing to detect yet."""
    from openresource.builds.detection import NothingFound
    from openresource.cli.detecting import detect_folder

    try:
        detected = detect_folder(folder)
    except NothingFound:
        return b""
    return b"" if detected is None else detected.manifest_text.encode()


def plain_name(text: str) -> str:
    """A service's name made of any text; it may be empty."""
    return _NOT_IN_NAMES.sub("-", text.lower()).strip("-")[:63].strip("-")


def remote_text(outcome: dict[str, Any]) -> str:
    """What to type, for people."""
    state = "Made" if outcome["is_new"] else "There is"
    add, push = outcome["commands"]
    return (
        f"{state} a remote for {outcome['name']}: what is pushed to {outcome['branch']} goes live.\n"
        f"In your repository:\n\n  {add}\n  {push}\n\n"
        f"From another machine that may log in here:  git remote add {REMOTE_NAME} {outcome['ssh']}"
    )


def _write_hook(remote: Remote) -> None:
    folder = Path(remote.repository) / "hooks"
    folder.mkdir(mode=0o700, exist_ok=True)
    hook = folder / "pre-receive"
    fresh = folder / "pre-receive.new"
    fresh.write_text(
        HOOK.format(
            branch=remote.branch,
            name=remote.name,
            python=shlex.quote(sys.executable),
            repository=shlex.quote(remote.repository),
        )
    )
    fresh.chmod(0o700)
    fresh.replace(hook)
