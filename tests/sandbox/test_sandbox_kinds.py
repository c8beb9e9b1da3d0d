"""Every kind of program in the real sandbox: Python, HTTP servers, JSON lines, Node, and a binary from /usr."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.workers import PYTHON, Worker

pytestmark = pytest.mark.sandbox
Run = Callable[..., Any]

ECHO = """
from typing import Literal
import dataclasses, threading, time
MEETING = threading.Barrier(3)

@dataclasses.dataclass
class Point:
    x: int
    y: int = 0

class Program:
    def setup(self): self.calls = 0
    def double(self, text: str, times: int = 2, mode: Literal["up", "as_is"] = "as_is") -> str:
        "Say it twice."
        self.calls += 1
        print("noise on standard output")
        return (text * times).upper() if mode == "up" else text * times
    def size(self, data: bytes) -> int:
        return len(data)
    def move(self, point: Point) -> Point:
        return Point(point.x + 1, point.y)
    def count(self, to: int):
        for number in range(to):
            yield number
    def forever(self):
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            open("/tmp/closed" if self.has_tmp() else "closed", "w").close()
    def has_tmp(self) -> bool:
        import os
        return os.environ["TMPDIR"] == "/tmp"
    async def later(self) -> str:
        import asyncio
        await asyncio.sleep(0)
        return "later"
    async def drip(self):
        for word in ("a", "b"):
            yield word
    def fail(self): raise KeyError("lost")
    def refuse(self, age: int): raise ValueError(f"{age} is too young")
    def leave(self):
        import os; os._exit(7)
    def slow(self, seconds: float) -> str:
        time.sleep(seconds); return "done"
    def meet(self) -> str:
        MEETING.wait(60); return "met"
