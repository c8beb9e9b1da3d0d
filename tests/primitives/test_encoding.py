"""Canonical JSON, hostile JSON, JavaScript's order and lengths."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.encoding import (
    JsonTooDeep,
    JsonTooLarge,
    NotBase64Url,
    NotEncodable,
    NotJson,
    base64url,
    base64url_bytes,
    canonical_json,
    canonical_json_bytes,
    canonical_json_exact,
    compact_size,
    js_json,
    parse_json,
    property_order,
    utf8,
    utf16_length,
    utf16_order,
    varint,
)
from openresource.primitives.values import deep_equal

any_text = st.text(st.characters(codec=None), max_size=12) | st.text(
    st.sampled_from('az09"\\:,{}[].eE-\n\x7fé한🚀\ud800\udc00'), max_size=12
)
numbers = (
    st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1e21, 1e-7, 999999999999999, 1000000000000000, -1.5, 2**53 - 1, 1e15, 1e16])
)
leaves = st.none() | st.booleans() | numbers | any_text
json_values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(any_text | st.integers(0, 99).map(str), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(json_values)
def test_the_fast_path_writes_what_the_definition_says(value: Any) -> None:
    assert canonical_json(value) == canonical_json_exact(value)
    assert canonical_json_bytes(value) == utf8(canonical_json_exact(value))


@given(
    st.dictionaries(
        st.text("ab/.:0 ", max_size=4), st.integers(-(10**6), 10**6) | st.text("x1.e-:,", max_size=30)
    )
)
def test_the_fast_path_writes_what_the_definition_says_for_plain_objects(value: Any) -> None:
    assert canonical_json(value) == canonical_json_exact(value)


@given(json_values)
def test_canonical_json_reads_back_as_the_same_value(value: Any) -> None:
    text = canonical_json(value)
    assert deep_equal(parse_json(utf8(text)), normalised(value))
    assert canonical_json(parse_json(utf8(text))) == text


@given(json_values)
def test_both_readers_agree(value: Any) -> None:
    raw = json.dumps(value).encode()
    # A text that is not ASCII or has escapes takes the exact reader, bytes mostly the fast one.
    assert deep_equal(parse_json(raw), parse_json(json.dumps(value, ensure_ascii=False)))


@given(st.binary(max_size=60))
def test_whatever_bytes_arrive_there_is_a_value_or_a_refusal(raw: bytes) -> None:
    try:
        value = parse_json(raw)
    except (NotJson, JsonTooDeep):
        return
    canonical_json(value)


@pytest.mark.parametrize(
    "raw",
    [b"", b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"[1,]", b'"\xff"', b"\xef\xbb\xbf1", b"1 2", b"1e999", b"01",
     b'{"a":1e400,"b":"\\u0041"}', b"9" * 5000, b'["\\ud800', b"'a'", b'{1:2}'],
)  # fmt: skip
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson):
        parse_json(raw)


def test_a_text_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(JsonTooLarge) as refusal:
        parse_json(b" " * 101, bytes_max=100)
    assert refusal.value.bytes == 101


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_exactly(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return (opening * depth + "1" + closing * depth).encode()

    parse_json(nested(7), depth_max=7)
    parse_json(nested(7).replace(b"1", b'"\\u0041[[[[[["'), depth_max=7)
    for depth in (8, 100_000):
        with pytest.raises(JsonTooDeep):
            parse_json(nested(depth), depth_max=7)
        with pytest.raises(JsonTooDeep):
            parse_json(nested(depth).replace(b"1", b'"\\u0041"'), depth_max=7)


def test_numbers_arrive_as_doubles() -> None:
    raw = b'{"a":[1.0,-0.0,2.5,9007199254740993,123456789012345678901,1e300,-9007199254740992]}'
    read = parse_json(raw)["a"]
    assert read == [1, 0, 2.5, 9007199254740992.0, 123456789012345680000.0, 1e300, -9007199254740992.0]
    assert [type(number) for number in read] == [int, int, float, float, float, float, float]


def test_equal_keys_and_lone_surrogates_are_read_as_elsewhere() -> None:
    assert parse_json(b'{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}
    assert parse_json(b'"\\ud83d\\ude80"') == "🚀"
    assert parse_json(b'"\\ude80"') == "\ude80"


def test_surrogates_side_by_side_are_one_character() -> None:
    pair = "\ud83d" + "\ude80"
    assert canonical_json({"a": pair}) == '{"a":"🚀"}'
    assert utf8(pair) == "🚀".encode()
    assert utf8("\ude80\ud83d") == b"\xef\xbf\xbd" * 2
    assert utf16_length(pair) == utf16_length("🚀") == 2


def test_what_has_no_json_form_is_refused() -> None:
    for value in (b"bytes", {"a": {1}}, object()):
        with pytest.raises(NotEncodable):
            canonical_json_exact(value)
    assert canonical_json({"a": math.inf, "b": math.nan}) == '{"a":null,"b":null}'


def test_property_order_is_that_of_javascript() -> None:
    keys = ["b", "10", "2", "01", "-1", "4294967294", "4294967295", "0", "a", "1.5", "٣", ""]
    expected = ["0", "2", "10", "4294967294", "b", "01", "-1", "4294967295", "a", "1.5", "٣", ""]
    assert property_order(dict.fromkeys(keys)) == expected
    assert js_json({"b": 1, "1": {"z": 2, "0": 3}}) == '{"1":{"0":3,"z":2},"b":1}'


@given(st.lists(any_text))
def test_code_unit_order_is_that_of_utf_16(texts: list[str]) -> None:
    def code_units(text: str) -> list[int]:
        raw = text.encode("utf-16-be", "surrogatepass")
        return [raw[place] << 8 | raw[place + 1] for place in range(0, len(raw), 2)]

    assert sorted(texts, key=utf16_order) == sorted(texts, key=code_units)


@given(st.binary(max_size=50))
def test_base64url_reads_back(data: bytes) -> None:
    text = base64url(data)
    assert "=" not in text
    assert base64url_bytes(text) == data


@pytest.mark.parametrize("text", ["A", "AB==", "A+", "AB", "é", "A A", "AAA\n"])
def test_only_canonical_base64url_is_read(text: str) -> None:
    with pytest.raises(NotBase64Url):
        base64url_bytes(text)


def test_integers_of_both_kinds() -> None:
    assert [varint(number).hex() for number in (0, 127, 128, 300)] == ["00", "7f", "8001", "ac02"]
    sizes = [compact_size(number).hex() for number in (0, 252, 253, 65535, 65536, 2**32)]
    assert sizes == ["00", "fc", "fdfd00", "fdffff", "fe00000100", "ff0000000001000000"]


def normalised(value: Any) -> Any:
    """A value as it reads back: whole doubles as integers, surrogates side by side as one character."""
    if isinstance(value, dict):
        return {normalised(key): normalised(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalised(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return value
