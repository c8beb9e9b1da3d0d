"""A photographed page by RapidOCR itself."""

import io

import numpy as np
from PIL import Image
from rapidocr import RapidOCR
from timing import shipped, text, told

content = shipped("skimage", "data/page.png").read_bytes()
engine = RapidOCR(
    params={
        "Det.limit_side_len": 320,
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "Global.log_level": "critical",
    }
)
pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[:, :, ::-1].copy()
told("read", {"image": text(content)}, lambda: {"text": "\n".join(engine(pixels).txts)})
