"""The fastest Keccak-256 with the original padding on this machine; never compiled, as it chooses at import."""

from __future__ import annotations

from typing import Any

try:
    from sha3 import keccak_256 as _new_hash

    NAME = "safe-pysha3"
except ImportError:
    from Crypto.Hash import keccak as _crypto_keccak

    NAME = "pycryptodome"

    def _new_hash(data: bytes = b"") -> Any:
        return _crypto_keccak.new(data=data, digest_bits=256)


new_hash: Any = _new_hash
