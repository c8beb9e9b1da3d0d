"""Recognises the common licences by what their texts say, and gives their SPDX names."""

from __future__ import annotations

import re
from typing import Final

LICENSE_CHARACTERS_MAX: Final = 200_000
_SPACES = re.compile(r"[\s*#>]+")
_IDENTIFIER = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.+-]{1,39}(?: (?:OR|AND|WITH) [A-Za-z0-9][A-Za-z0-9.+-]{1,39}){0,3}"
)

# The first whose phrases are all there; a text that holds another one's phrases as well stands before it.
_PHRASES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("MPL-2.0", ("mozilla public license", "covered software")),
    ("EPL-2.0", ("eclipse public license - v 2.0",)),
    ("AGPL-3.0-only", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0-only", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1-only", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0-only", ("gnu general public license", "version 3")),
    ("GPL-2.0-only", ("gnu general public license", "version 2")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("EPL-2.0", ("eclipse public license", "2.0")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("WTFPL", ("do what the fuck you want to public license",)),
    ("Zlib", ("altered source versions must be plainly marked", "provided 'as-is'")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("MIT-0", ("permission is hereby granted, free of charge", "mit no attribution")),
    ("MIT", ("permission is hereby granted, free of charge", "the above copyright notice and this permission")),
    ("0BSD", ("permission to use, copy, modify, and/or distribute this software for any purpose", "zero-clause")),
    ("ISC", ("permission to use, copy, modify, and", "distribute this software for any purpose")),
)  # fmt: skip
# What projects write into their metadata instead of the SPDX name.
_WORDS: Final = {
    "mit license": "MIT", "the mit license": "MIT", "apache 2.0": "Apache-2.0", "apache": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "apache software license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0", "apache2": "Apache-2.0", "apache-2": "Apache-2.0",
    "bsd": "BSD-3-Clause", "bsd license": "BSD-3-Clause", "new bsd": "BSD-3-Clause", "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause", "bsd 2-clause": "BSD-2-Clause", "gplv3": "GPL-3.0-only", "gpl-3.0": "GPL-3.0-only",
    "gplv2": "GPL-2.0-only", "gpl-2.0": "GPL-2.0-only", "lgplv3": "LGPL-3.0-only", "agpl-3.0": "AGPL-3.0-only",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0", "isc license (iscl)": "ISC", "isc license": "ISC",
    "the unlicense (unlicense)": "Unlicense", "public domain": "Unlicense",
}  # fmt: skip


def license_of_text(text: str) -> str:
    """The SPDX name of a licence's text, or nothing where it is not recognised."""
    plain = _SPACES.sub(" ", text[:LICENSE_CHARACTERS_MAX]).lower()
    for name, phrases in _PHRASES:
        if all(phrase in plain for phrase in phrases):
            return name
    if len(plain) < 400 and "mit license" in plain:
        return "MIT"
    return ""


def license_of_word(word: str) -> str:
    """The SPDX name of what a project's metadata says."""
    plain = " ".join(word.split())
    known = _WORDS.get(plain.lower())
    if known is not None:
        return known
    if len(plain) > 100:
        return license_of_text(word)
    return plain if _IDENTIFIER.fullmatch(plain) and plain.upper() not in ("UNLICENSED", "SEE") else ""
