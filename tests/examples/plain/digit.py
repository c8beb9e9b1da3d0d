"""A handwritten digit by scikit-learn's support vector machine itself."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from timing import text, told

pictures, digits = load_digits(return_X_y=True)
machine = SVC(gamma=0.001, C=10.0).fit(pictures, digits)
ink = pictures[42].reshape(8, 8)
file = io.BytesIO()
Image.fromarray((ink * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST).save(
    file, "PNG"
)
told("digit", {"image": text(file.getvalue())}, lambda: {"digit": int(machine.predict(pictures[42:43])[0])})
