"""What a beginner reads: lines that can be copied, and nothing that ends in the middle of a word."""

from __future__ import annotations

from click.testing import CliRunner

from openresource.cli.doctor import doctor
from openresource.cli.publication import CALL_LINE_CHARACTERS_MAX, call_line
from openresource.cli.services import SUMMARY_CHARACTERS_MAX, _short
from openresource.client.channels import NotEnoughCoins
from openresource.market.manifests import parse_manifest

PAGE = """
name = "words"
summary = "Words."
license = "MIT"
[run]
kind = "jsonl"
command = ["sh", "words.sh"]
"""


def test_the_line_to_copy_is_one_whose_example_fits() -> None:
    long = "[" + ", ".join(['"word"'] * 60) + "]"
    page = f"""{PAGE}
[[methods]]
name = "count"
example = {{input = {{words = {long}}}}}
[[methods]]
name = "say"
example = {{input = {{word = "two words"}}}}
"""
    line = call_line(parse_manifest(page))
    assert line == "openresource call words say 'word=two words'"
    assert len(line) <= CALL_LINE_CHARACTERS_MAX


def test_the_line_to_copy_names_no_file_that_nobody_has() -> None:
    long = "[" + ", ".join(['"word"'] * 60) + "]"
    page = f"{PAGE}[[methods]]\nname = 'count'\nexample = {{input = {{words = {long}}}}}\n"
    assert call_line(parse_manifest(page)) == "openresource call words --input FILE.json"


def test_without_an_example_the_line_to_copy_names_what_is_required() -> None:
    page = (
        f"{PAGE}[[methods]]\nname = 'say'\n"
        "input = {type = 'object', properties = {word = {type = 'string'}, loud = {type = 'boolean'}}, "
        "required = ['word']}\n"
    )
    assert call_line(parse_manifest(page)) == "openresource call words word=…"


def test_a_summary_that_was_cut_says_so() -> None:
    summary = "Takes personal data out of a text: " + "addresses, cards, " * 8
    shown = _short(summary)
    assert len(shown) <= SUMMARY_CHARACTERS_MAX and shown.endswith(", …")
    assert _short("Says it louder.") == "Says it louder."


def test_who_has_no_coins_gets_the_command_that_brings_some() -> None:
    refusal = NotEnoughCoins(address="0xAb", balance="0", required="0.1")
    assert "openresource wallet send 0xAb 1 --home FOLDER" in refusal.remedy


def test_doctor_tells_each_thing_as_soon_as_it_knows_it() -> None:
    """The first line is there before the sandboxes are started, and the slow part is announced."""
    result = CliRunner().invoke(doctor, ["--node", "http://127.0.0.1:9"])
    before, _, after = result.output.partition("starting each kind of sandbox")
    assert "Python" in before and "isolation" not in before and "isolation" in after