"""


def python(*steps: Any) -> tuple[dict[str, str], list[Any]]:
    """A job of the echo program."""
    return {"program.py": ECHO}, list(steps)


def test_sandbox_python_answers_by_type_hints(run: Run) -> None:
    outcome = run(
        *python(
            {"call": "double", "input": {"text": "ab", "mode": "up"}},
            {"call": "move", "input": {"point": {"x": 1}}},
            {"call": "size", "input": {"data": base64.b64encode(b"\0\1\2").decode()}},
            {
                "call": "size",
                "raw": base64.b64encode(b"four").decode(),
                "content_type": "application/octet-stream",
            },
            {"call": "later"},
            {"call": "double", "input": "alone"},
        )
    )
    assert [json.loads(reply["body"]) for reply in outcome["replies"]] == [
        "ABAB",
        {"x": 2, "y": 0},
        3,
        4,
        "later",
        "alonealone",
    ]
    methods = {method["name"]: method for method in outcome["interface"]["methods"]}
    assert methods["double"]["summary"] == "Say it twice."
    assert methods["double"]["input"]["required"] == ["text"]
    assert methods["double"]["input"]["properties"]["times"] == {"type": "integer", "default": 2}
    assert methods["count"]["stream"] and not methods["double"]["stream"]
    assert methods["size"]["input"]["properties"]["data"]["contentEncoding"] == "base64"


def test_sandbox_python_refuses_what_does_not_fit_and_lives_on(run: Run) -> None:
    outcome = run(
        *python(
            {"call": "double", "input": {}},
            {"call": "double", "input": {"text": 3}},
            {"call": "double", "input": {"text": "a", "colour": "red"}},
            {"call": "nothing"},
            {"call": "double", "raw": base64.b64encode(b"{not json").decode()},
            {"call": "refuse", "input": {"age": 3}},
            {"call": "fail"},
            {"call": "double", "input": {"text": "x"}},
        )
    )
    replies = outcome["replies"]
    assert [reply.get("error") for reply in replies] == ["ProgramRefused"] * 6 + ["ProgramFailed", None]
    assert "text is missing" in replies[0]["text"]
    assert "text is 3" in replies[1]["text"]
    assert "colour is not known" in replies[2]["text"]
    assert "3 is too young" in replies[5]["text"]
    assert "KeyError" in replies[6]["text"]
    assert outcome["alive"]


def test_sandbox_python_streams_and_stops_when_nobody_listens(run: Run) -> None:
    outcome = run(
        *python(
            {"call": "count", "input": {"to": 3}},
            {"call": "drip"},
            {"call": "count", "input": {"to": 0}},
            {"call": "forever", "take": 5},
            {"call": "double", "input": {"text": "free again"}},
        )
    )
    replies = outcome["replies"]
    assert replies[0]["chunks"] == ["0\n", "1\n", "2\n"]
    assert replies[1]["chunks"] == ['"a"\n', '"b"\n']
    assert replies[2]["chunks"] == []
    assert len(replies[3]["chunks"]) == 5
    assert json.loads(replies[4]["body"]) == "free againfree again"


def test_sandbox_concurrency_is_refused_above_its_bound(run: Run) -> None:
    slow = {"call": "slow", "input": {"seconds": 0.3}}
    outcome = run(*python({"together": [slow, slow]}))
    assert sorted(reply.get("error", "") for reply in outcome["replies"][0]) == ["", "Overloaded"]
    # None of them ends before all three are at work.
    outcome = run(*python({"together": [{"call": "meet"}] * 3}), concurrency=3)
    assert [json.loads(reply["body"]) for reply in outcome["replies"][0]] == ["met"] * 3


def test_sandbox_a_caller_who_leaves_does_not_free_the_program_early(run: Run) -> None:
    outcome = run(
        *python(
            {"call": "slow", "input": {"seconds": 60}, "abandon_after": 0.1},
            {"call": "double", "input": {"text": "x"}},
        )
    )
    assert outcome["replies"][1]["error"] == "Overloaded"


def test_sandbox_a_crash_is_typed_with_the_last_words(run: Run) -> None:
    files = {
        "program.py": ECHO.replace(
            "os._exit(7)", "import sys; print('my last words', file=sys.stderr); os._exit(7)"
        )
    }
    outcome = run(files, [{"call": "leave"}, {"call": "double", "input": {"text": "x"}}])
    assert outcome["replies"][0]["error"] == "ProgramCrashed"
    assert "exit code 7" in outcome["replies"][0]["message"]
    assert "my last words" in outcome["replies"][0]["remedy"]
    assert outcome["replies"][1]["error"] == "ProgramCrashed"
    assert not outcome["alive"]


def test_sandbox_a_program_that_ends_slowly_is_waited_for_to_say_how(run: Run) -> None:
    leaving = "import time; os.closerange(3, 250); time.sleep(1.2); os._exit(7)"
    outcome = run({"program.py": ECHO.replace("os._exit(7)", leaving)}, [{"call": "leave"}])
    assert outcome["replies"][0]["error"] == "ProgramCrashed"
    assert "exit code 7" in outcome["replies"][0]["message"]


def test_sandbox_a_deadline_ends_the_program(run: Run) -> None:
    outcome = run(*python({"call": "slow", "input": {"seconds": 60}, "deadline": 0.4}))
    assert outcome["replies"][0]["error"] == "ProgramTimedOut"
    assert outcome["seconds"][0] < 2
    assert not outcome["alive"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_like_this", "nothing_like_this"),
        (
            "class Program:\n    def setup(self): raise RuntimeError('no model')\n    def a(self): pass",
            "no model",
        ),
        ("class Program:\n    pass", "no public method"),
        ("x = 1", "has no Program"),
    ],
)
def test_sandbox_a_program_that_cannot_start_says_why(run: Run, source: str, words: str) -> None:
    outcome = run({"program.py": source}, [])
    assert outcome["error"]["error"] == "ProgramDidNotStart"
    assert words in outcome["error"]["message"]


def test_sandbox_large_bodies_pass_and_larger_ones_are_refused(run: Run) -> None:
    outcome = run(
        *python(
            {"call": "double", "input": {"text": "x" * 1_000_000, "times": 1}},
            {"call": "double", "input": {"text": "y" * 3_000_000}},
        ),
        input_bytes=2_000_000,
    )
    assert outcome["replies"][0]["length"] == 1_000_002
    assert outcome["replies"][1]["error"] == "InputTooLarge"


SHELL = """
while read -r line; do
  printf '{"got": %s}\\n' "$line"
