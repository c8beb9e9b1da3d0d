"""Hostile programs, callers side by side, stock clients: nobody gets further than an allowance that was meant for them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openresource.client import allow
from openresource.client.calls import ProgramFailedThere, ProviderRefused
from openresource.market.allowances import Allowance
from tests.cli.support import serving
from tests.journeys.composition_stage import (
    GIST_UAIN,
    HEAD,
    composition_stage,
    publish,
    spent_uain,
    words,
)
from tests.journeys.kinds_stage import Scene

pytestmark = [pytest.mark.journey, pytest.mark.sandbox, pytest.mark.timeout(240)]

HOSTILE = """
import json, os, socket, threading, time
from openresource_broker import BrokerRefused, call, current

kept = []

def lines():
    broker = socket.socket(socket.AF_UNIX)
    broker.connect(os.environ["OPENRESOURCE_BROKER"])
    return broker.makefile("rwb")

class Program:
    def flood(self) -> dict:
        # As much as the door takes, without reading what comes back.
        broker = socket.socket(socket.AF_UNIX)
        broker.connect(os.environ["OPENRESOURCE_BROKER"])
        broker.settimeout(1.0)
        sent = 0
        try:
            while sent < 50_000_000:
                sent += broker.send(b'{"service": "gist", "input": {"text": "x"}, "call": "00"}\\n' * 1000)
        except OSError:
            pass
        return {"sent": sent}

    def forge(self) -> list[str]:
        stream, told = lines(), []
        for line in (b"{}", b'{"service": "gist", "call": "' + b"0" * 32 + b'"}', b'{"service":', b"\\xff\\xfe", b"[]"):
            stream.write(line + b"\\n")
            stream.flush()
            told.append(json.loads(stream.readline())["error"]["code"])
        return told

    def keep(self) -> str:
        kept.append(current())
        return "kept"

    def use_kept(self) -> str:
        try:
            return call("gist", "summarise", text="Bees dance.", token=kept[-1])["summary"]
        except BrokerRefused as refusal:
            return refusal.code

    def greed(self) -> list[str]:
        told = []
        for number in range(80):
            try:
                call("gist", "summarise", text="Bees dance.")
                told.append("answered")
            except BrokerRefused as refusal:
                told.append(refusal.code)
        return told

    def crash(self) -> str:
        call("gist", "summarise", text="Bees dance.")
        os._exit(3)
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with composition_stage(tmp_path_factory.mktemp("attacks"), "gist") as scene:
        yield scene


def test_calls_side_by_side_in_one_instance_spend_each_its_own_allowance(scene: Scene) -> None:
    source = "from openresource_broker import BrokerRefused, call\n" + (
        "def say(text: str) -> str:\n"
        "    try:\n"
        '        return call("gist", "summarise", text=text)["summary"]\n'
        "    except BrokerRefused as refusal:\n"
        "        return refusal.code\n"
    )
    publish(scene, "beside", 'kind = "python"\nentry = "program:say"', source)
    with scene.client() as client:
        client.call("beside", text="warm up")

        def one(number: int) -> Any:
            allowance = allow("0.0005") if number % 2 else Allowance(GIST_UAIN - 1)
            return client.call("beside", text=f"Bees dance {number}.", allowance=allowance)

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(one, range(8)))
    for number, answer in enumerate(answers):
        assert answer.value == (f"Bees dance {number}." if number % 2 else "allowance-used-up")
        assert answer.inner_uain == (GIST_UAIN if number % 2 else 0)


def test_stock_clients_reach_services_that_call_others_by_way_of_connect(scene: Scene) -> None:
    allowed = ("--allow", "0.0005", "--limit", "0.0013")
    with serving("connect", "--json", "--port", "0", *allowed, *words(scene)) as connect:

        def post() -> tuple[int, Any]:
            body = json.dumps({"text": "Bees dance."}).encode()
            request = urllib.request.Request(
                f"{connect.facts['url']}/beside", body, {"content-type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    return reply.status, json.load(reply)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)["error"]["code"]

        # Each may cost 100 and 500 on others; the third does not fit into the run's limit.
        assert [post(), post()] == [(200, "Bees dance.")] * 2
        status, code = post()
        assert status >= 400 and code == "run-limit-reached"


def test_a_hostile_program_gets_no_further_than_its_callers_allowance(scene: Scene) -> None:
    head = HEAD.partition("[[methods]]")[0]
    publish(scene, "hostile", 'kind = "python"\nentry = "program:Program"', HOSTILE, head)
    before_uain = spent_uain(scene)
    with scene.client() as client:

        def call(method: str, **options: Any) -> Any:
            return client.call("hostile", method, **options)

        paid = [call("forge", allowance="0.001"), call("flood", allowance="0.001")]
        # An invalid request, a secret that nobody has, and lines that are none.
        assert paid[0].value == [
            "broker-request-invalid",
            "call-over",
            "broker-request-invalid",
            "broker-request-invalid",
            "broker-request-invalid",
        ]
        assert not any(answer.inner for answer in paid)
        # The secret of a call that has ended opens nothing, whoever calls next.
        paid += [call("keep", allowance="0.01"), call("use_kept")]
        assert paid[-1].value in ("call-over", "no-allowance")
        paid.append(call("greed", allowance=Allowance(20 * GIST_UAIN)))
        told = paid[-1].value
        assert told[:20] == ["answered"] * 20 and set(told[20:64]) == {"allowance-used-up"}
        assert set(told[64:]) == {"too-many-inner-calls"}
        assert paid[-1].inner_uain == 20 * GIST_UAIN
        with pytest.raises((ProgramFailedThere, ProviderRefused)) as crashed:
            call("crash", allowance="0.001")
        assert crashed.value.facts["inner_uain"] == GIST_UAIN
    expected_uain = sum(answer.total_uain for answer in paid) + GIST_UAIN
    assert spent_uain(scene) == before_uain + expected_uain
