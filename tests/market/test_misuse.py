"""What a stranger might try with names, spellings and other people's holds on a real chain."""

from __future__ import annotations

import pytest

from openresource.market.accounts import hold_account, job_account
from openresource.market.codes import ResultCode
from openresource.market.jobs import failure_record
from tests.market.small_chain import NAME, PROGRAM, RECORD
from tests.market.test_on_chain import (
    APP,
    BUYER,
    CHANNEL_PATH,
    ENTRY,
    PROVIDER,
    PUBLISHER,
    app_chain,
    chain,
    code_of,
    good,
    opening,
    placement_record,
    set_entry,
)
from tests.support.chains import Chain, key_of

__all__ = ["chain"]

INVALID_PATH = 10102


def hex_spelling(text: str) -> str:
    """Another label that the tree files in the same place."""
    return "0x" + text.encode().hex()


def test_no_app_has_a_name_that_stands_for_all_apps(chain: Chain) -> None:
    good(chain.create_app("buyer", "victim"))
    for name in ("$any\nfoo", ".any\nfoo", "*\nfoo"):
        assert code_of(chain.create_app("stranger", name)) == INVALID_PATH
    eraser = {"_eraseValue": {"function_type": "NATIVE", "function_id": "_eraseValue"}}
    binding = {"type": "SET_FUNCTION", "ref": "/apps/$any\nfoo/$key", "value": {".function": eraser}}
    assert chain.run("stranger", binding).has_failed
    good(chain.set("buyer", "/apps/victim/a", 1))
    assert chain.value("/apps/victim/a") == 1


def test_a_job_has_one_spelling_so_that_its_budget_is_not_left_behind(chain: Chain) -> None:
    app_chain(chain)
    good(chain.set("stranger", f"/apps/{APP}/questions/k1", "?"))
    (job,) = chain.value("/jobs")
    good(chain.set("provider", f"/jobs/{job}/leases/{PROVIDER}", {"at_ms": 1}))
    path = f"/jobs/{hex_spelling(job)}/executions/{PROVIDER}"
    assert code_of(chain.set("provider", path, failure_record("no"))) == INVALID_PATH
    good(chain.set("provider", f"/jobs/{job}/executions/{PROVIDER}", failure_record("no")))
    assert chain.balance(job_account(job)) == 0


@pytest.mark.parametrize("spelling", [BUYER.lower(), "0x" + BUYER[2:].upper()])
def test_money_is_added_only_under_the_buyers_one_spelling(chain: Chain, spelling: str) -> None:
    good(chain.set("buyer", f"{CHANNEL_PATH}/open", opening(chain)))
    path = CHANNEL_PATH.replace(BUYER, spelling)
    assert code_of(chain.set("stranger", f"{path}/add/{RECORD}", {"amount_uain": 5})) == INVALID_PATH
    assert list(chain.value("/service_accounts/channels/market")) == [f"{BUYER}:{CHANNEL_PATH.split('/')[3]}"]


def test_a_placement_is_announced_only_under_the_services_one_spelling(chain: Chain) -> None:
    path = f"/placements/{PUBLISHER}/{hex_spelling(NAME)}/{PROGRAM}/{PROVIDER}"
    assert code_of(chain.set("provider", path, placement_record(chain))) == INVALID_PATH


def test_only_an_admin_begins_a_hold_so_that_nobody_else_owns_what_is_added(chain: Chain) -> None:
    path = f"/holds/{APP}/default/fund/{RECORD}"
    good(chain.create_app("buyer", APP))
    value = {"amount_uain": 1, "expires_at_ms": chain.now_ms + 5_000}
    assert code_of(chain.set("stranger", path, value)) == ResultCode.NOT_AN_APP_ADMIN
    good(chain.set("buyer", path, value))
    good(chain.set("stranger", path, value))
    assert chain.value(f"/holds/{APP}/default/state/owner") == BUYER


def test_in_a_public_app_only_admins_let_the_hold_pay(chain: Chain) -> None:
    good(chain.create_app("buyer", APP, is_public=True))
    value = {"amount_uain": 5_000, "expires_at_ms": chain.now_ms + 5_000}
    good(chain.set("buyer", f"/holds/{APP}/default/fund/{RECORD}", value))
    path = f"/apps/{APP}/questions/$key"
    assert code_of(set_entry(chain, "stranger", path, ENTRY)) == ResultCode.NOT_AN_APP_ADMIN
    good(set_entry(chain, "buyer", path, ENTRY))
    assert chain.balance(hold_account(APP, "default")) == 5_000


def test_a_budget_never_returns_into_the_hold_of_somebody_else(chain: Chain) -> None:
    good(chain.create_app("buyer", APP))
    stranger = key_of("stranger").address
    good(chain.set("buyer", f"/manage_app/{APP}/config/admin", {BUYER: True, stranger: True}))
    good(set_entry(chain, "buyer", f"/apps/{APP}/questions/$key", ENTRY))
    path = f"/holds/{APP}/default/fund/{RECORD}"
    good(chain.set("buyer", path, {"amount_uain": 1_000, "expires_at_ms": chain.now_ms + 5_000}))
    good(chain.set("buyer", f"/apps/{APP}/questions/k1", "?"))
    before = chain.balance(BUYER)
    chain.seal()
    chain.open(5_000)
    good(chain.set("stranger", path, {"amount_uain": 1, "expires_at_ms": chain.now_ms + 10_000_000}))
    chain.seal()
    chain.open(600_000)
    assert chain.balance(BUYER) == before + 1_000
    assert chain.balance(hold_account(APP, "default")) == 1