done
"""
LINES = 'name = "lines"\n[run]\nkind = "jsonl"\ncommand = ["sh", "program.sh"]\n'


def test_sandbox_a_shell_loop_is_a_service(run: Run) -> None:
    steps = [{"call": "call", "input": {"a": number}} for number in range(3)]
    smuggled = {"call": "call", "raw": base64.b64encode(b'{"a":\n1}').decode()}
    nonsense = {"call": "call", "raw": base64.b64encode(b'{"a":1}\n{"b":2}').decode()}
    outcome = run({"program.sh": SHELL}, [*steps, smuggled, nonsense], manifest=LINES)
    assert [json.loads(reply["body"])["got"] for reply in outcome["replies"][:4]] == [
        {"a": 0},
        {"a": 1},
        {"a": 2},
        {"a": 1},
    ]
    assert outcome["replies"][4]["error"] == "ProgramRefused"


def test_sandbox_a_binary_from_usr_is_a_service(run: Run) -> None:
    words = json.dumps(["sed", "-u", 's/.*/{"got": &}/'])
    manifest = LINES.replace('["sh", "program.sh"]', words)
    outcome = run({}, [{"call": "call", "input": "four"}], manifest=manifest)
    assert json.loads(outcome["replies"][0]["body"]) == {"got": "four"}


def test_sandbox_lines_refuse_stream_and_break(run: Run) -> None:
    manifest = LINES + '[[methods]]\nname = "count"\nstream = true\n'
    script = """
    while read -r line; do
      case "$line" in
        '"refuse"') echo '{"error": "not today"}' ;;
        '"break"') echo 'this is no JSON' ;;
        *) echo 1; echo 2; echo ;;
      esac
    done
    """
    outcome = run(
        {"program.sh": script},
        [{"call": "count", "input": word} for word in ("go", "refuse", "go", "break")],
        manifest=manifest,
    )
    first, second, third, fourth = outcome["replies"]
    assert first["chunks"] == third["chunks"] == ["1\n", "2\n"]
    assert second["error"] == "ProgramRefused" and "not today" in second["message"]
    assert fourth["error"] == "ProgramCrashed" and "not JSON" in fourth["message"]


def test_sandbox_lines_with_several_methods_carry_numbers(run: Run) -> None:
    manifest = (
        LINES.replace("sh", "python3", 1).replace("program.sh", "program.py")
        + '[[methods]]\nname = "a"\n[[methods]]\nname = "b"\nstream = true\n'
    )
    program = """
import json, sys
held = []
for line in sys.stdin:
    call = json.loads(line)
    if call["method"] == "b":
        for n in range(2): print(json.dumps({"id": call["id"], "chunk": n}), flush=True)
        print(json.dumps({"id": call["id"], "done": True}), flush=True)
    elif call["input"] == "bad":
        print(json.dumps({"id": call["id"], "error": {"message": "bad input"}}), flush=True)
    else:
        held.append(call)
        if len(held) == 2:
            for call in reversed(held): print(json.dumps({"id": call["id"], "output": call["input"]}), flush=True)
"""
    together = {"together": [{"call": "a", "input": 1}, {"call": "a", "input": 2}]}
    outcome = run(
        {"program.py": program},
        [{"call": "b"}, {"call": "a", "input": "bad"}, together],
        manifest=manifest,
        concurrency=2,
    )
    assert outcome["replies"][0]["chunks"] == ["0\n", "1\n"]
    assert "bad input" in outcome["replies"][1]["message"]
    assert [reply["body"] for reply in outcome["replies"][2]] == ["1", "2"]


def test_sandbox_a_command_that_is_not_there_is_named(run: Run) -> None:
    outcome = run({}, [], manifest=LINES.replace('"sh"', '"no-such-program"'))
    assert outcome["error"]["error"] == "ProgramDidNotStart"
    assert "no-such-program" in outcome["error"]["message"]


SERVER = """
import http.server, json, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self): self.answer(200, b"well")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/refuse": self.answer(422, json.dumps({"detail": "too long"}).encode())
        elif self.path == "/fail": self.answer(500, b"<html><h1>oops</h1></html>", "text/html")
        elif self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(int(body)):
                part = b"data: %d\\n\\n" % number
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(part), part)); self.wfile.flush()
            self.wfile.write(b"0\\r\\n\\r\\n")
        elif self.path == "/close":
            self.wfile.write(b"HTTP/1.0 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\nuntil the end"); self.close_connection = True
        elif self.path == "/big": self.answer(200, b"x" * 3_000_000)
        else: self.answer(200, body)
class Server(http.server.ThreadingHTTPServer): daemon_threads = True
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
HTTP = 'name = "web"\n[run]\nkind = "http"\ncommand = ["python", "app.py"]\nhealth = "/healthz"\n'


@pytest.fixture(params=["root", "plain"] if os.geteuid() == 0 else ["plain"])
def wrapped(request: pytest.FixtureRequest, workers: Callable[[str], Worker]) -> Run:
    """Only where there are network namespaces."""

    def start(files: dict[str, str], steps: list[Any], **options: Any) -> Any:
        outcome = workers(request.param).run("bubblewrap", files, steps, **options)
        assert outcome["left"] == []
        return outcome

    return start


