"""The market on a real chain: rules in front of the natives, refusals in results, programs that events start."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.ledger.draft import NetworkDomain
from openresource.ledger.machine import Inserted
from openresource.market.accounts import TREASURY, bond_account, channel_account, hold_account, job_account
from openresource.market.channels import channel_name
from openresource.market.codes import ResultCode
from openresource.market.jobs import execution_record
from openresource.market.natives import FUNCTIONS
from openresource.market.papers import hex_text
from openresource.market.placements import sign_tls_key
from openresource.market.vouchers import Voucher, sign_voucher
from openresource.primitives.hashing import keccak
from openresource.primitives.paths import encode_label
from tests.market.small_chain import (
    CHANNEL_ID,
    ENDPOINT,
    NAME,
    OTHER_PROGRAM,
    PROGRAM,
    RECORD,
    TLS_KEY,
    claim_record,
    version_record,
)
from tests.support.chains import Chain, key_of

BUYER, PROVIDER, PUBLISHER = (key_of(name).address for name in ("buyer", "provider", "publisher"))
VERSION_PATH = f"/services/{PUBLISHER}/{NAME}/versions/{PROGRAM}"
PLACEMENT_PATH = f"/placements/{PUBLISHER}/{NAME}/{PROGRAM}/{PROVIDER}"
CHANNEL_PATH = f"/channels/{BUYER}/{CHANNEL_ID}"
DENIED = 12103


def code_of(inserted: Inserted) -> int:
    """The code of the native that refused, else the operation's own."""
    result = inserted.result
    for native in (result.get("func_results") or {}).values():
        if native["code"] != 0:
            return int(native["code"])
    return int(result["code"])


def network_of(chain: Chain) -> NetworkDomain:
    return chain.machine.domain


def placement_record(chain: Chain, **changes: Any) -> dict[str, Any]:
    signature = sign_tls_key(ENDPOINT, TLS_KEY, key_of("provider"), network_of(chain))
    return {
        "status": "PLACED",
        "endpoint": ENDPOINT,
        "tls_key": hex_text(TLS_KEY),
        "tls_signature": hex_text(signature),
        "capacity": 4,
        "ask_uain": 500,
        "isolation": "bubblewrap",
    } | changes


def opening(chain: Chain, **changes: Any) -> dict[str, Any]:
    return {
        "publisher": PUBLISHER,
        "name": NAME,
        "program": PROGRAM,
        "provider": PROVIDER,
        "deposit_uain": 10_000,
        "expires_at_ms": chain.now_ms + 60_000,
    } | changes


def voucher(chain: Chain, total_uain: int, nonce: int = 0) -> Voucher:
    paper = Voucher(channel_name(BUYER, CHANNEL_ID), nonce, total_uain, keccak(b"session"))
    return sign_voucher(paper, key_of("buyer"), network_of(chain))


def good(inserted: Inserted) -> None:
    assert not inserted.has_failed, inserted.result


@pytest.fixture
def chain() -> Chain:
    """A chain with a placed version; provider and publisher hold nothing."""
    chain = Chain("buyer", "stranger")
    publish = [
        {
            "type": "SET_VALUE",
            "ref": f"/programs/{PROGRAM}",
            "value": {"publisher": PUBLISHER, "name": NAME, "bytes": 9},
        },
        {"type": "SET_VALUE", "ref": VERSION_PATH, "value": version_record()},
    ]
    good(chain.run("publisher", {"type": "SET", "op_list": publish}))
    good(chain.set("provider", PLACEMENT_PATH, {"status": "OFFERED"}))
    good(chain.set("provider", PLACEMENT_PATH, placement_record(chain)))
    return chain


