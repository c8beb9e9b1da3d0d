"""The market's tables: every code has one meaning, every path a rule, a native and a line in the package's page."""

from __future__ import annotations

import string
from pathlib import Path

import openresource.market
from openresource.ledger import draft, due
from openresource.market import natives
from openresource.market.codes import ResultCode
from openresource.market.placements import TEST_CALL_TYPE, TLS_KEY_TYPE
from openresource.market.receipts import RECEIPT_TYPE
from openresource.market.tables import code_rows, coded_refusals, codes_markdown, path_rows, paths_markdown
from openresource.market.vouchers import SETTLE_TYPE, VOUCHER_TYPE


def test_every_result_code_belongs_to_exactly_one_refusal() -> None:
    numbers = [row.number for row in code_rows()]
    assert sorted(numbers) == sorted(int(code) for code in ResultCode)
    assert len(set(numbers)) == len(numbers) and min(numbers) >= 21_100 and max(numbers) < 22_999


def test_a_code_is_named_like_its_refusal() -> None:
    names = {code.value: code.name.replace("_", "").lower() for code in ResultCode}
    for row in code_rows():
        assert names[row.number] == row.refusal.lower()


def test_no_code_is_the_ledgers() -> None:
    ledgers = {
        draft.InsufficientBalance,
        draft.InvalidTransferAmount,
        draft.UnknownAsset,
        due.DueTimeOutOfRange,
    }
    assert not {refusal.result_code for refusal in ledgers} & {row.number for row in code_rows()}


def test_every_refusal_says_what_happened_and_the_way_out() -> None:
    for refusal in coded_refusals():
        assert refusal.template.endswith("."), refusal
        assert refusal.way_out.endswith(".") or refusal.way_out.endswith("}"), refusal
        for text in (refusal.template, refusal.way_out):
            list(string.Formatter().parse(text))


def test_every_path_has_a_rule_and_a_native_and_stands_in_the_packages_table() -> None:
    names = {native.name for native in natives.NATIVES}
    page = openresource.market.__doc__ or ""
    for row in path_rows():
        assert row.native in names and row.rule and row.path in page, row
    assert {row.native for row in path_rows()} == names
    assert len(names) == len(natives.NATIVES)


def test_everything_below_a_subject_is_closed_but_for_its_paths() -> None:
    subjects = {"/" + path.split("/")[1] for path in natives.FUNCTIONS}
    # These the chain alone writes.
    of_the_chain = {"/records", "/pairs", "/verified", "/staked", "/forks"}
    assert {path for path, rule in natives.RULES.items() if rule == "false"} == subjects | of_the_chain


def test_every_due_action_has_its_own_kind() -> None:
    kinds = [action.kind for action in natives.DUE_ACTIONS]
    assert len(set(kinds)) == len(kinds)


def test_the_tables_print() -> None:
    assert f"| {ResultCode.CHANNEL_EXISTS.value} | `ChannelExists` |" in codes_markdown()
    assert "`_claimChannel`" in paths_markdown()


def test_the_documentation_shows_the_tables_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "market.md").read_text(encoding="utf-8")
    for table in (paths_markdown(), codes_markdown()):
        assert table in page, f"put this into docs/market.md:\n\n{table}"


def test_the_documentation_shows_the_types_of_papers_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "market.md").read_text(encoding="utf-8")
    for paper in (VOUCHER_TYPE, SETTLE_TYPE, RECEIPT_TYPE, TLS_KEY_TYPE, TEST_CALL_TYPE):
        assert f"`{paper}`" in page
