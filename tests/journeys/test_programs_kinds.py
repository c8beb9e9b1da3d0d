"""Every kind of program on a real network: published, called, streamed, refused, crashed, out of memory, timed out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openresource.builds.toolchains import WASI_HEADER
from openresource.primitives.errors import Refusal
from tests.journeys.kinds_stage import HEAD, PYTHON, Scene, kinds_stage

pytestmark = [pytest.mark.journey, pytest.mark.sandbox, pytest.mark.timeout(300)]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

METHODS = """
[[methods]]
name = "fine"
example = {input = {text = "hi"}, output = "HI"}
input = {type = "object", properties = {text = {type = "string"}}, required = ["text"]}
output = {type = "string"}
[[methods]]
name = "ticks"
stream = true
input = {type = "object", properties = {count = {type = "integer"}}, required = ["count"]}
output = {type = "integer"}
[[methods]]
name = "refuse"
[[methods]]
name = "crash"
[[methods]]
name = "eat"
[[methods]]
name = "hang"
"""
FUNCTION = """
def fine(text: str) -> str:
    return text.upper()
"""
HTTP = """
import json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def say(self, status, value, kind="application/json"):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        match self.path:
            case "/fine":
                self.say(200, asked["text"].upper())
            case "/ticks":
                self.send_response(200)
                self.send_header("content-type", "application/x-ndjson")
                self.end_headers()
                for number in range(asked["count"]):
                    # What is written at once is no line: each ends with the next one, the last one never.
                    self.wfile.write(b"\\n" * bool(number) + str(number).encode())
                    self.wfile.flush()
                    time.sleep(0.005)
            case "/refuse":
                self.say(422, {"error": "not today"})
            case "/crash":
                os._exit(3)
            case "/eat":
                self.say(200, len(bytearray(1 << 30)))
            case "/hang":
                time.sleep(600)

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
LINES = """
import json, os, sys, time
for line in sys.stdin:
    call = json.loads(line)
    def say(**members):
        print(json.dumps({"id": call["id"], **members}), flush=True)
    asked = call["input"]
    match call["method"]:
        case "fine":
            say(output=asked["text"].upper())
        case "ticks":
            for number in range(asked["count"]):
                say(chunk=number)
                time.sleep(0.005)
            say(done=True)
        case "refuse":
            say(error="not today")
        case "crash":
            os._exit(3)
        case "eat":
            say(output=len(bytearray(1 << 30)))
        case "hang":
            time.sleep(600)
"""
TOOL = """
import os, signal, sys, time
match sys.argv[1:]:
    case ["fine", text]:
        print(text.upper())
    case ["ticks", count]:
        for number in range(int(count)):
            print(number, flush=True)
            time.sleep(0.005)
    case ["refuse"]:
        sys.exit("not today")
    case ["crash"]:
        os.kill(os.getpid(), signal.SIGKILL)
    case ["eat"]:
        print(len(bytearray(1 << 30)))
    case ["hang"]:
        time.sleep(600)
"""
TOOL_METHODS = """
[[methods]]
name = "fine"
args = ["fine", "{text}"]
example = {input = {text = "hi"}, output = "HI"}
input = {type = "object", properties = {text = {type = "string"}}, required = ["text"]}
[[methods]]
name = "ticks"
args = ["ticks", "{count}"]
stream = true
result = "json"
[[methods]]
name = "refuse"
args = ["refuse"]
[[methods]]
name = "crash"
args = ["crash"]
[[methods]]
name = "eat"
args = ["eat"]
[[methods]]
name = "hang"
args = ["hang"]
"""
MODULE = """
(module
  (memory 1)
  (func (export "fine") (param i64) (result i64) (i64.mul (local.get 0) (i64.const 2)))
  (func (export "crash") unreachable)
  (func (export "eat")
    (loop $again
      (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
      (br $again)))
  (func (export "hang") (loop $again (br $again))))
"""
MODULE_METHODS = """
[[methods]]
name = "fine"
example = {input = {number = 3}, output = 6}
input = {type = "object", properties = {number = {type = "integer"}}, required = ["number"]}
output = {type = "integer"}
[[methods]]
name = "crash"
[[methods]]
name = "eat"
[[methods]]
name = "hang"
"""


@dataclass(frozen=True)
class Kind:
    """A program of one kind, and what it does for a test."""

    run: str
    files: dict[str, str]
    methods: str = ""
    fine: tuple[dict[str, Any], Any] = field(default=({"text": "more"}, "MORE"))
    ways: tuple[str, ...] = ("ticks", "refuse", "crash", "eat", "hang")


