"""Runs the git program: an environment made from a list, bounds on time and output, refusals instead of exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from openresource.primitives.errors import Refusal

SECONDS_MAX: Final = 60.0
OUTPUT_BYTES_MAX: Final = 16 * 1024 * 1024
WORDS_CHARACTERS_MAX: Final = 500
STOP_SECONDS: Final = 5.0

# What git needs of the environment to reach what its user may reach; everything else stays outside.
_PASSED: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_CONFIG_GLOBAL", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY",
    "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
# While a push is being decided its objects are not in the repository yet; git tells where they wait.
QUARANTINE: Final = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")
_FIXED: Final = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "GIT_ALLOW_PROTOCOL": "https:ssh:file",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
}


class GitMissing(Refusal):
    template = "There is no git on this machine."
    way_out = (
        "Install git (Debian: apt install git), or publish the folder itself: openresource publish FOLDER"
    )


class GitFailed(Refusal):
    template = "git {command} failed: {said}"
    way_out = "Look at the repository's address and branch, and at who may read it."


class GitTookTooLong(Refusal):
    template = "git {command} did not end within {seconds} s."
    way_out = "Try again; a very large repository is better published from a folder."


class GitSaidTooMuch(Refusal):
    template = "git {command} printed more than {limit} bytes."
    way_out = "Publish a smaller tree."


def environment(passed: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every git that is run here."""
    given = os.environ if passed is None else passed
    return {name: given[name] for name in _PASSED if name in given} | _FIXED


def git_program() -> str:
    """Where git is."""
    found = shutil.which("git")
    if found is None:
        raise GitMissing()
    return found


async def run_git(
    words: Sequence[str],
    *,
    repository: Path | None = None,
    variables: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    seconds: float = SECONDS_MAX,
    bytes_max: int = OUTPUT_BYTES_MAX,
    file_bytes_max: int | None = None,
) -> bytes:
    """What a git command prints; a failure is a refusal with git's own last words."""
    command = _command_of(words)
    process = await start_git(
        words, repository=repository, variables=variables, file_bytes_max=file_bytes_max
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            feeding = asyncio.create_task(_feed(process.stdin, stdin))
            out, err = await asyncio.gather(
                _read(process.stdout, bytes_max, command), _read(process.stderr, bytes_max, command)
            )
            await feeding
            code = await process.wait()
    except TimeoutError:
        raise GitTookTooLong(command=command, seconds=round(seconds)) from None
    finally:
        await stop_git(process)
    if code != 0:
        raise GitFailed(command=command, said=last_words(err) or f"it ended with code {code}")
    return out


async def start_git(
    words: Sequence[str],
    *,
    repository: Path | None = None,
    variables: Mapping[str, str] | None = None,
    file_bytes_max: int | None = None,
) -> asyncio.subprocess.Process:
    """Git in a process group of its own, as its helpers must end with it."""
    arguments = [git_program()]
    if file_bytes_max is not None:
        # What git and its helpers write is bounded by the kernel, whatever a server sends.
        arguments = ["/bin/sh", "-c", f'ulimit -f {file_bytes_max // 512}; exec "$@"', "git", *arguments]
    if repository is not None:
        arguments += ["--git-dir", str(repository)]
    return await asyncio.create_subprocess_exec(
        *arguments,
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment(), **(variables or {})},
        cwd="/",
        start_new_session=True,
        limit=1024 * 1024,
    )


async def stop_git(process: asyncio.subprocess.Process) -> None:
    """Ends git and what it started, if it still runs."""
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
                return


def last_words(err: bytes) -> str:
    """The end of what git said, on one line."""
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines()]
    wanted = [line for line in lines if line and not line.startswith(("hint:", "warning:"))]
    return "; ".join(wanted[-3:])[-WORDS_CHARACTERS_MAX:]


def _command_of(words: Sequence[str]) -> str:
    """The command among git's own options, two of which take a value."""
    takes_value = False
    for word in words:
        if not takes_value and not word.startswith("-"):
            return word
        takes_value = word in ("-c", "-C")
    return ""


async def _feed(stdin: asyncio.StreamWriter, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(content)
        await stdin.drain()
        stdin.close()


async def _read(stream: asyncio.StreamReader, bytes_max: int, command: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(64 * 1024):
        size += len(part)
        if size > bytes_max:
            raise GitSaidTooMuch(command=command, limit=bytes_max)
        parts.append(part)
    return b"".join(parts)
