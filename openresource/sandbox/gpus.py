"""Graphics processors: which are here, which suit a program, and a lease of each for one program alone.

Nothing here has run on such hardware yet: the arguments are tested against made-up inventories, and every offer says so.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openresource.sandbox.driver import ProgramError

NVIDIA, AMD, INTEL, ANY = "nvidia", "amd", "intel", "any"
UNTESTED: Final = "untested on hardware"
ASK_SECONDS_MAX: Final = 10.0
DEVICES_MAX: Final = 64
NVIDIA_QUERY: Final = (
    "nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits",
)  # fmt: skip
NVIDIA_COMMON: Final = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
AMD_COMMON: Final = ("/dev/kfd",)
# ROCm finds its devices there.
AMD_FOLDERS: Final = ("/sys/class/kfd", "/sys/devices/virtual/kfd")
INTEL_VENDOR_ID: Final = "0x8086"
_UUID = re.compile(r"GPU-[0-9a-f-]{8,64}")

Ask = Callable[[Sequence[str]], str]


class GpuBusy(ProgramError):
    template = "The program needs {count} GPU ({vendor}); {free} of the {total} that suit it are free here."
    way_out = "Try again when another program has ended, or choose another provider."


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device: its number among its vendor's, what it is called, and its own node."""

    vendor: str
    index: int
    uuid: str
    name: str
    memory_bytes: int
    node: str

    @property
    def key(self) -> str:
        """What it is leased by."""
        return f"{self.vendor}-{self.index}"


@dataclass(frozen=True, slots=True)
class Need:
    """What a program asks for."""

    count: int
    vendor: str = ANY
    memory_bytes: int = 0


def discover(root: Path = Path("/"), ask: Ask | None = None) -> tuple[Gpu, ...]:
    """The devices of this machine, by what its drivers show; empty where there are none."""
    asking = ask or _ask
    found = (*_nvidia(root, asking), *_amd(root), *_intel(root))
    return found[:DEVICES_MAX]


def suits(gpu: Gpu, need: Need) -> bool:
    """Whether one device is what a program asks for; unknown memory suits only those that do not ask."""
    return need.vendor in (ANY, gpu.vendor) and gpu.memory_bytes >= need.memory_bytes


class Lease:
    """Devices that are one program's until it gives them back, or this process ends however."""

    def __init__(self, gpus: Sequence[Gpu], locks: Sequence[int]) -> None:
        self.gpus = tuple(gpus)
        self._locks = list(locks)

    def release(self) -> None:
        """Give them back."""
        while self._locks:
            os.close(self._locks.pop())


class Devices:
    """The devices of a machine and their leases, by locks that the kernel drops with their holder."""

    def __init__(self, gpus: Sequence[Gpu], folder: Path | None = None) -> None:
        self.gpus = tuple(gpus)
        self._folder = folder

    def __len__(self) -> int:
        return len(self.gpus)

    def lease(self, need: Need) -> Lease:
        """So many devices of one vendor, or a refusal that says how many are free."""
        suitable = [gpu for gpu in self.gpus if suits(gpu, need)]
        best = 0
        for vendor in sorted({gpu.vendor for gpu in suitable}):
            taken: list[Gpu] = []
            locks: list[int] = []
            for gpu in [one for one in suitable if one.vendor == vendor]:
                lock = self._lock(gpu)
                if lock < 0:
                    continue
                taken.append(gpu)
                locks.append(lock)
                if len(taken) == need.count:
                    return Lease(taken, locks)
            best = max(best, len(taken))
            Lease(taken, locks).release()
        raise GpuBusy(count=need.count, vendor=need.vendor, free=best, total=len(suitable))

    def _lock(self, gpu: Gpu) -> int:
        folder = self._folder or _lock_folder()
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / gpu.key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return -1
        return lock


def device_nodes(gpus: Sequence[Gpu]) -> list[str]:
    """The files in /dev that programs with these devices need: their own, and those that all of a vendor share."""
    nodes = [gpu.node for gpu in gpus]
    vendors = {gpu.vendor for gpu in gpus}
    nodes += NVIDIA_COMMON if NVIDIA in vendors else ()
    nodes += AMD_COMMON if AMD in vendors else ()
    return nodes


def device_folders(gpus: Sequence[Gpu]) -> list[str]:
    """Folders that programs with these devices must read, beside /usr, where the drivers' libraries are."""
    return list(AMD_FOLDERS) if any(gpu.vendor == AMD for gpu in gpus) else []


