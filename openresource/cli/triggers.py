"""Starts a program by a write: an app with a PROGRAM function, a hold that pays, a value, and the result that returns."""

import asyncio
import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.chain import set_function, set_value
from openresource.client.facade import AsyncClient
from openresource.client.services import Choice
from openresource.market.accounts import hold_account
from openresource.market.holds import DEFAULT_HOLD
from openresource.market.tree_json import json_value
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal

APP: Final = "up_demo"
FUNCTION: Final = "on_note"
RESULT_SECONDS: Final = 60.0
HOLD_LIFETIME_MS: Final = 60 * 60 * 1000
CALLS_HELD: Final = 1
BUDGET_UAIN_MIN: Final = 1


class JobNotDone(Refusal):
    template = "The program that the write at {path} started gave no result: {reason}."
    way_out = "Look at the job: openresource read /jobs/{job}"


@dataclass(frozen=True, slots=True)
class Triggered:
    """A write, the job it made and the result that came back."""

    path: str
    result_path: str
    result: Any
    job: str
    provider: str
    paid_uain: int
    milliseconds: int


async def trigger_program(client: AsyncClient, choice: Choice, method: str, value: Any) -> Triggered:
    """Set up an app whose writes start a program, write to it, and wait for the result at the designated path."""
    chain, key = client.chain, client.key()
    app = f"{APP}_{choice.name.replace('-', '_')}"
    if await chain.read(f"/manage_app/{app}/config") is None:
        admin = {"admin": {key.address: True}}
        await chain.submit_final(set_value(f"/manage_app/{app}/create/{secrets.token_hex(16)}", admin), key)
    _, offers = await client.quote(f"{choice.service}@{choice.program}")
    price_uain = max((price.total_uain for _, price in offers), default=0)
    budget_uain = max(price_uain, BUDGET_UAIN_MIN)
    entry = {
        "function_type": "PROGRAM",
        "function_id": FUNCTION,
        "cid": choice.program,
        "policy": "one",
        "budget": text_from_uain(budget_uain),
        "result_path": f"/apps/{app}/results/$key",
        "method": method,
        "service": choice.service,
    }
    setting = [set_function(f"/apps/{app}/notes/$key", {".function": {FUNCTION: entry}})]
    if await chain.balance(hold_account(app, DEFAULT_HOLD)) < budget_uain:
        funding = {
            "amount_uain": budget_uain * CALLS_HELD,
            "expires_at_ms": int(time.time() * 1000) + HOLD_LIFETIME_MS,
        }
        setting.append(set_value(f"/holds/{app}/{DEFAULT_HOLD}/fund/{secrets.token_hex(8)}", funding))
    await chain.submit_final(setting, key)
    label = secrets.token_hex(8)
    path, result_path = f"/apps/{app}/notes/{label}", f"/apps/{app}/results/{label}"
    began = time.monotonic()
    status = await chain.status()
    info = await chain.submit_final(set_value(path, value), key)
    job, state = await _finished(client, path, since=f"{status.height}:0")
    if state.get("status") != "ACCEPTED":
        raise JobNotDone(path=path, reason=state.get("reason") or state.get("status"), job=job)
    milliseconds = round((time.monotonic() - began) * 1000)
    result = json_value(await chain.read(result_path))
    assert info.is_final
    return Triggered(
        path=path,
        result_path=result_path,
        result=result,
        job=job,
        provider=str(state.get("provider", "")),
        paid_uain=int(state.get("paid_uain", 0)),
        milliseconds=milliseconds,
    )


async def _finished(client: AsyncClient, path: str, *, since: str) -> tuple[str, dict[str, Any]]:
    """The job that a write made, once it has come to its end."""
    try:
        async with asyncio.timeout(RESULT_SECONDS):
            async with aclosing(client.chain.events("/jobs", since=since)) as events:
                jobs: set[str] = set()
                async for event in events:
                    labels = event.path.strip("/").split("/")
                    if len(labels) < 2 or labels[0] != "jobs":
                        continue
                    job = labels[1]
                    if job not in jobs:
                        request = await client.chain.read(f"/jobs/{job}/request")
                        if not isinstance(request, dict) or request.get("source") != path:
                            continue
                        jobs.add(job)
                    state = await client.chain.read(f"/jobs/{job}/state")
                    if isinstance(state, dict) and state.get("status") not in ("REQUESTED", "LEASED"):
                        return job, state
    except TimeoutError:
        raise JobNotDone(path=path, reason=f"none within {RESULT_SECONDS:.0f} s", job="") from None
    raise JobNotDone(path=path, reason="the node ended the stream of events", job="")
