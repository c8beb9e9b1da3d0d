"""The style sheet: text is readable on what it stands on, by day and by night, and one scale of type is all there is."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

import openresource.web

CSS = (Path(openresource.web.__file__).parent / "static" / "pages.css").read_text()
TEXT_RATIO_MIN = 4.5
EDGE_RATIO_MIN = 3.0


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ratio(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


LIGHT, DARK = (colours(block) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)[:2])


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable_on_every_ground(scheme: dict[str, str]) -> None:
    pairs = [
        *product(("ink", "quiet", "accent"), ("paper", "surface", "sunk")),
        ("accent", "accent-soft"),
        ("accent-ink", "accent"),
        ("warn", "warn-soft"),
        ("ink", "warn-soft"),
        ("bad", "bad-soft"),
        ("ink", "bad-soft"),
    ]
    for text, ground in pairs:
        assert ratio(scheme[text], scheme[ground]) >= TEXT_RATIO_MIN, (text, ground)
    assert ratio(scheme["line-strong"], scheme["surface"]) >= EDGE_RATIO_MIN


def test_sizes_of_type_come_from_the_scale() -> None:
    sizes = re.findall(r"font-size: ([^;}]+)", CSS)
    odd = [size for size in sizes if not re.fullmatch(r"var\(--t[1-6]\)|0\.92em|clamp\(var\(--t5\).*", size)]
    assert odd == []


def test_nothing_is_loaded_from_elsewhere_and_motion_can_be_turned_off() -> None:
    assert "url(" not in CSS and "@import" not in CSS
    assert "prefers-reduced-motion: reduce" in CSS and "prefers-color-scheme: dark" in CSS
