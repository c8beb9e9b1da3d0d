"""Modules of WebAssembly: each call a fresh instance, its fuel counted, its memory bounded, the same everywhere."""

from __future__ import annotations

import asyncio
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.confined.driver import Confined
from openresource.adapters.wasm.cache import CompiledModules
from openresource.adapters.wasm.driver import Wasm
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Instance, KindNotServed, Limits, ProgramCall, ProgramDidNotStart
from openresource.sandbox.layout import Layout, environment
from openresource.sandbox.releases import load_release
from tests.sandbox.workers import IDENTITIES

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello-wasm"
INNER = {"bubblewrap": Bubblewrap, "confined": Confined}
HEAD = """
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $say (param $place i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $place))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
"""
SPIN = f'(module {HEAD} (func (export "_start") (loop $again (br $again))))'
EAT = f"""(module {HEAD} (func (export "_start")
  (loop $again
    (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
    (br $again))))"""
TRAP = f'(module {HEAD} (func (export "_start") unreachable))'
EXIT = f'(module {HEAD} (func (export "_start") (call $exit (i32.const 3))))'
CHANCE = f"""(module {HEAD} (func (export "_start")
  (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 64)))
  (drop (call $random (i32.const 72) (i32.const 40)))
  (call $say (i32.const 64) (i32.const 48))))"""
ECHO = f"""(module {HEAD} (func (export "_start") (local $count i32)
  (loop $more
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 4096))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $count (i32.load (i32.const 8)))
    (if (local.get $count)
      (then (call $say (i32.const 1024) (local.get $count)) (br $more))))))"""
REFUSE = f"""(module {HEAD} (data (i32.const 64) "{{\\22error\\22: \\22not this\\22}}\\0a")
  (func (export "_start") (call $say (i32.const 64) (i32.const 22))))"""
TICK = f"""(module {HEAD} (data (i32.const 64) "{{\\22tick\\22:1}}\\0a") (func (export "_start") (local $left i32)
  (local.set $left (i32.const 1000000))
  (loop $again
    (call $say (i32.const 64) (i32.const 11))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))))"""
# The result of opening the absolute path of a file that exists on every machine, as a letter.
OUTSIDE = f"""(module {HEAD} (data (i32.const 64) "../../etc/passwd")
  (func (export "_start")
    (i32.store8 (i32.const 128) (i32.add (i32.const 65) (i32.ne (i32.const 0)
      (call $open (i32.const 3) (i32.const 1) (i32.const 64) (i32.const 16) (i32.const 0)
        (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 256)))))
    (call $say (i32.const 128) (i32.const 1))))"""
ADD = '(module (func (export "add") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1))))'


def manifest_of(speaks: str = "cli", method: str = "", exactness: str = "subjective") -> str:
    text = f'name = "module"\nexactness = "{exactness}"\n[run]\nkind = "wasm"\nmodule = "module.wat"\n'
    return f'{text}speaks = "{speaks}"\n{method}'


@pytest.fixture(params=sorted(INNER))
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Wasm:
    """The engine inside each of the sandboxes."""
    inner = INNER[request.param]()
    if not inner.probe().available:
        pytest.skip(inner.probe().why_not)
    return Wasm([inner], cache=tmp_path / "cache")


def run(driver: Wasm, folder: Path, calls: list[tuple[Any, ...]], **limits: Any) -> list[Any]:
    """Start a module, make calls, stop it."""

    async def work() -> list[Any]:
        chosen = {"memory_bytes": 16 << 20, "disk_bytes": 4 << 20, "call_seconds": 60.0, **limits}
        instance = await driver.start(load_release(folder), Limits(**chosen))
        try:
            return [await one(instance, *call) for call in calls]
        finally:
            await instance.stop()

    return asyncio.run(work())


