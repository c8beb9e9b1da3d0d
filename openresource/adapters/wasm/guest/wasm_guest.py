"""Runs inside the sandbox: compiles one module, or answers calls with it, each in a fresh instance of a fresh process.

A call forks this process, so that it starts as quickly as the module's memory is made, can be killed at any moment,
and takes whatever goes wrong in the engine with it. Everything else of a call is as with command-line programs.
"""

import hashlib
import importlib.util
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

OPTIONS = json.loads(sys.argv[1])
sys.path.insert(0, OPTIONS["guest"])

if TYPE_CHECKING:
    from openresource.sandbox.guest.cli_guest import ANSWER, FAILED, REFUSED, USAGE_FIGURES, Call, Guest
    from openresource.sandbox.guest.cli_tools import Problem, no_constant
else:
    from cli_guest import ANSWER, FAILED, REFUSED, USAGE_FIGURES, Call, Guest
    from cli_tools import Problem, no_constant


def loaded(folder: str) -> Any:
    """The engine's package, whatever the folder is called in which it is shown."""
    spec = importlib.util.spec_from_file_location(
        "wasmtime", f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    module = sys.modules["wasmtime"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


wasmtime = loaded(OPTIONS["engine"])

EXIT_TRAPPED = 134
# Fuel, and the microseconds that went by before the call.
SHARED_RECORD = struct.Struct("=QQ")
# A mebibyte: whoever may not have it any more has run out of memory.
PAGES_ASKED = 16
WASI = "wasi_snapshot_preview1"
CLOCK_START_NS = 1_000_000_000_000_000_000
CLOCK_STEP_NS = 1_000_000
# Asks the system for something small, as every module does.
WARMING = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "warm")
    (i32.store (i32.const 4) (i32.const 8))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 4) (i32.const 0))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"""
TABLE_ELEMENTS_MAX = 1 << 20
STACK_BYTES = 1 << 20


def engine_of() -> Any:
    """The engine; whatever could make two machines differ is switched off or fixed."""
    config = wasmtime.Config()
    config.consume_fuel = True
    config.cranelift_nan_canonicalization = True
    config.wasm_relaxed_simd_deterministic = True
    config.wasm_threads = False
    config.parallel_compilation = False
    config.max_wasm_stack = STACK_BYTES
    return wasmtime.Engine(config)


class Compiler(Guest):
    """Answers one question: what a module becomes on this machine."""

    def begin(self, number: int, payload: bytes) -> None:
        """Compile."""
        try:
            with open(self.options["source"], "rb") as file:
                source = file.read()
            module = wasmtime.Module(engine_of(), source if source[:4] == b"\0asm" else source.decode())
            self.send(number, ANSWER, bytes(module.serialize()))
        except (wasmtime.WasmtimeError, UnicodeDecodeError) as problem:
            call = Call(number, None, "")
            self.report(call, Problem(REFUSED, "NoModule", first_line(problem)))


class Runner(Guest):
    """Answers calls with a compiled module."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        # Nothing of the release is linked into the folder: the module sees it at /app.
        self.entries.clear()
        self.engine = engine_of()
        self.module = wasmtime.Module.deserialize_file(self.engine, options["compiled"])
        self.exports = {export.name for export in self.module.exports}
        if "_start" not in self.exports:
            # Functions are told apart by their names.
            options["enveloped"] = False
        self.chance = Chance()
        linker = wasmtime.Linker(self.engine)
        linker.allow_shadowing = True
        linker.define_wasi()
        if options["exact"]:
            define_same_for_all(linker, self.chance)
        try:
            self.prepared = linker.instantiate_pre(self.module)
        except wasmtime.WasmtimeError as problem:
            sys.exit(f"the module wants what WASI preview 1 does not give: {first_line(problem)}")
        self.linker = linker
        self.warming = wasmtime.Module(self.engine, WARMING)
        self.shared: dict[int, Any] = {}
        self.spare: Forked | None = self.make_spare()

    def words(self, call: Call, value: Any) -> list[str]:
        """Arguments where the module is a command, a line of JSON where it reads lines."""
        if self.options["tongue"] == "cli":
            return super().words(call, value)
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if self.options["enveloped"]:
            name = json.dumps(call.method["name"])
            line = f'{{"id":1,"method":{name},"input":{line}}}'
        call.stdin = line.encode() + b"\n"
        if "_start" not in self.exports:
            return [json.dumps(numbers_of(call.method, value))]
        return list(self.options["command"])

    def start(self, call: Call, words: list[str]) -> None:
        """The call's own process."""
        given = os.path.join(call.folder, "stdin")
        with open(given, "wb") as file:
            file.write(call.stdin)
        seed = hashlib.sha256(b"\0".join([*(word.encode() for word in words), call.stdin])).digest()
        call.stdin = b""
        spare, self.spare = self.spare, None
        if spare is None or os.waitpid(spare.pid, os.WNOHANG)[0]:
            spare = self.make_spare()
        order = {"words": words, "given": given, "seed": seed.hex(), "work": call.work}
        spare.give(json.dumps({**order, "method": call.method["name"]}).encode())
        self.shared[call.number] = spare.shared
        self.watch_over(call, spare)

    def make_spare(self) -> "Forked":
        """A process that has the engine's threads already and waits for a call."""
        shared = mmap.mmap(-1, SHARED_RECORD.size)
        orders, ours = os.pipe()
        out, out_child = os.pipe()
        complaints, complaints_child = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = EXIT_TRAPPED
            try:
                os.setsid()
                os.dup2(out_child, 1)
                os.dup2(complaints_child, 2)
                os.close(ours)
                become_child(self.control)
                self.warm_up()
                with os.fdopen(orders, "rb") as file:
                    order = file.read()
                if order:
                    code = self.run(json.loads(order), shared)
            finally:
                sys.stderr.flush()
                os._exit(code)
        for descriptor in (orders, out_child, complaints_child):
            os.close(descriptor)
        return Forked(pid, os.fdopen(out, "rb", 0), os.fdopen(complaints, "rb", 0), ours, shared)

    def warm_up(self) -> None:
        """Have the engine make what it makes at its first use of the system."""
        store = wasmtime.Store(self.engine)
        store.set_fuel(1_000_000)
        wasi = wasmtime.WasiConfig()
        wasi.stdin_file = "/dev/null"
        wasi.inherit_stdout()
        wasi.preopen_dir(self.options["app"], "/app", False)
        store.set_wasi(wasi)
        self.linker.instantiate(store, self.warming).exports(store)["warm"](store)

    def kill(self, call: Call) -> None:
        """A module starts no processes."""
        try:
            os.kill(call.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def leaves_anything(self) -> bool:
        """The spare process is ours."""
        return False

    def wipe(self, call: Call) -> None:
        """Make ready for the next call once this one has left nothing."""
        super().wipe(call)
        if self.spare is None:
            self.spare = self.make_spare()

    def run(self, order: Any, shared: Any) -> int:
        """In the child: one instance from its beginning to its end; the exit code."""
        warm_us = int(time.process_time() * 1_000_000)
        words: list[str] = order["words"]
        seconds = int(self.options["call_seconds"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        store = wasmtime.Store(self.engine)
        store.set_limits(
            memory_size=self.options["memory_bytes"],
            table_elements=TABLE_ELEMENTS_MAX,
            instances=1,
            tables=16,
            memories=1,
        )
        fuel = self.options["fuel"]
        store.set_fuel(fuel)
        wasi = wasmtime.WasiConfig()
        wasi.argv = words
        wasi.env = list(self.options["environment"].items())
        wasi.stdin_file = order["given"]
        wasi.inherit_stdout()
        wasi.inherit_stderr()
        # As the root: compilers' libraries resolve relative paths against it.
        wasi.preopen_dir(order["work"], "/", True)
        wasi.preopen_dir(self.options["app"], "/app", False)
        store.set_wasi(wasi)
        self.chance.seed = bytes.fromhex(order["seed"])
        instance = None
        try:
            instance = self.prepared.instantiate(store)
            if "_start" in self.exports:
                instance.exports(store)["_start"](store)
            else:
                print(json.dumps(called(instance.exports(store), store, order["method"], words[0])))
                sys.stdout.flush()
            return 0
        except wasmtime.ExitTrap as ended:
            return int(ended.code) & 0xFF
        except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
            sys.stderr.write(f"{why(trap, instance, store)}\n")
            return EXIT_TRAPPED
        finally:
            shared[:] = SHARED_RECORD.pack(fuel - store.get_fuel(), warm_us)

    def usage_of(self, call: Call) -> bytes:
        """Processor time and fuel."""
        shared = self.shared.pop(call.number)
        fuel, warm_us = SHARED_RECORD.unpack(shared[:])
        shared.close()
        return USAGE_FIGURES.pack(max(0, round(call.cpu_seconds * 1000 - warm_us / 1000)), fuel)

    def chunk(self, call: Call, line: bytes) -> None:
        """One line of a stream, out of its envelope."""
        if self.options["tongue"] == "cli":
            super().chunk(call, line)
            return
        if not line.strip():
            return
        if not self.options["enveloped"]:
            super().chunk(call, line)
            return
        said = spoken(line)
        if "error" in said:
            self.give_up(call, Problem(REFUSED, "Refused", words_of(said["error"])))
        elif "chunk" in said:
            super().chunk(call, json.dumps(said["chunk"], ensure_ascii=False).encode())

    def answer(self, call: Call) -> None:
        """The result, or the refusal that the module has written in its place."""
        if self.options["tongue"] == "cli" or call.method["stream"] or call.exit_code != 0:
            super().answer(call)
            return
        line = bytes(call.stdout).strip()
        said = spoken(line)
        if isinstance(said, dict) and "error" in said and (self.options["enveloped"] or len(said) == 1):
            raise Problem(REFUSED, "Refused", words_of(said["error"]))
        if self.options["enveloped"]:
            if not isinstance(said, dict) or "output" not in said:
                raise Problem(FAILED, "NoOutput", "its answer has neither output nor error")
            line = json.dumps(said["output"], ensure_ascii=False, separators=(",", ":")).encode()
        self.send(call.number, ANSWER, line)

    def failure(self, call: Call) -> Problem:
        """A trap is a failure, whatever the number."""
        problem = super().failure(call)
        if call.exit_code == EXIT_TRAPPED and problem.name != "OutOfMemory":
            said = bytes(call.stderr).decode("utf-8", "replace").strip()
            return Problem(FAILED, "Trapped", said.splitlines()[-1] if said else "it trapped")
        return problem


class Forked:
    """A child of ours, with what calls know of a process."""

    stdin = None

    def __init__(self, pid: int, stdout: Any, stderr: Any, orders: int, shared: Any) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.shared = shared
        self.returncode: Any = None
        self._orders = orders

    def give(self, order: bytes) -> None:
        """Say what to do; a process that has just died says so by its end."""
        try:
            with os.fdopen(self._orders, "wb") as file:
                file.write(order)
        except BrokenPipeError:
            return


class Chance:
    """What a call's clock and chance follow from, for modules that are the same on every machine."""

    seed = b""
    clock_steps = random_steps = 0


def become_child(control: Any) -> None:
    """Let go of what belongs to the parent."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Not everything else: the engine keeps descriptors of its own.
    control.close()


def define_same_for_all(linker: Any, chance: Chance) -> None:
    """Clocks that count calls and chance that follows from the input: the same on every machine."""
    i32, i64 = wasmtime.ValType.i32(), wasmtime.ValType.i64()

    def clock(caller: Any, _: int, __: int, place: int) -> int:
        chance.clock_steps += 1
        now = CLOCK_START_NS + chance.clock_steps * CLOCK_STEP_NS
        caller["memory"].write(caller, now.to_bytes(8, "little"), place & 0xFFFFFFFF)
        return 0

    def random(caller: Any, place: int, size: int) -> int:
        place, size = place & 0xFFFFFFFF, size & 0xFFFFFFFF
        memory = caller["memory"]
        if place + size > memory.data_len(caller):
            return 21
        while size > 0:
            chance.random_steps += 1
            part = hashlib.sha256(chance.seed + chance.random_steps.to_bytes(8, "little")).digest()[:size]
            memory.write(caller, part, place)
            place, size = place + len(part), size - len(part)
        return 0

    linker.define_func(
        WASI, "clock_time_get", wasmtime.FuncType([i32, i64, i32], [i32]), clock, access_caller=True
    )
    linker.define_func(WASI, "random_get", wasmtime.FuncType([i32, i32], [i32]), random, access_caller=True)


def why(trap: Any, instance: Any, store: Any) -> str:
    """What stopped a module, in a line."""
    code = getattr(trap, "trap_code", None)
    text = first_line(trap)
    if (code is not None and code.name == "OUT_OF_FUEL") or "all fuel consumed" in str(trap):
        return "it has used up its fuel"
    if instance is None:
        return "out of memory" if "memory" in text and "limit" in text else text
    memory = instance.exports(store).get("memory")
    if isinstance(memory, wasmtime.Memory):
        try:
            memory.grow(store, PAGES_ASKED)
        except wasmtime.WasmtimeError:
            return "out of memory"
    return code.name.lower().replace("_", " ") if code is not None else text


def called(exports: Any, store: Any, name: str, words: str) -> Any:
    """The result of an exported function over numbers."""
    function = exports.get(name)
    if not isinstance(function, wasmtime.Func):
        raise wasmtime.WasmtimeError(f"the module exports neither _start nor a function {name}")
    wanted = function.type(store).params
    given = json.loads(words)
    if len(given) != len(wanted):
        raise wasmtime.WasmtimeError(f"{name} takes {len(wanted)} numbers and got {len(given)}")
    arguments = [
        float(one) if str(kind)[0] == "f" else int(one) for one, kind in zip(given, wanted, strict=True)
    ]
    return function(store, *arguments)


def numbers_of(method: Any, value: Any) -> list[Any]:
    """The numbers of an input in the order in which its description names them."""
    names = method["names"] or sorted(value)
    found = [value.get(name) for name in names]
    for name, one in zip(names, found, strict=True):
        if isinstance(one, bool) or not isinstance(one, int | float):
            raise Problem(REFUSED, "NoNumber", f"{name} has to be a number")
    return found


def spoken(line: bytes) -> Any:
    """A line of JSON."""
    try:
        return json.loads(line, parse_constant=no_constant)
    except (ValueError, RecursionError) as problem:
        raise Problem(FAILED, "NotJson", f"its output is not JSON ({problem})") from None


def words_of(error: Any) -> str:
    """A module's refusal in words."""
    return str(error.get("message", "") if isinstance(error, dict) else error)


def first_line(problem: Any) -> str:
    """The beginning of an engine's long explanation."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (": ".join(lines[:1] + lines[-1:]) if len(lines) > 1 else "".join(lines))[:500]


if __name__ == "__main__":
    (Runner if OPTIONS["compiled"] else Compiler)(OPTIONS).serve()
