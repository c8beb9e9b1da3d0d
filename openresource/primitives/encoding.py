"""Text and JSON as every peer writes them, and how text from outside becomes a value.

Strings are sequences of UTF-16 code units for JavaScript peers: lengths and orders count those, and a lone surrogate
is legal. Python strings from `parse_json` keep lone surrogates; pairs are one character.
"""

from __future__ import annotations

import base64
import json
import math
import re
from json.encoder import encode_basestring
from typing import Any, Final

import msgspec

from openresource.primitives.errors import Refusal
from openresource.primitives.limits import JSON_BYTES_MAX, JSON_DEPTH_MAX
from openresource.primitives.numbers import number_text, to_double

Json = dict[str, Any] | list[Any] | str | int | float | bool | None

_ARRAY_INDEX_MAX: Final = 2**32 - 2

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_SURROGATE_PAIR: Final = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")

# The fast encoder writes the same bytes unless there is an escape, an exponent, a fraction of .0 or a long integer.
# A string may look like one of these; then the exact path does the work and nothing is lost.
_UNUSUAL_NUMBER: Final = re.compile(rb"[:,\[]-?[0-9](?:[0-9]{15}|[0-9]*(?:(?:\.[0-9]+)?[eE]|\.0(?![0-9])))")
_LONG_INTEGER: Final = re.compile(rb"[:,\[ \n\t\r-][0-9]{16}")

_sorted_encoder: Any = msgspec.json.Encoder(order="sorted")
_plain_encoder: Any = msgspec.json.Encoder()
_quoted: Any = encode_basestring


class NotJson(Refusal):
    template = "The text is not valid JSON: {reason}."
    way_out = "Send one JSON value in UTF-8, without NaN or Infinity."


class JsonTooLarge(Refusal):
    template = "The JSON text has {bytes} bytes; at most {bytes_max} are read."
    way_out = "Send less at once."


class JsonTooDeep(Refusal):
    template = "The JSON value is nested deeper than {depth_max} levels."
    way_out = "Send a flatter value."


class NotEncodable(Refusal):
    template = "A value of type {kind} has no JSON form here."


def parse_json(raw: bytes | str, *, bytes_max: int = JSON_BYTES_MAX, depth_max: int = JSON_DEPTH_MAX) -> Any:
    """A JSON value from outside; the last of equal keys wins, and integers beyond doubles are rounded to them."""
    try:
        data = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")
    except UnicodeEncodeError as error:
        raise NotJson(reason="it cannot be written as UTF-8") from error
    if len(data) > bytes_max:
        raise JsonTooLarge(bytes=len(data), bytes_max=bytes_max)
    value: Any
    is_plain = data[:1] in (b"{", b"[") and b"\\u" not in data and (isinstance(raw, bytes) or raw.isascii())
    if is_plain and _LONG_INTEGER.search(data) is None:
        try:
            value = _fast_decoder.decode(data)
        except msgspec.DecodeError as error:
            raise NotJson(reason=str(error)) from error
        except UnicodeDecodeError as error:
            raise NotJson(reason="it is not UTF-8") from error
        except RecursionError as error:
            raise JsonTooDeep(depth_max=depth_max) from error
    else:
        value = _parse_exactly(raw, depth_max)
    # Brackets inside strings count here too, so this only ever asks for a walk that was not needed.
    if data.count(b"{") + data.count(b"[") > depth_max:
        _check_depth(value, depth_max)
    return value


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no white space, numbers and escapes as JavaScript writes them."""
    fast = _canonical_fast(value)
    return fast.decode("ascii") if fast else canonical_json_exact(value)


def canonical_json_bytes(value: Any) -> bytes:
    """The UTF-8 bytes of the canonical JSON text."""
    return _canonical_fast(value) or utf8(canonical_json_exact(value))


def canonical_json_exact(value: Any) -> str:
    """Canonical JSON by its definition, for every value; `canonical_json` gives the same text sooner."""
    parts: list[str] = []
    _write_json(value, parts, True, 0)
    return "".join(parts)


def js_json(value: Any) -> str:
    """JSON text as a JavaScript peer prints it: keys in property order."""
    parts: list[str] = []
    _write_json(value, parts, False, 0)
    return "".join(parts)


def property_order(value: dict[str, Any]) -> list[str]:
    """Keys as JavaScript lists them: array indices ascending, then the others as they were inserted."""
    indices = [key for key in value if is_array_index(key)]
    if not indices:
        return list(value)
    indices.sort(key=int)
    return indices + [key for key in value if not is_array_index(key)]


def is_array_index(key: str) -> bool:
    """Whether a key is a canonical array index of JavaScript."""
    if not key or not "0" <= key[0] <= "9":
        return False
    if len(key) > 10 or not key.isdigit() or not key.isascii():
        return False
    return key == "0" or (key[0] != "0" and int(key) <= _ARRAY_INDEX_MAX)


def utf16_length(text: str) -> int:
    """The length that a JavaScript peer sees."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def utf16_order(text: str) -> bytes:
    """A sorting key that orders texts by their UTF-16 code units."""
    return text.encode("utf-16-be", "surrogatepass")


