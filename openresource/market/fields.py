"""Reading a record from outside, member by member, each within its bounds."""

from __future__ import annotations

import re
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.primitives.amounts import UAIN_MAX
from openresource.primitives.cids import is_cid
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.limits import SAFE_INTEGER_MAX
from openresource.primitives.numbers import is_integer

MEMBERS_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 200

_KEY = re.compile("[0-9a-f]{16,32}")
_DIGEST = re.compile("0x[0-9a-fA-F]{64}")
_SIGNATURE = re.compile("0x[0-9a-fA-F]{130}")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


_MUST_BE_OBJECT: Final = f"must be an object of at most {MEMBERS_MAX} members"


class InvalidRecord(Refusal):
    result_code = ResultCode.INVALID_RECORD
    template = "The {what} is not valid: {member} {reason}."
    way_out = "Write it again in the form that the table of the market's paths gives."


class Fields:
    """The members of one record; `finish` refuses those that nobody asked for."""

    def __init__(self, value: Any, what: str) -> None:
        self.what: str = what
        if not isinstance(value, dict) or len(value) > MEMBERS_MAX:
            raise InvalidRecord(what=what, member="the record", reason=_MUST_BE_OBJECT)
        self._value: dict[str, Any] = value
        self._seen: set[str] = set()

    def has(self, member: str) -> bool:
        """Whether a member is there and not null."""
        return self._value.get(member) is not None

    def take(self, member: str) -> Any:
        """A member as it is, null when missing."""
        self._seen.add(member)
        return self._value.get(member)

    def text(self, member: str, characters_max: int = TEXT_CHARACTERS_MAX, characters_min: int = 1) -> str:
        """A text without control characters."""
        value = self.take(member)
        if not isinstance(value, str) or not characters_min <= len(value) <= characters_max:
            raise self.wrong(member, f"must be a text of {characters_min} to {characters_max} characters")
        if _CONTROL.search(value) is not None:
            raise self.wrong(member, "must not contain control characters")
        return value

    def optional_text(self, member: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
        """A text that may be missing; then it is empty."""
        return self.text(member, characters_max, 0) if self.has(member) else self._nothing(member, "")

    def integer(self, member: str, minimum: int = 0, maximum: int = SAFE_INTEGER_MAX) -> int:
        """A whole number within bounds; 1.0 counts, a boolean does not."""
        value = self.take(member)
        if not is_integer(value) or not minimum <= value <= maximum:
            raise self.wrong(member, f"must be a whole number from {minimum} to {maximum}")
        return int(value)

    def optional_integer(
        self, member: str, default: int, minimum: int = 0, maximum: int = SAFE_INTEGER_MAX
    ) -> int:
        """A whole number that may be missing."""
        return self.integer(member, minimum, maximum) if self.has(member) else self._nothing(member, default)

    def amount(self, member: str, minimum: int = 0) -> int:
        """An amount in whole µAIN."""
        return self.integer(member, minimum, UAIN_MAX)

    def flag(self, member: str) -> bool:
        """A boolean; missing means no."""
        value = self.take(member)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(member, "must be true or false")
        return value is True

    def choice(self, member: str, choices: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.take(member)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(member, f"must be one of {', '.join(choices)}")
        return value

    def address(self, member: str) -> str:
        """An address in its checksum form."""
        value = self.take(member)
        if not is_checksum_address(value):
            raise self.wrong(member, "must be an address in its checksum form")
        return str(value)

    def cid(self, member: str) -> str:
        """A content identifier."""
        value = self.take(member)
        if not is_cid_text(value):
            raise self.wrong(member, "must be a content identifier")
        return str(value)

    def digest(self, member: str) -> bytes:
        """32 bytes, written 0x and 64 hex digits."""
        value = self.take(member)
        if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
            raise self.wrong(member, "must be 0x and 64 hex digits")
        return bytes.fromhex(value[2:])

    def signature(self, member: str) -> bytes:
        """65 bytes r‖s‖v, written 0x and 130 hex digits."""
        value = self.take(member)
        if not isinstance(value, str) or _SIGNATURE.fullmatch(value) is None:
            raise self.wrong(member, "must be 0x and the 130 hex digits of a signature")
        return bytes.fromhex(value[2:])

    def finish(self) -> None:
        """Refuses members that nobody asked for: a misspelt one must not pass as a missing one."""
        for member in self._value:
            if member not in self._seen:
                raise self.wrong(member, "is not a member that is known here")

    def wrong(self, member: str, reason: str) -> InvalidRecord:
        """The refusal of a member."""
        return InvalidRecord(what=self.what, member=str(member), reason=reason)

    def _nothing(self, member: str, default: Any) -> Any:
        self._seen.add(member)
        return default


def is_key(text: Any) -> bool:
    """Whether a text may name a channel, a hold or a request: 16 to 32 lower-case hex digits."""
    return isinstance(text, str) and _KEY.fullmatch(text) is not None


def is_cid_text(text: Any) -> bool:
    """Whether a value from outside is a content identifier."""
    return isinstance(text, str) and is_cid(text)


def require_key(text: str, what: str) -> str:
    """The key of a record, or a refusal."""
    if not is_key(text):
        raise InvalidRecord(what=what, member="its key", reason="must be 16 to 32 lower-case hex digits")
    return text
