"""Vouchers, receipts and the other papers against what a wallet library signs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openresource.ledger.draft import NetworkDomain
from openresource.market.papers import hex_text
from openresource.market.placements import (
    digest_of_test_call,
    sign_test_call,
    sign_tls_key,
    tls_key_digest,
)
from openresource.market.receipts import (
    body_digest,
    receipt_digest,
    receipt_from_json,
    receipt_salt,
    receipt_to_json,
    receipts_hash,
    recover_receipt_signer,
    sign_receipt,
)
from openresource.market.vouchers import (
    recover_voucher_signer,
    settle_digest,
    sign_settle_request,
    sign_voucher,
    voucher_digest,
    voucher_from_json,
    voucher_to_json,
)
from openresource.primitives.keys import PrivateKey, private_key_from_hex
from tests.vectors_support import notices_changes, vectors


def network_of(case: Any) -> NetworkDomain:
    return NetworkDomain(case["chain_id"], case["genesis_hash"])


def key_of(case: Any) -> PrivateKey:
    return private_key_from_hex(case["private_key"])


@vectors("openresource/papers.json", "vouchers", expected=("digest", "signer"))
def test_vouchers(case: Any, document: Any) -> None:
    voucher = voucher_from_json(case["voucher"])
    assert voucher_to_json(voucher) == case["voucher"]
    assert hex_text(voucher_digest(voucher, network_of(case))) == case["digest"]
    assert recover_voucher_signer(voucher, network_of(case)) == case["signer"]
    assert sign_voucher(voucher, key_of(case), network_of(case)).signature == voucher.signature


@vectors("openresource/papers.json", "receipts", expected=("digest", "signer"))
def test_receipts(case: Any, document: Any) -> None:
    receipt = receipt_from_json(case["receipt"])
    assert receipt_to_json(receipt, network_of(case)) == case["receipt"]
    assert hex_text(receipt_digest(receipt, network_of(case))) == case["digest"]
    assert recover_receipt_signer(receipt, network_of(case)) == case["signer"]
    assert sign_receipt(replace(receipt, signature=b""), key_of(case), network_of(case)) == receipt
    salt = receipt_salt(receipt)
    assert receipt.input == body_digest(salt, bytes.fromhex(case["input_body"][2:]))
    assert receipt.output == body_digest(salt, bytes.fromhex(case["output_body"][2:]))


@vectors("openresource/papers.json", "tls_keys", expected=("digest", "signature", "signer"))
def test_tls_keys(case: Any, document: Any) -> None:
    endpoint, tls_key = case["endpoint"], bytes.fromhex(case["key"][2:])
    key, network = key_of(case), network_of(case)
    assert key.address == case["signer"]
    assert hex_text(tls_key_digest(key.address, endpoint, tls_key, network)) == case["digest"]
    assert hex_text(sign_tls_key(endpoint, tls_key, key, network)) == case["signature"]


@vectors("openresource/papers.json", "test_calls", expected=("digest", "signature", "signer"))
def test_test_calls(case: Any, document: Any) -> None:
    key, network = key_of(case), network_of(case)
    assert key.address == case["signer"]
    digest = digest_of_test_call(key.address, case["program"], case["timestamp_ms"], network)
    assert hex_text(digest) == case["digest"]
    assert hex_text(sign_test_call(case["program"], case["timestamp_ms"], key, network)) == case["signature"]


@vectors("openresource/papers.json", "settle_requests", expected=("digest", "signature", "signer"))
def test_settle_requests(case: Any, document: Any) -> None:
    key, network = key_of(case), network_of(case)
    assert key.address == case["signer"]
    asked = (case["channel"], case["nonce"], case["timestamp_ms"])
    assert hex_text(settle_digest(*asked, network)) == case["digest"]
    assert hex_text(sign_settle_request(*asked, key, network)) == case["signature"]


@vectors("openresource/papers.json", "running_hashes", expected=("receipts",))
def test_running_hashes(case: Any, document: Any) -> None:
    digests = tuple(bytes.fromhex(digest[2:]) for digest in case["digests"])
    assert hex_text(receipts_hash(digests)) == case["receipts"]


@pytest.mark.parametrize(
    "test",
    [test_vouchers, test_receipts, test_tls_keys, test_test_calls, test_settle_requests, test_running_hashes],
    ids=lambda test: test.__name__,
)
def test_a_changed_expected_value_is_noticed(test: Any) -> None:
    assert notices_changes(test, seed=len(test.__name__), cases_max=3) == []
