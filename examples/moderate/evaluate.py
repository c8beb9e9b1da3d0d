"""Measures moderate on harmless pictures only, as no others may be shipped. Argument: folder of the runtimes."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Moderator


def main() -> None:
    """Print the figures as JSON."""
    moderator = Moderator()
    moderator.setup()
    packages = next(Path(sys.argv[1]).glob("ml-*/lib/python3*/site-packages"))
    files = [
        file
        for folder in ("skimage/data", "sklearn/datasets/images")
        for file in sorted((packages / folder).iterdir())
        if file.suffix in (".png", ".jpg")
    ]
    told = [moderator.check(file.read_bytes()) for file in files]
    shown = sum(one.verdict == "show" for one in told)
    highest = max(one.unsafe for one in told)
    print(
        json.dumps(
            {
                "headline": f"{shown} of {len(told)} harmless pictures shown (highest score {highest:.2f}); what it catches is not measured here",
                "set": f"{len(told)} pictures that scikit-image and scikit-learn ship, all harmless",
                "figures": {"harmless_shown": round(shown / len(told), 4), "highest_score": highest},
            }
        )
    )


main()
