"""Image archives: which image is inside, told without an engine, and the smallest image for trying one out."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import posixpath
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openresource.sandbox.driver import ProgramDidNotStart

DOCUMENT_BYTES_MAX: Final = 4 << 20
MEMBERS_MAX: Final = 20_000
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
# What engines read of an archive besides its blobs; the last one is names alone.
_LISTS: Final = ("manifest.json", "index.json")
_NAMES: Final = "repositories"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_REFERENCE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]{0,254}@sha256:[0-9a-f]{64}")

# Answers 42 to whatever it reads, by three system calls of Linux and without any library.
_CODE: Final = {
    "x86_64": (
        62,
        "4881ec0010000031c031ff4889e6ba001000000f0585c07e1ab801000000bf01000000488d3512000000ba030000000f05"
        "ebd4b83c00000031ff0f0534320a",
    ),
    "aarch64": (
        183,
        "ff0740d1000080d2e1030091020082d2e80780d2010000d41f0000f1ed000054200080d201010010620080d2080880d2"
        "010000d4f4ffff17000080d2a80b80d2010000d434320a00",
    ),
}
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def is_digest_reference(image: str) -> bool:
    """Whether it is a name with the digest of its content, which always means the same image."""
    return _REFERENCE.fullmatch(image) is not None


def image_id_of(archive: Path) -> str:
    """The digest of an archive's image configuration, by which every engine knows the image."""
    try:
        with tarfile.open(archive) as tar:
            documents = _documents(tar)
    except (OSError, tarfile.TarError) as problem:
        raise _not_an_image(archive, str(problem)) from None
    try:
        if "manifest.json" in documents:
            (described,) = json.loads(documents["manifest.json"])
            config = str(described["Config"])
            found = config.rpartition("/")[2].removesuffix(".json")
        else:
            (entry,) = json.loads(documents["index.json"])["manifests"]
            found = json.loads(documents[_blob(entry["digest"])])["config"]["digest"]
    except (KeyError, ValueError, TypeError, RecursionError):
        raise _not_an_image(archive, "it holds no single image") from None
    digest = found if ":" in found else f"sha256:{found}"
    if _DIGEST.fullmatch(digest) is None:
        raise _not_an_image(archive, "its configuration has no digest")
    return digest


def write_nameless(archive: Path, target: Path) -> None:
    """The same archive without names of images: an engine would give them away, even those of the operator's own images."""
    try:
        with tarfile.open(archive) as source, tarfile.open(target, "w") as made:
            seen: set[str] = set()
            for count, member in enumerate(source):
                name = posixpath.normpath(member.name)
                if count > MEMBERS_MAX or name in seen or name.startswith(("/", "..")):
                    raise tarfile.TarError(f"its member {name[:80]} is one too many or leads elsewhere")
                seen.add(name)
                _copy_nameless(source, made, member, name)
    except (OSError, tarfile.TarError, ValueError, TypeError, KeyError, RecursionError) as problem:
        raise _not_an_image(archive, str(problem)[:200]) from None


def _copy_nameless(
    source: tarfile.TarFile, made: tarfile.TarFile, member: tarfile.TarInfo, name: str
) -> None:
    entry = tarfile.TarInfo(name)
    last = name.rpartition("/")[2]
    if member.isdir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        made.addfile(entry)
    elif member.issym() and posixpath.basename(member.linkname) not in (*_LISTS, _NAMES, "", ".", ".."):
        # Older archives point from one layer to another.
        entry.type, entry.linkname = tarfile.SYMTYPE, member.linkname
        if last in (*_LISTS, _NAMES):
            raise tarfile.TarError(f"{name} is a link")
        made.addfile(entry)
    elif not member.isfile():
        raise tarfile.TarError(f"{name[:80]} is not a file")
    elif last in (*_LISTS, _NAMES) and name != last:
        raise tarfile.TarError(f"{name[:80]} lies in a folder")
    elif name != _NAMES:
        data = source.extractfile(member)
        assert data is not None, "it is a file"
        entry.size, entry.mode = member.size, 0o644
        if name in _LISTS:
            if member.size > DOCUMENT_BYTES_MAX:
                raise tarfile.TarError(f"{name} is too long")
            said = json.dumps(_nameless(name, json.loads(data.read()))).encode()
            entry.size = len(said)
            data = io.BytesIO(said)
        made.addfile(entry, data)


def _nameless(name: str, value: Any) -> Any:
    """A list of images with what tells them apart and nothing else, as engines read members in any case."""
    if name == "manifest.json":
        return [{"Config": one["Config"], "RepoTags": [], "Layers": one["Layers"]} for one in value]
    kept = ("mediaType", "digest", "size", "platform")
    manifests = [{part: one[part] for part in kept if part in one} for one in value["manifests"]]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}


def probe_archive() -> bytes:
    """An image with one program of two hundred bytes, for the processor of this machine; empty for others."""
    known = _CODE.get(platform.machine())
    if known is None:
        return b""
    machine, code = known
    return make_archive({"answer": _executable(machine, bytes.fromhex(code))}, ["/answer"])


def make_archive(files: Mapping[str, bytes], command: Sequence[str]) -> bytes:
    """A docker archive whose one layer holds these files, all executable; the same files give the same bytes."""
    layer = _tar({name: (data, 0o755) for name, data in files.items()})
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        },
        sort_keys=True,
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    described = json.dumps([{"Config": name, "RepoTags": [], "Layers": [f"{digest}.tar"]}]).encode()
    members = {name: config, f"{digest}.tar": layer, "manifest.json": described}
    return _tar({member: (data, 0o644) for member, data in members.items()})


def _documents(tar: tarfile.TarFile) -> dict[str, bytes]:
    """The small JSON members of an archive; layers are passed over."""
    found: dict[str, bytes] = {}
    for count, member in enumerate(tar):
        if count > MEMBERS_MAX:
            raise tarfile.TarError(f"it has more than {MEMBERS_MAX} members")
        name = member.name.removeprefix("./")
        if member.isfile() and member.size <= DOCUMENT_BYTES_MAX and _is_document(name):
            file = tar.extractfile(member)
            if file is not None and (data := file.read(DOCUMENT_BYTES_MAX)).startswith((b"{", b"[")):
                found[name] = data
    return found


def _is_document(name: str) -> bool:
    return name.endswith(".json") or name.startswith("blobs/")


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _not_an_image(archive: Path, reason: str) -> ProgramDidNotStart:
    return ProgramDidNotStart(
        reason=f"{archive.name} is not an image that can be loaded ({reason})",
        stderr="",
        remedy="Make it with `podman save --format oci-archive` or `docker save`, one image a file.",
    )


def _executable(machine: int, code: bytes) -> bytes:
    """The shortest file that Linux executes: a header, one segment, the code."""
    base, head = 0x400000, 64 + 56
    size = head + len(code)

    def words(*pairs: tuple[int, int]) -> bytes:
        return b"".join(value.to_bytes(width, "little") for value, width in pairs)

    header = b"\x7fELF\x02\x01\x01" + bytes(9) + words(
        (2, 2), (machine, 2), (1, 4), (base + head, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (1, 2),
        (0, 2), (0, 2), (0, 2),
    )  # fmt: skip
    segment = words((1, 4), (5, 4), (0, 8), (base, 8), (base, 8), (size, 8), (size, 8), (0x1000, 8))
    return header + segment + code


def _tar(members: Mapping[str, tuple[bytes, int]]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (data, mode) in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return output.getvalue()
