"""Recognises what a picture or a short video shows: a handwritten digit, faces, the cuts between scenes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image, ImageOps, ImageSequence
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.feature import Cascade
from sklearn.datasets import load_digits
from sklearn.svm import SVC

PIXELS_MAX = 25_000_000
PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
VIDEOS = ("GIF", "WEBP", "PNG")
# Larger pictures show no more faces, only later.
FACE_SIDE_MAX = 640
FRAMES_MAX = 3_000
THUMBNAIL = (32, 24)
LEVELS = 8
# A cut changes at least this share of a picture's colours, and far more than the frames around it.
CUT_SHARE_MIN = 0.25
CUT_CONTRAST = 3.0

Picture = Annotated[bytes, "PNG, JPEG, WebP, BMP, GIF or TIFF"]


@dataclass
class Digit:
    """The digit, how far it is ahead of the second guess, and the second guess."""

    digit: int
    margin: float
    second: int


@dataclass
class Box:
    """A face's place, in pixels from the top left."""

    x: int
    y: int
    width: int
    height: int


@dataclass
class Faces:
    """All faces that were found."""

    count: int
    faces: list[Box]


@dataclass
class Scene:
    """Frames that belong together: the first, the last, and their seconds."""

    first: int
    last: int
    start: float
    end: float


@dataclass
class Scenes:
    """A video, scene by scene."""

    frames: int
    seconds: float
    cuts: list[int]
    scenes: list[Scene]


class Vision:
    """A support vector machine for digits, a cascade of local binary patterns for faces, histograms for cuts."""

    def setup(self) -> None:
        """Learn the 1,797 digits that scikit-learn ships (a fifth of a second), read the cascade."""
        pictures, digits = load_digits(return_X_y=True)
        self.machine = SVC(gamma=0.001, C=10.0, decision_function_shape="ovr").fit(pictures, digits)
        self.cascade = Cascade(lbp_frontal_face_cascade_filename())

    def digit(self, image: Picture) -> Digit:
        """The handwritten digit that a picture shows, dark on light or light on dark."""
        scores = self.machine.decision_function(digit_grid(decode(image).convert("L"))[None])[0]
        best, second = (int(number) for number in np.argsort(scores)[::-1][:2])
        return Digit(best, round(float(scores[best] - scores[second]), 3), second)

    def faces(
        self,
        image: Picture,
        smallest: Annotated[
            int, "pixels; smaller faces are passed over", {"minimum": 24, "maximum": 640}
        ] = 60,
    ) -> Faces:
        """Faces that look into the camera."""
        picture = decode(image).convert("L")
        scale = max(1.0, max(picture.size) / FACE_SIDE_MAX)
        pixels = np.asarray(picture.resize((round(picture.width / scale), round(picture.height / scale))))
        side = min(pixels.shape)
        shortest = max(24, round(smallest / scale))
        if shortest > side:
            return Faces(0, [])
        found = self.cascade.detect_multi_scale(
            pixels, scale_factor=1.2, step_ratio=1, min_size=(shortest, shortest), max_size=(side, side)
        )
        boxes = [
            Box(*(round(face[name] * scale) for name in ("c", "r", "width", "height"))) for face in found
        ]
        return Faces(len(boxes), sorted(boxes, key=lambda box: (box.y, box.x)))

    def cuts(self, video: Annotated[bytes, "an animated GIF, WebP or PNG"]) -> Scenes:
        """Where one scene of a video ends and the next begins."""
        histograms, ends = frames(video)
        changes = 0.5 * np.abs(np.diff(histograms, axis=0)).sum(axis=1)
        found = [number + 1 for number in range(len(changes)) if is_cut(changes, number)]
        starts = [0, *found]
        lasts = [*(number - 1 for number in found), len(ends) - 1]
        scenes = [
            Scene(first, last, ends[first - 1] if first else 0.0, ends[last])
            for first, last in zip(starts, lasts, strict=True)
        ]
        return Scenes(len(ends), ends[-1], found, scenes)


def decode(image: bytes, formats: tuple[str, ...] = PICTURES) -> Image.Image:
    """A picture of a bounded size, or a refusal."""
    try:
        opened = Image.open(io.BytesIO(image), formats=formats)
        if opened.width * opened.height > PIXELS_MAX:
            raise ValueError(f"the picture has more than {PIXELS_MAX} pixels")
        opened.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as problem:
        raise ValueError(f"this cannot be read as {', '.join(formats)}: {problem}") from None
    return opened if formats is VIDEOS else ImageOps.exif_transpose(opened)


def digit_grid(picture: Image.Image) -> np.ndarray:
    """A digit as the training pictures have it: 8 by 8 blocks of ink from 0 to 16, the digit filling the height."""
    pixels = np.asarray(picture, float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ink = pixels if np.median(border) < 128 else 255 - pixels
    ink = np.clip(ink - np.percentile(ink, 25), 0, None)
    if ink.max() < 20:
        raise ValueError("the picture is empty")
    rows, columns = np.nonzero(ink > ink.max() * 0.3)
    cut = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] / ink.max()
    height, width = cut.shape
    # As tall as the frame, as wide as it then is, in the middle; a very wide one fills the width.
    scale = 32 / max(height, width)
    small = Image.fromarray((cut * 255).astype(np.uint8)).resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX
    )
    frame = Image.new("L", (32, 32))
    frame.paste(small, ((32 - small.width) // 2, (32 - small.height) // 2))
    blocks = np.asarray(frame, float).reshape(8, 4, 8, 4).mean(axis=(1, 3))
    return (blocks / 255 * 16).round().ravel()


def frames(video: bytes) -> tuple[np.ndarray, list[float]]:
    """A colour histogram for each frame, by quarters of the picture, and the second at which each frame ends."""
    opened = decode(video, VIDEOS)
    count = getattr(opened, "n_frames", 1)
    if not 2 <= count <= FRAMES_MAX:
        raise ValueError(f"a video has 2 to {FRAMES_MAX} frames, this has {count}")
    histograms, ends, clock = [], [], 0.0
    for frame in ImageSequence.Iterator(opened):
        small = np.asarray(frame.convert("RGB").resize(THUMBNAIL, Image.Resampling.BOX), int) * LEVELS // 256
        colours = (small[..., 0] * LEVELS + small[..., 1]) * LEVELS + small[..., 2]
        quarters = [quarter for half in np.vsplit(colours, 2) for quarter in np.hsplit(half, 2)]
        histograms.append(np.concatenate([np.bincount(q.ravel(), minlength=LEVELS**3) for q in quarters]))
        clock += float(frame.info.get("duration") or 100) / 1_000
        ends.append(round(clock, 3))
    return np.array(histograms) / (THUMBNAIL[0] * THUMBNAIL[1]), ends


def is_cut(changes: np.ndarray, number: int) -> bool:
    """Whether a change between two frames is a cut: large, the largest around, and far above those around."""
    around = np.delete(changes[max(0, number - 4) : number + 5], min(4, number))
    change = changes[number]
    usual = float(np.median(around)) if len(around) else 0.0
    return bool(change >= CUT_SHARE_MIN and change > CUT_CONTRAST * usual)
