"""Replays recorded exchanges with AI Network's node against a running one and tells where answers differ.

What depends on time or on the identity of a run is compared by its shape: the paths that a step names as volatile, ports,
folders, counts of what happened to be in the pool, and keys of accounts, which our node never shows.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from openresource.primitives.encoding import canonical_json
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import hash_message
from openresource.primitives.keys import (
    PrivateKey,
    hash_from_signature,
    private_key_from_hex,
    recover_address,
    sign_message,
    sign_transaction,
)
from tests.support.websocket import Closed, Socket

Json = Any
Step = dict[str, Any]

WAIT_SECONDS_MAX = 60.0
SILENCE_SECONDS_MAX = 1.5
MESSAGE_SECONDS_MAX = 60.0

# Steps in which the recorded node shows a defect that ours does not have: they answer as the named step does.
DEFECTS = {"zz.genesis.hashes2": "zz.genesis.hashes1", "zz.genesis.hashes3": "zz.genesis.hashes1"}
# Pages of refusals: the recorded node gives HTML and for these two a crash; ours says with 404 that they are not there.
BROKEN_ROUTES = {"http.GET /get_final_state_snapshot": 404, "http.GET /get_final_radix_snapshot": 404}
# Whatever the step: these depend on what happened to be going on, or on the machine.
_LOOSE = re.compile(
    r".*\.(used|free_used|numVersions|rate|elapsedTimeMs|UNSAFE_PRIVATE_KEY)"
    # Votes of several validators are listed as they arrive.
    r"|.*\.last_votes\[[1-9][0-9]*\]\.address"
    # A node that finds nobody goes from STARTING to EXPANDING after a while.
    r"|.*\.connectionStatus\.(state|stateNumeric)"
)
# Lists in the order in which nodes happened to find each other.
_BY_CHANCE = frozenset(("incomingPeers", "outgoingPeers", "peerCandidates"))
_BYTES = '{"type":"Buffer"'
# A minute's end between two steps brings more kinds of events.
_MINUTES = re.compile(r".*\.trafficStats\.[0-9]+[mh]")
_TEMPLATE = re.compile(r"\$\{([^}]*?):([^:}]*)\}")
_REPEATED = re.compile(r"<(.) repeated ([0-9]+) times>")


@dataclass(slots=True)
class Answer:
    """What came back over HTTP."""

    status: int
    content_type: str | None
    text: str

    def recorded(self) -> dict[str, Json]:
        """In the form in which answers are recorded."""
        told: dict[str, Json] = {"status": self.status, "content_type": self.content_type}
        try:
            told["json"] = json.loads(self.text)
        except ValueError:
            told["text"] = self.text
        return told


class Http:
    """Requests to one node."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def request(self, verb: str, path: str, body: str | None = None, content_type: str = "") -> Answer:
        """One exchange."""
        headers = {"Content-Type": content_type} if content_type else {}
        raw = None if body is None else body.encode("utf-8", "surrogatepass")
        self._connection.request(verb, path, raw, headers)
        response = self._connection.getresponse()
        text = response.read().decode("utf-8")
        return Answer(response.status, response.getheader("Content-Type"), text)

    def post(self, body: Json, path: str = "/json-rpc") -> Answer:
        """One exchange with a JSON body."""
        return self.request("POST", path, json.dumps(body), "application/json")

    def call(self, method: str, **params: Json) -> Json:
        """The value of one method."""
        body = {"jsonrpc": "2.0", "method": method, "params": {**params, "protoVer": "1.0.0"}, "id": 1}
        return json.loads(self.post(body).text)["result"].get("result")

    def close(self) -> None:
        self._connection.close()


