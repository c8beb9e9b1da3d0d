"""Measures vision: digits as pictures (five folds), faces (Labeled Faces in the Wild), cuts of made videos."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

sys.path.insert(0, str(Path(__file__).parent))
from service import Vision

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "ihc.png")


def png(pixels: np.ndarray) -> bytes:
    """Pixels as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def digits(vision: Vision) -> float:
    """The share of 1,797 digits that are read right, each as a picture of 96 pixels and by a model that never saw it."""
    pictures, labels = load_digits(return_X_y=True)
    right = 0
    for seen, unseen in StratifiedKFold(5, shuffle=True, random_state=0).split(pictures, labels):
        vision.machine.fit(pictures[seen], labels[seen])
        for at in unseen:
            ink = Image.fromarray((255 - pictures[at].reshape(8, 8) * 15.9).astype(np.uint8))
            large = np.asarray(ink.resize((96, 96), Image.Resampling.BICUBIC))
            right += vision.digit(png(np.pad(large, 16, constant_values=255))).digit == labels[at]
    vision.machine.fit(pictures, labels)
    return right / len(labels)


def faces(vision: Vision) -> tuple[float, float]:
    """The share of 100 faces in which one is found, and of 100 other pictures in which none is."""
    known = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")
    found = []
    for pixels in known:
        values = pixels * 255 / max(1.0, pixels.max()) if pixels.max() > 1 else pixels * 255
        large = np.asarray(
            Image.fromarray(values.astype(np.uint8)).resize((150, 150), Image.Resampling.BICUBIC)
        )
        found.append(vision.faces(png(np.pad(large, 40, mode="edge")), smallest=60).count > 0)
    return float(np.mean(found[:100])), 1 - float(np.mean(found[100:]))


def cuts(vision: Vision) -> tuple[float, float, int]:
    """Recall and precision over 30 videos of 2 to 5 scenes: pans over photographs, with noise and changing light."""
    chance = np.random.default_rng(0)
    folder = Path(skimage.__file__).parent / "data"
    photographs = [Image.open(folder / name).convert("RGB").resize((320, 240)) for name in PHOTOGRAPHS]
    for name in ("china.jpg", "flower.jpg"):
        file = Path(sklearn.__file__).parent / "datasets" / "images" / name
        photographs.append(Image.open(file).convert("RGB").resize((320, 240)))
    hits = found = wanted = 0
    for _ in range(30):
        chosen = chance.permutation(len(photographs))[: int(chance.integers(2, 6))]
        frames, true = [], []
        for scene, at in enumerate(chosen):
            length = int(chance.integers(6, 20))
            if scene:
                true.append(len(frames))
            x, y, dx, dy = chance.uniform(0, 60, 2).tolist() + chance.uniform(-2, 2, 2).tolist()
            for step in range(length):
                left, top = np.clip([x + dx * step, y + dy * step], 0, 80)
                shown = (
                    photographs[at]
                    .crop((int(left), int(top), int(left) + 240, int(top) + 160))
                    .resize((96, 64))
                )
                light = 1 + 0.1 * np.sin(step / 3 + scene)
                frames.append(np.clip(np.asarray(shown) * light + chance.normal(0, 6, (64, 96, 3)), 0, 255))
        pictures = [Image.fromarray(frame.astype(np.uint8)) for frame in frames]
        file = io.BytesIO()
        pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=80)
        answer = vision.cuts(file.getvalue()).cuts
        hits += len(set(answer) & set(true))
        found += len(answer)
        wanted += len(true)
    return hits / wanted, hits / max(1, found), wanted


def main() -> None:
    """Print the figures as JSON."""
    vision = Vision()
    vision.setup()
    read = digits(vision)
    seen, spared = faces(vision)
    recall, precision, wanted = cuts(vision)
    print(
        json.dumps(
            {
                "headline": f"digits {read:.1%} right; {seen:.0%} of faces found, none in {spared:.0%} of other pictures; cuts {recall:.0%} found",
                "set": "1,797 digits (scikit-learn, unseen by five folds), 200 pictures of Labeled Faces in the Wild (scikit-image), "
                f"30 videos with {wanted} cuts made of photographs",
                "figures": {
                    "digits_accuracy": round(read, 4),
                    "faces_found": seen,
                    "no_face_right": spared,
                    "cuts_recall": round(recall, 3),
                    "cuts_precision": round(precision, 3),
                },
            }
        )
    )


main()
