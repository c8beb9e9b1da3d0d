"""What a person, or a program with --json, sees: results, progress, refusals and exit codes."""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import click

from openresource.primitives.errors import Refusal

DONE = 0
FAILED = 1
USAGE = 2
AWAY = 3
DEADLINE = 4
OVER_LIMIT = 5


class FileUnusable(Refusal):
    template = "{file} cannot be used: {reason}."
    way_out = "Name another file or folder, or change who may use it."


# Refusals whose exit code is not simply "failed", by their stable code.
EXIT_CODES_BY_REFUSAL = {
    "node-away": AWAY,
    "provider-away": AWAY,
    "no-provider-answered": AWAY,
    "deadline-passed": DEADLINE,
    "no-placement-in-time": DEADLINE,
    "test-call-failed": DEADLINE,
    "transaction-not-final": DEADLINE,
    "job-not-in-time": DEADLINE,
    "over-spending-limit": OVER_LIMIT,
    "price-above-maximum": OVER_LIMIT,
    "invalid-value": USAGE,
    "policy-invalid": USAGE,
}

HEADS_BY_EXIT_CODE = {AWAY: "Away:", DEADLINE: "Not in time:", OVER_LIMIT: "Over the limit:"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per result.")
home_option = click.option(
    "--home",
    type=click.Path(file_okay=False),
    envvar="OPENRESOURCE_HOME",
    help="Folder with wallet, settings and books. Default: ~/.openresource",
)
network_node_option = click.option(
    "--node",
    "node_url",
    envvar="OPENRESOURCE_NODE",
    help="Address of a node. Default: the home's, else http://127.0.0.1:8080",
)
insist_option = click.option(
    "--insist",
    is_flag=True,
    help="When a provider vanishes with the call, call another one, although the first may charge for it yet.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done and spent, and do nothing."
)


# What moves a terminal's cursor, rewrites its lines or turns text around; bold and the colours of warnings are ours.
_COMMANDS = re.compile(
    "(\x1b\\[(?:0|1|3[123])m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: str) -> str:
    """Text of strangers as a terminal may print it: whatever would command the terminal is a replacement character."""
    return _COMMANDS.sub(lambda match: match[1] or "\ufffd", text)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON for people and programs: readable, and without anything that would command a terminal."""
    text = json.dumps(value, ensure_ascii=False, default=str, indent=indent)
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def show(value: Any, *, as_json: bool, text: str | Callable[[], str]) -> None:
    """Print a result: the object itself with --json, else the text made for people."""
    if as_json:
        click.echo(json_text(value))
    else:
        say(text() if callable(text) else text)


def say(text: str) -> None:
    """Print a line, whoever its words are from."""
    click.echo(plain(text))


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    click.echo(plain(text), err=True)


class Progress:
    """One line on a terminal that says what is waited for and since when; plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self.began = time.monotonic()
        self.last = ""

    def __call__(self, text: str) -> None:
        """Say what is happening now."""
        if self.quiet or text == self.last:
            return
        self.last = text
        if self.live:
            click.echo(f"\r\x1b[2K  {plain(text)}", err=True, nl=False)
        else:
            note(f"  {text}")

    def clear(self) -> None:
        """Take the line away before a result is printed."""
        if self.live and self.last:
            click.echo("\r\x1b[2K", err=True, nl=False)
        self.last = ""


def exit_code_of(refusal: Refusal) -> int:
    """The documented exit code of a refusal."""
    return EXIT_CODES_BY_REFUSAL.get(refusal.code, getattr(refusal, "exit_code", FAILED))


def wants_json() -> bool:
    """Whether this run was asked for JSON, for refusals that come before options are known."""
    return "--json" in sys.argv[1:]


def report_failure(error: Exception) -> int:
    """Explain a refusal; report a defect in one line. Returns the exit code."""
    if isinstance(error, Refusal):
        if wants_json():
            click.echo(json_text({"error": error.to_json()}))
        else:
            head = HEADS_BY_EXIT_CODE.get(exit_code_of(error), "Refused:")
            # On a terminal a line of progress may stand here.
            before = "\r\x1b[2K" if sys.stderr.isatty() else ""
            click.echo(f"{before}{click.style(head, fg='red', bold=True)} {plain(error.message)}", err=True)
            if error.remedy:
                note(f"  {error.remedy}")
        return exit_code_of(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # Files that a person named: the system's own words say enough.
        return report_failure(FileUnusable(file=str(error.filename), reason=error.strerror))
    where = _save_report(error)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if wants_json():
        click.echo(json.dumps({"error": {"code": "defect", "message": said, "remedy": where, "facts": {}}}))
    else:
        click.echo(
            f"{click.style('This is a defect in Open Resource:', fg='red', bold=True)} {plain(said)}",
            err=True,
        )
        click.echo(f"  {where}", err=True)
    return FAILED


def _save_report(error: Exception) -> str:
    if os.environ.get("OPENRESOURCE_DEBUG"):
        traceback.print_exception(error)
        return "The traceback is above."
    return "Run the command again with OPENRESOURCE_DEBUG=1 to see where it happened, and report it with that text."


def usage_error(text: str) -> NoReturn:
    """Refuse words that were typed wrongly; exit code 2."""
    raise click.UsageError(text)
