"""Who may call how often, from where, and how much at once, as AI Network's node bounds it.

Requests are counted for each address of a caller within windows of time. Pages of other origins may read answers if
their origin matches the list; who may use the routes of developers is a list of addresses.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from openresource.node.ain.parameters import NodeParameters

WRITE_METHODS: Final = frozenset(
    (
        "ain_sendSignedTransaction",
        "ain_sendSignedTransactionBatch",
        "ain_injectAccountFromPrivateKey",
        "ain_injectAccountFromKeystore",
        "ain_injectAccountFromHDWallet",
        "ain_setNodeParam",
        "ain_addToWhitelistNodeParam",
        "ain_removeFromWhitelistNodeParam",
    )
)
TOO_MANY_REQUESTS: Final = "Too many requests, please try again later."
CROSS_ORIGIN_METHODS: Final = "GET,HEAD,PUT,PATCH,POST,DELETE"
# Callers counted at the same time; beyond that all new ones share one count, so that addresses cannot fill the memory.
CALLERS_MAX: Final = 20_000
BODY_BYTES_DEFAULT: Final = 100 * 1024
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
ORIGIN_CHARACTERS_MAX: Final = 256

_SHARED = "others"
_SIZE = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(b|kb|mb|gb)?\s*", re.IGNORECASE)
_UNITS = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}


@dataclass(frozen=True, slots=True)
class Count:
    """Where a caller stands in the window."""

    limit: int
    used: int
    resets_in_seconds: int
    resets_at_seconds: int

    @property
    def is_over(self) -> bool:
        return self.used > self.limit

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What callers are told."""
        told = [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % max(0, self.limit - self.used)),
            (b"x-ratelimit-reset", b"%d" % self.resets_at_seconds),
        ]
        if self.is_over:
            told.append((b"retry-after", b"%d" % self.resets_in_seconds))
        return told


class Window:
    """Requests of each caller since the window began."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._ends_at_ms = 0
        self._used: dict[str, int] = {}

    def count(self, caller: str, per_second: float, window_seconds: float) -> Count:
        """Count one request."""
        now_ms = self._clock_ms()
        if now_ms >= self._ends_at_ms or self._ends_at_ms - now_ms > window_seconds * 1000:
            self._ends_at_ms = now_ms + int(window_seconds * 1000)
            self._used.clear()
        if caller not in self._used and len(self._used) >= CALLERS_MAX:
            caller = _SHARED
        self._used[caller] = used = self._used.get(caller, 0) + 1
        left = math.ceil((self._ends_at_ms - now_ms) / 1000)
        return Count(int(per_second * window_seconds), used, left, math.ceil(self._ends_at_ms / 1000))


class RateLimits:
    """The three counts of a node: every route, and of the JSON-RPC methods reads and writes."""

    def __init__(self, parameters: NodeParameters, clock_ms: Callable[[], int]) -> None:
        self._parameters = parameters
        self._all = Window(clock_ms)
        self._reads = Window(clock_ms)
        self._writes = Window(clock_ms)

    @property
    def is_on(self) -> bool:
        return self._parameters.flag("ENABLE_EXPRESS_RATE_LIMIT")

    def count_request(self, caller: str) -> Count | None:
        """Count a request to any route; None while nothing is limited."""
        return self._counted(self._all, "MAX_BLOCKCHAIN_API_RATE_LIMIT", caller)

    def count_method(self, caller: str, method: object) -> Count | None:
        """Count a call of a JSON-RPC method; a list of calls counts as one read."""
        if isinstance(method, str) and method in WRITE_METHODS:
            return self._counted(self._writes, "MAX_JSON_RPC_API_WRITE_RATE_LIMIT", caller)
        return self._counted(self._reads, "MAX_JSON_RPC_API_READ_RATE_LIMIT", caller)

    def _counted(self, window: Window, name: str, caller: str) -> Count | None:
        if not self.is_on:
            return None
        seconds = max(1, self._parameters.number("EXPRESS_RATE_LIMIT_WINDOW_SECS"))
        return window.count(caller, self._parameters.number(name), seconds)


class CrossOrigin:
    """Which pages of other origins may read answers; fixed when the node starts."""

    def __init__(self, whitelist: Sequence[str] | None) -> None:
        """None lets every page read."""
        self._patterns = None if whitelist is None else [_pattern(one) for one in whitelist]

    def headers(self, origin: str) -> list[tuple[bytes, bytes]]:
        """The headers of an answer to a request that came from a page of this origin, or from no page."""
        if self._patterns is None:
            return [(b"access-control-allow-origin", b"*")]
        told = [(b"vary", b"Origin")]
        if 0 < len(origin) <= ORIGIN_CHARACTERS_MAX and any(one.search(origin) for one in self._patterns):
            told.insert(0, (b"access-control-allow-origin", origin.encode("latin-1")))
        return told

    def preflight_headers(self, origin: str, headers_wanted: str) -> list[tuple[bytes, bytes]]:
        """The headers of an answer to a page that asks what it may do."""
        told = self.headers(origin)
        told.append((b"access-control-allow-methods", CROSS_ORIGIN_METHODS.encode()))
        told.append((b"vary", b"Access-Control-Request-Headers"))
        if headers_wanted:
            told.append((b"access-control-allow-headers", headers_wanted.encode("latin-1")))
        return told


def is_whitelisted(address: str, whitelist: Sequence[str] | None) -> bool:
    """Whether a caller's address is on a list; None lets everybody in."""
    if whitelist is None:
        return True
    caller = _address(address)
    return caller is not None and any(_address(one) == caller for one in whitelist)


def body_bytes_max(text: str) -> int:
    """The size that a text such as 100kb says."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return BODY_BYTES_DEFAULT
    number, unit = found.groups()
    return min(BODY_BYTES_MAX, int(float(number) * _UNITS[(unit or "b").lower()]))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _pattern(text: str) -> re.Pattern[str]:
    # Who names a scheme means a whole origin: https://ainize.ai is not https://ainize.ai.example.com.
    whole = f"\\A(?:{text})\\Z" if "://" in text else text
    try:
        return re.compile(whole)
    except re.error:
        # A text that is no expression stands for itself.
        return re.compile(re.escape(text))
