"""Typed data that wallets can show before they sign it (EIP-712), for flat structures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from openresource.primitives.encoding import utf8
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import InvalidSignature, PrivateKey, address_bytes, recover

_TYPE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\(([A-Za-z0-9_, ]*)\)")
_FIELD: Final = re.compile(
    r"(address|bool|bytes|bytes32|string|uint(?:8|16|32|64|128|256)) ([A-Za-z_][A-Za-z0-9_]*)"
)
_SIGNATURE: Final = re.compile("0x[0-9a-fA-F]{130}")

# A program has a handful of types; each is parsed and hashed once.
_TYPES_KEPT_MAX: Final = 256
_types: Final[dict[str, tuple[bytes, list[tuple[str, str]]]]] = {}


class InvalidTypedData(Refusal):
    template = "The value of {field} does not fit its type {type}."


class InvalidTypeString(Refusal):
    template = "{text} is not the type of a flat structure."
    way_out = "Write it like Mail(address to,string text), without spaces after commas."


def domain_separator(
    name: str, version: str, chain_id: int, salt: bytes = b"", verifying_contract: str = ""
) -> bytes:
    """The hash that ties signatures to one network; an empty salt or contract is left out."""
    fields = "string name,string version,uint256 chainId"
    values: dict[str, Any] = {"name": name, "version": version, "chainId": chain_id}
    if verifying_contract:
        fields += ",address verifyingContract"
        values["verifyingContract"] = verifying_contract
    if salt:
        fields += ",bytes32 salt"
        values["salt"] = salt
    return struct_hash(f"EIP712Domain({fields})", values)


def struct_hash(type_string: str, values: Mapping[str, Any]) -> bytes:
    """The hash of a structure: of its type and of each value in the type's order."""
    type_hash, fields = _parsed_type(type_string)
    if len(values) != len(fields):
        raise InvalidTypeString(text=type_string)
    words = [type_hash]
    for kind, name in fields:
        if name not in values:
            raise InvalidTypedData(field=name, type=kind)
        words.append(_word(kind, name, values[name]))
    return keccak(b"".join(words))


def signing_digest(domain: bytes, struct: bytes) -> bytes:
    """What a wallet signs: the domain's and the structure's hash behind the marker of EIP-191."""
    return keccak(b"\x19\x01" + domain + struct)


def sign_typed(domain: bytes, struct: bytes, key: PrivateKey) -> str:
    """A wallet's signature as 0x and 130 hex digits: r, s, and v of 27 or 28."""
    signature = key.sign_recoverable(signing_digest(domain, struct))
    return f"0x{signature[:64].hex()}{signature[64] + 27:02x}"


def recover_typed(domain: bytes, struct: bytes, signature: str) -> str:
    """The address whose key made a wallet's signature."""
    if _SIGNATURE.fullmatch(signature) is None:
        raise InvalidSignature(reason="it is not 0x and 130 hex digits")
    return recover(signing_digest(domain, struct), bytes.fromhex(signature[2:]))


def _parsed_type(type_string: str) -> tuple[bytes, list[tuple[str, str]]]:
    known = _types.get(type_string)
    if known is not None:
        return known
    match = _TYPE.fullmatch(type_string)
    if match is None:
        raise InvalidTypeString(text=type_string)
    fields: list[tuple[str, str]] = []
    for text in match.group(2).split(",") if match.group(2) else []:
        field = _FIELD.fullmatch(text)
        if field is None or field.group(2) in [name for _, name in fields]:
            raise InvalidTypeString(text=type_string)
        fields.append((field.group(1), field.group(2)))
    parsed = (keccak(type_string.encode()), fields)
    if len(_types) >= _TYPES_KEPT_MAX:
        _types.clear()
    _types[type_string] = parsed
    return parsed


def _word(kind: str, name: str, value: Any) -> bytes:
    """The 32 bytes that stand for a value."""
    if kind == "address" and isinstance(value, str):
        return address_bytes(value).rjust(32, b"\0")
    if kind == "bool" and isinstance(value, bool):
        return bytes(31) + (b"\x01" if value else b"\0")
    if kind == "string" and isinstance(value, str):
        return keccak(utf8(value))
    if kind == "bytes" and isinstance(value, bytes):
        return keccak(value)
    if kind == "bytes32" and isinstance(value, bytes) and len(value) == 32:
        return value
    if kind.startswith("uint") and isinstance(value, int) and not isinstance(value, bool):
        bits = int(kind[4:])
        if 0 <= value < 1 << bits:
            return value.to_bytes(32, "big")
    raise InvalidTypedData(field=name, type=kind)
