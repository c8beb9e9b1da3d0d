"""The scrub sample finds what proves itself and leaves alone what only looks alike."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import openresource

FOLDER = Path(openresource.__file__).parent / "samples" / "scrub"

# All numbers are those that their issuers publish as examples, or made for this.
PERSONAL = {
    "EMAIL": ["maria.silva+shop@mail.example.com", "o_neill@example.co.uk"],
    "CARD": ["4111 1111 1111 1111", "5500-0055-5555-5559", "378282246310005", "6011111111111117"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606"],
    "IP": ["192.168.17.4", "2001:db8::ff00:42:8329"],
    "MAC": ["00:1B:44:11:3A:B7", "00-1b-44-11-3a-b7"],
    "PHONE": ["+44 20 7946 0958", "+351 21 555 0142", "(030) 123456-78"],
    "KEY": [
        "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    ],
    "COIN": [
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "0x52908400098527886E0F7030069857D2E4169EE7",
    ],
    "ID": ["123-45-6789", "12345678Z", "X1234567L", "529.982.247-25", "2341 2341 2346", "943 476 5919"],
}
HARMLESS = [
    "order 4111111111111112",
    "invoice 2026-000-4711",
    "DE89 3704 0044 0532 0130 02",
    "version 1.2.3.4.5",
    "the ratio is 12:34:56",
    "987-65-4321",
    "12345678A",
    "529.982.247-26",
    "2341 2341 2347",
    "943 476 5918",
    "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
    "on 12.03.2026 at 10:45",
    "1,234,567.89 euros",
    "the password policy is strict",
]


@pytest.fixture(scope="module")
def scrub() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("scrub_sample", FOLDER / "scrub.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["scrub_sample"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in PERSONAL.items() for value in values]
)
def test_what_is_personal_is_found(scrub: ModuleType, kind: str, value: str) -> None:
    told = scrub.scrub(f"Please note {value}, thank you.")
    assert told.text == f"Please note [{kind}_1], thank you."
    assert told.found == {kind: 1}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_alike_stays(scrub: ModuleType, text: str) -> None:
    told = scrub.scrub(f"See {text} for more.")
    assert told.text == f"See {text} for more." and told.found == {}


def test_a_password_goes_and_the_words_around_it_stay(scrub: ModuleType) -> None:
    told = scrub.scrub("My password: hunter2! and the server is https://ann:secret@example.org/x")
    assert told.text == "My password: [SECRET_1] and the server is https://[SECRET_2]@example.org/x"


def test_the_same_value_has_the_same_label(scrub: ModuleType) -> None:
    told = scrub.scrub("4111 1111 1111 1111, 4111-1111-1111-1111 and 5500 0055 5555 5559")
    assert told.text == "[CARD_1], [CARD_1] and [CARD_2]"


@given(st.text(max_size=400))
def test_any_text_is_taken_and_scrubbing_twice_changes_nothing(scrub: ModuleType, text: str) -> None:
    once = scrub.scrub(text)
    assert scrub.scrub(once.text).text == once.text
