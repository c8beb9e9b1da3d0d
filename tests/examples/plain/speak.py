"""A sentence by Hibari itself, as samples."""

import numpy as np
from hibari import Hibari
from timing import text, told

SENTENCE = "The next train to the airport leaves from platform four at 9:30."
voice = Hibari(threads=1)


def samples() -> str:
    """Sixteen bits a sample, as in a WAV file."""
    spoken = voice(SENTENCE, seed=0)
    return text((np.clip(spoken, -1, 1) * 32767).astype("<i2").tobytes())


told("say", {"text": SENTENCE}, lambda: {"samples": samples()})
