"""Reads the text in a picture: scans, photographs of pages, screenshots, signs; Latin script, Chinese, Japanese."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rapidocr import RapidOCR

PIXELS_MAX = 25_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
SETTINGS = {
    # Small pictures are enlarged to so many pixels a side; the usual 736 takes twice as long and reads worse.
    "Det.limit_side_len": 320,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "Global.log_level": "critical",
}


@dataclass
class Line:
    """A line of text, how sure the reader is (0 to 1), and its four corners in pixels, clockwise from top left."""

    text: str
    confidence: float
    corners: list[list[float]]


@dataclass
class Page:
    """What stands in a picture."""

    text: str
    lines: list[Line]
    width: int
    height: int


class Reader:
    """PP-OCRv6 (small): one network finds lines, one turns them upright, one reads them."""

    def setup(self) -> None:
        """Load the three networks once, and read a word, so that the first caller does not wait for their plans."""
        self.engine = RapidOCR(params=dict(SETTINGS))
        word = Image.new("RGB", (160, 48), "white")
        ImageDraw.Draw(word).text((10, 10), "Ready", "black", ImageFont.load_default(24))
        self.engine(np.asarray(word))

    def read(
        self,
        image: Annotated[bytes, "PNG, JPEG, WebP, TIFF, BMP or GIF"],
        min_confidence: Annotated[float, "leave out lines below it", {"minimum": 0.0, "maximum": 1.0}] = 0.5,
    ) -> Page:
        """The text of a picture, line by line, from top to bottom."""
        pixels = decode(image)
        height, width = pixels.shape[:2]
        found = self.engine(pixels)
        if found.txts is None:
            return Page("", [], width, height)
        lines = [
            Line(text, round(float(score), 3), [[round(float(x), 1), round(float(y), 1)] for x, y in box])
            for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
            if score >= min_confidence
        ]
        return Page("\n".join(line.text for line in lines), lines, width, height)


def decode(image: bytes) -> np.ndarray:
    """A picture's pixels, upright, blue first as the networks were trained."""
    try:
        opened = Image.open(io.BytesIO(image), formats=FORMATS)
        if opened.width * opened.height > PIXELS_MAX:
            raise ValueError(
                f"the picture has {opened.width}x{opened.height} pixels; at most {PIXELS_MAX} are read"
            )
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as problem:
        raise ValueError(f"this is no picture that can be read: {problem}") from None
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])
