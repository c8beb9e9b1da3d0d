"""Jobs and holds: an event becomes a job, the first provider leases it, the result and the money find their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from openresource.market.accounts import TREASURY, hold_account, job_account
from openresource.market.fields import InvalidRecord
from openresource.market.jobs import (
    JobMissing,
    JobStepNotAllowed,
    NotTheLeaseholder,
    ProgramEntryInvalid,
    ResultDigestWrong,
    ResultPathNotAllowed,
    check_program_entry,
    execution_record,
    failure_record,
    input_digest,
    job_id,
)
from openresource.market.natives.channels import NotPlaced
from openresource.market.natives.holds import HoldOutOfRange
from openresource.market.natives.parameters import JOB_DEADLINE_MS, JOB_LEASE_MS, PARAMETERS
from openresource.market.tree_json import ValueNotStorable, tree_value
from openresource.primitives.hashing import keccak
from tests.market.small_chain import (
    BUYER,
    PLACEMENT_PATH,
    PROGRAM,
    PROVIDER,
    PUBLISHER,
    RECORD,
    STRANGER,
    SmallChain,
    placement,
    published_chain,
)

APP = "photo_app"
SOURCE = f"/apps/{APP}/questions/$key"
HOLD_PATH = f"/holds/{APP}/default"
ENTRY: dict[str, Any] = {
    "function_type": "PROGRAM",
    "function_id": "answer",
    "cid": PROGRAM,
    "policy": "one",
    "budget": "0.001",
    "result_path": f"/apps/{APP}/answers/$key",
}


def chain_with_hold(amount_uain: int = 5_000, lifetime_ms: int = 10_000_000) -> SmallChain:
    chain = published_chain()
    chain.program_entries[SOURCE] = ENTRY
    if amount_uain:
        fund(chain, amount_uain, lifetime_ms)
    return chain


def fund(chain: SmallChain, amount_uain: int, lifetime_ms: int, key: Any = BUYER) -> None:
    value = {"amount_uain": amount_uain, "expires_at_ms": chain.at + lifetime_ms}
    chain.write(key, f"{HOLD_PATH}/fund/{RECORD}", value)


def ask(chain: SmallChain, key: str = "k1", value: Any = "what is it?") -> str:
    """Writes a question; gives the job's name."""
    before = set(chain.get("/jobs") or {})
    chain.write(STRANGER, f"/apps/{APP}/questions/{key}", value)
    (job,) = set(chain.get("/jobs")) - before
    return job


def lease(chain: SmallChain, job: str, key: Any = PROVIDER) -> None:
    chain.write(key, f"/jobs/{job}/leases/{key.address}", {"at_ms": chain.at})


def finish(chain: SmallChain, job: str, record: Any, key: Any = PROVIDER) -> None:
    chain.write(key, f"/jobs/{job}/executions/{key.address}", record)


def status(chain: SmallChain, job: str) -> str:
    return chain.get(f"/jobs/{job}/state/status")


def test_an_event_becomes_a_job_and_its_result_returns_to_the_designated_path() -> None:
    chain = chain_with_hold()
    job = ask(chain)
    request = chain.get(f"/jobs/{job}/request")
    assert (request["source"], request["result_path"]) == (
        f"/apps/{APP}/questions/k1",
        f"/apps/{APP}/answers/k1",
    )
    assert request["requester"] == STRANGER.address
    assert request["input_digest"] == "0x" + input_digest("what is it?").hex()
    assert status(chain, job) == "REQUESTED"
    assert chain.balance(job_account(job)) == 1_000 and chain.balance(hold_account(APP, "default")) == 4_000
    lease(chain, job)
    assert status(chain, job) == "LEASED" and chain.get(f"/jobs/{job}/leases") is None
    finish(chain, job, execution_record({"text": "a cat"}, usage={"cpu_ms": 3}))
    assert chain.get(f"/apps/{APP}/answers/k1") == {"text": "a cat"}
    state = chain.get(f"/jobs/{job}/state")
    assert (state["status"], state["paid_uain"], state["returned_uain"]) == ("ACCEPTED", 700, 300)
    assert chain.balance(TREASURY) == 14
    assert chain.balance(PUBLISHER.address) == 200
    assert chain.balance(PROVIDER.address) == 486
    assert chain.balance(hold_account(APP, "default")) == 4_300
    assert chain.balance(job_account(job)) == 0
    assert chain.state.supply_uain() == 1_000_000


def test_a_price_above_the_budget_is_paid_up_to_the_budget() -> None:
    chain = chain_with_hold()
    chain.write(PROVIDER, PLACEMENT_PATH, placement(ask_uain=1_800))
    job = ask(chain)
    lease(chain, job)
    chain.write(PROVIDER, PLACEMENT_PATH, placement(ask_uain=1))
    finish(chain, job, execution_record("done"))
    assert chain.get(f"/jobs/{job}/state/paid_uain") == 1_000
    assert chain.balance(TREASURY) == 20 and chain.balance(PUBLISHER.address) == 100


