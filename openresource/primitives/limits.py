"""Bounds that several packages share; a bound that one module alone needs stays with that module."""

from __future__ import annotations

from typing import Final

# Where doubles stop telling neighbouring integers apart.
SAFE_INTEGER_MAX: Final = 2**53 - 1

# JSON from outside.
JSON_BYTES_MAX: Final = 10_000_000
JSON_DEPTH_MAX: Final = 100

# State tree. The first two are the defaults of parameters on the chain.
LABEL_LENGTH_MAX: Final = 150
STATE_HEIGHT_MAX: Final = 30
CHAIN_ID_MAX: Final = 109

# Transactions.
TRANSACTION_BYTES_MAX: Final = 10_000
OPERATIONS_PER_TRANSACTION_MAX: Final = 50

# Content-addressed storage.
BLOCK_BYTES_MAX: Final = 1024 * 1024
CID_CHARACTERS_MAX: Final = 128
DAG_LINKS_PER_BLOCK_MAX: Final = 20_000
DAG_DEPTH_MAX: Final = 32
DAG_NODES_SPARE_MAX: Final = 1_000
DAG_BYTES_PER_NODE_MIN: Final = 256
DIRECTORY_LINK_BYTES_MAX: Final = 256 * 1024
FILE_NAME_BYTES_MAX: Final = 255

# Key stores: what a file from outside may make this machine compute.
SCRYPT_MEMORY_BYTES_MAX: Final = 512 * 1024 * 1024
PBKDF2_ROUNDS_MAX: Final = 10_000_000
