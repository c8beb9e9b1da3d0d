"""What builds see of a machine's tools is a folder of theirs, never somebody's home."""

from __future__ import annotations

from pathlib import Path

import pytest

from openresource.builds import toolchains
from openresource.builds.toolchains import ToolchainMissing


@pytest.mark.parametrize("place", ["bin", ".local/bin", "tools/node/bin"])
def test_a_tool_in_a_home_does_not_show_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    home = tmp_path / "home" / "operator"
    tool = home / place / "node"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho v20.1.0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    find = toolchains.node.__wrapped__
    if place == "tools/node/bin":
        assert find().mounts[0].source == home / "tools" / "node"
    else:
        with pytest.raises(ToolchainMissing, match="no folder of its own"):
            find()