@dataclass(slots=True)
class Replay:
    """One scenario against one node."""

    port: int
    event_url: str
    accounts: Mapping[str, PrivateKey]
    # Recorded ports and what they are here.
    ports: Mapping[int, int]
    http: Http = field(init=False)
    responses: dict[str, Json] = field(default_factory=dict)
    steps_by_id: dict[str, Step] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    # Hashes of the recording and what came in their place; later requests name them.
    renamed: dict[str, str] = field(default_factory=dict)
    steps_equal: int = 0
    steps_run: int = 0

    def __post_init__(self) -> None:
        self.http = Http(self.port)

    def run(self, steps: list[Step], show: Callable[[str], None] = lambda line: None) -> None:
        """Every step in order; those that set off what a websocket session hears run inside that session."""
        self.steps_by_id = {step["id"]: step for step in steps}
        sockets: list[Socket] = []
        held: list[Step] = []
        for position, step in enumerate(steps):
            following = steps[position + 1 :]
            if step["kind"] == "websocket":
                session, held = held, []
                self._step(step, partial(self._websocket, step, session, sockets))
            elif _is_trigger(step, following) or step["id"].startswith("ws.rpc."):
                held.append(step)
            else:
                self._step(step, partial(self._check, step))
        for step in held:
            self._step(step, partial(self._check, step))
        for one in sockets:
            one.close()
        self.http.close()
        for line in self.differences:
            show(line)

    def _step(self, step: Step, act: Callable[[], list[str]]) -> None:
        self.steps_run += 1
        try:
            found = act()
        except (OSError, http.client.HTTPException, AssertionError, KeyError, Closed) as error:
            self.http.close()
            found = [f"{type(error).__name__}: {error}"]
        if found:
            self.differences += [f"{step['id']}: {line}" for line in found[:5]]
        else:
            self.steps_equal += 1

    # One step.

    def _check(self, step: Step) -> list[str]:
        if step["kind"] == "wait":
            return self._wait(step["until"])
        if step["kind"] == "client":
            return [line for one in step["exchanges"] for line in self._exchange(step["id"], one)]
        return self._exchange(step["id"], step)

    def _exchange(self, name: str, step: Step) -> list[str]:
        request = step["request"]
        path = self._filled(request["path"])
        if "json" in request:
            volatile = step.get("volatile_request") or []
            body = self._signed(self._filled(request["json"]), volatile)
            for one in volatile:
                body = self._renamed(body, one.split(".")[2:])
            answer = self.http.post(body, path)
        elif request.get("text") is not None:
            text = _REPEATED.sub(lambda found: found[1] * int(found[2]), request["text"])
            answer = self.http.request(
                "POST" if request["method"] == "POST" else request["method"],
                path,
                text,
                request.get("content_type") or "application/json",
            )
        else:
            answer = self.http.request(request["method"], path)
        told = answer.recorded()
        self.responses[name] = told
        if name in BROKEN_ROUTES:
            return [] if answer.status == BROKEN_ROUTES[name] else [f"status {answer.status}"]
        if name in DEFECTS:
            step = self.steps_by_id[DEFECTS[name]]
        return self._compare(step, told)

    def _compare(self, step: Step, told: dict[str, Json]) -> list[str]:
        expected = dict(step["response"])
        if "html_error" in expected:
            return [] if told["status"] == expected["status"] else [f"status {told['status']}"]
        comparison = Comparison([*(step.get("volatile") or []), *_already_later(step, told)], self.ports)
        if "response_shape" in step:
            comparison.compare_shape(step["response_shape"], told.get("json"), "$.json")
            told = {name: told[name] for name in ("status", "content_type")}
        elif "response_text_head" in step:
            comparison.compare_lines(step["response_text_head"], told.get("text", ""))
            told = {name: told[name] for name in ("status", "content_type")}
        comparison.compare(expected, told, "$")
        for recorded, here in comparison.renamed.items():
            self.renamed.setdefault(recorded, here)
        return comparison.differences

    def _wait(self, until: str) -> list[str]:
        final = re.search(r"hash of step ([^)]*)\)\.is_finalized", until)
        grown = re.search(r"grows by at least ([0-9]+)", until)
        begun = self.http.call("ain_getLastBlockNumber")
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while time.monotonic() < deadline:
            if final is not None:
                tx_hash = self.responses[final[1]]["json"]["result"]["result"]["tx_hash"]
                info = self.http.call("ain_getTransactionByHash", hash=tx_hash)
                if info and info["is_finalized"]:
                    return []
            elif grown is not None:
                if self.http.call("ain_getLastBlockNumber") >= begun + int(grown[1]):
                    return []
            else:
                return [f"unknown condition {until}"]
            time.sleep(0.05)
        return [f"not within {WAIT_SECONDS_MAX} s: {until}"]

    # What is sent.

    def _filled(self, value: Json) -> Json:
        if isinstance(value, dict):
            return {name: self._filled(member) for name, member in value.items()} | self._whole(value)
        if isinstance(value, list):
            return self._filled_list(value)
        if not isinstance(value, str):
            return value
        whole = _TEMPLATE.fullmatch(value)
        if whole is not None:
            return self._of_response(whole[1], whole[2])
        value = _TEMPLATE.sub(lambda found: str(self._of_response(found[1], found[2])), value)
        return _REPEATED.sub(lambda found: found[1] * int(found[2]), value)

    def _filled_list(self, value: list[Json]) -> list[Json]:
        if value == ["<first element of batch.ok, 51 times>"]:
            return [self.steps_by_id["batch.ok"]["request"]["json"]["params"]["tx_list"][0]] * 51
        if value == ['<{"type":"GET_VALUE","ref":"/a"} 51 times>']:
            return [{"type": "GET_VALUE", "ref": "/a"}] * 51
        if value == ["<transaction of tx.too_big>"]:
            # The recording sent the shortened text with the signature of the whole one, and heard so.
            params = self.steps_by_id["tx.too_big"]["request"]["json"]["params"]
            return [{"tx_body": params["tx_body"], "signature": self._filled(params)["signature"]}]
        return [self._filled(one) for one in value]

    def _whole(self, value: dict[str, Json]) -> dict[str, Json]:
        """The signature that was left out beside a body that was shortened."""
        if value.get("signature") != "<signature of the full body>":
            return {}
        key = self.accounts["0x09A0d53FDf1c36A131938eb379b98910e55EEfe1"]
        return {"signature": sign_transaction(self._filled(value["tx_body"]), key, 0)}

    def _of_response(self, name: str, path: str) -> Json:
        value = self.responses[name]
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    def _signed(self, body: Json, volatile: list[str]) -> Json:
        """A request for an administrator, signed again now, as recorded ones are too old by now."""
        if "$.json.params.message.timestamp" not in volatile:
            return body
        params = body["params"]
        message = {**params["message"]}
        recorded_ms = self._recorded_now_ms()
        age_ms = recorded_ms - message["timestamp"]
        message["timestamp"] = int(time.time() * 1000) - (age_ms if age_ms > 60_000 else 0)
        signed = {**params, "message": message}
        if "signature" in params:
            signed["signature"] = sign_message(canonical_json(message), self._signer(params), 0)
        return {**body, "params": signed}

    def _renamed(self, body: Json, path: list[str]) -> Json:
        """A request with the hash at a path replaced by the one that came here in its place."""
        if not path:
            return self.renamed.get(body, body) if isinstance(body, str) else body
        if not isinstance(body, dict) or path[0] not in body:
            return body
        return {**body, path[0]: self._renamed(body[path[0]], path[1:])}

    def _recorded_now_ms(self) -> int:
        message = self.steps_by_id["admin.get"]["request"]["json"]["params"]["message"]
        recorded_ms: int = message["timestamp"]
        return recorded_ms

    def _signer(self, params: Json) -> PrivateKey:
        """Whose key signed a recorded message."""
        digest = hash_from_signature(params["signature"])
        assert digest == hash_message(canonical_json(params["message"])), "the recorded signature fits"
        try:
            return self.accounts[recover_address(digest, params["signature"], 0)]
        except (Refusal, KeyError):
            return private_key_from_hex("77" * 32)

    # The event handler.

    def _websocket(self, step: Step, session: list[Step], sockets: list[Socket]) -> list[str]:
        first = step["messages"][0]
        if first["dir"] == "client" or not sockets:
            sockets.append(Socket(self.event_url))
        socket = sockets[-1]
        told: list[Json] = []
        is_set_off = not any(one["id"].startswith("ws.tx.") for one in session)
        for message in step["messages"]:
            if message["dir"] == "client":
                text = message["text"] if "text" in message else json.dumps(message["json"])
                socket.send(text)
                told.append(message)
                continue
            if not is_set_off:
                self._settle(socket)
                self._set_off(session)
                is_set_off = True
            told.append(self._heard(socket, message))
        self._set_off(session)
        if step["id"] == "ws.errors":
            sockets.pop().close()
        comparison = Comparison(step.get("volatile") or [], self.ports)
        comparison.compare(_without_silence(step["messages"]), _without_silence(told), "$")
        return comparison.differences

    def _settle(self, socket: Socket) -> None:
        """Wait until what was sent has been worked: messages of one connection are worked in their order."""
        socket.send_json({"type": "DEREGISTER_FILTER", "data": {"id": "settled"}})
        deadline = time.monotonic() + MESSAGE_SECONDS_MAX
        while (text := socket.receive(deadline - time.monotonic())) is not None:
            if json.loads(text).get("data", {}).get("filter_id") == "settled":
                return
        raise AssertionError("the event handler does not answer")

    def _set_off(self, session: list[Step]) -> None:
        while session:
            step = session.pop(0)
            self._step(step, partial(self._check, step))

    def _heard(self, socket: Socket, message: Json) -> Json:
        if "none_within_s" in message:
            text = self._text(socket, min(SILENCE_SECONDS_MAX, message["none_within_s"]), skip="PING")
            return message if text is None else {"dir": "server", "json": json.loads(text)}
        wanted = message["json"]
        skip = "" if wanted["type"] == "PING" else "PING"
        text = self._text(socket, MESSAGE_SECONDS_MAX, skip=skip, wanted=wanted)
        return {"dir": "server", "json": None if text is None else json.loads(text)}

    def _text(self, socket: Socket, seconds: float, *, skip: str, wanted: Json = None) -> str | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            text = socket.receive(left)
            if text is None:
                return None
            heard = json.loads(text)
            if skip and heard["type"] == skip:
                socket.send_json({"type": "PONG", "data": {}})
                continue
            if wanted is not None and _is_block(heard) and not _is_block(wanted):
                # Events of blocks between two replies were left out of the recording.
                continue
            return text
        return None


