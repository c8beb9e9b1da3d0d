"""Programs of every kind and level ask the broker, each for the call that it works on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.conftest import Run
from tests.sandbox.containers import archive
from tests.sandbox.images import can_make_python_image
from tests.sandbox.workers import EXTRA_MODES, IDENTITIES, MODES, PYTHON, Worker

pytestmark = pytest.mark.sandbox
CONCURRENT = PYTHON + "[resources]\nconcurrency = 4\n"

ASKING = """
import threading
from openresource_broker import BrokerRefused, acall, allowance, call, current, paid

class Program:
    def ask(self, asked: list[str] = [], answered: list[str] = []) -> dict:
        return call("search", {"asked": asked, "answered": answered})

    def words(self) -> dict:
        return call("search", "find", q=1)

    async def ask_async(self, asked: list[str] = []) -> dict:
        return await acall("search", {"asked": asked})

    def stream(self) -> list:
        for number in range(3):
            yield call("search", {"number": number})["input"]

    def told(self) -> dict:
        return {"paid": paid("search"), "left": allowance()}

    def refused(self) -> dict:
        try:
            call("refuses")
        except BrokerRefused as refusal:
            return {"code": refusal.code, "message": str(refusal)}

    def own_thread(self, names: bool = True) -> dict:
        told, token = [], current() if names else ""
        def work():
            try:
                told.append(call("search", {}, token=token)["for"])
            except BrokerRefused as refusal:
                told.append(refusal.code)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return {"told": told[0]}
"""


@pytest.fixture(params=[*MODES, *EXTRA_MODES[:1]], ids=lambda mode: "-".join(mode))
def wide(request: pytest.FixtureRequest, workers: Callable[[str], Worker]) -> Run:
    """Every level that runs programs of a folder here."""
    level, identity = request.param
    probed = workers(identity).ask({"level": level, "probe": True})
    if not probed["available"]:
        pytest.skip(f"{level} is not available here: {probed['why_not']}")

    def start(files: dict[str, str], steps: list[Any], **options: Any) -> Any:
        outcome = workers(identity).run(level, files, steps, **options)
        assert outcome["left"] == []
        return outcome

    return start


def bodies(outcome: Any) -> list[Any]:
    """What came back, or why nothing did."""
    assert outcome["error"] is None, outcome["error"]
    return [json.loads(reply["body"]) if "body" in reply else reply for reply in outcome["replies"]]


def test_sandbox_a_python_program_asks_in_the_name_of_its_call(wide: Run) -> None:
    names = ("ask", "words", "ask_async", "told", "refused", "own_thread")
    steps: list[Any] = [{"call": name, "asks_for": name} for name in names]
    steps += [{"call": "stream", "asks_for": "s"}, {"call": "ask"}]
    outcome = wide({"program.py": ASKING}, steps, manifest=PYTHON)
    found = bodies(outcome)
    assert found[0] == {"for": "ask", "service": "search", "input": {"asked": [], "answered": []}}
    assert found[1]["input"] == {"q": 1}
    assert found[2]["for"] == "ask_async"
    assert found[3]["paid"]["total_uain"] == 3 and found[3]["left"] == {"budget_uain": 7, "label": "told"}
    assert found[4]["code"] == "invalid-input"
    assert found[5] == {"told": "own_thread"}
    assert [json.loads(chunk) for chunk in found[6]["chunks"]] == [{"number": number} for number in range(3)]
    assert found[7]["error"] == "ProgramFailed" and "without an allowance" in found[7]["text"]


def test_sandbox_calls_side_by_side_ask_each_for_itself(wide: Run) -> None:
    # None of the calls is answered before all have asked, as each waits for its own answer only.
    labels = [f"{name}{number}" for number in range(2) for name in ("ask", "ask_async")]
    together = [{"call": label[:-1], "input": {"asked": labels}, "asks_for": label} for label in labels]
    alone = {"call": "own_thread", "input": {"names": False}, "asks_for": "thread"}
    other = {"call": "ask", "input": {"answered": ["thread"]}, "asks_for": "other"}
    steps = [{"together": together}, {"together": [other, alone]}]
    outcome = wide({"program.py": ASKING}, steps, manifest=CONCURRENT, concurrency=4)
    replies = outcome["replies"][0]
    assert [json.loads(reply["body"])["for"] for reply in replies] == [step["asks_for"] for step in together]
    # A thread of the program's own that does not say for which call it asks is asked to.
    assert json.loads(outcome["replies"][1][1]["body"]) == {"told": "call-not-named"}


LINES = """
import json, os, socket, sys
place = os.environ["OPENRESOURCE_BROKER"]
if place.startswith("fd:"):
    broker = socket.socket(fileno=int(place[3:]))
else:
    broker = socket.socket(socket.AF_UNIX)
    broker.connect(place)
stream = broker.makefile("rw")
for line in sys.stdin:
    asked = json.loads(line)
    request = {"service": "search", "input": {"n": 1}}
    if "call" in asked:
        request["call"] = asked["call"]
    stream.write(json.dumps(request) + "\\n")
    stream.flush()
    answer = json.loads(stream.readline())
    output = answer.get("output") or answer["error"]["code"]
    print(json.dumps({"id": asked["id"], "output": output} if "id" in asked else {"told": output}), flush=True)