def test_from_publishing_to_a_claim_that_pays_all_three(chain: Chain) -> None:
    assert chain.value(f"{VERSION_PATH}/number") == 1
    assert chain.value(f"{PLACEMENT_PATH}/at_ms") == chain.now_ms
    assert chain.value(f"/services/{PUBLISHER}/{NAME}/by_version/{encode_label('1.2.0')}") == PROGRAM
    supply = chain.supply_uain()
    good(chain.set("buyer", f"{CHANNEL_PATH}/open", opening(chain)))
    good(chain.set("stranger", f"{CHANNEL_PATH}/add/{RECORD}", {"amount_uain": 500}))
    good(chain.set("provider", f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(chain, 7_000), 700)))
    assert (chain.balance(TREASURY), chain.balance(PUBLISHER), chain.balance(PROVIDER)) == (14, 200, 486)
    chain.seal()
    replay = claim_record(voucher(chain, 7_000), 700)
    assert (
        code_of(chain.set("provider", f"{CHANNEL_PATH}/claim/{RECORD}", replay)) == ResultCode.VOUCHER_TOO_OLD
    )
    close = claim_record(voucher(chain, 700, nonce=1), 700, send_back=True)
    good(chain.set("provider", f"{CHANNEL_PATH}/claim/{RECORD}", close))
    assert chain.balance(channel_account(BUYER, CHANNEL_ID)) == 0
    chain.seal()
    assert chain.supply_uain() == supply


def test_after_the_expiry_the_buyer_closes(chain: Chain) -> None:
    before = chain.balance(BUYER)
    good(chain.set("buyer", f"{CHANNEL_PATH}/open", opening(chain, expires_at_ms=chain.now_ms + 2_000)))
    path = f"{CHANNEL_PATH}/close/{RECORD}"
    assert code_of(chain.set("buyer", path, {"at_ms": 1})) == ResultCode.CHANNEL_NOT_EXPIRED
    chain.seal()
    chain.open(2_000)
    good(chain.set("buyer", path, {"at_ms": 1}))
    assert chain.balance(BUYER) == before


def test_a_refusal_travels_in_the_result_with_its_facts(chain: Chain) -> None:
    inserted = chain.set("buyer", f"{CHANNEL_PATH}/open", opening(chain, deposit_uain=1))
    (native,) = inserted.result["func_results"].values()
    assert native["code"] == ResultCode.DEPOSIT_OUT_OF_RANGE
    assert native["refusal"]["code"] == "deposit-out-of-range"
    assert native["refusal"]["facts"]["minimum_uain"] == 700
    assert chain.value("/channels") is None


