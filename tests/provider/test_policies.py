"""Which versions a provider takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from openresource.provider.policies import (
    AcceptListInvalid,
    IsolationTooLow,
    Policy,
    accepts,
    check_level,
    load_policy,
)

OWN = "0x00ADEc28B6a845a085e03591bE7550dd68673C1C"
OTHER = "0x01A0980d2D4e418c7F27e1ef539d01A5b5E93204"
PROGRAM = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"


def test_own_takes_the_wallets_programs_only() -> None:
    policy = load_policy("own", "confined", Path("absent"))
    assert accepts(policy, own_address=OWN, publisher=OWN, name="a", program=PROGRAM)
    assert not accepts(policy, own_address=OWN, publisher=OTHER, name="a", program=PROGRAM)


def test_all_takes_everything() -> None:
    policy = load_policy("all", "confined", Path("absent"))
    assert accepts(policy, own_address=OWN, publisher=OTHER, name="a", program=PROGRAM)


@pytest.mark.parametrize(
    "line", [f'publishers = ["{OTHER.lower()}"]', f'services = ["{OTHER}/a"]', f'programs = ["{PROGRAM}"]']
)
def test_list_takes_what_it_names(tmp_path: Path, line: str) -> None:
    path = tmp_path / "accept.toml"
    path.write_text(line)
    policy = load_policy("list", "confined", path)
    assert accepts(policy, own_address=OWN, publisher=OTHER, name="a", program=PROGRAM)
    assert not accepts(policy, own_address=OWN, publisher=OWN, name="a", program="bafyanother")


@pytest.mark.parametrize(
    "text",
    [
        "publishers = [",
        'publishers = "0x"',
        "publishers = [1]",
        'publishers = ["nobody"]',
        'services = ["name"]',
        'programs = ["../.."]',
        'publisher = ["0x"]',
    ],
)
def test_a_wrong_list_is_refused_with_the_way_to_write_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "accept.toml"
    path.write_text(text)
    with pytest.raises(AcceptListInvalid) as caught:
        load_policy("list", "confined", path)
    assert "publishers = " in caught.value.remedy


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AcceptListInvalid):
        load_policy("list", "confined", tmp_path / "accept.toml")


def test_a_weaker_machine_than_asked_for_is_refused() -> None:
    check_level(Policy(min_level="confined"), "confined")
    check_level(Policy(min_level="confined"), "bubblewrap")
    check_level(Policy(min_level="bubblewrap"), "bubblewrap")
    with pytest.raises(IsolationTooLow):
        check_level(Policy(min_level="bubblewrap"), "confined")
    with pytest.raises(IsolationTooLow):
        check_level(Policy(min_level="confined"), "none")
