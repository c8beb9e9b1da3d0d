"""Python programs in real sandboxes: whole modules, batches, asynchronous methods, files; applications without a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.sandbox
Run = Callable[..., Any]

MODULE = 'name = "m"\n[run]\nkind = "python"\nentry = "tool:*"\n'
BATCHES = (
    'name = "b"\n[run]\nkind = "python"\nentry = "tool:Model"\nbatch = {size = 4, wait_ms = WAIT}\n'
    "[resources]\nconcurrency = 8\n"
)
ASYNC = 'name = "a"\n[run]\nkind = "python"\nentry = "tool:Service"\n[resources]\nconcurrency = 4\n'
HTTP = 'name = "h"\n[run]\nkind = "http"\ncommand = ["python", "-m", "openresource_serving", "{target}"]\n'


def values(replies: list[Any]) -> list[Any]:
    """What came back, parsed where it is an answer."""
    return [json.loads(reply["body"]) if "body" in reply else reply.get("error") for reply in replies]


def test_programs_of_a_module_offer_its_own_public_functions(run: Run) -> None:
    source = (
        "from json import dumps\nfrom pathlib import Path\n"
        "def add(a: int, b: int = 1) -> int:\n    return a + b\n"
        "def measure(file: Path) -> int:\n    return len(file.read_bytes())\n"
        "def copy(file: Path) -> Path:\n    out = file.with_name('out')\n    out.write_bytes(file.read_bytes() * 2)\n    return out\n"
        "def left() -> list[str]:\n    import os, tempfile\n    return [n for n in os.listdir(tempfile.gettempdir()) if n.startswith('call-')]\n"
        "def _hidden(a: int): ...\ndef loose(*words): ...\nclass Kind: ...\n"
    )
    content = base64.b64encode(b"four").decode()
    outcome = run(
        {"tool.py": source},
        [
            {"call": "add", "input": {"a": 2}},
            {"call": "measure", "input": {"file": content}},
            {"call": "copy", "input": {"file": content}},
            {"call": "left"},
            {"call": "dumps", "input": {"obj": 1}},
        ],
        manifest=MODULE,
    )
    assert [method["name"] for method in outcome["interface"]["methods"]] == [
        "add",
        "measure",
        "copy",
        "left",
    ]
    assert values(outcome["replies"])[:4] == [3, 4, base64.b64encode(b"fourfour").decode(), []]
    assert outcome["replies"][4]["error"] == "ProgramRefused"


def test_programs_with_batches_answer_concurrent_calls_by_one(run: Run) -> None:
    source = (
        "class Model:\n"
        "    def setup(self): self.sizes = []\n"
        "    def double(self, numbers: list[int], times: int = 2) -> list[int]:\n"
        "        self.sizes.append(len(numbers))\n"
        "        if 13 in numbers: raise ValueError('unlucky')\n"
        "        return [n * times for n in numbers]\n"
        "    def seen(self) -> list[int]: return self.sizes\n"
    )
    # Four of them are a whole batch, which waits for nobody else.
    whole = run(
        {"tool.py": source},
        [
            {"together": [{"call": "double", "input": {"numbers": [n, n + 1]}} for n in (1, 3, 5, 7)]},
            {"call": "seen"},
        ],
        manifest=BATCHES.replace("WAIT", "10_000"),
        concurrency=8,
    )
    first, seen = whole["replies"]
    assert values(first) == [[2, 4], [6, 8], [10, 12], [14, 16]]
    assert values([seen]) == [[8]]
    outcome = run(
        {"tool.py": source},
        [
            {"together": [{"call": "double", "input": {"numbers": [n]}} for n in (1, 13, 2)]},
            {
                "together": [
                    {"call": "double", "input": {"numbers": [1], "times": times}} for times in (2, 3, 2)
                ]
            },
            {"call": "double", "input": {"numbers": ["x"]}},
            {"call": "double", "input": {}},
        ],
        manifest=BATCHES.replace("WAIT", "300"),
        concurrency=8,
    )
    unlucky, mixed, wrong, missing = outcome["replies"]
    assert values(unlucky) == [[2], "ProgramRefused", [4]]
    assert values(mixed) == [[2], [3], [2]]
    assert wrong["error"] == missing["error"] == "ProgramRefused"
    assert "numbers" in missing["text"]


def test_programs_that_declare_batches_and_have_no_fitting_method_do_not_start(run: Run) -> None:
    outcome = run(
        {"tool.py": "class Model:\n    def one(self, text: str) -> str: return text\n"},
        [],
        manifest=BATCHES.replace("WAIT", "300"),
    )
    assert outcome["error"]["error"] == "ProgramDidNotStart"
    assert "batch" in outcome["error"]["text"]


def test_programs_with_asynchronous_methods_share_one_loop_and_end_with_their_callers(run: Run) -> None:
    source = (
        "import asyncio\n"
        "class Service:\n"
        "    async def setup(self):\n        self.loop = asyncio.get_running_loop()\n        self.met = asyncio.Event()\n        self.sleeps = asyncio.Event()\n        self.ended = []\n"
        "    async def wait(self) -> bool:\n        await self.met.wait()\n        return asyncio.get_running_loop() is self.loop\n"
        "    async def meet(self) -> str:\n        self.met.set()\n        return 'met'\n"
        "    async def asleep(self) -> bool: return await self.sleeps.wait()\n"
        "    async def sleep(self) -> str:\n        try:\n            self.sleeps.set()\n            await asyncio.sleep(600)\n        finally:\n            self.ended.append('sleep')\n        return 'late'\n"
        "    async def drip(self):\n        try:\n            n = 0\n            while True:\n                yield n\n                n += 1\n                await asyncio.sleep(0.001)\n"
        "        finally:\n            self.ended.append('drip')\n"
        "    def plain(self) -> list[str]: return sorted(self.ended)\n"
    )
    outcome = run(
        {"tool.py": source},
        [
            {"together": [{"call": "wait"}, {"call": "wait"}, {"call": "meet"}]},
            {"call": "drip", "take": 3},
            {"call": "sleep", "abandon_when": {"call": "asleep"}},
            {"until_free": 60},
            {"call": "plain"},
        ],
        manifest=ASYNC,
        concurrency=4,
    )
    together, drip, _, _, ended = outcome["replies"]
    assert values(together) == [True, True, "met"]
    assert [json.loads(chunk) for chunk in drip["chunks"]] == [0, 1, 2]
    assert values([ended]) == [["drip", "sleep"]]


def test_programs_written_for_cog_load_without_it(run: Run) -> None:
    source = (
        "from cog import BasePredictor, BaseModel, ConcatenateIterator, Input, Path\n"
        "class Output(BaseModel):\n    size: int\n    word: str = 'x'\n"
        "class Predictor(BasePredictor):\n"
        "    def setup(self): self.prefix = 'hello'\n"
        "    def predict(self, text: str = Input(description='What to greet'), times: int = Input(default=1, ge=1, le=3),\n"
        "                file: Path = Input(default=None)) -> Output:\n"
        "        return Output(size=len(self.prefix + text) * times + (len(file.read_bytes()) if file else 0))\n"
    )
    outcome = run(
        {"predict.py": source},
        [{"call": "predict", "input": {"text": "you"}}, {"call": "predict", "input": {"text": "", "times": 2, "file": "AAAA"}},
         {"call": "predict", "input": {}}],
        manifest='name = "c"\n[run]\nkind = "python"\nentry = "predict:Predictor"\n',
    )  # fmt: skip
    (method,) = outcome["interface"]["methods"]
    assert method["input"]["required"] == ["text"]
    assert method["input"]["properties"]["times"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 3,
        "default": 1,
    }
    assert values(outcome["replies"]) == [
        {"size": 8, "word": "x"},
        {"size": 13, "word": "x"},
        "ProgramRefused",
    ]


ASGI = (
    "import json\n"
    "async def app(scope, receive, send):\n"
    "    if scope['type'] == 'lifespan':\n        await receive()\n        app.ready = True\n"
    "        await send({'type': 'lifespan.startup.complete'})\n        await receive()\n        return\n"
    "    body = (await receive())['body'].decode()\n"
    "    page = {'openapi': '3.1.0', 'paths': {'/twice/{word}': {'get': {'operationId': 'twice', 'parameters': ["
    "{'name': 'word', 'in': 'path', 'required': True, 'schema': {'type': 'string'}}]}}}}\n"
    "    path = scope['path']\n"
    "    value = page if path == '/openapi.json' else path.split('/')[-1] * 2 if path.startswith('/twice/') else "
    "{'path': path, 'query': scope['query_string'].decode(), 'body': body, 'ready': app.ready}\n"
    "    status = 404 if path == '/lost' else 200\n"
    "    await send({'type': 'http.response.start', 'status': status, 'headers': [(b'content-type', b'application/json')]})\n"
    "    for part in json.dumps(value):\n"
    "        await send({'type': 'http.response.body', 'body': part.encode(), 'more_body': True})\n"
    "    await send({'type': 'http.response.body', 'body': b''})\n"
)
WSGI = (
    "def make():\n"
    "    def app(environ, start_response):\n"
    "        body = environ['wsgi.input'].read()\n"
    "        if environ['PATH_INFO'] == '/boom': raise RuntimeError('boom')\n"
    "        start_response('201 Created', [('Content-Type', 'text/plain'), ('X-Method', environ['REQUEST_METHOD'])])\n"
    "        return [environ['PATH_INFO'].encode(), b' ', environ['QUERY_STRING'].encode(), b' ', body]\n"
    "    return app\n"
)


@pytest.fixture
def run_http(mode: tuple[str, str], run: Run) -> Run:
    """Only a sandbox with a network of its own can hold a server."""
    if mode[0] != "bubblewrap":
        pytest.skip("no network of its own")
    return run


def test_programs_that_bring_an_asgi_application_are_served_with_the_methods_of_their_document(
    run_http: Run,
) -> None:
    outcome = run_http(
        {"web.py": ASGI},
        [
            {"call": "twice", "input": {"word": "ab c"}},
            {
                "call": "request",
                "input": {"method": "POST", "path": "/a/b", "query": {"q": 1}, "body": {"x": 1}},
            },
            {"call": "request", "input": {"path": "/lost"}},
            {"together": [{"call": "twice", "input": {"word": str(n)}} for n in range(4)]},
            {"call": "twice", "input": {}},
        ],
        manifest=HTTP.format(target="web:app"),
        concurrency=4,
    )
    assert [method["name"] for method in outcome["interface"]["methods"]] == ["twice"]
    twice, posted, lost, several, missing = outcome["replies"]
    assert json.loads(twice["body"]) == "ab cab c"
    answer = json.loads(posted["body"])
    assert answer["status"] == 200
    assert answer["body"] == {"path": "/a/b", "query": "q=1", "body": '{"x": 1}', "ready": True}
    assert json.loads(lost["body"])["status"] == 404
    assert values(several) == ["00", "11", "22", "33"]
    assert missing["error"] == "ProgramRefused"


def test_programs_that_bring_a_wsgi_application_are_served(run_http: Run) -> None:
    outcome = run_http(
        {"web.py": WSGI},
        [
            {"call": "request", "input": {"method": "PUT", "path": "/a b".replace(" ", "%20"), "query": {"q": "1"}, "body": "hi"}},
            {"call": "request", "input": {"path": "/boom"}},
            {"call": "request", "input": {"path": "/after"}},
        ],
        manifest=HTTP.format(target="web:make()"),
    )  # fmt: skip
    put, boom, after = (json.loads(reply["body"]) for reply in outcome["replies"])
    assert (put["status"], put["body"], put["headers"]["x-method"]) == (201, "/a b q=1 hi", "PUT")
    assert boom["status"] == 500
    assert after["body"] == "/after  "


@pytest.mark.parametrize(
    "end", ["os._exit(3)", "self.connection.shutdown(2); time.sleep(0.1); os._exit(3)"], ids=["quick", "slow"]
)
def test_programs_that_cannot_bear_the_question_for_their_document_say_how_to_be_spared(
    run_http: Run, end: str
) -> None:
    server = (
        "import json, os, time\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Handler(BaseHTTPRequestHandler):\n"
        f"    def do_GET(self):\n        {end}\n"
        "    def do_POST(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'here')\n"
        "HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n"
    )
    manifest = 'name = "p"\n[run]\nkind = "http"\ncommand = ["python", "s.py"]\n'
    outcome = run_http({"s.py": server}, [], manifest=manifest)
    assert 'openapi = "none"' in outcome["error"]["text"]
    asked = [{"call": "request", "input": {"method": "POST"}}]
    outcome = run_http({"s.py": server}, asked, manifest=manifest + 'openapi = "none"\n')
    assert json.loads(outcome["replies"][0]["body"])["body"] == "here"


def test_programs_are_told_their_port_by_their_command(run_http: Run) -> None:
    server = (
        "import sys\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Handler(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(sys.argv[1].encode())\n"
        "HTTPServer(('127.0.0.1', int(sys.argv[1].partition('=')[2])), Handler).serve_forever()\n"
    )
    for command, extra, expected in (
        ('["python", "s.py", "--port=$PORT"]', "", "--port=8080"),
        ('["python", "s.py", "p=5000"]', "port = 5000\n", "p=5000"),
    ):
        manifest = f'name = "p"\n[run]\nkind = "http"\ncommand = {command}\n{extra}'
        outcome = run_http({"s.py": server}, [{"call": "request"}], manifest=manifest)
        assert json.loads(outcome["replies"][0]["body"])["body"] == expected