class Comparison:
    """Compares what was recorded with what was told."""

    def __init__(self, volatile: list[str], ports: Mapping[int, int]) -> None:
        self._volatile = frozenset(volatile)
        self._ports = ports
        self.differences: list[str] = []
        self.renamed: dict[str, str] = {}

    def compare(self, expected: Json, told: Json, path: str) -> None:
        """Equal, but for what is volatile."""
        if path in self._volatile or _LOOSE.fullmatch(path):
            self._compare_kinds(expected, told, path)
        elif isinstance(expected, dict) and isinstance(told, dict):
            names = set(expected) | set(told)
            if f"{path}.#tree_size" in self._volatile:
                # What grows with the chain has more and more siblings too.
                names.discard("#tree_max_siblings")
            if f"{path}.*keys" in self._volatile:
                # Members that were there at one time and not at another; or all are named by hashes of a run.
                names = set(expected) & set(told)
                if not names:
                    self._compare_samples(expected, told, path)
            elif _MINUTES.fullmatch(path):
                names = set(expected)
            if _is_paper(expected):
                # What a proposal or vote uses depends on how many digits its block's number has.
                names = names - {"extra"}
                self._compare_outline(expected["extra"], told.get("extra"), f"{path}.extra")
                # And what its block costs, on what was written in just that second.
                self._volatile |= {f"{path}.tx_body.operation.op_list[0].value.gas_cost_total"}
            for name in names:
                if name not in told:
                    self._differ(f"{path}.{name}", expected[name], "nothing")
                elif name not in expected:
                    self._differ(f"{path}.{name}", "nothing", told[name])
                else:
                    self.compare(expected[name], told[name], f"{path}.{name}")
        elif isinstance(expected, list) and isinstance(told, list):
            if len(expected) != len(told) and not self._is_loose_list(path):
                self._differ(f"{path}.length", len(expected), len(told))
                return
            if path.rpartition(".")[2] in _BY_CHANCE:
                expected, told = sorted(map(self._here, expected)), sorted(told)
            for index, (one, other) in enumerate(zip(expected, told, strict=False)):
                self.compare(one, other, f"{path}[{index}]")
        elif isinstance(expected, str) and isinstance(told, str) and _BYTES in expected:
            # The recorded node prints what it heard as a list of bytes; that something was heard is what counts.
            if told.partition("(")[0] != expected.partition("(")[0]:
                self._differ(path, expected, told)
        elif not _same(self._here(expected), told):
            self._differ(path, self._here(expected), told)

    def compare_shape(self, shape: Json, told: Json, path: str, *, is_sample: bool = False) -> None:
        """The kinds of what was too large to be kept; of a sample's members others may lack some or have more."""
        if isinstance(shape, dict):
            if not isinstance(told, dict):
                self._differ(path, "an object", told)
            elif "...keys" in shape:
                sample = next(iter(shape["sample"].values()))
                for name, member in told.items():
                    self.compare_shape(sample, member, f"{path}.{name}", is_sample=True)
            else:
                # Accounts of which nothing waits any more are not listed.
                odd = {name for name in shape.keys() ^ told.keys() if not name.startswith("0x")}
                if odd and not is_sample and not _is_loose(path):
                    self._differ(path, sorted(shape), sorted(told))
                for name in shape.keys() & told.keys():
                    self.compare_shape(shape[name], told[name], f"{path}.{name}", is_sample=is_sample)
        elif isinstance(shape, list):
            if not isinstance(told, list):
                self._differ(path, "a list", told)
            elif len(shape) > 1 and told:
                self.compare_shape(shape[1], told[0], f"{path}[0]", is_sample=is_sample)
        elif shape != _kind(told) and not (shape == "object" and isinstance(told, dict)) and not is_sample:
            self._differ(path, shape, told)

    def compare_lines(self, head: str, told: str) -> None:
        """The names of metrics: those of the recording's beginning, in their order."""
        names = [line.partition(" ")[0] for line in head.splitlines()[:-1]]
        here = [line.partition(" ")[0] for line in told.splitlines()]
        missing = [name for name in names if name not in here]
        if missing:
            self._differ("$.text", missing[:5], "nothing")

    def _is_loose_list(self, path: str) -> bool:
        # A list of which single places or lengths are volatile may be shorter or longer.
        return any(one.startswith((f"{path}[", f"{path}.*")) for one in self._volatile)

    def _compare_kinds(self, expected: Json, told: Json, path: str) -> None:
        if expected is not None and told is not None and _kind(expected) != _kind(told):
            self._differ(path, _kind(expected), told)
        elif isinstance(expected, str) and expected.startswith("0x") and len(expected) == 66:
            self.renamed[expected] = told

    def _compare_samples(self, expected: dict[str, Json], told: dict[str, Json], path: str) -> None:
        """Objects whose keys belong to a run: their members have one shape."""
        if not expected or not told:
            return
        sample = next(iter(expected.values()))
        for name, member in told.items():
            self._compare_outline(sample, member, f"{path}.{name}")

    def _compare_outline(self, expected: Json, told: Json, path: str) -> None:
        if _kind(expected) != _kind(told):
            self._differ(path, _kind(expected), told)
        elif isinstance(expected, dict):
            # Where one side names hashes or addresses, the names themselves differ.
            for name in expected.keys() & told.keys():
                self._compare_outline(expected[name], told[name], f"{path}.{name}")
            odd = sorted(name for name in expected.keys() ^ told.keys() if not name.startswith("0x"))
            if odd:
                self._differ(path, odd, "the same members")

    def _here(self, expected: Json) -> Json:
        """What was recorded, with the ports of this run."""
        if isinstance(expected, int) and not isinstance(expected, bool):
            return self._ports.get(expected, expected)
        if isinstance(expected, str):
            if expected.isdigit() and len(expected) <= 5:
                return str(self._ports.get(int(expected), expected))
            for recorded, here in self._ports.items():
                expected = expected.replace(f":{recorded}/", f":{here}/") if len(expected) < 200 else expected
        return expected

    def _differ(self, path: str, expected: Json, told: Json) -> None:
        self.differences.append(f"{path}: {_short(expected)} was recorded, {_short(told)} came")


