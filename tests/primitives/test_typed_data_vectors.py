"""Typed data against a wallet library."""

from __future__ import annotations

from typing import Any

from openresource.primitives.keys import private_key_from_hex
from openresource.primitives.typed_data import (
    domain_separator,
    recover_typed,
    sign_typed,
    signing_digest,
    struct_hash,
)
from tests.vectors_support import vectors


@vectors(
    "openresource/typed_data.json",
    "cases",
    expected=("domain_separator", "struct_hash", "digest", "address", "signature"),
)
def test_typed_data_vectors(case: Any, document: Any) -> None:
    given = case["domain"]
    domain = domain_separator(
        given["name"],
        given["version"],
        int(given["chain_id"]),
        salt=bytes.fromhex(given["salt"][2:]),
        verifying_contract=given["verifying_contract"],
    )
    struct = struct_hash(case["type"], typed_values(case))
    assert "0x" + domain.hex() == case["domain_separator"]
    assert "0x" + struct.hex() == case["struct_hash"]
    assert "0x" + signing_digest(domain, struct).hex() == case["digest"]
    assert sign_typed(domain, struct, private_key_from_hex(case["private_key"])) == case["signature"]
    assert recover_typed(domain, struct, case["signature"]) == case["address"]


def typed_values(case: Any) -> dict[str, Any]:
    """The values as Python has them; JSON writes integers and bytes as texts."""
    inner = case["type"].partition("(")[2][:-1]
    kinds = {name: kind for kind, name in (field.split(" ") for field in inner.split(",") if field)}
    values: dict[str, Any] = {}
    for name, value in case["values"].items():
        if kinds[name].startswith("uint"):
            values[name] = int(value)
        elif kinds[name].startswith("bytes"):
            values[name] = bytes.fromhex(value[2:])
        else:
            values[name] = value
    return values