"""
LINES_ONE = 'name = "lines"\n[run]\nkind = "jsonl"\ncommand = ["python", "-I", "-S", "program.py"]\n'
LINES_TWO = LINES_ONE + "".join(f'[[methods]]\nname = "{name}"\npath = "/{name}"\n' for name in ("a", "b"))


def test_sandbox_programs_of_lines_need_nothing_but_a_socket(wide: Run) -> None:
    steps = [{"call": "call", "asks_for": "line"}, {"call": "call"}]
    told = bodies(wide({"program.py": LINES}, steps, manifest=LINES_ONE))
    assert told[0]["told"]["for"] == "line" and told[1]["told"] == "no-allowance"
    steps = [{"call": "a", "asks_for": "first"}, {"call": "b", "asks_for": "second"}, {"call": "a"}]
    told = bodies(wide({"program.py": LINES}, steps, manifest=LINES_TWO))
    assert [one if isinstance(one, str) else one["for"] for one in told] == [
        "first",
        "second",
        "no-allowance",
    ]


WEB = """
import http.server, json, os, sys
from openresource_broker import BrokerRefused, call

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            told = call("search", {}, token=self.headers.get("OpenResource-Call"))["for"]
        except BrokerRefused as refusal:
            told = refusal.code
        body = json.dumps({"told": told}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
WEB_MANIFEST = (
    'name = "web"\n[run]\nkind = "http"\ncommand = ["python", "program.py"]\nopenapi = "none"\n'
    '[resources]\nconcurrency = 4\n[[methods]]\nname = "ask"\npath = "/ask"\n'
)
COMMAND = """
import json, os, sys
from openresource_broker import BrokerRefused, call
try:
    print(json.dumps({"told": call("search")["for"]}))
except BrokerRefused as refusal:
    print(json.dumps({"told": refusal.code, "message": str(refusal)}))
"""
COMMAND_MANIFEST = (
    'name = "command"\n[run]\nkind = "cli"\ncommand = ["python", "/app/program.py"]\n[resources]\nconcurrency = 4\n'
    '[[methods]]\nname = "ask"\npath = "/ask"\nresult = "json"\n'
)


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize(
    ("source", "manifest"), [(WEB, WEB_MANIFEST), (COMMAND, COMMAND_MANIFEST)], ids=["http", "cli"]
)
def test_sandbox_servers_and_command_lines_are_told_for_which_call_they_work(
    workers: Callable[[str], Worker], identity: str, source: str, manifest: str
) -> None:
    together: list[Any] = [{"call": "ask", "asks_for": f"caller {number}"} for number in range(3)]
    outcome = workers(identity).run(
        "bubblewrap",
        {"program.py": source},
        [{"together": [*together, {"call": "ask"}]}],
        manifest=manifest,
        concurrency=4,
    )
    assert outcome["error"] is None, outcome["error"]
    told = [json.loads(reply["body"])["told"] for reply in outcome["replies"][0]]
    assert told[:3] == [step["asks_for"] for step in together]
    # Without a secret it is for no call in particular, while several are worked on or have no allowance.
    assert told[3] in ("call-not-named", "no-allowance")


def test_sandbox_command_lines_have_no_way_to_the_broker_where_its_line_would_be_shared(
    workers: Callable[[str], Worker],
) -> None:
    files = {"program.py": COMMAND}
    manifest = COMMAND_MANIFEST.replace("/app/program.py", "program.py")
    outcome = workers(IDENTITIES[-1]).run(
        "confined", files, [{"call": "ask", "asks_for": "me"}], manifest=manifest
    )
    (told,) = bodies(outcome)
    assert told["told"] == "broker-gone" and "no way to it at this level" in told["message"]


def test_a_caller_cannot_name_a_call_in_a_request_of_its_own() -> None:
    from openresource.sandbox.requests import OWN_HEADERS

    assert "openresource-call" in OWN_HEADERS
    assert os.environ.get("OPENRESOURCE_CALL_SECRET") is None


def test_sandbox_an_image_finds_the_broker_where_its_environment_says(
    workers: Callable[[str], Worker],
) -> None:
    level, identity = EXTRA_MODES[1]
    probed = workers(identity).ask({"level": level, "probe": True})
    if not probed["available"] or not can_make_python_image():
        pytest.skip(f"{level} is not available here: {probed['why_not']}")
    run = 'kind = "oci"\nimage = "python.tar"\nspeaks = "jsonl"\ncommand = ["python3", "-u", "/release/program.py"]\n'
    methods = "".join(f'[[methods]]\nname = "{name}"\npath = "/{name}"\n' for name in ("a", "b"))
    steps = [{"call": "a", "asks_for": "first"}, {"call": "b", "asks_for": "second"}, {"call": "a"}]
    outcome = workers(identity).run(
        level,
        {"program.py": LINES},
        steps,
        manifest=f'name = "lines"\n[run]\n{run}{methods}',
        copies={"python.tar": archive()},
    )
    told = bodies(outcome)
    assert [one if isinstance(one, str) else one["for"] for one in told] == [
        "first",
        "second",
        "no-allowance",
    ]
