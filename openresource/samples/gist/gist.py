"""Finds the sentences that say most of what a text says, the words it is about, and the haiku that nobody meant.

Counting only, with whole numbers, so that every machine gives the same answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

TEXT_CHARACTERS_MAX = 200_000
KEYWORDS_MAX = 5
HAIKU_MAX = 20
WORDS_PER_MINUTE = 230
PATTERN = (5, 7, 5)

SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n{2,}")
WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?")
# Words that hold sentences together and say nothing about their subject.
COMMON_WORDS = """a about above after again against all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each even few for from further had has have having he her here hers
    him his how i if in into is it its itself just let like may me might more most must my no nor not now of off on once
    one only or our out over own per said same she should since so some such than that the their theirs them then there
    these they this those through to too under until up upon us very was we were what when where which while who whom
    why will with within without would you your"""
COMMON = frozenset(COMMON_WORDS.split())


@dataclass
class Summary:
    """What a text comes down to."""

    summary: str
    keywords: list[str]
    reading_seconds: int
    sentences: int
    words: int


@dataclass
class Found:
    """Runs of whole sentences and phrases that fall into lines of 5, 7 and 5 syllables."""

    haiku: list[str]


class Gist:
    """The service."""

    def summarise(
        self,
        text: Annotated[str, {"minLength": 1, "maxLength": TEXT_CHARACTERS_MAX}],
        sentences: Annotated[int, {"minimum": 1, "maximum": 20}] = 3,
    ) -> Summary:
        """The sentences that say most, in their order, with keywords and the time that reading it all would take."""
        check(text)
        if not 1 <= sentences <= 20:
            raise ValueError("sentences lies between 1 and 20")
        parts = split_sentences(text)
        weights: dict[str, int] = {}
        for part in parts:
            for word in dict.fromkeys(subjects(part)):
                weights[word] = weights.get(word, 0) + 1
        order = sorted(
            range(len(parts)), key=lambda number: (-weight(parts[number], number, weights), number)
        )
        chosen = sorted(order[:sentences])
        words = len(WORD.findall(text))
        ranked = sorted(weights, key=lambda word: -weights[word])
        return Summary(
            summary=" ".join(parts[number] for number in chosen),
            keywords=ranked[:KEYWORDS_MAX],
            reading_seconds=words * 60 // WORDS_PER_MINUTE,
            sentences=len(parts),
            words=words,
        )

    def haiku(self, text: Annotated[str, {"minLength": 1, "maxLength": TEXT_CHARACTERS_MAX}]) -> Found:
        """The poems of 5, 7 and 5 syllables that the text contains without knowing."""
        check(text)
        phrases = [phrase for part in split_sentences(text) for phrase in split_phrases(part)]
        counts = [sum(syllables(word) for word in WORD.findall(phrase)) for phrase in phrases]
        found: list[str] = []
        for start in range(len(phrases)):
            lines = poem(phrases, counts, start)
            if lines and len(found) < HAIKU_MAX:
                found.append("\n".join(lines))
        return Found(list(dict.fromkeys(found)))


def check(text: str) -> None:
    """Refuse what cannot be summarised."""
    if not text.strip():
        raise ValueError("the text is empty")
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"the text has {len(text)} characters; at most {TEXT_CHARACTERS_MAX} are read")


def split_sentences(text: str) -> list[str]:
    """Sentences without the line breaks inside them."""
    return [" ".join(part.split()) for part in SENTENCE_END.split(text) if part.strip()]


def split_phrases(sentence: str) -> list[str]:
    """A sentence's parts between commas and the like."""
    return [part.strip() for part in re.split(r"(?<=[,;:!?.])\s+|\s+[–—-]+\s+", sentence) if part.strip()]


def subjects(sentence: str) -> list[str]:
    """What a sentence is about: its telling words, plurals and endings folded together."""
    words = (word.lower() for word in WORD.findall(sentence))
    return [stem(word) for word in words if word not in COMMON and len(word) > 2]


def stem(word: str) -> str:
    """A word without its most common endings."""
    word = word.replace("’", "'").removesuffix("'s")
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def weight(sentence: str, number: int, weights: dict[str, int]) -> int:
    """How much of the text a sentence carries; longer ones must carry more, the first one opens the subject."""
    words = dict.fromkeys(subjects(sentence))
    shared = sum(weights[word] - 1 for word in words) * 1_000
    return shared // (10 + len(words)) + (20 if number == 0 else 0)


def syllables(word: str) -> int:
    """Syllables of an English word, by its groups of vowels."""
    word = word.lower().replace("’", "'")
    groups = len(re.findall(r"[aeiouy]+", word))
    if word.endswith("e") and not word.endswith(("le", "ee", "ye")) and groups > 1:
        groups -= 1
    if (
        word.endswith(("ed", "es"))
        and groups > 1
        and not word.endswith(("ted", "ded", "ses", "zes", "ces", "ges", "shes", "ches"))
    ):
        groups -= 1
    if re.search(r"(?:[^c]i[ao](?!n)|eo|ua)", word) and not word.endswith(("tion", "sion")):
        groups += 1
    return max(1, groups)


def poem(phrases: list[str], counts: list[int], start: int) -> list[str]:
    """Three lines that begin at a phrase, or nothing."""
    lines: list[str] = []
    position = start
    for wanted in PATTERN:
        line: list[str] = []
        total = 0
        while position < len(phrases) and total < wanted:
            line.append(phrases[position])
            total += counts[position]
            position += 1
        if total != wanted:
            return []
        lines.append(" ".join(line).rstrip(".,;:"))
    return lines
