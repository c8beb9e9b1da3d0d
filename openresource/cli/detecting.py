"""What a folder without an openresource.toml is, for `init`, `check`, `publish` and pushes: detected, said, laid beside it."""

from collections.abc import Mapping
from pathlib import Path

from openresource.builds.detection import Detected, detect
from openresource.builds.files import Files, folder_files
from openresource.builds.languages import find_languages
from openresource.market.manifests import MANIFEST_FILE


def detect_folder(folder: Path) -> Detected | None:
    """What a folder is; None where it says so itself, or is none."""
    if not folder.is_dir() or (folder / MANIFEST_FILE).exists():
        return None
    return detect_files(folder_files(folder))


def detect_files(files: Files) -> Detected:
    """What files are, asking the languages of installed packages last."""
    others = [language.detector for language in find_languages() if language.detector is not None]
    return detect(files, others)


def additions_of(detected: Detected) -> Mapping[str, bytes]:
    """The files that make a release of a folder: its page and what that leans on."""
    return {**detected.files, MANIFEST_FILE: detected.manifest_text.encode()}


def detection_lines(detected: Detected) -> list[str]:
    """What was concluded and from what, for people."""
    language = f" in {detected.language}" if detected.language and detected.language != detected.kind else ""
    return [
        f"No {MANIFEST_FILE}: taken as {_article(detected.kind)} program{language}. {detected.because}",
        *(f"  {remark}" for remark in detected.remarks),
    ]


def _article(kind: str) -> str:
    return f"an {kind}" if kind in ("http", "oci") else f"a {kind}"