KINDS = {
    "function": Kind('kind = "python"\nentry = "program:fine"', {"program.py": FUNCTION}, ways=()),
    "class": Kind('kind = "python"\nentry = "program:Program"', {"program.py": PYTHON}),
    "http": Kind('kind = "http"\ncommand = ["python3", "program.py"]', {"program.py": HTTP}, METHODS),
    "jsonl": Kind('kind = "jsonl"\ncommand = ["python3", "program.py"]', {"program.py": LINES}, METHODS),
    "cli": Kind('kind = "cli"\ncommand = ["python3", "program.py"]', {"program.py": TOOL}, TOOL_METHODS),
    "wasm": Kind('kind = "wasm"\nmodule = "program.wat"', {"program.wat": MODULE}, MODULE_METHODS,
                 ({"number": 21}, 42), ("crash", "eat", "hang")),
}  # fmt: skip
# How each way ends, by the code of the refusal; whichever is true for a kind.
ENDS = {
    "refuse": {"program-refused"},
    "crash": {"program-crashed", "program-failed"},
    "eat": {"out-of-memory", "program-failed"},
    "hang": {"program-timed-out", "program-failed"},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with kinds_stage(tmp_path_factory.mktemp("kinds")) as made:
        yield made


@pytest.mark.parametrize("name", sorted(KINDS))
def test_programs_of_each_kind_live_through_everything(scene: Scene, name: str) -> None:
    kind = KINDS[name]
    folder = scene.folder / f"kind-{name}"
    folder.mkdir()
    for file, text in kind.files.items():
        (folder / file).write_text(text)
    manifest = HEAD.format(name=f"kind-{name}", run=kind.run) + kind.methods
    (folder / "openresource.toml").write_text(manifest)
    told = scene.publish(folder)
    assert told["placed"]["isolation"] == ("wasm" if name == "wasm" else told["tried_in"])
    with scene.client() as client:
        asked, wanted = kind.fine
        service = f"kind-{name}"

        def fine() -> None:
            answer = client.call(service, "fine", **asked)
            assert answer.value == wanted
            assert answer.price_uain > 0
            assert (answer.receipt["usage"].get("fuel", 0) > 0) == (name == "wasm")

        fine()
        if "ticks" in kind.ways:
            assert list(client.stream(service, "ticks", count=5)) == list(range(5))
            pieces = client.stream(service, "ticks", count=100_000)
            assert next(iter(pieces)) == 0
            pieces.close()  # type: ignore[attr-defined]
            fine()
        for way in kind.ways:
            if way == "ticks":
                continue
            began = time.monotonic()
            with pytest.raises(Refusal) as refused:
                client.call(service, way)
            assert (
                any(code in str(refused.value.to_json()) for code in ENDS[way])
                or refused.value.code in ENDS[way]
            ), (
                way,
                refused.value.to_json(),
            )
            assert time.monotonic() - began < 30
            fine()


def test_programs_by_their_tutorials(scene: Scene) -> None:
    shutil.copytree(EXAMPLES / "hello-wasm", scene.folder / "hello-wasm")
    scene.publish(scene.folder / "hello-wasm")
    with scene.client() as client:
        answer = client.call("hello-wasm", text="The quick brown fox jumps over the lazy dog")
        assert answer.value == "414fa339"
        assert answer.isolation == "wasm"


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here")
def test_programs_that_go_makes_modules_of(scene: Scene) -> None:
    told = scene.publish(EXAMPLES / "hello-wasm-go")
    assert told["placed"]["isolation"] == "wasm"
    with scene.client() as client:
        assert client.call("hello-wasm-go", "write", number=3999).value == {"numeral": "MMMCMXCIX"}
        assert client.call("hello-wasm-go", "read", numeral="xiv").value == {"number": 14}
        with pytest.raises(Refusal, match="1 to 3999"):
            client.call("hello-wasm-go", "read", numeral="IIII")


@pytest.mark.skipif(
    not Path(WASI_HEADER).exists() or shutil.which("clang") is None, reason="no C for WASI here"
)
def test_programs_of_c_become_modules(scene: Scene) -> None:
    told = scene.publish(EXAMPLES / "hello-wasm-c")
    assert told["placed"]["isolation"] == "wasm"
    with scene.client() as client:
        line = client.call("hello-wasm-c", points="0 0.1\n1 0.3\n2 0.5\n").value
        # What the C library of this machine gives, bit for bit.
        assert line == {
            "points": 3,
            "slope": 0.2,
            "intercept": 0.09999999999999998,
            "explained": 1.0000000000000002,
        }
        with pytest.raises(Refusal, match="at least two points"):
            client.call("hello-wasm-c", points="1 1\n")


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here")
def test_programs_for_a_prepared_interpreter(scene: Scene) -> None:
    folder = scene.folder / "starlark"
    shutil.copytree(EXAMPLES / "hello-starlark", folder)
    scene.publish(folder)
    with scene.client() as client:
        told = client.call("hello-starlark", "plan", cents=100_000, months=3, yearly_percent=5.25).value
        assert [rate["back"] for rate in told["rates"]] == [33_333, 33_333, 33_334]
        assert client.call("hello-starlark", "count", text="A rose is a rose.").value["words"][0] == {
            "word": "a",
            "times": 2,
        }
        with pytest.raises(Refusal):
            client.call("hello-starlark", "plan", cents=1, months=0, yearly_percent=1)
