"""Paths on the chain, the labels they are made of, and the names of services and their accounts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from openresource.primitives.encoding import canonical_json, utf8, utf16_length
from openresource.primitives.hashing import is_hex_text
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.limits import LABEL_LENGTH_MAX

VALUES: Final = "values"
RULES: Final = "rules"
FUNCTIONS: Final = "functions"
OWNERS: Final = "owners"

SERVICE_ACCOUNT_TYPES: Final = frozenset(("billing", "escrow", "gas_fee", "payments", "staking"))
_STAKE_SUM_NAME: Final = "balance_total_sum"

_RESERVED_CLASS: Final = r"/.$*#{}\[\]<>'\"` \x00-\x1f\x7f"
_RESERVED: Final = re.compile(f"[{_RESERVED_CLASS}]")

# JavaScript's multi-line anchors stop at four characters, Python's at one.
_LINE_START: Final = r"(?:\A|(?<=[\n\r\u2028\u2029]))"
_LINE_END: Final = r"(?=[\n\r\u2028\u2029]|\Z)"
_ALLOWED: Final = re.compile(rf"{_LINE_START}(?:\*|[.$][^{_RESERVED_CLASS}]+){_LINE_END}")
_SERVICE_NAME: Final = re.compile(rf"{_LINE_START}[A-Za-z_][A-Za-z0-9_]*{_LINE_END}")
_LOWER_SERVICE_NAME: Final = re.compile(rf"{_LINE_START}[a-z_][a-z0-9_]*{_LINE_END}")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_ADDRESS_LENGTH: Final = 42
# An address is refused only for looking like a name or an identifier in hex; by chance none ever does.
_PLAIN_NAME: Final = re.compile("[A-Za-z0-9_-]+")
_ANY_TEXT: Final = re.compile(r"[^\x00-\x20\x7f]+")

_ENCODED: Final = re.compile(r"[/.$*#{}\[\]!]")
_DECODED: Final = re.compile("!([0-9a-fA-F]{2})")


def parse_path(path: Any) -> list[str]:
    """The labels of a path; empty pieces do not count, and what is no text has none."""
    if not isinstance(path, str):
        return []
    return [label for label in path.split("/") if label]


def format_path(labels: Sequence[Any]) -> str:
    """The text of a path."""
    return "/" + "/".join([label if isinstance(label, str) else canonical_json(label) for label in labels])


def append_path(path: str, *more: str) -> str:
    """A path with further paths behind it."""
    labels = parse_path(path)
    for part in more:
        labels.extend(parse_path(part))
    return format_path(labels)


def valid_label(label: Any, length_max: int = LABEL_LENGTH_MAX) -> bool:
    """Whether a label may stand in the state."""
    if not isinstance(label, str) or not label:
        return False
    if len(label) > length_max or utf16_length(label) > length_max:
        return False
    return _RESERVED.search(label) is None or _ALLOWED.search(label) is not None


def has_reserved_character(label: str) -> bool:
    """Whether a label contains a character that only a special label may have."""
    return _RESERVED.search(label) is not None


def matches_allowed_pattern(label: str) -> bool:
    """Whether a label has the form of a special label: *, .name or $name."""
    return _ALLOWED.search(label) is not None


def invalid_prefix(labels: Sequence[Any], length_max: int = LABEL_LENGTH_MAX) -> str | None:
    """The path up to and including the first label that may not stand in the state, or None."""
    for position, label in enumerate(labels):
        if not valid_label(label, length_max):
            return format_path(labels[: position + 1])
    return None


def is_variable(label: Any) -> bool:
    """Whether a label stands for any label."""
    return isinstance(label, str) and label.startswith("$")


def encode_label(text: str) -> str:
    """Any text as one label: characters with a meaning become ! and two hex digits."""
    return _ENCODED.sub(lambda match: f"!{ord(match.group()):02X}", text)


def decode_label(label: str) -> str:
    """The text behind an encoded label."""
    return _DECODED.sub(lambda match: chr(int(match.group(1), 16)), label)


def radix_label(label: str) -> str:
    """The hex digits under which the tree keeps a label: its own if it is 0x and hex digits, else of its UTF-8."""
    if is_hex_text(label):
        return label[2:].lower()
    return utf8(label).hex()


def is_ambiguous(label: str) -> bool:
    """Whether a label holds a control character, or is filed where another spelling of it belongs."""
    if _CONTROL.search(label) is not None:
        return True
    if not label.startswith("0x") or not is_hex_text(label):
        return False
    if len(label) == _ADDRESS_LENGTH:
        return not is_checksum_address(label) or _is_text_in_hex(label, _PLAIN_NAME)
    return label != label.lower() or len(label) == len("0x") or _is_text_in_hex(label, _ANY_TEXT)


def ambiguous_prefix(labels: Sequence[str]) -> str | None:
    """The path up to and including the first ambiguous label, or None."""
    for position, label in enumerate(labels):
        if is_ambiguous(label):
            return format_path(labels[: position + 1])
    return None


def _is_text_in_hex(label: str, pattern: re.Pattern[str]) -> bool:
    """Whether hex digits are the UTF-8 of a text, which the tree then files in the same place."""
    if len(label) % 2 != 0:
        return False
    try:
        return pattern.fullmatch(bytes.fromhex(label[2:]).decode()) is not None
    except UnicodeDecodeError:
        return False


def valid_service_name(name: Any, lower_case_only: bool = False) -> bool:
    """Whether an app or a service may have this name; line breaks split it as in AI Network's clients."""
    if not isinstance(name, str) or name == _STAKE_SUM_NAME:
        return False
    pattern = _LOWER_SERVICE_NAME if lower_case_only else _SERVICE_NAME
    return pattern.search(name) is not None


def service_account_name(kind: str, service: str, key: str) -> str:
    """The name of a service's account."""
    return f"{kind}|{service}|{key}"


def service_account_parts(name: str) -> tuple[str, str, str] | None:
    """Type, service and key of a service account's name, or None if it has fewer than three parts."""
    parts = name.split("|", 2)
    if len(parts) < 3:
        return None
    return parts[0], parts[1], parts[2]


def is_service_account(
    name: Any, lower_case_only: bool = False, kinds: frozenset[str] = SERVICE_ACCOUNT_TYPES
) -> bool:
    """Whether a name belongs to a service's account of one of these kinds rather than to a person's address."""
    if not isinstance(name, str):
        return False
    parts = service_account_parts(name)
    if parts is None:
        return False
    return parts[0] in kinds and valid_service_name(parts[1], lower_case_only)


def balance_path(name: str, kinds: frozenset[str] = SERVICE_ACCOUNT_TYPES) -> str:
    """Where the balance of an address or of a service's account of one of these kinds is."""
    parts = service_account_parts(name)
    if parts is not None and is_service_account(name, False, kinds):
        return f"/service_accounts/{parts[0]}/{parts[1]}/{parts[2]}/balance"
    return f"/accounts/{name}/balance"