# Who may not: (signer, path, value).
INTRUDERS: tuple[tuple[str, str, Any], ...] = (
    ("stranger", f"/programs/{OTHER_PROGRAM}", {"publisher": PUBLISHER, "name": NAME, "bytes": 9}),
    ("publisher", f"/programs/{PROGRAM}", {"publisher": PUBLISHER, "name": NAME, "bytes": 10}),
    ("publisher", f"/programs/{PROGRAM}", None),
    ("publisher", f"/programs/{PROGRAM}/bytes", 10),
    ("stranger", VERSION_PATH.replace(PROGRAM, OTHER_PROGRAM), {"version": "9.9.9"}),
    ("publisher", VERSION_PATH, None),
    ("publisher", f"{VERSION_PATH}/royalty_uain", 0),
    ("publisher", f"{VERSION_PATH}/price_cap_uain", None),
    ("publisher", f"/services/{PUBLISHER}/{NAME}/latest", OTHER_PROGRAM),
    ("publisher", f"/services/{PUBLISHER}/{NAME}/by_version/x", PROGRAM),
    ("publisher", f"/services/{PUBLISHER}/{NAME}", None),
    ("publisher", f"/services/{PUBLISHER}", {"x": 1}),
    ("publisher", "/services", None),
    ("stranger", f"/services/{PUBLISHER}/{NAME}/permissions", {"call": {"everyone": True}}),
    ("publisher", f"/services/{PUBLISHER}/{NAME}/permissions/call/everyone", False),
    ("stranger", PLACEMENT_PATH, {"status": "GONE"}),
    ("publisher", PLACEMENT_PATH, {"status": "GONE"}),
    ("provider", PLACEMENT_PATH, None),
    ("provider", f"{PLACEMENT_PATH}/ask_uain", 10**9),
    ("provider", f"{PLACEMENT_PATH}/status", "GONE"),
    ("provider", f"/placements/{PUBLISHER}/{NAME}/{PROGRAM}", None),
    ("stranger", f"{CHANNEL_PATH}/open", {"deposit_uain": 1}),
    ("stranger", f"{CHANNEL_PATH}/extend/{RECORD}", {"expires_at_ms": 10**13}),
    ("stranger", f"{CHANNEL_PATH}/claim/{RECORD}", {"amount_uain": 1}),
    ("buyer", f"{CHANNEL_PATH}/claim/{RECORD}", {"amount_uain": 1}),
    ("stranger", f"{CHANNEL_PATH}/close/{RECORD}", {"at_ms": 1}),
    ("buyer", f"{CHANNEL_PATH}/state", {"nonce": 0}),
    ("buyer", f"{CHANNEL_PATH}/state/nonce", 0),
    ("provider", f"{CHANNEL_PATH}/state/expires_at_ms", 0),
    ("buyer", f"{CHANNEL_PATH}/open/deposit_uain", 5),
    ("buyer", CHANNEL_PATH, None),
    ("buyer", f"/channels/{BUYER}", {"x": 1}),
    ("stranger", "/channels/x", 1),
    ("stranger", "/jobs/j/state", {"status": "DONE"}),
    ("stranger", "/jobs/j/request", {"program": PROGRAM}),
    ("stranger", f"/jobs/j/leases/{PROVIDER}", {"at_ms": 1}),
    ("stranger", f"/jobs/j/executions/{PROVIDER}", {"status": "DONE"}),
    ("provider", f"/jobs/j/executions/{PROVIDER}/digest", "0x" + "00" * 32),
    ("provider", f"/jobs/j/executions/{PROVIDER}", None),
    ("stranger", f"/jobs/j/commits/{PROVIDER}", {"commitment": "0x" + "00" * 32}),
    ("stranger", f"/jobs/j/reveals/{PROVIDER}", {"status": "DONE"}),
    ("stranger", f"/jobs/j/secret/{BUYER}", {"secret": "0x" + "00" * 32}),
    ("stranger", f"/jobs/j/disputes/{BUYER}/{RECORD}", {"bond_uain": 1}),
    ("stranger", f"/jobs/j/faults/{BUYER}/{RECORD}", {"provider": PROVIDER}),
    ("provider", "/jobs/j/verdict", {"status": "ACCEPTED"}),
    ("provider", "/jobs/j/judgement", {"status": "ACCEPTED"}),
    ("provider", "/jobs/j/folded", "ACCEPTED"),
    ("buyer", "/jobs/j", None),
    ("stranger", f"/job_requests/{BUYER}/{RECORD}", {"budget_uain": 1}),
    ("buyer", f"/job_requests/{BUYER}/{RECORD}", None),
    ("buyer", f"/job_requests/{BUYER}/{RECORD}/budget_uain", 1),
    ("provider", f"/bonds/{PROVIDER}/state/locks/j", 0),
    ("provider", "/beacon/last", 1),
    ("provider", "/beacon/1", "0x" + "00" * 32),
    ("stranger", "/holds/app/default/state", {"owner": BUYER}),
    ("stranger", "/holds/app/default/state/expires_at_ms", 0),
    ("stranger", f"/bonds/{PROVIDER}/withdraw/{RECORD}", {"amount_uain": 1}),
    ("provider", f"/bonds/{PROVIDER}/state", {"since_ms": 1}),
    ("provider", f"/bonds/{PROVIDER}/state/leaving/{RECORD}/at_ms", 0),
    ("buyer", f"/service_accounts/deposits/market/bond:{BUYER}/balance", 10),
    ("stranger", f"/machines/{PROVIDER}/offer", {"owner": PROVIDER}),
    ("stranger", f"/machines/{PROVIDER}/guests/{BUYER}", {"until_ms": 10**13}),
    ("provider", f"/machines/{PROVIDER}/tenants/{PROVIDER}", {"until_ms": 10**13, "paid_uain": 0}),
    ("buyer", f"/machines/{PROVIDER}/tenants/{BUYER}/until_ms", 10**13),
    ("stranger", f"/ssh_keys/{BUYER}/{'0' * 64}", {"key": "ssh-ed25519 x"}),
    ("buyer", f"/ssh_keys/{BUYER}/{'0' * 64}/key", "ssh-ed25519 x"),
    ("provider", f"/records/{PROVIDER}", {"claims": 1_000, "claimed_uain": 10**9, "since_ms": 1}),
    ("provider", f"/records/{PROVIDER}/claims", 1_000),
    ("buyer", f"/accounts/{BUYER}/balance", 10**9),
    ("buyer", f"/service_accounts/channels/market/{BUYER}:{CHANNEL_ID}/balance", 0),
    ("buyer", "/service_accounts/treasury/market/fees/balance", 0),
    ("buyer", "/due/000000000000001_aa", {"kind": "hold_expires", "key": "a/b"}),
)


