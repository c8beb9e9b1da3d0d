"""Graphics processors against made-up inventories: found, matched, leased to one program at a time, and shown to it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openresource.adapters.bubblewrap.arguments import options
from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.market.manifests import Manifest, parse_manifest
from openresource.sandbox.driver import Capabilities, KindNotServed, Limits, ProgramCall, Release
from openresource.sandbox.drivers import Drivers, enforced_text
from openresource.sandbox.gpus import (
    Devices,
    Gpu,
    GpuBusy,
    Need,
    described,
    device_environment,
    device_nodes,
    discover,
    engine_devices,
    gvisor_options,
    suits,
)

GIB = 1 << 30
A100 = [Gpu("nvidia", n, f"GPU-{n:08x}", "NVIDIA A100", 40 * GIB, f"/dev/nvidia{n}") for n in range(2)]
MI300 = Gpu("amd", 0, "", "gfx942", 192 * GIB, "/dev/dri/renderD128")


def files(root: Path, pages: dict[str, str]) -> Path:
    """A machine as files."""
    for name, text in pages.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def manifest(gpu: str) -> Manifest:
    """A program that needs devices."""
    return parse_manifest(f'name = "a"\n[run]\nkind = "python"\nentry = "a:b"\n[resources]\ngpu = {gpu}')


NVIDIA = {
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A100\nGPU UUID: \t GPU-aaaaaaaa\nDevice Minor: \t 1\n",
    "proc/driver/nvidia/gpus/0000:02:00.0/information": "Model: \t\t NVIDIA A100\nGPU UUID: \t GPU-bbbbbbbb\nDevice Minor: \t 0\n",
}


def test_devices_of_nvidia_are_found_with_their_tool_and_without(tmp_path: Path) -> None:
    machine = files(tmp_path, NVIDIA)
    said = "0, GPU-aaaaaaaa, NVIDIA A100-SXM4-40GB, 40960\n1, GPU-bbbbbbbb, NVIDIA A100-SXM4-40GB, 40960\n"
    with_tool = discover(machine, lambda words: said)
    assert [gpu.node for gpu in with_tool] == ["/dev/nvidia1", "/dev/nvidia0"]
    assert {gpu.memory_bytes for gpu in with_tool} == {40 * GIB}
    without = discover(machine, lambda words: "")
    assert [(gpu.uuid, gpu.node, gpu.memory_bytes) for gpu in without] == [
        ("GPU-aaaaaaaa", "/dev/nvidia1", 0), ("GPU-bbbbbbbb", "/dev/nvidia0", 0),
    ]  # fmt: skip
    for nonsense in ("no devices were found", "0, ../../etc, x, 1", "a, b", ",,,\n"):
        assert discover(machine, lambda words, said=nonsense: said) == without


def test_devices_of_amd_and_intel_are_found(tmp_path: Path) -> None:
    machine = files(
        tmp_path,
        {
            "sys/class/kfd/kfd/topology/nodes/0/properties": "simd_count 0\ndrm_render_minor 0\n",
            "sys/class/kfd/kfd/topology/nodes/1/properties": "simd_count 304\ndrm_render_minor 128\n",
            "sys/class/kfd/kfd/topology/nodes/1/name": "gfx942\n",
            "sys/class/kfd/kfd/topology/nodes/1/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {192 * GIB}\n",
            "sys/class/drm/renderD128/device/vendor": "0x1002\n",
            "sys/class/drm/renderD129/device/vendor": "0x8086\n",
        },
    )
    amd, intel = discover(machine, lambda words: "")
    assert amd == MI300
    assert (intel.vendor, intel.node) == ("intel", "/dev/dri/renderD129")


def test_a_machine_without_any_has_none(tmp_path: Path) -> None:
    assert discover(tmp_path, lambda words: "0, GPU-aaaaaaaa, it lies, 1") == ()


def test_a_device_suits_by_vendor_and_memory() -> None:
    assert suits(A100[0], Need(1)) and suits(A100[0], Need(1, "nvidia", 40 * GIB))
    assert not suits(A100[0], Need(1, "amd")) and not suits(A100[0], Need(1, "any", 41 * GIB))
    assert not suits(Gpu("nvidia", 0, "", "", 0, "/dev/nvidia0"), Need(1, "any", 1))


def test_a_device_is_one_programs_alone(tmp_path: Path) -> None:
    devices = Devices([*A100, MI300], tmp_path / "locks")
    first = devices.lease(Need(1, "nvidia"))
    second = devices.lease(Need(1, "nvidia"))
    assert {first.gpus[0].index, second.gpus[0].index} == {0, 1}
    with pytest.raises(GpuBusy) as caught:
        devices.lease(Need(1, "nvidia"))
    assert "0 of the 2 that suit it are free" in caught.value.message
    assert devices.lease(Need(1)).gpus == (MI300,)
    first.release()
    assert devices.lease(Need(1, "nvidia", 40 * GIB)).gpus == first.gpus


def test_several_devices_are_of_one_vendor_or_none_is_taken(tmp_path: Path) -> None:
    devices = Devices([*A100, MI300], tmp_path / "locks")
    assert devices.lease(Need(2)).gpus == tuple(A100)
    with pytest.raises(GpuBusy):
        devices.lease(Need(2))
    # What was tried in vain was given back.
    assert devices.lease(Need(1)).gpus == (MI300,)


def test_a_lease_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    source = (
        "import sys, time; from pathlib import Path; from openresource.sandbox.gpus import *\n"
        f"lease = Devices([Gpu('nvidia', 0, '', '', 0, '')], Path({str(tmp_path / 'locks')!r})).lease(Need(1))\n"
        "print('held', flush=True); time.sleep(600)"
    )
    devices = Devices([Gpu("nvidia", 0, "", "", 0, "")], tmp_path / "locks")
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(GpuBusy):
            devices.lease(Need(1))
        holder.kill()
        holder.wait()
        devices.lease(Need(1)).release()


def test_a_program_is_shown_its_devices_and_no_others() -> None:
    words = options((), (), Limits(), {}, "/app", [A100[1]])
    nodes = [words[index + 1] for index, word in enumerate(words) if word == "--dev-bind-try"]
    assert nodes == ["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    assert words[words.index("CUDA_VISIBLE_DEVICES") + 1] == "GPU-00000001"
    amd = options((), (), Limits(), {}, "/app", [MI300])
    assert "/dev/kfd" in amd and "/dev/dri/renderD128" in amd and "/sys/class/kfd" in amd
    assert "--dev-bind-try" not in options((), (), Limits(), {}, "/app")


def test_every_driver_gets_its_own_words() -> None:
    assert engine_devices(A100) == ["nvidia.com/gpu=GPU-00000000", "nvidia.com/gpu=GPU-00000001"]
    assert engine_devices([MI300]) == ["/dev/dri/renderD128", "/dev/kfd"]
    assert gvisor_options(A100) == ["-nvproxy=true"] and gvisor_options([MI300]) == []
    assert device_environment([MI300]) == {"ROCR_VISIBLE_DEVICES": "0"}
    assert device_nodes([MI300]) == ["/dev/dri/renderD128", "/dev/kfd"]
    assert described([*A100, MI300]) == "2 × nvidia NVIDIA A100 (40 GiB), 1 × amd gfx942 (192 GiB)"


def test_a_need_is_matched_with_what_a_driver_has() -> None:
    class Fake:
        def probe(self) -> Capabilities:
            kinds = tuple((gpu.vendor, gpu.memory_bytes) for gpu in [*A100, MI300])
            return Capabilities("bubblewrap+gpu", True, gpus=3, gpu_kinds=kinds)

        async def start(self, release: Release, limits: Limits) -> object:
            raise AssertionError("never started")

    drivers = Drivers([Fake()])  # type: ignore[list-item]
    for wish in (
        "{count = 2}",
        '{count = 1, vendor = "amd", memory = "100Gi"}',
        '{count = 2, memory = "40Gi"}',
    ):
        assert drivers.choose(manifest(wish)).level == "bubblewrap+gpu"
    for wish in ("{count = 3}", '{count = 1, vendor = "intel"}', '{count = 2, memory = "100Gi"}'):
        with pytest.raises(KindNotServed):
            drivers.choose(manifest(wish))
    assert enforced_text(drivers.capabilities[0]).endswith("gpu=untested")


def test_the_driver_says_that_no_hardware_has_tested_it(tmp_path: Path) -> None:
    assert "no GPU was found" in Bubblewrap(devices=Devices([])).probe().why_not
    plain = Bubblewrap()
    if not plain.probe().available:
        pytest.skip(f"bubblewrap does not start here: {plain.probe().why_not}")
    driver = Bubblewrap(devices=Devices([A100[0]], tmp_path / "locks"))
    capabilities = driver.probe()
    assert capabilities.level == "bubblewrap+gpu" and capabilities.gpus == 1
    assert ("devices", "untested on hardware") in capabilities.details


def test_a_running_program_holds_its_device_until_it_ends(tmp_path: Path) -> None:
    if not Bubblewrap().probe().available:
        pytest.skip(f"bubblewrap does not start here: {Bubblewrap().probe().why_not}")
    # A file of this machine stands for a device's node.
    made_up = Gpu("nvidia", 0, "GPU-cafecafe", "made up", GIB, "/dev/null")
    driver = Bubblewrap(devices=Devices([made_up], tmp_path / "locks"))
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "a.py").write_text(
        "import os\ndef b() -> str:\n    return os.environ['CUDA_VISIBLE_DEVICES']\n"
    )
    release = Release(folder, manifest("{count = 1}"))

    async def work() -> None:
        instance = await driver.start(release, Limits())
        try:
            assert (await instance.call(ProgramCall("b", "/b", b"{}"))).body == b'"GPU-cafecafe"'
            with pytest.raises(GpuBusy):
                await driver.start(release, Limits())
        finally:
            await instance.stop()
        second = await driver.start(release, Limits())
        await second.stop()

    asyncio.run(work())
    assert os.listdir(tmp_path / "locks") == ["nvidia-0"]
