"""Speaks English: text in, a WAV file out, many times faster than somebody would say it."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from hibari import SAMPLE_RATE, Hibari

CHARACTERS_MAX = 5_000
# The voice's breath is drawn at random; the same text shall give the same sound.
SEED = 0

Text = Annotated[str, {"minLength": 1, "maxLength": CHARACTERS_MAX}]
Speed = Annotated[float, "1 is the usual pace", {"minimum": 0.5, "maximum": 2.0}]


@dataclass
class Speech:
    """A WAV file (mono, 16 bits), and how long it takes to listen to it."""

    wav: bytes
    seconds: float
    sample_rate: int


class Speaker:
    """Hibari's American English voice (heart): 7.9 MB of weights on one thread."""

    def setup(self) -> None:
        """Load voice and pronunciation once, and speak a word, so that the first caller does not wait for either."""
        self.voice = Hibari(threads=1)
        self.voice("Ready.")

    def say(self, text: Text, speed: Speed = 1.0) -> Speech:
        """Speak a text."""
        check(text, speed)
        return speech(self.voice(text, speed=speed, seed=SEED))

    def stream(self, text: Text, speed: Speed = 1.0) -> Iterator[Speech]:
        """Speak sentence by sentence; each is a WAV file of its own, sent as soon as it is spoken."""
        check(text, speed)
        for samples in self.voice.stream(text, speed=speed, seed=SEED):
            yield speech(samples)


def check(text: str, speed: float) -> None:
    """Refuse what cannot be spoken."""
    if not any(character.isalnum() for character in text):
        raise ValueError("there is no word to speak")
    if len(text) > CHARACTERS_MAX:
        raise ValueError(f"the text has {len(text)} characters; at most {CHARACTERS_MAX} are spoken at once")
    if not 0.5 <= speed <= 2.0:
        raise ValueError("speed lies between 0.5 and 2")


def speech(samples: np.ndarray) -> Speech:
    """Samples from -1 to 1 as a WAV file."""
    numbers = (np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(SAMPLE_RATE)
        written.writeframes(numbers.tobytes())
    return Speech(file.getvalue(), round(len(numbers) / SAMPLE_RATE, 3), SAMPLE_RATE)
