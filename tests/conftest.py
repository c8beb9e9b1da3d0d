"""What every test run has in common: the count of vector cases, its failure when there was none, patient properties."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings

from tests.vectors_support import summary_lines

# How long one example takes says more about the machine's other work than about the code. The same commit draws the same
# examples, so that who changed something is not told of what was always there; `scripts/long properties` draws new ones.
settings.register_profile("openresource", deadline=None, derandomize=True)
settings.register_profile("new-examples", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("new-examples" if "OPENRESOURCE_NEW_EXAMPLES" in os.environ else "openresource")


# Real processes, browsers and shells on a machine that also does other things. Attacks and deaths at random instants
# are not among them: there, once is enough.
PLAYED_AGAIN = {"journey", "browser", "tutorial"}
NEVER_PLAYED_AGAIN = {"kill", "sandbox", "vectors"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A journey that fails is played once more; the summary tells of both (docs/decisions/0038)."""
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if marks & PLAYED_AGAIN and not marks & NEVER_PLAYED_AGAIN:
            # One that hung is not played again, as its clock is not wound up twice.
            again = pytest.mark.flaky(reruns=1, reruns_delay=2, rerun_except="from pytest-timeout")
            item.add_marker(again)


def _reports(terminalreporter: Any) -> list[Any]:
    return [
        report for kind in ("passed", "failed", "skipped") for report in terminalreporter.stats.get(kind, [])
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints how many vector cases ran, per file and in all, and what AI Network's own clients have checked."""
    lines, total, tests = summary_lines(_reports(terminalreporter))
    if tests:
        terminalreporter.section("vectors")
        for line in lines:
            terminalreporter.write_line(line)
        if total == 0:
            terminalreporter.write_line("Vector tests were asked for, and not one case ran.", red=True)
    unsteady = terminalreporter.stats.get("rerun", [])
    if unsteady:
        terminalreporter.section("failed once and was played again")
        for report in unsteady:
            terminalreporter.write_line(report.nodeid)
            terminalreporter.write_line(report.longreprtext)
    clients = [
        str(value)
        for report in _reports(terminalreporter)
        for key, value in report.user_properties
        if report.when == "call" and key == "AI Network client"
    ]
    if clients:
        terminalreporter.section("AI Network's clients")
        for line in sorted(clients):
            terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run of vector tests without a single case has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    _, total, tests = summary_lines(_reports(reporter))
    if tests and total == 0 and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
