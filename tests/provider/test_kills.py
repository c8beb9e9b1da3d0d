"""A program that a vote has stopped: its provider says why from the next call on, in HTTP and to whoever asks what is here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from openresource.market.kills import DOOMED, KILLED, RUNNING
from openresource.provider.kills import Kills
from openresource.provider.offers import Offers
from tests.provider.support import PROGRAM, Shop, make_offer, open_shop

RECORD = {"status": KILLED, "reason": "it shouts secrets", "evidence": "bafyproof"}


class Votes:
    """The part of a chain that tells of votes."""

    def __init__(self, standings: dict[str, Any]) -> None:
        self.standings = standings

    async def children(self, path: str) -> Any:
        assert path == "/kills"
        for program in self.standings:
            yield program

    async def read(self, path: str) -> Any:
        return self.standings[path.split("/")[2]]


def kills_of(offers: Offers, standings: dict[str, Any] | None = None) -> Kills:
    return Kills(Votes(standings or {}), offers)  # type: ignore[arg-type]


async def call(shop: Shop, number: int) -> tuple[int, Any]:
    response = await shop.call("/echo", {"text": "a"}, sequence=number, total_uain=(number + 1) * 1_000)
    return response.status_code, response.json()


def test_the_next_call_of_a_killed_program_is_refused_with_the_reason_and_costs_nothing(
    tmp_path: Path,
) -> None:
    asyncio.run(asyncio.wait_for(_stopped_and_resumed(tmp_path), 60))


async def _stopped_and_resumed(tmp_path: Path) -> None:
    offers = Offers()
    async with open_shop(tmp_path, offers=offers) as shop:
        kills = kills_of(offers)
        assert (await call(shop, 0))[0] == 200
        spent = shop.tab.spent_uain
        kills.see(PROGRAM, {**RECORD, "status": DOOMED})
        assert (await call(shop, 1))[0] == 200
        kills.see(PROGRAM, RECORD)
        status, said = await call(shop, 2)
        assert status == 410 and said["error"]["code"] == "program-killed"
        assert "it shouts secrets" in said["error"]["message"] and "appeal" in said["error"]["remedy"]
        # Also where its offer is gone already, nobody hears that it was never here.
        offers.remove(shop.offer)
        assert (await call(shop, 2))[0] == 410
        offers.put(shop.offer)
        assert shop.offer.stopped is not None and (await call(shop, 2))[0] == 410
        assert shop.tab.spent_uain == 2 * spent
        kills.see(PROGRAM, {"status": RUNNING})
        assert (await call(shop, 2))[0] == 200


def test_votes_of_the_past_count_at_a_start_and_strange_records_do_not() -> None:
    offers = Offers()
    offers.put(make_offer())
    kills = kills_of(offers, {PROGRAM: RECORD, "no-cid": RECORD})
    assert kills.lacks(PROGRAM) == ""
    asyncio.run(kills.look())
    assert set(offers.stopped) == {PROGRAM} and "it shouts secrets" in kills.lacks(PROGRAM)
    kills.see(PROGRAM, None)
    assert offers.stopped == {} and kills.lacks(PROGRAM) == ""
