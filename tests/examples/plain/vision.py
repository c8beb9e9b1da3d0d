"""A portrait by scikit-image's cascade itself."""

import numpy as np
from PIL import Image
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.feature import Cascade
from timing import shipped, text, told

file = shipped("skimage", "data/astronaut.png")
cascade = Cascade(lbp_frontal_face_cascade_filename())
pixels = np.asarray(Image.open(file).convert("L"))


def faces() -> list[dict[str, int]]:
    """Boxes as the service names them."""
    found = cascade.detect_multi_scale(
        pixels, scale_factor=1.2, step_ratio=1, min_size=(60, 60), max_size=(512, 512)
    )
    return [
        {"x": int(b["c"]), "y": int(b["r"]), "width": int(b["width"]), "height": int(b["height"])}
        for b in found
    ]


told("faces", {"image": text(file.read_bytes())}, lambda: {"count": len(faces()), "faces": faces()})
