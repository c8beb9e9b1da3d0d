"""From a program's folder to what runs: dependencies by their lock, the program by its content, each built once.

Two layers are cached. Dependencies depend on lock files, recipe and toolchains, and see nothing of the program; the
program depends on its own content besides. Both are made in a sandbox (`workshop.py`) and appear whole or not at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.builds.artifacts import FILE, fetch_artifact
from openresource.builds.cache import CONTENT, Entry
from openresource.builds.recipes import BASE, DEPENDENCIES, Layer, Plan, Source
from openresource.builds.recipes.python import LOCK, report_lock
from openresource.builds.registries import Registry, find_registry
from openresource.builds.sbom import bill_of_materials, find_components
from openresource.builds.toolchains import Toolchain
from openresource.builds.trees import content_cid, copy_linked, copy_plain, use_environment_python
from openresource.builds.workshop import INSIDE, BuildFailed, Done, Progress, Workshop, carry_out
from openresource.market.manifests import MANIFEST_FILE, Manifest
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Mount, Release, Runtime

BUILDING_VERSION: Final = 1
RECORD_FOLDER: Final = ".openresource"
SBOM_FILE: Final = "sbom.json"
BUILD_FILE: Final = "build.json"
LOG_FILE: Final = "log.txt"
LEFT_OUT: Final = frozenset((".git", ".hg", ".svn", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache"))
LEFT_OUT_AT_TOP: Final = frozenset(("interface.json",))
SYSTEM_SECONDS_MAX: Final = 30.0
REPORT_BYTES_MAX: Final = 16 << 20


class SystemPackageMissing(Refusal):
    template = "The program needs the system packages {missing}, which this machine does not have."
    way_out = "Its operator can install them: apt install {missing}. Builds never install any."


@dataclass(frozen=True, slots=True)
class Built:
    """A program ready to run; without anything to build it is the folder itself."""

    folder: Path
    manifest: Manifest
    runtime: Runtime | None
    mounts: tuple[Mount, ...]
    environment: tuple[tuple[str, str], ...]
    path: tuple[str, ...]
    build_cid: str
    sbom: dict[str, Any]
    is_cached: bool
    seconds: float
    log: tuple[str, ...]
    language: str = ""
    held: tuple[object, ...] = ()

    def release(self, runtime: Runtime | None = None) -> Release:
        """The release that a sandbox starts; a prepared runtime stands in where nothing was built for one."""
        return Release(
            self.folder,
            self.manifest,
            self.runtime or runtime,
            mounts=self.mounts,
            environment=self.environment,
            path=self.path,
            held=self.held,
        )


async def build(
    folder: Path,
    manifest: Manifest,
    *,
    workshop: Workshop,
    progress: Progress = lambda _: None,
) -> Built:
    """What a program's folder becomes, from the cache if it was built before; what is in the way is a refusal."""
    began = time.monotonic()
    await asyncio.to_thread(check_system_packages, manifest.build.system)
    source = await asyncio.to_thread(Source, folder, manifest)
    language = workshop.languages.of(source)
    plan = Plan("", 0)
    if language is not None:
        plan = await asyncio.to_thread(language.recipe.plan, source)
    if plan.is_empty and not manifest.artifacts:
        return _as_it_is(folder, manifest, plan)
    registries = [_registry(workshop, name) for name in plan.registries]
    dependencies: Entry | None = None
    is_cached = True
    log: list[str] = []
    if plan.dependencies is not None:
        words = f"fetching the packages of {manifest.name} ({plan.language})"
        dependencies, done = await _make_layer(
            workshop, manifest, plan, plan.dependencies, registries, lambda: progress(words)
        )
        is_cached = done is None
        log += done.log if done is not None else []
    # Without the interface, which is written after the first build: what was tried is what is placed.
    sources = await asyncio.to_thread(content_cid, folder, LEFT_OUT, LEFT_OUT_AT_TOP)
    if not sources:
        raise BuildFailed(name=manifest.name, reason="its files have no content identifier")
    entry, done = await _program(workshop, source, plan, registries, dependencies, sources, progress)
    is_cached = is_cached and done is None
    log += done.log if done is not None else []
    sbom = json.loads((entry.content / RECORD_FOLDER / SBOM_FILE).read_bytes())
    return Built(
        folder=entry.content,
        manifest=manifest,
        runtime=_runtime(plan, dependencies),
        mounts=_mounts(plan.runs_with),
        environment=(*_variables(plan.runs_with), *plan.environment),
        path=(*plan.path, *[folder for toolchain in plan.runs_with for folder in toolchain.path]),
        build_cid=str(entry.record.get("cid", "")),
        sbom=sbom,
        is_cached=is_cached,
        seconds=time.monotonic() - began,
        log=tuple(log),
        language=plan.language,
        held=(entry,) if dependencies is None else (entry, dependencies),
    )


