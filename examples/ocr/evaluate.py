"""Measures ocr: a photographed page, and printed pages that were turned, blurred and compressed. Argument: folder of the runtimes."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import rapidocr
from PIL import Image, ImageDraw, ImageFilter, ImageFont

sys.path.insert(0, str(Path(__file__).parent))
from service import Reader

# What a person reads in scikit-image's page.png; its last line is cut off by the picture's edge.
PHOTOGRAPH = """Region-based segmentation
Let us first determine markers of the coins and the
background. These markers are pixels that we can label
unambiguously as either object or background. Here,
the markers are found at the two extreme parts of the
histogram of grey values:
>>> markers = np.zeros_like(coins)"""


def distance(one: str, other: str) -> int:
    """Letters to change, add or leave out."""
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        before, row[0] = row[0], at
        for to, against in enumerate(other, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (letter != against))
    return row[-1]


def plain(text: str) -> str:
    """A text without differences in white space."""
    return " ".join(text.split())


def print_page(lines: list[str], size: int, chance: np.random.Generator) -> bytes:
    """A page as a bad photograph shows it."""
    page = Image.new("L", (62 * size * 6 // 10, (len(lines) + 2) * size * 3 // 2), 245)
    ImageDraw.Draw(page).multiline_text(
        (size, size), "\n".join(lines), 20, ImageFont.load_default(size), spacing=size // 2
    )
    page = page.rotate(float(chance.uniform(-1.5, 1.5)), Image.Resampling.BICUBIC, fillcolor=245)
    page = page.filter(ImageFilter.GaussianBlur(0.6))
    noisy = np.clip(np.asarray(page, float) + chance.normal(0, 10, page.size[::-1]), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=50)
    return file.getvalue()


def main() -> None:
    """Print the figures as JSON."""
    reader = Reader()
    reader.setup()
    (photograph,) = Path(sys.argv[1]).glob("ml-*/lib/python3*/site-packages/skimage/data/page.png")
    told = reader.read(photograph.read_bytes()).text
    by_photograph = distance(plain(told), plain(PHOTOGRAPH)) / len(plain(PHOTOGRAPH))
    (licence,) = Path(rapidocr.__file__).parents[1].glob("rapidocr-*.dist-info/licenses/LICENSE")
    words = re.sub(r"\s+", " ", licence.read_text()).split(" ")
    chance, wrong, letters = np.random.default_rng(0), 0, 0
    for number in range(8):
        lines, size = [], (16, 20, 26)[number % 3]
        while len(lines) < 8:
            line = words.pop(0)
            while len(line) + len(words[0]) < 50:
                line += " " + words.pop(0)
            lines.append(line)
        told = reader.read(print_page(lines, size, chance)).text
        wrong += distance(plain(told), plain(" ".join(lines)))
        letters += len(plain(" ".join(lines)))
    print(
        json.dumps(
            {
                "headline": f"{wrong / letters:.1%} of letters wrong on printed pages, {by_photograph:.1%} on a photographed, curved page",
                "set": f"scikit-image's page.png ({len(PHOTOGRAPH)} letters, transcribed by hand); eight printed pages, turned, blurred and compressed ({letters} letters)",
                "figures": {
                    "printed_letters_wrong": round(wrong / letters, 4),
                    "photograph_letters_wrong": round(by_photograph, 4),
                },
            }
        )
    )


main()
