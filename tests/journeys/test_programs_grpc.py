"""gRPC on a real network: stock clients through `connect`, programs that speak it, and a provider's own door."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from openresource.adapters.grpc.messages import canonical
from openresource.adapters.grpc.purse_door import mapped_methods
from openresource.client import Client
from openresource.client.envelopes import payment_header
from openresource.client.services import Directory, Interface
from openresource.market.receipts import check_receipt, receipt_from_json
from openresource.primitives.errors import Refusal
from tests.journeys.kinds_stage import HEAD, PYTHON, Scene, door, invoke, kinds_stage, rpcs

pytestmark = [pytest.mark.journey, pytest.mark.sandbox, pytest.mark.timeout(300)]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with kinds_stage(tmp_path_factory.mktemp("grpc")) as made:
        folder = made.folder / "shout"
        folder.mkdir()
        (folder / "program.py").write_text(PYTHON)
        run = 'kind = "python"\nentry = "program:Program"'
        (folder / "openresource.toml").write_text(HEAD.format(name="shout-it", run=run))
        made.publish(folder)
        yield made


def test_programs_are_called_by_stock_grpc_clients_through_connect(scene: Scene) -> None:
    with door(scene) as (url, address):
        found = rpcs(url, "shout-it")
        assert found["Fine"].path == "/openresource.shout_it.ShoutIt/Fine"
        value, trailers = invoke(address, found["Fine"], {"text": "grüß"})
        assert value == {"value": "GRÜSS"}
        assert trailers["openresource-price"].endswith("AIN") and trailers["openresource-receipt"]
        stream, trailers = invoke(address, found["Ticks"], {"count": 3})
        assert stream == [{"value": "0"}, {"value": "1"}, {"value": "2"}]
        assert trailers["openresource-receipt-id"].startswith("0x")
        with pytest.raises(grpc.RpcError) as refused:
            invoke(address, found["Refuse"], {})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not today" in refused.value.details()
        with grpc.insecure_channel(address) as channel:
            ticks = found["Ticks"]
            call = channel.unary_stream(ticks.path, ticks.input_class.SerializeToString, bytes)(
                ticks.requests_of({"count": 100_000})[0], timeout=60
            )
            assert ticks.value_of(next(call)) == {"value": "0"}
            call.cancel()
        # The program's one place is free for the next.
        assert invoke(address, found["Fine"], {"text": "b"})[0] == {"value": "B"}
        with pytest.raises(grpc.RpcError) as unfit:
            invoke(address, found["Fine"], {})
        assert unfit.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with grpc.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as unknown:
                channel.unary_unary("/openresource.gone.Gone/Call")(b"", timeout=60)
            assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_programs_that_speak_grpc_are_called_by_json_and_by_grpc(scene: Scene) -> None:
    scene.publish(EXAMPLES / "hello-grpc")
    with scene.client() as client:
        assert client.call("hello-grpc", "Greet", name="Bo").value == {
            "greeting": "Hello, Bo.",
            "letters": "2",
        }
        several = [one["greeting"] for one in client.stream("hello-grpc", "Count", name="Bo", times=2)]
        assert several == ["Hello 1, Bo", "Hello 2, Bo"]
        with pytest.raises(Refusal, match="a name is needed"):
            client.call("hello-grpc", "Greet")
        (placement,) = next(one for one in client.services() if one.choice.name == "hello-grpc").placements
        host = placement.endpoint.partition("://")[2].rpartition(":")[0]
        certificate = ssl.get_server_certificate((host, int(placement.endpoint.rpartition(":")[2])))
        credentials = grpc.ssl_channel_credentials(certificate.encode())
        with grpc.secure_channel(f"{host}:{placement.grpc}", credentials) as channel:
            with pytest.raises(grpc.RpcError) as unpaid:
                channel.unary_unary("/hello.Greeter/Greet")(b"\x0a\x02Bo", timeout=60)
            assert unpaid.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with door(scene) as (url, address):
        found = rpcs(url, "hello-grpc")
        with grpc.insecure_channel(address) as channel:
            together = found["Together"]
            call = channel.stream_unary(together.path, together.input_class.SerializeToString, bytes)
            several = together.requests_of({"requests": [{"name": "Ada"}, {"name": "Bo"}]})
            answer = call(iter(several), timeout=60)
            assert together.value_of(answer)["greeting"] == "Hello, Ada and Bo."
        assert invoke(address, found["Greet"], {"name": "Cy", "mood": "MERRY"})[0]["greeting"] == "Hello, Cy!"
        assert len(invoke(address, found["Count"], {"name": "Cy", "times": 4})[0]) == 4


def test_programs_are_sold_at_the_providers_own_grpc_door(scene: Scene) -> None:
    with scene.client() as client:
        # Its channel is open, and its purse is at hand.
        first = client.call("shout-it", "fine", text="a")
        choice = client.services()
        listing = next(one for one in choice if one.choice.name == "shout-it")
        (placement,) = listing.placements
        assert placement.grpc > 0
        host = placement.endpoint.partition("://")[2].rpartition(":")[0]
        unchecked = ssl._create_unverified_context()
        page = (
            f"{placement.endpoint}/services/{listing.choice.service}/{listing.choice.program}/interface.proto"
        )
        with urllib.request.urlopen(page, context=unchecked, timeout=30) as answer:
            assert b"service ShoutIt {" in answer.read()
        assert scene.provider.facts["grpc_port"] == placement.grpc
        certificate = ssl.get_server_certificate((host, int(placement.endpoint.rpartition(":")[2])))
        credentials = grpc.ssl_channel_credentials(certificate.encode())
        interface = asyncio.run(interface_of(scene, listing.choice.program))
        rpc = next(one for one in mapped_methods("shout-it", interface) if one.method == "fine")
        ticks = next(one for one in mapped_methods("shout-it", interface) if one.method == "ticks")
        with grpc.secure_channel(f"{host}:{placement.grpc}", credentials) as channel:
            with pytest.raises(grpc.RpcError) as unpaid:
                channel.unary_unary(rpc.path)(rpc.request_of({"text": "b"}), timeout=60)
            assert unpaid.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            told = dict(unpaid.value.trailing_metadata())
            envelope = json.loads(base64.b64decode(told["payment-required"]))
            assert envelope["accepts"][0]["extra"]["price"]["total_uain"] == first.price_uain

            for method, value, wanted in ((rpc, {"text": "b"}, ["B"]), (ticks, {"count": 3}, [0, 1, 2])):
                metadata, check = paid_call(client, first.receipt["channel"], placement)
                for _ in range(2):
                    # The second time it is the same call: the same answer, the same receipt, no second price.
                    call = channel.unary_stream(method.path)(
                        method.request_of(value), metadata=metadata, timeout=60
                    )
                    found = [method.answer_of(part) for part in call]
                    assert found == wanted
                    receipt = dict(call.trailing_metadata())["openresource-receipt"]
                    lines = b"".join(canonical(one) + b"\n" for one in found)
                    check(receipt, canonical(value), lines if method.streams else canonical(found[0]))
            metadata, _ = paid_call(client, first.receipt["channel"], placement)
            call = channel.unary_stream(ticks.path)(
                ticks.request_of({"count": 100_000}), metadata=metadata, timeout=60
            )
            assert ticks.answer_of(next(call)) == 0
            call.cancel()
        # Its place is free, and the purse hears from the gateway what the cancelled call cost.
        assert client.call("shout-it", "fine", text="c").value == "C"


async def interface_of(scene: Scene, program: str) -> Interface:
    async with scene.node.chain() as chain:
        return await Directory(chain).interface(program)


def paid_call(client: Client, channel: str, placement: Any) -> tuple[list[tuple[str, str]], Any]:
    """The metadata of a call that a purse pays for, and a check of its receipt."""
    calls = client._run(client.asynchronous.calls())
    held = calls._channels.hold(channel)
    started = held.start()
    metadata = [("openresource-session", started.session_header)]
    network = calls._network
    if started.voucher is not None:
        header = payment_header(started.voucher, placement.provider, started.price_uain, network)
        metadata.append(("payment-signature", header))

    def check(text: str, asked: bytes, answered: bytes) -> None:
        record = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        receipt = receipt_from_json(record)
        digest = check_receipt(
            receipt,
            network,
            provider=placement.provider,
            channel=channel,
            nonce=started.nonce,
            session=started.session,
            sequence=started.sequence,
            program=receipt.program,
            price_uain=started.price_uain,
            input_body=asked,
            output_body=answered,
        )
        held.count(started.sequence, receipt, digest)
        held.delivered(started)

    return metadata, check