async def one(instance: Instance, method: str, value: Any, take: int = 0) -> Any:
    """The answer, the chunks of a stream, or the refusal's name."""
    try:
        reply = await instance.call(ProgramCall(method, f"/{method}", json.dumps(value).encode()))
        if isinstance(reply.body, bytes):
            return json.loads(reply.body), reply.fuel
        chunks = []
        async for chunk in reply.body:
            chunks.append(json.loads(chunk))
            if len(chunks) == take:
                await reply.body.aclose()
                await asyncio.wait_for(instance.until_free(0), 60)
                break
        return chunks
    except Refusal as refusal:
        return type(refusal).__name__, str(refusal)


def module(folder: Path, text: str, manifest: str) -> Path:
    """A release that is one module."""
    (folder / "module.wat").write_text(text)
    (folder / "openresource.toml").write_text(manifest)
    return folder


def test_the_example_counts_like_its_library_and_its_work_is_the_same_each_time(driver: Wasm) -> None:
    texts = ["123456789", "", "grüß dich" * 20_000]
    found = run(driver, EXAMPLE, [("checksum", {"text": text}) for text in texts * 2], memory_bytes=2 << 20)
    assert [answer for answer, _ in found[:3]] == [f"{zlib.crc32(text.encode()):08x}" for text in texts]
    assert found[:3] == found[3:], "answers and fuel are the same each time"
    assert found[0][1] > 10_000


def test_a_module_that_never_ends_is_ended_and_its_neighbours_live(driver: Wasm, tmp_path: Path) -> None:
    folder = module(tmp_path, SPIN, manifest_of(method='[[methods]]\nname = "spin"\n'))
    found = run(driver, folder, [("spin", {}), ("spin", {})], call_seconds=0.5)
    assert {kind for kind, _ in found} <= {"ProgramTimedOut", "ProgramFailed"}, found
    assert len(found) == 2


def test_memory_is_bounded_by_the_engine(driver: Wasm, tmp_path: Path) -> None:
    folder = module(tmp_path, EAT, manifest_of(method='[[methods]]\nname = "eat"\n'))
    found = run(driver, folder, [("eat", {}), ("eat", {})])
    assert [kind for kind, _ in found] == ["OutOfMemory", "OutOfMemory"]


def test_traps_fail_and_exit_codes_refuse(driver: Wasm, tmp_path: Path) -> None:
    method = '[[methods]]\nname = "go"\n'
    assert (
        run(driver, module(tmp_path, TRAP, manifest_of(method=method)), [("go", {})])[0][0] == "ProgramFailed"
    )
    assert (
        run(driver, module(tmp_path, EXIT, manifest_of(method=method)), [("go", {})])[0][0]
        == "ProgramRefused"
    )


def test_clock_and_chance_are_the_same_where_a_program_is_exact(driver: Wasm, tmp_path: Path) -> None:
    method = (
        '[[methods]]\nname = "go"\nargs = ["{x}"]\noutput = {type = "string", contentEncoding = "base64"}\n'
    )
    calls: list[tuple[Any, ...]] = [("go", {"x": 1}), ("go", {"x": 1}), ("go", {"x": 2})]
    exact = run(driver, module(tmp_path, CHANCE, manifest_of(method=method, exactness="bit_exact")), calls)
    assert exact[0] == exact[1] != exact[2]
    free = run(driver, module(tmp_path, CHANCE, manifest_of(method=method)), calls)
    assert len({answer for answer, _ in free}) == 3


def test_lines_of_json_refusals_and_streams(driver: Wasm, tmp_path: Path) -> None:
    echo = run(driver, module(tmp_path, ECHO, manifest_of("jsonl")), [("call", {"a": "ü", "b": [1, 2]})])
    assert echo[0][0] == {"a": "ü", "b": [1, 2]}
    refused = run(driver, module(tmp_path, REFUSE, manifest_of("jsonl")), [("call", {})])
    assert refused[0][0] == "ProgramRefused" and "not this" in refused[0][1]
    method = '[[methods]]\nname = "tick"\nstream = true\n'
    cut = run(
        driver, module(tmp_path, TICK, manifest_of("jsonl", method)), [("tick", {}, 2), ("tick", {}, 1)]
    )
    assert cut == [[{"tick": 1}, {"tick": 1}], [{"tick": 1}]]