def device_environment(gpus: Sequence[Gpu]) -> dict[str, str]:
    """What tells libraries which devices are theirs."""
    values: dict[str, str] = {}
    nvidia = [gpu.uuid or str(gpu.index) for gpu in gpus if gpu.vendor == NVIDIA]
    amd = [str(gpu.index) for gpu in gpus if gpu.vendor == AMD]
    if nvidia:
        values["CUDA_VISIBLE_DEVICES"] = ",".join(nvidia)
        values["NVIDIA_VISIBLE_DEVICES"] = ",".join(nvidia)
    if amd:
        values["ROCR_VISIBLE_DEVICES"] = ",".join(amd)
    return values


def engine_devices(gpus: Sequence[Gpu]) -> list[str]:
    """Devices as podman and docker take them: by the Container Device Interface where the vendor has one, else nodes."""
    words = [f"nvidia.com/gpu={gpu.uuid or gpu.index}" for gpu in gpus if gpu.vendor == NVIDIA]
    others = [gpu for gpu in gpus if gpu.vendor != NVIDIA]
    return words + device_nodes(others)


def gvisor_options(gpus: Sequence[Gpu]) -> list[str]:
    """What gVisor's runtime is told: it lets a checked part of the vendor's calls through."""
    return ["-nvproxy=true"] if any(gpu.vendor == NVIDIA for gpu in gpus) else []


def described(gpus: Sequence[Gpu]) -> str:
    """The devices in words, such as `2 × nvidia NVIDIA A100 (40 GiB)`."""
    counts: dict[str, int] = {}
    for gpu in gpus:
        size = f" ({gpu.memory_bytes / (1 << 30):.0f} GiB)" if gpu.memory_bytes else ""
        text = f"{gpu.vendor} {gpu.name}{size}".strip()
        counts[text] = counts.get(text, 0) + 1
    return ", ".join(f"{count} × {text}" for text, count in counts.items())


def _nvidia(root: Path, ask: Ask) -> list[Gpu]:
    found: list[Gpu] = []
    if not (root / "proc/driver/nvidia").is_dir() and not (root / "dev/nvidiactl").exists():
        return found
    for line in ask(NVIDIA_QUERY).splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[0].isdigit() and _UUID.fullmatch(fields[1]):
            memory = int(fields[3]) << 20 if fields[3].isdigit() else 0
            node = f"/dev/nvidia{_nvidia_minor(root, fields[1], int(fields[0]))}"
            found.append(Gpu(NVIDIA, int(fields[0]), fields[1], fields[2][:100], memory, node))
    if found:
        return found
    # Without its tool the kernel module still tells which there are, though not how much memory they have.
    for number, page in enumerate(sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))):
        values = _information(page)
        uuid = values.get("GPU UUID", "")
        minor = values.get("Device Minor", str(number))
        if minor.isdigit():
            known = uuid if _UUID.fullmatch(uuid) else ""
            found.append(Gpu(NVIDIA, number, known, values.get("Model", "")[:100], 0, f"/dev/nvidia{minor}"))
    return found


def _nvidia_minor(root: Path, uuid: str, index: int) -> int:
    """The number of a device's node, which is not always its index."""
    for page in (root / "proc/driver/nvidia/gpus").glob("*/information"):
        values = _information(page)
        if values.get("GPU UUID") == uuid and values.get("Device Minor", "").isdigit():
            return int(values["Device Minor"])
    return index


def _amd(root: Path) -> list[Gpu]:
    found: list[Gpu] = []
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    for node in sorted(nodes.glob("*"), key=lambda path: int(path.name) if path.name.isdigit() else 0):
        values = _properties(node / "properties")
        minor = values.get("drm_render_minor", 0)
        # Processors are nodes as well, without units of this kind.
        if values.get("simd_count", 0) > 0 and minor > 0:
            banks = [_properties(bank) for bank in node.glob("mem_banks/*/properties")]
            memory = sum(bank.get("size_in_bytes", 0) for bank in banks)
            found.append(
                Gpu(
                    AMD,
                    len(found),
                    "",
                    _read(node / "name").strip()[:100],
                    memory,
                    f"/dev/dri/renderD{minor}",
                )
            )
    return found


def _intel(root: Path) -> list[Gpu]:
    found: list[Gpu] = []
    for entry in sorted((root / "sys/class/drm").glob("renderD*")):
        if _read(entry / "device/vendor").strip() == INTEL_VENDOR_ID:
            found.append(Gpu(INTEL, len(found), "", "", 0, f"/dev/dri/{entry.name}"))
    return found


def _information(page: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in _read(page).splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _properties(page: Path) -> dict[str, int]:
    pairs = (line.split() for line in _read(page).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _lock_folder() -> Path:
    parent = Path("/run") if os.geteuid() == 0 and os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"openresource-gpus-{os.geteuid()}"


def _ask(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            list(words), capture_output=True, text=True, timeout=ASK_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