def recorded_ports(steps: list[Step], target: int, count: int) -> tuple[int, int, int]:
    """The ports of the first recorded node, of its door, its links and its event handler, as answers tell them."""
    text = json.dumps(steps)
    urls = re.search(
        r'"p2p": \{"url": "ws://[^"]*", "port": ([0-9]+)\}, "clientApi": \{"url": "[^"]*", "port": ([0-9]+)',
        text,
    )
    events = re.search(r'"url": "ws://127\.0\.0\.1:([0-9]+)/", "maxNumEventChannels"', text)
    links, doors = (int(urls[1]) - target, int(urls[2]) - target) if urls else (0, 0)
    return doors, links, int(events[1]) - (count - 1) if events else 0


def _is_trigger(step: Step, following: list[Step]) -> bool:
    """Whether a step sets off what the session right behind it hears."""
    return bool(step["id"].startswith("ws.tx.") and following and following[0]["kind"] == "websocket")


def _is_loose(path: str) -> bool:
    return _LOOSE.fullmatch(path) is not None or _MINUTES.fullmatch(path) is not None


def _is_block(message: Json) -> bool:
    return bool(message["type"] == "EMIT_EVENT" and message["data"]["type"] == "BLOCK_FINALIZED")


def _already_later(step: Step, told: dict[str, Json]) -> list[str]:
    """What more may differ where a recording says that a transaction may have come further by then."""
    if not str(step.get("note", "")).startswith("state may be"):
        return []
    result = told["json"]["result"]["result"]
    if result["state"] == step["response"]["json"]["result"]["result"]["state"]:
        return []
    names = (
        "*keys",
        "state",
        "number",
        "index",
        "is_finalized",
        "is_executed",
        "finalized_at",
        "transaction.*keys",
    )
    return [f"$.json.result.result.{name}" for name in names]


def _is_paper(value: dict[str, Json]) -> bool:
    """Whether this is a proposal or a vote that waits in a pool."""
    if "extra" not in value or "tx_body" not in value:
        return False
    operation = value["tx_body"]["operation"]
    ref = operation["op_list"][0]["ref"] if "op_list" in operation else operation["ref"]
    return str(ref).startswith("/consensus/number/")


def _without_silence(messages: list[Json]) -> list[Json]:
    return [{"none_within_s": 0} if "none_within_s" in message else message for message in messages]


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def _same(expected: Json, told: Json) -> bool:
    return _kind(expected) == _kind(told) and expected == told


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else text[:160] + "…"