@pytest.mark.parametrize(("name", "path", "value"), INTRUDERS)
def test_the_rules_let_nobody_write_what_is_not_theirs(
    chain: Chain, name: str, path: str, value: Any
) -> None:
    good(chain.set("buyer", f"{CHANNEL_PATH}/open", opening(chain)))
    before = chain.value("/")
    inserted = chain.set(name, path, value)
    assert inserted.has_failed or not inserted.is_included
    # 121xx: the rules said no, before any native was asked.
    assert 12100 <= code_of(inserted) < 12200 or code_of(inserted) == 10103, inserted.result
    assert chain.value("/") == before


def test_a_bond_goes_in_and_comes_back_and_the_supply_stays(chain: Chain) -> None:
    supply, before = chain.supply_uain(), chain.balance(BUYER)
    good(chain.set("buyer", f"/bonds/{BUYER}/add/{RECORD}", {"amount_uain": 5_000}))
    good(chain.set("buyer", f"/bonds/{BUYER}/withdraw/{RECORD}", {"amount_uain": 2_000}))
    chain.seal()
    assert (chain.balance(bond_account(BUYER)), chain.balance(BUYER)) == (5_000, before - 5_000)
    assert chain.supply_uain() == supply
    chain.open(25 * 60 * 60 * 1000)
    assert (chain.balance(bond_account(BUYER)), chain.balance(BUYER)) == (3_000, before - 3_000)
    assert chain.supply_uain() == supply


def test_every_path_of_the_market_is_bound_to_its_native(chain: Chain) -> None:
    for pattern, native in FUNCTIONS.items():
        labels = [label for label in pattern.split("/") if label]
        assert chain.tree.get(["functions", *labels, ".function", native, "function_id"]) == native


# --- Programs that events start ---

APP = "photo_app"
ENTRY = {
    "function_type": "PROGRAM",
    "function_id": "answer",
    "cid": PROGRAM,
    "policy": "one",
    "budget": "0.001",
    "result_path": f"/apps/{APP}/answers/$key",
}


def set_entry(chain: Chain, name: str, path: str, entry: dict[str, Any]) -> Inserted:
    value = {".function": {entry["function_id"]: entry}}
    return chain.run(name, {"type": "SET_FUNCTION", "ref": path, "value": value})


def app_chain(chain: Chain) -> Chain:
    good(chain.create_app("buyer", APP))
    good(
        chain.run(
            "buyer",
            {"type": "SET_RULE", "ref": f"/apps/{APP}/questions/$key", "value": {".rule": {"write": "true"}}},
        )
    )
    good(set_entry(chain, "buyer", f"/apps/{APP}/questions/$key", ENTRY))
    fund = {"amount_uain": 5_000, "expires_at_ms": chain.now_ms + 100_000_000}
    good(chain.set("buyer", f"/holds/{APP}/default/fund/{RECORD}", fund))
    return chain