def check_system_packages(names: Sequence[str]) -> None:
    """Refuse what this machine does not have installed; nothing is ever installed for a program."""
    if not names:
        return
    missing = []
    for name in names:
        try:
            done = subprocess.run(
                ["dpkg-query", "-W", "-f", "${Status}", "--", name],
                capture_output=True, text=True, timeout=SYSTEM_SECONDS_MAX, check=False,
            )  # fmt: skip
        except OSError:
            missing = list(names)
            break
        if "install ok installed" not in done.stdout:
            missing.append(name)
    if missing:
        raise SystemPackageMissing(missing=" ".join(missing))


async def _make_layer(
    workshop: Workshop,
    manifest: Manifest,
    plan: Plan,
    layer: Layer,
    registries: Sequence[Registry],
    tell: Callable[[], None],
) -> tuple[Entry, Done | None]:
    """A layer from the cache, or made now; then with what the making has said."""
    key = _layer_key(plan, layer)
    async with workshop.cache.making("dependencies", key) as (entry, fresh):
        if entry is not None:
            return entry, None
        tell()
        work = fresh / INSIDE / "work"
        for name, data in layer.files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        done = await carry_out(workshop, manifest.name, fresh, layer.steps, plan.toolchains, registries, {})
        result = fresh / INSIDE / "out"
        return await _keep(workshop, "dependencies", key, fresh, result, plan, done), done


async def _program(
    workshop: Workshop,
    source: Source,
    plan: Plan,
    registries: Sequence[Registry],
    dependencies: Entry | None,
    sources: str,
    progress: Progress,
) -> tuple[Entry, Done | None]:
    manifest = source.manifest
    key = _program_key(plan, sources, dependencies, manifest)
    artifacts = {
        artifact.path: await fetch_artifact(workshop.cache, artifact, workshop.get_block)
        for artifact in manifest.artifacts
    }
    async with workshop.cache.making("releases", key) as (entry, fresh):
        if entry is not None:
            return entry, None
        work = fresh / INSIDE / "work"
        work.parent.mkdir()
        await asyncio.to_thread(copy_plain, source.folder, work, LEFT_OUT)
        for name in LEFT_OUT_AT_TOP:
            (work / name).unlink(missing_ok=True)
        done = Done([], [], 0.0)
        if plan.steps:
            progress(f"building {manifest.name} ({plan.language})")
            reached = registries if plan.steps_have_network else ()
            layers = {DEPENDENCIES: dependencies.content} if dependencies is not None else {}
            base: Entry | None = None
            if plan.base is not None:
                words = f"preparing {plan.language} on this machine, once for all its programs"
                base, _ = await _make_layer(workshop, manifest, plan, plan.base, (), lambda: progress(words))
                layers[BASE] = base.content
            done = await carry_out(
                workshop, manifest.name, fresh, plan.steps, plan.toolchains, reached, layers
            )
        await asyncio.to_thread(_finish, source, plan, work, dependencies, artifacts, sources)
        _check_command(source, plan, work, done)
        return await _keep(workshop, "releases", key, fresh, work, plan, done), done