def test_sandbox_an_http_server_is_a_service(wrapped: Run) -> None:
    steps = [
        {"call": "call", "path": "/echo", "input": {"a": 1}},
        {
            "call": "call",
            "path": "/echo",
            "raw": base64.b64encode(b"z" * 1_000_000).decode(),
            "content_type": "image/png",
        },
        {"call": "call", "path": "/healthz", "http_method": "GET", "raw": ""},
        {"call": "call", "path": "/refuse"},
        {"call": "call", "path": "/fail"},
        {"call": "call", "path": "/stream", "input": 3},
        {"call": "call", "path": "/close"},
        {"call": "call", "path": "/echo", "input": "still here"},
        {"call": "call", "path": "/split me", "input": 1},
        {"call": "call", "path": "/stream", "input": 10_000_000, "take": 2},
        {"call": "call", "path": "/echo", "input": "and here"},
        {"call": "call", "path": "/big"},
    ]
    outcome = wrapped({"app.py": SERVER}, steps, manifest=HTTP, output_bytes=2_000_000)
    replies = outcome["replies"]
    assert json.loads(replies[0]["body"]) == {"a": 1} and replies[0]["type"] == "application/json"
    assert replies[1]["length"] == 1_000_000
    assert replies[2]["body"] == "well"
    assert (
        replies[3]["error"] == "ProgramRefused"
        and replies[3]["facts"]["status"] == 422
        and "too long" in replies[3]["message"]
    )
    assert replies[4]["error"] == "ProgramFailed" and "oops" in replies[4]["message"]
    assert "".join(replies[5]["chunks"]) == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert replies[6]["body"] == "until the end"
    assert json.loads(replies[7]["body"]) == "still here"
    assert replies[8]["error"] == "ProgramRefused"
    assert len(replies[9]["chunks"]) == 2
    assert json.loads(replies[10]["body"]) == "and here"
    assert replies[11]["error"] == "OutputTooLarge"


def test_sandbox_an_http_server_that_ends_or_never_listens_is_named(wrapped: Run) -> None:
    outcome = wrapped({"app.py": "import sys; sys.exit('no port for me')"}, [], manifest=HTTP)
    assert (
        outcome["error"]["error"] == "ProgramDidNotStart" and "no port for me" in outcome["error"]["remedy"]
    )
    outcome = wrapped({"app.py": "import time; time.sleep(60)"}, [], manifest=HTTP, startup_seconds=0.5)
    assert "not ready within 0.5 seconds" in outcome["error"]["message"]


def test_sandbox_an_http_program_is_refused_without_namespaces(workers: Callable[[str], Worker]) -> None:
    outcome = workers("plain").run("confined", {"app.py": SERVER}, [], manifest=HTTP)
    assert outcome["error"]["error"] == "KindNotServed"


NODE_HTTP = """
const http = require("http");
http.createServer((request, response) => {
  let body = "";
  request.on("data", part => body += part);
  request.on("end", () => { response.setHeader("Content-Type", "application/json"); response.end(JSON.stringify({path: request.url, got: JSON.parse(body)})); });
}).listen(process.env.PORT, "127.0.0.1");
"""
NODE_LINES = """
require("readline").createInterface({input: process.stdin}).on("line", line => console.log(JSON.stringify({got: JSON.parse(line)})));
"""


@pytest.fixture
def node() -> str:
    """Node of this machine; our own CI has it, a contributor may not."""
    if shutil.which("node") is None and not os.environ.get("CI"):
        pytest.skip("node is not installed")
    return "node"


def test_sandbox_node_serves_http(wrapped: Run, node: str) -> None:
    manifest = HTTP.replace('"python", "app.py"', f'"{node}", "app.js"').replace('health = "/healthz"\n', "")
    # It falls over questions that nobody declared, so none is put to it.
    manifest += '[[methods]]\nname = "call"\npath = "/x"\n'
    outcome = wrapped(
        {"app.js": NODE_HTTP},
        [{"call": "call", "path": "/x", "input": [1]}],
        manifest=manifest,
        memory_bytes=512 << 20,
    )
    assert json.loads(outcome["replies"][0]["body"]) == {"path": "/x", "got": [1]}


def test_sandbox_node_serves_lines(run: Run, node: str) -> None:
    manifest = LINES.replace('"sh", "program.sh"', f'"{node}", "app.js"')
    outcome = run(
        {"app.js": NODE_LINES}, [{"call": "call", "input": [1]}], manifest=manifest, memory_bytes=512 << 20
    )
    assert json.loads(outcome["replies"][0]["body"]) == {"got": [1]}


def test_sandbox_the_broker_is_there_and_says_that_no_allowance_came(run: Run) -> None:
    program = """
import openresource_broker
class Program:
    def ask(self) -> dict:
        answers = []
        for service in ("search", "again"):
            try:
                openresource_broker.call(service, {"q": 1})
            except openresource_broker.BrokerRefused as refusal:
                answers.append({"code": refusal.code, "message": str(refusal), "facts": refusal.facts})
        return {"answers": answers}
"""
    outcome = run({"program.py": program}, [{"call": "ask"}], manifest=PYTHON)
    answers = json.loads(outcome["replies"][0]["body"])["answers"]
    assert [answer["code"] for answer in answers] == ["no-allowance"] * 2
    assert answers[0]["facts"] == {"service": "search"}
    assert "without an allowance" in answers[0]["message"]
