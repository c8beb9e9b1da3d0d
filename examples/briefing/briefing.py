"""A letter's point without anybody's personal data, made by two other services that the caller pays for."""

from dataclasses import dataclass
from typing import Annotated

from openresource_broker import paid


@dataclass
class Brief:
    """The point of a letter, what was taken out of it, and what others got for their part."""

    summary: str
    keywords: list[str]
    removed: dict[str, int]
    others_uain: int


def brief(
    text: Annotated[str, {"minLength": 1, "maxLength": 100_000}],
    sentences: Annotated[int, {"minimum": 1, "maximum": 20}] = 1,
) -> Brief:
    """Takes personal data out of a text, then says what is left of it in a few sentences."""
    scrubbed = paid("scrub", text=text)
    summary = paid("gist", "summarise", text=scrubbed["output"]["text"], sentences=sentences)
    return Brief(
        summary=summary["output"]["summary"],
        keywords=summary["output"]["keywords"],
        removed=scrubbed["output"]["found"],
        others_uain=scrubbed["total_uain"] + summary["total_uain"],
    )