def _finish(
    source: Source,
    plan: Plan,
    work: Path,
    dependencies: Entry | None,
    artifacts: dict[str, Entry],
    sources: str,
) -> None:
    """Put a built folder together: without what was in the way, with its packages, artifacts and papers."""
    for name in plan.dropped:
        shutil.rmtree(work / name, ignore_errors=True) if (work / name).is_dir() else (work / name).unlink(
            True
        )
    outputs = source.manifest.build.output
    if outputs and plan.steps:
        _keep_only(work, {*source.names}, outputs)
    # A build may write what it likes, but not what was published about the program.
    _replace(source.folder / MANIFEST_FILE, work / MANIFEST_FILE)
    for part, place in plan.carried:
        assert dependencies is not None
        target = work / place
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        copy_linked(dependencies.content / part, target)
    for place, entry in artifacts.items():
        target = work / place
        _check_inside(work, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or target.exists():
            target.unlink()
        try:
            os.link(entry.content / FILE, target)
        except OSError:
            shutil.copyfile(entry.content / FILE, target)
    use_environment_python(work / "bin")
    manifest = source.manifest
    layer = dependencies.content if dependencies is not None else None
    sbom = bill_of_materials(
        manifest.name,
        manifest.version,
        manifest.license,
        find_components(plan.language, layer, work),
    )
    papers = work / RECORD_FOLDER
    if papers.is_symlink() or papers.is_file():
        papers.unlink()
    shutil.rmtree(papers, ignore_errors=True)
    papers.mkdir()
    (papers / SBOM_FILE).write_text(json.dumps(sbom, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    record = {
        "sources": sources,
        "language": plan.language,
        "recipe": plan.version,
        "toolchains": [toolchain.identity for toolchain in plan.toolchains],
        "machine": platform.machine(),
        "dependencies": dependencies.record.get("cid", "") if dependencies is not None else "",
        "lock": dependencies.record.get("lock", "") if dependencies is not None else "",
    }
    (papers / BUILD_FILE).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


async def _keep(
    workshop: Workshop, kind: str, key: str, fresh: Path, result: Path, plan: Plan, done: Done
) -> Entry:
    """Make a result an entry, and forget everything else that the build has left."""
    content = fresh / CONTENT
    result.rename(content)
    (fresh / LOG_FILE).write_text("\n".join(done.log) + "\n", encoding="utf-8")

    def tidy() -> dict[str, Any]:
        for name in (INSIDE, "guest"):
            shutil.rmtree(fresh / name, ignore_errors=True)
        record: dict[str, Any] = {"language": plan.language, "seconds": round(done.seconds, 1)}
        if kind == "dependencies":
            record["lock"] = _lock_digest(content)
            for site in content.glob("lib/python3.*/site-packages/bin"):
                use_environment_python(site)
        record["cid"] = content_cid(content)
        record["connections"] = [
            [one.target, one.verdict, one.bytes_in, one.milliseconds] for one in done.connections[-200:]
        ]
        return record

    return await workshop.cache.keep(kind, key, fresh, await asyncio.to_thread(tidy))


def _lock_digest(content: Path) -> str:
    """The digest of the lock that a layer was made from or has resolved."""
    report = content / "report.json"
    if report.is_file():
        # Packages may have code of their own, which can write here too.
        with open(report, "rb") as file:
            told = file.read(REPORT_BYTES_MAX).decode("utf-8", "replace")
        report.unlink()
        try:
            lock = report_lock(told)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BuildFailed(name="the layer", reason="what pip has reported cannot be read") from None
        (content / LOCK).unlink(missing_ok=True)
        (content / LOCK).write_text(lock, encoding="utf-8")
    for name in (LOCK, "package-lock.json", "go.sum", "Cargo.lock"):
        if (content / name).is_file():
            with open(content / name, "rb") as file:
                return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _keep_only(work: Path, given: set[str], outputs: Sequence[str]) -> None:
    """Of what a build has made only what the manifest names."""
    wanted = {os.path.normpath(name) for name in outputs}
    for parent, _, files in os.walk(work, topdown=False):
        for name in files:
            path = os.path.relpath(os.path.join(parent, name), work)
            parts = [path, *map(str, Path(path).parents)]
            if path not in given and not wanted & set(parts):
                os.unlink(work / path)
        if parent != str(work) and not os.listdir(parent):
            os.rmdir(parent)


def _check_command(source: Source, plan: Plan, work: Path, done: Done) -> None:
    """Refuse a build that has not made what the command starts; one file of that name elsewhere is taken instead."""
    target = source.target
    if not target or not plan.steps or (work / target).is_file():
        return
    base = os.path.basename(target)
    made = [
        path
        for path in work.rglob(base)
        if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK)
    ]
    if len(made) != 1:
        said = "\n".join(done.log[-8:])
        raise BuildFailed(
            f"The build of {source.manifest.name} made no {target}, which [run] command starts. Its last words:\n{said}",
            name=source.manifest.name, reason=f"there is no {target}", log=list(done.log),
        )  # fmt: skip
    (work / target).parent.mkdir(parents=True, exist_ok=True)
    os.link(made[0], work / target)


def _replace(source: Path, target: Path) -> None:
    if target.is_symlink() or target.exists():
        shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
    shutil.copyfile(source, target)


def _check_inside(work: Path, target: Path) -> None:
    parent = Path(os.path.realpath(target.parent))
    if not parent.is_relative_to(os.path.realpath(work)):
        raise BuildFailed(name=target.name, reason="an artifact's place leads out of the program's folder")


def _layer_key(plan: Plan, layer: Layer) -> str:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in layer.files.items()}
    steps = [[step.words, step.folder, step.environment] for step in layer.steps]
    return _key("dependencies", plan, digests, steps, layer.remarks)


def _program_key(plan: Plan, sources: str, dependencies: Entry | None, manifest: Manifest) -> str:
    layer = dependencies.key if dependencies is not None else ""
    steps = [[step.words, step.folder, step.environment] for step in plan.steps]
    artifacts = [[artifact.path, artifact.cid] for artifact in manifest.artifacts]
    return _key("program", plan, sources, layer, steps, artifacts, manifest.build.output)


def _key(*parts: Any) -> str:
    """One name for everything that a result depends on."""
    readable = [
        [part.language, part.version, [one.identity for one in part.toolchains]]
        if isinstance(part, Plan)
        else part
        for part in parts
    ]
    text = json.dumps([BUILDING_VERSION, platform.machine(), *readable], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _registry(workshop: Workshop, language: str) -> Registry:
    return (workshop.find_registry or find_registry)(language)


def _runtime(plan: Plan, dependencies: Entry | None) -> Runtime | None:
    if plan.python is None or dependencies is None:
        return None
    minor = ".".join(plan.python.version.split(".")[:2])
    lock = str(dependencies.record.get("lock") or f"sha256:{dependencies.key}")
    return Runtime(f"python-{minor}", lock, dependencies.content, plan.python.executable)


def _mounts(toolchains: Sequence[Toolchain]) -> tuple[Mount, ...]:
    return tuple({mount.target: mount for toolchain in toolchains for mount in toolchain.mounts}.values())


def _variables(toolchains: Sequence[Toolchain]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for toolchain in toolchains for pair in toolchain.environment)


def _as_it_is(folder: Path, manifest: Manifest, plan: Plan) -> Built:
    sbom = bill_of_materials(manifest.name, manifest.version, manifest.license, ())
    return Built(folder, manifest, None, (), plan.environment, (), "", sbom, True, 0.0, (), plan.language)
