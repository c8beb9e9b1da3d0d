"""Shows what pictures of cells and eyes can be measured for. A demonstration for teaching and research, not a diagnosis."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.feature import blob_log
from skimage.filters import sato, threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import remove_small_objects
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

PIXELS_MAX = 12_000_000
SIDE_MAX = 700
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
FEATURES = 30
NOTE = "Demonstration. Not a medical device, not a diagnosis; ask a physician."
# Brown (DAB) in optical density: a cell counts as stained from here on.
STAINED = 0.05

Picture = Annotated[bytes, "PNG, JPEG, TIFF or BMP"]


@dataclass
class Cells:
    """How much a sample resembles the malignant ones of the training set, and the features that say so."""

    malignant: float
    reasons: list[str]
    note: str = NOTE


@dataclass
class Stain:
    """The share of a tissue picture that is stained brown, and how many nuclei were told apart."""

    stained_share: float
    tissue_share: float
    nuclei: int
    note: str = NOTE


@dataclass
class Spot:
    """A dark round spot: its centre and radius in pixels."""

    x: int
    y: int
    radius: float


@dataclass
class Retina:
    """A fundus picture: whether it can be used, how much of it is vessels, and dark spots away from vessels."""

    usable: bool
    sharpness: float
    field_share: float
    vessel_share: float
    spots: list[Spot]
    note: str = NOTE


def cell_model() -> Pipeline:
    """The model, untrained: the same for the service and for its evaluation."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2_000))


class Medical:
    """A logistic regression on the Wisconsin samples, colour deconvolution, and filters for vessels and spots."""

    def setup(self) -> None:
        """Learn the 569 samples that scikit-learn ships (a few hundredths of a second)."""
        data = load_breast_cancer()
        self.names = [str(name) for name in data.feature_names]
        # In the data 0 is malignant.
        self.model = cell_model().fit(data.data, 1 - data.target)

    def cells(
        self, features: Annotated[list[float], "the 30 features of the Wisconsin set, in its order"]
    ) -> Cells:
        """Judge a breast mass by the measured nuclei of a needle aspirate."""
        numbers = np.asarray(features, float)
        if numbers.shape != (FEATURES,) or not np.isfinite(numbers).all() or (numbers < 0).any():
            raise ValueError(f"features are {FEATURES} numbers, none below 0")
        scaler, regression = self.model[0], self.model[1]
        pull = scaler.transform(numbers[None])[0] * regression.coef_[0]
        strongest = np.argsort(-np.abs(pull))[:3]
        reasons = [f"{self.names[at]} {'for' if pull[at] > 0 else 'against'}" for at in strongest]
        return Cells(round(float(self.model.predict_proba(numbers[None])[0, 1]), 4), reasons)

    def stain(self, image: Picture) -> Stain:
        """How much of a tissue section is brown (DAB), as in immunohistochemistry."""
        pixels = decode(image)
        stains = rgb2hed(pixels)
        tissue = pixels.min(axis=2) < 225
        if tissue.mean() < 0.01:
            raise ValueError("there is no tissue in the picture")
        brown = (stains[..., 2] > STAINED) & tissue
        blue = stains[..., 0]
        nuclei = remove_small_objects(blue > threshold_otsu(blue[tissue]), max_size=30)
        return Stain(
            round(float(brown.sum() / tissue.sum()), 4),
            round(float(tissue.mean()), 4),
            int(label(ndimage.binary_opening(nuclei, iterations=1)).max()),
        )

    def retina(self, image: Picture) -> Retina:
        """Look at a picture of the back of an eye: quality, vessels, dark spots."""
        green = decode(image)[..., 1].astype(float) / 255
        field = ndimage.binary_erosion(green > 0.06, iterations=max(1, min(green.shape) // 60))
        if field.mean() < 0.1:
            raise ValueError("the picture is almost black")
        flat = green - ndimage.gaussian_filter(green, min(green.shape) / 25)
        flat *= field
        vessels = (sato(flat, sigmas=(2, 3), black_ridges=True) > 0.012) & field
        vessels = remove_small_objects(vessels, max_size=150)
        blobs = blob_log(np.clip(-flat, 0, None), min_sigma=1.5, max_sigma=4, num_sigma=4, threshold=0.02)
        near = ndimage.binary_dilation(long_parts(vessels), iterations=2)
        spots = [
            Spot(int(x), int(y), round(float(sigma * 2**0.5), 1))
            for y, x, sigma in blobs
            if field[int(y), int(x)] and not near[int(y), int(x)]
        ]
        sharpness = float(ndimage.laplace(ndimage.gaussian_filter(green, 1))[field].std() * 1_000)
        return Retina(
            usable=sharpness >= 2.0 and 0.05 < float(green[field].mean()) < 0.9,
            sharpness=round(sharpness, 2),
            field_share=round(float(field.mean()), 3),
            vessel_share=round(float(vessels.sum() / field.sum()), 4),
            spots=sorted(spots, key=lambda spot: (spot.y, spot.x))[:200],
        )


def long_parts(mask: np.ndarray) -> np.ndarray:
    """The stretched parts of a mask: vessels, not spots."""
    numbered = label(mask)
    long = [part.label for part in regionprops(numbered) if part.axis_major_length > 40]
    return np.isin(numbered, long)


def decode(image: bytes) -> np.ndarray:
    """A picture's colours, at a size at which a vessel is a few pixels wide."""
    try:
        opened = Image.open(io.BytesIO(image), formats=FORMATS)
        if opened.width * opened.height > PIXELS_MAX:
            raise ValueError(f"the picture has more than {PIXELS_MAX} pixels")
        picture = opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as problem:
        raise ValueError(f"this is no picture that can be read: {problem}") from None
    picture.thumbnail((SIDE_MAX, SIDE_MAX), Image.Resampling.LANCZOS)
    return np.asarray(picture)
