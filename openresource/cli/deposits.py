"""What `bond` and `stake` say alike: money that is laid down, counts for something, and comes back some time after it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import InvalidInput
from openresource.primitives.keys import checksum_address, is_address


def address_of(text: str) -> str:
    """An address as somebody typed it, in its checksum form."""
    if not is_address(text):
        raise InvalidInput(f"{text} is not an address.", remedy="An address is 0x and 40 hex digits.")
    return checksum_address(text)


def withdrawn_text(outcome: Mapping[str, Any], left_uain: int) -> str:
    """What a withdrawal did, or would do."""
    from openresource.cli.times import until_text

    amount = text_from_uain(outcome["withdrawn_uain"])
    if outcome["dry_run"]:
        back = (
            f", which would come back {until_text(outcome['returns_at_ms'])}"
            if outcome.get("returns_at_ms")
            else ""
        )
        return f"Would ask for {amount} AIN{back}; {text_from_uain(max(0, left_uain))} AIN would stay."
    return f"{amount} AIN come back {until_text(outcome['returns_at_ms'])}."


def leaving_lines(leaving: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is on its way back, a line for each part of it."""
    from openresource.cli.times import until_text

    return [
        f"  {text_from_uain(one['amount_uain'])} AIN come back {until_text(one['at_ms'])}" for one in leaving
    ]