def utf8(text: str) -> bytes:
    """UTF-8 bytes, with the replacement character for every lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", _joined_pairs(text)).encode()


def base64url(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def base64url_bytes(text: str) -> bytes:
    """The bytes behind an unpadded base64url text; only the canonical text is accepted."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise NotBase64Url() from error
    if base64url(data) != text:
        raise NotBase64Url()
    return data


class NotBase64Url(Refusal):
    template = "The text is not base64url without padding."


def compact_size(number: int) -> bytes:
    """Bitcoin's length prefix: one byte below 0xfd, else a marker and 2, 4 or 8 bytes, little endian."""
    if number < 0xFD:
        return bytes((number,))
    if number <= 0xFFFF:
        return b"\xfd" + number.to_bytes(2, "little")
    if number <= 0xFFFFFFFF:
        return b"\xfe" + number.to_bytes(4, "little")
    return b"\xff" + number.to_bytes(8, "little")


def varint(number: int) -> bytes:
    """Unsigned LEB128, as protobuf and multiformats write integers."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _canonical_fast(value: Any) -> bytes:
    """The canonical bytes if the fast encoder is known to write them, else nothing."""
    if not isinstance(value, dict | list):
        return b""
    try:
        encoded: bytes = _sorted_encoder.encode(value)
    except (UnicodeEncodeError, OverflowError, TypeError, RecursionError):
        return b""
    if encoded.isascii() and b"\\" not in encoded and _UNUSUAL_NUMBER.search(encoded) is None:
        return encoded
    return b""


def _write_json(value: Any, parts: list[str], is_sorted: bool, depth: int) -> None:
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(_json_string(value))
    elif isinstance(value, (int, float)):
        parts.append(number_text(value) if math.isfinite(to_double(value)) else "null")
    elif isinstance(value, dict):
        if depth > JSON_DEPTH_MAX:
            raise JsonTooDeep(depth_max=JSON_DEPTH_MAX)
        _write_object(value, parts, is_sorted, depth)
    elif isinstance(value, list | tuple):
        if depth > JSON_DEPTH_MAX:
            raise JsonTooDeep(depth_max=JSON_DEPTH_MAX)
        separator = "["
        for item in value:
            parts.append(separator)
            _write_json(item, parts, is_sorted, depth + 1)
            separator = ","
        parts.append("]" if value else "[]")
    else:
        raise NotEncodable(kind=type(value).__name__)


def _write_object(value: dict[str, Any], parts: list[str], is_sorted: bool, depth: int) -> None:
    separator = "{"
    for key in sorted(value, key=utf16_order) if is_sorted else property_order(value):
        parts.append(separator)
        parts.append(_json_string(key))
        parts.append(":")
        _write_json(value[key], parts, is_sorted, depth + 1)
        separator = ","
    parts.append("}" if value else "{}")


def _json_string(text: str) -> str:
    quoted: str = _quoted(text)
    if _SURROGATE.search(quoted) is None:
        return quoted
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", _joined_pairs(quoted))


def _joined_pairs(text: str) -> str:
    """The text with every surrogate pair as the one character that it stands for."""
    return _SURROGATE_PAIR.sub(
        lambda match: match.group().encode("utf-16-le", "surrogatepass").decode("utf-16-le"), text
    )


def _parse_exactly(raw: bytes | str, depth_max: int) -> Any:
    try:
        text = _joined_pairs(raw) if isinstance(raw, str) else raw.decode("utf-8")
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_no_constant)
    except RecursionError as error:
        raise JsonTooDeep(depth_max=depth_max) from error
    except UnicodeDecodeError as error:
        raise NotJson(reason="it is not UTF-8") from error
    except ValueError as error:
        raise NotJson(reason=str(error)) from error


def _integer(digits: str) -> float | int:
    # Python refuses to read very long integers, and a double of more than 310 digits is infinite anyway.
    return to_double(int(digits)) if len(digits) < 20 else _float(digits)


def _float(digits: str) -> float | int:
    value = float(digits)
    if math.isinf(value):
        raise NotJson(reason="a number is too large for a double")
    return to_double(value)


def _no_constant(name: str) -> Any:
    raise NotJson(reason=f"{name} is no JSON value")


def _check_depth(value: Any, depth_max: int) -> None:
    level: list[Any] = [value]
    for _ in range(depth_max):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return
        level = inner
    if any(isinstance(item, dict | list) for item in level):
        raise JsonTooDeep(depth_max=depth_max)


_fast_decoder: Any = msgspec.json.Decoder(float_hook=_float)
