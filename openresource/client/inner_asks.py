"""What a gateway passes on of its program's requests, parsed: a stranger's words until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openresource.market.allowances import is_service_text
from openresource.market.fields import InvalidRecord
from openresource.primitives.amounts import UAIN_MAX
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

# What one look at a line may bring: some requests of a program, each a mebibyte before it is written as JSON.
ASKS_BYTES_MAX: Final = 32 << 20
BODY_BYTES_MAX: Final = 1 << 20
DEPTH_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """A program's request as its provider passes it on."""

    number: int
    service: str
    method: str
    body: bytes
    input: dict[str, Any]
    max_price_uain: int | None
    allowance_uain: int | None
    deadline_seconds: float | None
    policy: str

    @property
    def key(self) -> tuple[str, str, bytes]:
        """What makes it the same request in another run."""
        return self.service, self.method, self.body


def asks_of(content: bytes) -> tuple[str, list[Ask], bool]:
    """What a line gives; whatever is not of the form is as if it had not been asked."""
    try:
        found = parse_json(content, bytes_max=ASKS_BYTES_MAX, depth_max=DEPTH_MAX)
    except Refusal:
        return "", [], False
    if not isinstance(found, dict):
        return "", [], False
    run, listed = found.get("run"), found.get("asks")
    asks = [ask for ask in map(_ask_of, listed if isinstance(listed, list) else []) if ask is not None]
    is_run = isinstance(run, str) and len(run) == 16 and run.isalnum() and run.isascii()
    return (str(run), asks, found.get("ended") is True) if is_run else ("", [], False)


def _ask_of(value: Any) -> Ask | None:
    if not isinstance(value, dict):
        return None
    number, service, method = value.get("number"), value.get("service"), value.get("method")
    body, policy, seconds = value.get("body"), value.get("policy", ""), value.get("deadline_seconds")
    if not (
        type(number) is int
        and 0 < number < 1_000_000
        and isinstance(service, str)
        and is_service_text(service)
        and isinstance(method, str)
        and len(method) <= 200
        and isinstance(body, str)
        and isinstance(policy, str)
    ):
        return None
    try:
        given = parse_json(body.encode(), bytes_max=BODY_BYTES_MAX, depth_max=DEPTH_MAX)
        max_price_uain, allowance_uain = (
            _amount(value.get(name)) for name in ("max_price_uain", "allowance_uain")
        )
    except (Refusal, UnicodeEncodeError):
        return None
    if not isinstance(given, dict):
        return None
    patience = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None
    return Ask(
        number, service, method, body.encode(), given, max_price_uain, allowance_uain, patience, policy
    )


def _amount(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= UAIN_MAX:
        raise InvalidRecord(what="request of a program", member="amount", reason="is not in whole µAIN")
    return value
