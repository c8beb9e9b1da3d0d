"""Command-line programs: one process a call inside one warm sandbox, and nothing of it left for the next."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from openresource.market.command_lines import Part, inputs_of, parse_word
from openresource.market.manifest_tables import InvalidManifest
from openresource.market.manifests import parse_manifest, with_documents

Run = Callable[..., Any]

GENERIC = 'name = "tool"\n[run]\nkind = "cli"\ncommand = ["sh", "tool.sh"]\n'
DECLARED = """
name = "tool"
[run]
kind = "cli"
command = ["python3", "tool.py"]
[[methods]]
name = "count"
args = ["count", "--unit={unit}", "{text:file}"]
result = "json"
[methods.input]
type = "object"
properties = {text = {type = "string"}, unit = {type = "string", default = "words"}}
required = ["text"]
[[methods]]
name = "echo"
args = ["echo", "{words}"]
[methods.input]
type = "object"
properties = {words = {type = "array", items = {type = "string"}}}
[[methods]]
name = "upper"
args = ["upper"]
stdin = "text"
[[methods]]
name = "paint"
args = ["paint", "{out:page.bin}", "{photo:in.bin}"]
result = "files"
[[methods]]
name = "tick"
args = ["tick", "{count}"]
stream = true
result = "json"
[[methods]]
name = "bytes"
args = ["bytes"]
output = {type = "string", contentEncoding = "base64"}
"""
TOOL = """
import json, os, signal, subprocess, sys, time
what, *rest = sys.argv[1:]
if what == "count":
    text = open(rest[1]).read()
    print(json.dumps({"count": len(text.split() if rest[0] == "--unit=words" else text), "file": rest[1].rpartition("/")[2]}))
elif what == "echo":
    print("|".join(rest))
elif what == "upper":
    text = sys.stdin.read()
    if text == "bad":
        print("Usage: not this\\nthe text is bad", file=sys.stderr)
        sys.exit(3)
    if text == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if text == "hang":
        try:
            # It leaves its group; where processes are hidden nobody could find it, and the guest would begin anew.
            subprocess.Popen(["setsid", "sleep", "60"] if os.listdir("/proc") else [])
        except OSError:
            subprocess.Popen(["sleep", "60"])
        time.sleep(60)
    if text == "eat":
        held = bytearray(2 << 30)
    if text == "flood":
        while True:
            print("x" * 10_000)
    print(text.upper())
elif what == "paint":
    open(rest[0], "wb").write(open(rest[1], "rb").read()[::-1])
elif what == "tick":
    for number in range(int(rest[0])):
        print(json.dumps({"tick": number}), flush=True)
        time.sleep(0.01)
elif what == "bytes":
    sys.stdout.buffer.write(bytes(range(250, 256)))
"""
SHELL = """
case "$1" in
  leave) echo kept > note.txt; echo secret > /tmp/left 2>/dev/null; echo secret > "$HOME/left"; (sleep 60 &) ; exit 0 ;;
  look) ls -A . "$HOME" | tr '\\n' ' '; ls -A /tmp /dev/shm 2>/dev/null | grep -c left; ps ax 2>/dev/null | grep -c '[s]leep' ; exit 0 ;;
  fail) echo out; echo err >&2; exit 7 ;;
  read) cat input.txt; pwd ;;
