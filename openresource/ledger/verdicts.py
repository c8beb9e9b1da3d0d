"""Who asks, in which block, and what the answer is: the words that rules, owners and functions share."""

from __future__ import annotations

from typing import Any, Final

SUCCESS: Final = 0

RULE_SUBTREE_NOT_EMPTY: Final = 12101
RULE_THREW: Final = 12102
RULE_FALSE: Final = 12103
STATE_RULE_FALSE: Final = 12104
RULE_SYNTAX: Final = 12105
PERMISSION_UNKNOWN: Final = 12201
RULE_SUBTREE_OWNED: Final = 12301
RULE_NOT_OWNED: Final = 12302
FUNCTION_SUBTREE_OWNED: Final = 12401
FUNCTION_NOT_OWNED: Final = 12402
OWNER_SUBTREE_OWNED: Final = 12501
OWNER_NOT_OWNED: Final = 12502


class Auth:
    """The signer, and the native function that writes in the signer's name with the functions that called it."""

    __slots__ = ("addr", "fid", "fids")

    def __init__(
        self,
        addr: str | None = None,
        fid: str | None = None,
        fids: tuple[str, ...] | None = None,
    ) -> None:
        self.addr: str | None = addr
        self.fid: str | None = fid
        self.fids: tuple[str, ...] | None = fids

    def to_json(self) -> dict[str, Any]:
        """The parts that are there, as rules see them."""
        parts: dict[str, Any] = {}
        if self.addr is not None:
            parts["addr"] = self.addr
        if self.fid is not None:
            parts["fid"] = self.fid
        if self.fids is not None:
            parts["fids"] = list(self.fids)
        return parts


class EvalContext:
    """The transaction's time and the block around it; `lower_case_names_from` is the block of that timer flag."""

    __slots__ = ("block_number", "block_time", "lower_case_names_from", "timestamp")

    def __init__(
        self,
        timestamp: float | int | None = None,
        block_number: float | int | None = None,
        block_time: float | int | None = None,
        lower_case_names_from: int | None = None,
    ) -> None:
        self.timestamp: float | int | None = timestamp
        self.block_number: float | int | None = block_number
        self.block_time: float | int | None = block_time
        self.lower_case_names_from: int | None = lower_case_names_from


class Verdict:
    """The answer of a rule or of owners: code 0 allows; `matched` is the match as the APIs print it, if asked for."""

    __slots__ = ("code", "matched", "message")

    def __init__(
        self,
        code: int,
        message: str = "",
        matched: Any = None,
    ) -> None:
        self.code: int = code
        self.message: str = message
        self.matched: Any = matched

    @property
    def is_allowed(self) -> bool:
        """Whether the write may happen."""
        return self.code == SUCCESS

    def to_json(self) -> dict[str, Any]:
        """The answer as the APIs print it."""
        answer: dict[str, Any] = {"code": self.code}
        if self.message:
            answer["message"] = self.message
        if self.matched is not None:
            answer["matched"] = self.matched
        return answer


ALLOWED: Final = Verdict(SUCCESS)
