"""Takes personal data out of a text and leaves numbered labels, the same for the same thing, so that it stays readable.

A number is called a card or an account only if its checksum says so: order numbers, prices and dates stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from checksums import is_address, is_card, is_coin_address, is_iban, is_identity, is_phone

TEXT_CHARACTERS_MAX = 500_000

Kind = Literal["EMAIL", "KEY", "SECRET", "COIN", "IBAN", "MAC", "IP", "ID", "CARD", "PHONE"]


@dataclass
class Scrubbed:
    """The text without personal data, and how many different things of each kind were in it."""

    text: str
    found: dict[str, int]


def always(text: str) -> bool:
    """The pattern alone decides."""
    return bool(text)


# In this order: what an earlier kind has taken is no longer looked at.
KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "SECRET": (re.compile(r"(?<=://)[^\s/@:]{1,64}:[^\s/@]{1,64}(?=@)|(?i:(?<=password: )|(?<=passwort: )|(?<=contraseña: )|(?<=mot de passe : )|(?<=\bpin: ))[^\s.,;\[]\S{2,62}[^\s.,;]"), always),
    "EMAIL": (re.compile(r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}\b"), always),
    "KEY": (re.compile(r"\b(?:0x[0-9a-fA-F]{64}|sk-[A-Za-z0-9_-]{20,200}|gh[pousr]_[A-Za-z0-9]{30,100}|AKIA[0-9A-Z]{16}|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000})\b|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s]{16,8000}-----END [A-Z ]{0,30}PRIVATE KEY-----"), always),
    "COIN": (re.compile(r"\b(?:0x[0-9a-fA-F]{40}|bc1[0-9a-z]{11,71}|BC1[0-9A-Z]{11,71}|[13][1-9A-HJ-NP-Za-km-z]{25,34})\b"), is_coin_address),
    "IBAN": (re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{2,4}){3,8}\b"), is_iban),
    "MAC": (re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})(?![\w:-])"), always),
    "IP": (re.compile(r"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:]{2,39}:[0-9A-Fa-f]{0,4})(?![\w.:]*\w)"), is_address),
    "ID": (re.compile(r"(?<![\w.-])(?:[0-9]{3}-[0-9]{2}-[0-9]{4}|[XYZ0-9][0-9]{7}[A-Z]|[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[0-9]{4} [0-9]{4} [0-9]{4}|[0-9]{3}[ -][0-9]{3}[ -][0-9]{4})(?![\w-]| [0-9])"), is_identity),
    "CARD": (re.compile(r"(?<![\w-])[0-9](?:[ -]?[0-9]){12,18}(?![\w-])"), is_card),
    "PHONE": (re.compile(r"(?<![\w.-])(?<![0-9] )(?:\+[0-9]{1,3}[ .-]?|\([0-9]{2,5}\)[ .-]?|0[0-9]{1,4}[ /.-])[0-9](?:[ ./-]?[0-9]){5,12}(?!\w)"), is_phone),
}  # fmt: skip


def scrub(
    text: Annotated[str, {"maxLength": TEXT_CHARACTERS_MAX}],
    kinds: Annotated[list[Kind] | None, "only these kinds; all if left out"] = None,
) -> Scrubbed:
    """Replace personal data by labels such as [EMAIL_1]; the same value gets the same label."""
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"the text has {len(text)} characters; at most {TEXT_CHARACTERS_MAX} are read")
    found: dict[str, int] = {}
    for kind, (pattern, is_real) in KINDS.items():
        if kinds is not None and kind not in kinds:
            continue
        labels: dict[str, str] = {}

        def label(
            match: re.Match[str],
            kind: str = kind,
            is_real: Callable[[str], bool] = is_real,
            labels: dict[str, str] = labels,
        ) -> str:
            value = match[0]
            if not is_real(value):
                return value
            key = re.sub(r"[ ./()-]", "", value).lower() if kind != "EMAIL" else value.lower()
            return labels.setdefault(key, f"[{kind}_{len(labels) + 1}]")

        text = pattern.sub(label, text)
        if labels:
            found[kind] = len(labels)
    return Scrubbed(text, found)