def test_without_cover_the_write_stands_and_the_job_is_recorded_as_refused() -> None:
    for amount_uain, word in ((0, "no hold"), (999, "does not cover")):
        chain = chain_with_hold(amount_uain)
        job = ask(chain)
        assert chain.get(f"/apps/{APP}/questions/k1") == "what is it?"
        assert status(chain, job) == "REFUSED" and word in chain.get(f"/jobs/{job}/state/reason")
        with pytest.raises(JobStepNotAllowed):
            lease(chain, job)


def test_deleting_a_value_asks_for_nothing() -> None:
    chain = chain_with_hold()
    ask(chain)
    chain.write(STRANGER, f"/apps/{APP}/questions/k1", None)
    assert len(chain.get("/jobs")) == 1


def test_the_first_lease_wins_and_only_its_holder_finishes() -> None:
    chain = chain_with_hold()
    job = ask(chain)
    with pytest.raises(NotPlaced):
        lease(chain, job, STRANGER)
    lease(chain, job)
    with pytest.raises(JobStepNotAllowed):
        lease(chain, job)
    with pytest.raises(NotTheLeaseholder):
        finish(chain, job, execution_record("mine"), STRANGER)
    with pytest.raises(JobMissing):
        lease(chain, "ab" * 16)


def test_a_lease_that_runs_out_leaves_the_job_to_the_next() -> None:
    chain = chain_with_hold()
    job = ask(chain)
    lease(chain, job)
    chain.wait(PARAMETERS[JOB_LEASE_MS] - 1)
    assert status(chain, job) == "LEASED"
    chain.wait(1)
    assert status(chain, job) == "REQUESTED"
    with pytest.raises(JobStepNotAllowed):
        finish(chain, job, execution_record("too late"))
    lease(chain, job)
    finish(chain, job, execution_record("in time"))
    assert status(chain, job) == "ACCEPTED"
    # The entry of the second lease finds nothing to do.
    chain.wait(PARAMETERS[JOB_LEASE_MS])
    assert status(chain, job) == "ACCEPTED"


def test_a_deadline_returns_the_budget() -> None:
    chain = chain_with_hold()
    job, leased = ask(chain, "k1"), ask(chain, "k2")
    chain.wait(PARAMETERS[JOB_DEADLINE_MS] - 1)
    lease(chain, leased)
    chain.wait(1)
    for one in (job, leased):
        assert status(chain, one) == "EXPIRED"
        assert chain.get(f"/jobs/{one}/state/returned_uain") == 1_000
    assert chain.balance(hold_account(APP, "default")) == 5_000
    with pytest.raises(JobStepNotAllowed):
        finish(chain, leased, execution_record("late"))


def test_a_failed_execution_ends_the_job_unpaid() -> None:
    chain = chain_with_hold()
    job = ask(chain)
    lease(chain, job)
    finish(chain, job, failure_record("the picture\nis no picture"))
    state = chain.get(f"/jobs/{job}/state")
    assert (state["status"], state["reason"]) == ("FAILED", "the picture is no picture")
    assert chain.get(f"/apps/{APP}/answers") is None
    assert chain.balance(hold_account(APP, "default")) == 5_000 and chain.balance(PROVIDER.address) == 0


def test_an_execution_must_prove_its_output() -> None:
    chain = chain_with_hold()
    job = ask(chain)
    lease(chain, job)
    with pytest.raises(ResultDigestWrong):
        finish(chain, job, execution_record("one") | {"output": "two"})
    for record in (
        {"status": "DONE"},
        {"status": "PERHAPS"},
        execution_record("x") | {"more": 1},
        {"status": "FAILED", "error": "x" * 501},
        execution_record("x") | {"usage": {"cpu_ms": -1}},
        execution_record("x") | {"usage": {"watts": 1}},
    ):
        with pytest.raises((InvalidRecord, ResultDigestWrong)):
            finish(chain, job, record)
    deep: Any = "x"
    for _ in range(27):
        deep = {"a": deep}
    with pytest.raises(ValueNotStorable):
        finish(chain, job, execution_record(deep))
    assert status(chain, job) == "LEASED"


def test_an_output_as_json_comes_back_as_json() -> None:
    chain = chain_with_hold()
    job = ask(chain, value=tree_value({"pictures": ["a.png", "b.png"], "size": 3}))
    assert chain.get(f"/jobs/{job}/request/input_digest") == (
        "0x" + keccak(b'{"pictures":["a.png","b.png"],"size":3}').hex()
    )


def test_a_result_may_ask_for_the_next_program() -> None:
    chain = chain_with_hold()
    chain.program_entries[f"/apps/{APP}/answers/$key"] = ENTRY | {"result_path": f"/apps/{APP}/checked/$key"}
    job = ask(chain)
    lease(chain, job)
    finish(chain, job, execution_record("a cat"))
    # The executor starts programs for what natives wrote; here the write is made by hand.
    assert len(chain.get("/jobs")) == 1
    chain.write(STRANGER, f"/apps/{APP}/answers/k1", "a cat")
    assert len(chain.get("/jobs")) == 2


def test_two_events_of_one_transaction_make_two_jobs() -> None:
    chain = chain_with_hold()
    first = ask(chain)
    chain.height -= 1
    second = ask(chain, value="another one")
    assert first != second