def test_functions_over_numbers_are_methods(driver: Wasm, tmp_path: Path) -> None:
    schema = (
        '[methods.input]\ntype = "object"\nproperties = {a = {type = "integer"}, b = {type = "integer"}}\n'
    )
    manifest = manifest_of("jsonl", f'[[methods]]\nname = "add"\n{schema}')
    found = run(driver, module(tmp_path, ADD, manifest), [("add", {"a": 2, "b": 40}), ("add", {"a": 2})])
    assert found[0][0] == 42 and found[1][0] == "ProgramRefused"


def test_a_module_reaches_no_file_but_its_own(driver: Wasm, tmp_path: Path) -> None:
    folder = module(tmp_path, OUTSIDE, manifest_of(method='[[methods]]\nname = "go"\n'))
    assert run(driver, folder, [("go", {})])[0][0] == "B"


def test_any_arguments_and_files_where_nothing_is_declared(driver: Wasm, tmp_path: Path) -> None:
    folder = module(tmp_path, ECHO, manifest_of())
    ((answer, _),) = run(driver, folder, [("run", {"args": ["x"], "stdin": "hello"})])
    assert (answer["exit_code"], answer["stdout"], answer["files"]) == (0, "hello", {})


def test_what_is_no_module_does_not_start_and_says_why(driver: Wasm, tmp_path: Path) -> None:
    with pytest.raises(ProgramDidNotStart, match="compiled"):
        run(driver, module(tmp_path, "(module (func", manifest_of()), [])
    with pytest.raises(ProgramDidNotStart, match="preview 1"):
        run(driver, module(tmp_path, '(module (import "env" "gone" (func)))', manifest_of()), [])
    with pytest.raises(KindNotServed, match="sockets"):
        run(driver, module(tmp_path, ECHO, manifest_of("http")), [])


@pytest.mark.parametrize("identity", IDENTITIES)
def test_a_module_runs_whoever_the_provider_is(workers: Any, identity: str) -> None:
    if not workers(identity).ask({"level": "wasm", "probe": True})["available"]:
        pytest.skip("no engine for this user")
    files = {"module.wat": (EXAMPLE / "checksum.wat").read_text()}
    manifest = manifest_of(method='[[methods]]\nname = "go"\nstdin = "text"\n')
    steps = [{"call": "go", "input": {"text": "123456789"}}]
    outcome = workers(identity).run("wasm", files, steps, manifest=manifest)
    assert [json.loads(reply["body"]) for reply in outcome["replies"]] == ["cbf43926"], outcome
    assert outcome["left"] == []


def test_compiled_modules_of_others_are_not_taken(tmp_path: Path) -> None:
    modules = CompiledModules(tmp_path / "cache")
    path = modules.keep("name", b"code")
    assert modules.find("name") == path
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
    path.chmod(0o600)
    path.write_bytes(b"other code")
    assert modules.find("name") is None
    shutil.copy(path, path.with_name("second.cwasm"))
    assert modules.find("second") is None


def test_variables_of_a_module_do_not_reach_the_worker_that_compiles_it(driver: Wasm, tmp_path: Path) -> None:
    """OpenSSL, which Python's hashes come from, would load what this file names."""
    manifest = manifest_of() + '[run.environment]\nOPENSSL_CONF = "/app/openssl.cnf"\nGREETING = "hello"\n'
    folder = module(tmp_path, CHANCE, manifest)
    (folder / "openssl.cnf").write_text(
        "openssl_conf = a\n[a]\nproviders = b\n[b]\nevil = c\n[c]\nmodule = /app/evil.so\nactivate = 1\n"
    )
    release = load_release(folder)
    assert release.manifest.run.environment["GREETING"] == "hello"
    layout = Layout(app="/app", guest="/guest", python="/usr/bin/python3", home="/home")
    assert not {"OPENSSL_CONF", "GREETING"} & set(environment(layout, release, Limits(), {}))
    assert run(driver, folder, [("run", {})])[0][0]["exit_code"] == 0