def test_a_write_starts_a_job_whose_result_comes_back_and_starts_the_next(chain: Chain) -> None:
    app_chain(chain)
    chained = ENTRY | {"function_id": "check", "result_path": f"/apps/{APP}/checked/$key"}
    good(set_entry(chain, "buyer", f"/apps/{APP}/answers/$key", chained))
    good(chain.set("stranger", f"/apps/{APP}/questions/k1", "what is it?"))
    (job,) = chain.value("/jobs")
    assert chain.value(f"/jobs/{job}/state/status") == "REQUESTED"
    assert chain.value(f"/jobs/{job}/request/requester") == key_of("stranger").address
    good(chain.set("provider", f"/jobs/{job}/leases/{PROVIDER}", {"at_ms": chain.now_ms}))
    good(chain.set("provider", f"/jobs/{job}/executions/{PROVIDER}", execution_record({"text": "a cat"})))
    assert chain.value(f"/apps/{APP}/answers/k1") == {"text": "a cat"}
    assert chain.value(f"/jobs/{job}/state/status") == "ACCEPTED"
    assert chain.balance(PROVIDER) == 486
    (next_job,) = set(chain.value("/jobs")) - {job}
    assert chain.value(f"/jobs/{next_job}/request/source") == f"/apps/{APP}/answers/k1"
    assert chain.balance(job_account(next_job)) == 1_000


def test_a_job_without_cover_is_refused_and_the_write_stands(chain: Chain) -> None:
    app_chain(chain)
    for number in range(6):
        good(chain.set("stranger", f"/apps/{APP}/questions/k{number}", "?"))
    states = [records["state"]["status"] for records in chain.value("/jobs").values()]
    assert sorted(states) == ["REFUSED"] + ["REQUESTED"] * 5
    assert chain.balance(hold_account(APP, "default")) == 0


def test_time_ends_leases_jobs_and_holds(chain: Chain) -> None:
    app_chain(chain)
    good(chain.set("stranger", f"/apps/{APP}/questions/k1", "?"))
    (job,) = chain.value("/jobs")
    good(chain.set("provider", f"/jobs/{job}/leases/{PROVIDER}", {"at_ms": 1}))
    chain.seal()
    chain.open(60_000)
    assert chain.value(f"/jobs/{job}/state/status") == "REQUESTED"
    chain.seal()
    chain.open(600_000)
    assert chain.value(f"/jobs/{job}/state/status") == "EXPIRED"
    assert chain.balance(hold_account(APP, "default")) == 5_000
    chain.seal()
    before = chain.balance(BUYER)
    chain.open(100_000_000)
    assert chain.balance(BUYER) == before + 5_000
    assert chain.value("/holds") is None


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("buyer", {"result_path": "/apps/other/answers/$key"}, ResultCode.RESULT_PATH_NOT_ALLOWED),
        ("buyer", {"result_path": f"/apps/{APP}/questions/$key"}, ResultCode.RESULT_PATH_NOT_ALLOWED),
        ("buyer", {"budget": "a lot"}, ResultCode.PROGRAM_ENTRY_INVALID),
        ("buyer", {"cid": "x"}, ResultCode.PROGRAM_ENTRY_INVALID),
    ],
)
def test_an_entry_that_may_not_stand_is_refused_when_it_is_set(
    chain: Chain, name: str, change: dict[str, str], code: int
) -> None:
    good(chain.create_app("buyer", APP))
    inserted = set_entry(chain, name, f"/apps/{APP}/questions/$key", ENTRY | change)
    assert inserted.has_failed and code_of(inserted) == code


def test_a_stranger_sets_no_entry_in_somebody_elses_app(chain: Chain) -> None:
    good(chain.create_app("buyer", APP))
    assert set_entry(chain, "stranger", f"/apps/{APP}/questions/$key", ENTRY).has_failed


def test_a_chain_with_a_market_is_replayed_to_the_same_state(chain: Chain) -> None:
    app_chain(chain)
    good(chain.set("buyer", f"{CHANNEL_PATH}/open", opening(chain)))
    good(chain.set("stranger", f"/apps/{APP}/questions/k1", "?"))
    chain.seal()
    chain.open(700_000)
    chain.seal()
    follower = Chain("buyer", "stranger")
    for sealed in chain.sealed:
        follower.machine.replay(sealed.block, is_trusted=True)
    assert follower.tree.root_hash() == chain.tree.root_hash()
