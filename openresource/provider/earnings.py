"""What was earned, by service and day, and what was claimed; from the books."""

from __future__ import annotations

import sqlite3
from typing import Any

from openresource.primitives.amounts import text_from_uain
from openresource.provider.books import Books

ROWS_MAX = 1_000


async def earnings(books: Books, *, days: int = 30) -> dict[str, Any]:
    """The sums of receipts per service and day, and the claims that paid them."""

    def query(connection: sqlite3.Connection) -> dict[str, Any]:
        by_service = connection.execute(
            "SELECT service, program, day, calls, price_uain FROM earnings "
            "WHERE day >= date('now', ?) ORDER BY day DESC, price_uain DESC LIMIT ?",
            (f"-{int(days)} days", ROWS_MAX),
        ).fetchall()
        totals = connection.execute(
            "SELECT coalesce(sum(calls), 0), coalesce(sum(price_uain), 0) FROM earnings"
        ).fetchone()
        claimed = connection.execute(
            "SELECT count(*), coalesce(sum(amount_uain), 0), coalesce(sum(provider_uain), 0) FROM claims"
        ).fetchone()
        return {
            "calls": totals[0],
            "receipts_uain": totals[1],
            "claims": claimed[0],
            "claimed_uain": claimed[1],
            "paid_out_uain": claimed[2],
            "paid_out": f"{text_from_uain(claimed[2])} AIN",
            "by_service": [
                dict(zip(("service", "program", "day", "calls", "price_uain"), row, strict=True))
                for row in by_service
            ],
        }

    await books.flush()
    return await books.read(query)
