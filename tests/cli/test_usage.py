"""What every command promises: help at once, an example, documented exit codes, --json, and plain words for mistakes."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from openresource.cli.main import COMMANDS, group

HELP_SECONDS_MAX = 0.3


def every_command() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for entries in COMMANDS.values():
        for name in entries:
            command = group.get_command(context, name)
            assert command is not None
            yield name, command
            if isinstance(command, click.Group):
                yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())


COMMANDS_BY_NAME = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS_BY_NAME)
def test_every_command_shows_an_example_and_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(group, [*name.split(), "--help"])
    assert shown.exit_code == 0
    assert "Example:" in shown.output and "Exit codes:" in shown.output
    assert f"openresource {name.split()[0]}" in shown.output


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, one in COMMANDS_BY_NAME.items()
        if not isinstance(one, click.Group) or one.invoke_without_command
    ],
)
def test_every_command_can_speak_json(name: str) -> None:
    options = [word for parameter in COMMANDS_BY_NAME[name].params for word in parameter.opts]
    assert "--json" in options


def test_the_list_of_commands_documents_the_exit_codes_and_comes_at_once() -> None:
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "openresource", "--help"], capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Processor time of the quickest run: what the code costs, not what else the machine does.
    assert min(took) < HELP_SECONDS_MAX
    assert "Exit codes" in done.stdout
    assert all(name in done.stdout for names in COMMANDS.values() for name in names)


def test_the_list_of_commands_imports_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['openresource', '--help']\n"
        "from openresource.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'httpx2', 'asyncio', 'uvicorn', 'lmdb', 'coincurve', 'sqlite3', 'cryptography'} & set(sys.modules)\n"
        "sys.stderr.write(','.join(sorted(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cal", "shout"], "Did you mean 'call'?"),
        (["frobnicate"], "See openresource --help"),
        (["publish"], "Name a folder"),
        (["call"], "SERVICE"),
        (["node", "start", "--port", "99999"], "65535"),
        (["provide", "--accept", "some"], "'all', 'own', 'list'"),
        (["provide", "--min-level", "vault"], "confined"),
        (["call", "shout", "text=a", "--input", "x.json"], "not both"),
        (["channel", "close"], "--all"),
        (["channel", "extend", "ab", "--by", "soon"], "7d"),
        (["up", "--port", "0"], "1<="),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(words: list[str], said: str) -> None:
    shown = CliRunner().invoke(group, words)
    assert shown.exit_code == 2
    assert said in shown.output
