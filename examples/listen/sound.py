"""Sound as Whisper hears it: WAV files to samples, samples to pieces with speech, pieces to log-mel pictures."""

from __future__ import annotations

import io
import wave
from functools import cache
from math import gcd

import numpy as np

RATE = 16_000
SECONDS_MAX = 180
PIECE_SECONDS_MAX = 28
# The network takes as long for a word as for half a minute, so short phrases are taken together.
PIECE_SECONDS_GOOD = 15
WINDOW, HOP, MELS, FRAMES = 400, 160, 80, 3_000

VOICED = 0.5
# A breath does not end a phrase, and words begin softly.
GAP_SECONDS = 0.8
MARGIN_SECONDS = 0.4
SHORTEST_SECONDS = 0.15


def read_wav(audio: bytes) -> np.ndarray:
    """A WAV file's samples from -1 to 1: one channel, 16,000 a second."""
    try:
        with wave.open(io.BytesIO(audio)) as file:
            channels, width, rate, frames = file.getparams()[:4]
            if not (1 <= channels <= 8 and 4_000 <= rate <= 192_000):
                raise ValueError(f"{channels} channels at {rate} Hz are not understood")
            if frames > SECONDS_MAX * rate:
                raise ValueError(
                    f"the recording has {frames // rate} seconds; at most {SECONDS_MAX} are taken"
                )
            content = file.readframes(frames)
    except (wave.Error, EOFError) as problem:
        raise ValueError(f"this is no WAV file with plain samples (PCM): {problem}") from None
    numbers = to_numbers(content, width)
    usable = len(numbers) - len(numbers) % channels
    return resample(numbers[:usable].reshape(-1, channels).mean(axis=1), rate).astype(np.float32)


def to_numbers(content: bytes, width: int) -> np.ndarray:
    """Samples of 1 to 4 bytes as numbers from -1 to 1."""
    content = content[: len(content) - len(content) % width]
    match width:
        case 1:
            return (np.frombuffer(content, np.uint8).astype(np.float64) - 128) / 128
        case 2:
            return np.frombuffer(content, "<i2") / 2.0**15
        case 3:
            padded = np.zeros((len(content) // 3, 4), np.uint8)
            padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
            return padded.view("<i4")[:, 0] / 2.0**31
        case 4:
            return np.frombuffer(content, "<i4") / 2.0**31
        case _:
            raise ValueError(f"samples of {width} bytes are not understood")


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """The same sound with 16,000 samples a second, through a windowed sinc."""
    if rate == RATE or not len(samples):
        return samples
    common = gcd(rate, RATE)
    up, down = RATE // common, rate // common
    scale = min(1.0, RATE / rate)
    half = int(16 / scale)
    count = int(len(samples) * up / down)
    padded = np.pad(samples, (half, half + 1))
    sound = np.empty(count)
    offsets = np.arange(-half + 1, half + 1)
    # In blocks, as each sample looks at its whole neighbourhood.
    for begin in range(0, count, 1 << 14):
        places = np.arange(begin, min(begin + (1 << 14), count)) * down / up
        whole = places.astype(np.int64)
        distance = offsets - (places - whole)[:, None]
        weights = scale * np.sinc(scale * distance) * np.cos(np.pi * distance / (2 * half + 2)) ** 2
        sound[begin : begin + len(places)] = (padded[whole[:, None] + offsets + half] * weights).sum(axis=1)
    return sound


def spans(voiced: np.ndarray, size: int, length: int) -> list[tuple[int, int]]:
    """First and last sample of each piece, from how much each window of `size` samples sounds like a voice."""
    found: list[list[int]] = []
    for number in np.flatnonzero(voiced >= VOICED):
        start, end = int(number) * size, (int(number) + 1) * size
        if found and start - found[-1][1] < GAP_SECONDS * RATE:
            found[-1][1] = end
        else:
            found.append([start, end])
    margin = int(MARGIN_SECONDS * RATE)
    long = [(start, end) for start, end in found if end - start >= SHORTEST_SECONDS * RATE]
    pieces: list[tuple[int, int]] = []
    for start, end in gathered(long):
        pieces.extend(cut(voiced, size, max(0, start - margin), min(length, end + margin)))
    return pieces


def gathered(phrases: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring phrases as one piece, as long as it stays short."""
    pieces: list[tuple[int, int]] = []
    for start, end in phrases:
        if pieces and end - pieces[-1][0] <= PIECE_SECONDS_GOOD * RATE:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return pieces


def cut(voiced: np.ndarray, size: int, start: int, end: int) -> list[tuple[int, int]]:
    """Halves of a piece that is too long, cut where the voice is faintest; again until all are short enough."""
    if end - start <= PIECE_SECONDS_MAX * RATE:
        return [(start, end)]
    quarter = (end - start) // 4
    low, high = (start + quarter) // size, (end - quarter) // size
    middle = (low + int(np.argmin(voiced[low:high]))) * size
    return [*cut(voiced, size, start, middle), *cut(voiced, size, middle, end)]


@cache
def mel_filters() -> np.ndarray:
    """Eighty triangles on the mel scale (Slaney's), each of area one."""
    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top, MELS + 2)
    edges = np.where(mels >= 15, 1000 * np.exp((mels - 15) * np.log(6.4) / 27), mels * 200 / 3)
    slopes = edges[:, None] - np.linspace(0, RATE / 2, WINDOW // 2 + 1)[None]
    widths = np.diff(edges)
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Thirty seconds as a picture of 80 by 3,000, silence after the piece's end."""
    sound = np.pad(samples, (0, FRAMES * HOP - len(samples)))
    sound = np.pad(sound, WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP][:FRAMES]
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    power = (np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2).astype(np.float32)
    levels = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
    return ((np.maximum(levels, levels.max() - 8) + 4) / 4).astype(np.float32)
