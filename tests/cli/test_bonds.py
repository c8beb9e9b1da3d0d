"""`openresource bond`: what is free, what is not, and when it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from openresource.client.homes import Home
from tests.cli.support import Outcome, funded_home, run_cli
from tests.support.network import local_node_process

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]


def test_a_bond_says_when_it_comes_back_and_what_is_not_free(tmp_path: Path) -> None:
    with local_node_process(tmp_path / "node") as node:
        home: Home = funded_home(tmp_path / "provider", tmp_path / "node", node.url)

        def bond(*words: str) -> Outcome:
            return run_cli("bond", *words, "--home", str(home.folder), "--node", node.url)

        assert bond("add", "3").code == 0
        planned = bond("withdraw", "1", "--dry-run")
        assert planned.code == 0 and "1 AIN, which would come back " in planned.out, planned.err
        asked = bond("withdraw", "1", "--json")
        assert asked.code == 0, asked.err
        shown = bond("show", "--json").json
        assert (shown["bond_uain"], shown["free_uain"], shown["running_jobs"]) == (2_000_000, 2_000_000, [])
        assert shown["leaving"] == [{"amount_uain": 1_000_000, "at_ms": asked.json["returns_at_ms"]}]
        refused = bond("withdraw", "2.5", "--dry-run")
        assert refused.code == 1 and "1 AIN are on their way, the last until" in refused.err