# --- Holds ---


def test_a_hold_returns_to_its_owner_when_it_expires() -> None:
    chain = chain_with_hold(5_000, lifetime_ms=1_000)
    chain.wait(999)
    assert chain.balance(BUYER.address) == 995_000
    chain.wait(1)
    assert chain.balance(BUYER.address) == 1_000_000
    assert chain.get("/holds") is None and chain.get("/service_accounts") is None


def test_the_owner_lengthens_a_hold_and_others_only_add() -> None:
    chain = chain_with_hold(5_000, lifetime_ms=1_000)
    chain.state.give(STRANGER.address, 300)
    fund(chain, 300, 50_000, STRANGER)
    assert chain.get(f"{HOLD_PATH}/state") == {"owner": BUYER.address, "expires_at_ms": chain.at + 1_000}
    fund(chain, 1, 3_000)
    chain.wait(1_000)
    assert chain.balance(hold_account(APP, "default")) == 5_301
    chain.wait(2_000)
    assert chain.balance(BUYER.address) == 1_000_300


def test_a_budget_outlives_its_hold_and_returns_to_the_owner() -> None:
    chain = chain_with_hold(5_000, lifetime_ms=1_000)
    job = ask(chain)
    chain.wait(1_000)
    assert chain.balance(BUYER.address) == 999_000
    assert status(chain, ask(chain, "k2")) == "REFUSED"
    lease(chain, job)
    finish(chain, job, execution_record("done"))
    assert chain.balance(BUYER.address) == 999_300
    assert chain.state.supply_uain() == 1_000_000


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        (HOLD_PATH, {"amount_uain": 0}, InvalidRecord),
        (HOLD_PATH, {"expires_at_ms": 1}, HoldOutOfRange),
        (HOLD_PATH, {"expires_at_ms": 10**14}, HoldOutOfRange),
        ("/holds/job/" + "ab" * 16, {}, InvalidRecord),
        ("/holds/Not-An-App/default", {}, InvalidRecord),
        (f"/holds/{APP}/NO", {}, InvalidRecord),
    ],
)
def test_a_hold_cannot_be_funded_badly(path: str, change: dict[str, Any], expected: type[Exception]) -> None:
    chain = chain_with_hold(0)
    value = {"amount_uain": 5, "expires_at_ms": chain.at + 5_000} | change
    with pytest.raises(expected):
        chain.write(BUYER, f"{path}/fund/{RECORD}", value)


# --- Entries ---


def allow(path: Sequence[str], value: Any, signer: str) -> bool:
    return list(path) == ["apps", APP, "answers", "key"] and signer == BUYER.address


def labels(path: str) -> list[str]:
    return path.strip("/").split("/")


def test_an_entry_is_set_by_who_may_write_its_result() -> None:
    entry = check_program_entry(ENTRY, labels(SOURCE), BUYER.address, allow)
    assert entry.budget_uain == 1_000 and entry.hold == "default"
    with pytest.raises(ResultPathNotAllowed):
        check_program_entry(ENTRY, labels(SOURCE), STRANGER.address, allow)


@pytest.mark.parametrize(
    ("source", "result_path"),
    [
        (SOURCE, "/apps/other_app/answers/$key"),
        (SOURCE, f"/apps/{APP}/answers/$other"),
        (SOURCE, SOURCE),
        ("/apps/$app/questions/$key", "/apps/$app/answers/$key"),
        ("/accounts/x/y", "/accounts/x/balance"),
    ],
)
def test_a_result_stays_in_its_app_and_never_asks_for_itself(source: str, result_path: str) -> None:
    with pytest.raises(ResultPathNotAllowed):
        check_program_entry(
            ENTRY | {"result_path": result_path}, labels(source), BUYER.address, lambda *_: True
        )


@pytest.mark.parametrize(
    "change",
    [
        {"cid": "x"},
        {"policy": "all"},
        {"budget": 0.001},
        {"budget": "-1"},
        {"budget": "0.0000001"},
        {"result_path": "/apps"},
        {"result_path": 5},
        {"hold": "NO"},
        {"method": "a b"},
        {"service": "translate"},
        {"function_type": "NATIVE"},
        {"function_url": "http://x"},
    ],
)
def test_a_malformed_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProgramEntryInvalid) as refusal:
        check_program_entry(ENTRY | change, labels(SOURCE), BUYER.address, allow)
    assert "{function_type" in refusal.value.remedy


def test_an_entry_may_name_the_service_whose_providers_count() -> None:
    chain = chain_with_hold()
    chain.program_entries[SOURCE] = ENTRY | {"service": f"{PUBLISHER.address}/translate", "method": "ask"}
    request = chain.get(f"/jobs/{ask(chain)}/request")
    assert (request["publisher"], request["name"], request["method"]) == (
        PUBLISHER.address,
        "translate",
        "ask",
    )


def test_a_jobs_name_follows_from_the_transaction_and_the_path() -> None:
    assert job_id("0x12", ["apps", "a"]) == keccak(b"0x12/apps/a").hex()[:32]
