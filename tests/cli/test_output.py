"""What strangers wrote is printed as text, never as commands to a terminal."""

from __future__ import annotations

import json

import click
import pytest

from openresource.cli.output import json_text, plain, report_failure, show
from openresource.primitives.errors import Refusal

ATTACKS = (
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x9b31m",
    "a\rb",
    "\b\b\b",
    "\x1b[8m",
    "\u202egnp.exe",
    "\x7f",
)


class StrangerSays(Refusal):
    template = "The provider says {words}."
    way_out = "Choose another {words}."


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_keeps_its_letters_and_loses_its_commands(
    attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = plain(f"before {attack} after")
    assert shown.startswith("before ") and shown.endswith(" after") and "\ufffd" in shown
    assert not set(shown) & set("\x1b\x07\x08\r\x7f\x9b\u202e")
    show({}, as_json=False, text=attack)
    report_failure(StrangerSays(words=attack))
    captured = capsys.readouterr()
    assert not set(captured.out + captured.err) & set("\x07\x08\r\x7f\x9b\u202e")


@pytest.mark.parametrize("attack", ATTACKS)
def test_json_loses_nothing_and_commands_nothing(attack: str) -> None:
    text = json_text({"é": attack})
    assert json.loads(text) == {"é": attack} and "é" in text
    assert not set(text) & set("\x1b\x07\x08\r\x7f\x9b\u202e")


def test_our_own_bold_and_colours_stay() -> None:
    styled = click.style("name", bold=True) + click.style("!", fg="red") + "\n\ttext ünïcode 你好"
    assert plain(styled) == styled