esac
"""


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _call(method: str, **inputs: Any) -> dict[str, Any]:
    return {"call": method, "input": inputs}


def _json(reply: Any) -> Any:
    return json.loads(reply["body"])


def test_any_command_can_be_run_with_arguments_input_and_files(run: Run) -> None:
    steps = [
        _call("run", args=["fail"]),
        _call("run", args=["read"], files={"input.txt": _encoded(b"from the caller")}),
        _call("run", args=["leave"]),
        _call("run", args=["look"]),
        _call("run", files={"../outside": _encoded(b"x")}),
        _call("run", files={"a": "no base64!"}),
    ]
    fail, read, leave, look, outside, unreadable = run({"tool.sh": SHELL}, steps, manifest=GENERIC)["replies"]
    assert _json(fail) == {"exit_code": 7, "stdout": "out\n", "stderr": "err\n", "files": {}}
    assert _json(read)["stdout"].startswith("from the caller")
    assert _json(read)["files"] == {}, "what was given and not changed is no result"
    assert _json(leave)["files"] == {"note.txt": _encoded(b"kept\n")}
    lines = _json(look)["stdout"].split("\n")
    assert "note.txt" not in lines[0] and "tool.sh" in lines[0]
    assert lines[0].rstrip().endswith("0"), "what the call before wrote elsewhere is gone"
    assert outside["error"] == "ProgramRefused" and unreadable["error"] == "ProgramRefused"


def test_a_call_leaves_no_process_behind(run: Run) -> None:
    outcome = run(
        {"tool.sh": SHELL}, [_call("run", args=["leave"]), _call("run", args=["fail"])], manifest=GENERIC
    )
    assert [_json(reply)["exit_code"] for reply in outcome["replies"]] == [0, 7]
    assert outcome["seconds"][0] < 5.0


def test_declared_methods_become_command_lines(run: Run) -> None:
    steps = [
        _call("count", text="a bc d"),
        _call("count", text="abc", unit="letters"),
        _call("echo", words=["a b", "--c", "$(d)"]),
        _call("echo"),
        _call("upper", text="grüß dich"),
        _call("paint", photo=_encoded(b"abc")),
        _call("bytes"),
    ]
    words, letters, echo, nothing, upper, paint, data = run({"tool.py": TOOL}, steps, manifest=DECLARED)[
        "replies"
    ]
    assert _json(words) == {"count": 3, "file": "text"}
    assert _json(letters)["count"] == 3
    assert _json(echo) == "a b|--c|$(d)"
    assert _json(nothing) == ""
    assert _json(upper) == "GRÜSS DICH"
    assert _json(paint) == {"files": {"page.bin": _encoded(b"cba")}, "stdout": ""}
    assert _json(data) == _encoded(bytes(range(250, 256)))


def test_an_exit_code_refuses_and_a_signal_fails(run: Run) -> None:
    steps = [_call("upper", text="bad"), _call("upper", text="die"), _call("upper", text="fine")]
    refused, died, fine = run({"tool.py": TOOL}, steps, manifest=DECLARED)["replies"]
    assert refused["error"] == "ProgramRefused" and "the text is bad" in refused["text"]
    assert died["error"] == "ProgramFailed" and "SIGSEGV" in died["text"]
    assert _json(fine) == "FINE"


def test_memory_and_output_end_the_call_and_not_its_neighbours(run: Run) -> None:
    steps = [_call("upper", text="flood"), _call("upper", text="fine")]
    outcome = run({"tool.py": TOOL}, steps, manifest=DECLARED, output_bytes=1 << 20)
    assert outcome["replies"][0]["error"] == "OutputTooLarge"
    assert _json(outcome["replies"][1]) == "FINE"
    (eaten,) = run({"tool.py": TOOL}, [_call("upper", text="eat")], manifest=DECLARED)["replies"]
    assert eaten["error"] == "OutOfMemory"


def test_a_late_call_is_killed_with_all_that_it_started_and_the_instance_lives(run: Run) -> None:
    late = {**_call("upper", text="hang"), "deadline": 0.8}
    outcome = run({"tool.py": TOOL}, [late, _call("upper", text="next")], manifest=DECLARED)
    assert outcome["replies"][0]["error"] == "ProgramTimedOut"
    assert outcome["seconds"][0] < 3.0
    assert _json(outcome["replies"][1]) == "NEXT"
    assert outcome["alive"]


def test_a_cancelled_call_is_killed_and_its_place_is_free(run: Run) -> None:
    steps = [{**_call("upper", text="hang"), "abandon_after": 0.5}, {"call": "upper", "input": {"text": "x"}}]
    waits = [steps[0], {"until_free": 60}, steps[1]]
    outcome = run({"tool.py": TOOL}, waits, manifest=DECLARED)
    assert _json(outcome["replies"][2]) == "X"


def test_lines_of_a_stream_come_one_by_one_and_can_be_cut(run: Run) -> None:
    steps = [_call("tick", count=3), {**_call("tick", count=100_000), "take": 2}, _call("upper", text="x")]
    outcome = run({"tool.py": TOOL}, steps, manifest=DECLARED)
    assert [json.loads(chunk) for chunk in outcome["replies"][0]["chunks"]] == [{"tick": n} for n in range(3)]
    assert len(outcome["replies"][1]["chunks"]) == 2
    assert _json(outcome["replies"][2]) == "X"


def test_calls_run_side_by_side_as_declared(run: Run) -> None:
    slow = [_call("tick", count=30) for _ in range(3)]
    outcome = run(
        {"tool.py": TOOL}, [{"together": [*slow, _call("upper", text="x")]}], manifest=DECLARED, concurrency=4
    )
    assert all(len(reply["chunks"]) == 30 for reply in outcome["replies"][0][:3])
    assert _json(outcome["replies"][0][3]) == "X"


def test_words_are_read_as_constants_members_files_and_braces() -> None:
    assert parse_word("--x={x}!") == (Part(text="--x="), Part(member="x"), Part(text="!"))
    assert parse_word("{x:file}") == (Part(member="x", file="x"),)
    assert parse_word("{{x}} {print $1}") == (Part(text="{x} {print $1}"),)
    assert parse_word("") == (Part(text=""),)
    assert inputs_of(["{a}", "{b:file}", "{out:c}", "{app}/d"], "e") == {"a": False, "b": True, "e": False}


def test_a_command_line_that_names_what_the_input_has_not_is_refused() -> None:
    text = DECLARED.replace("{text:file}", "{txt:file}")
    with pytest.raises(InvalidManifest, match="txt"):
        with_documents(parse_manifest(text), {})
