"""Stock OpenAI clients: which service a request means, what of it is passed on, and how an answer becomes a stream."""

from __future__ import annotations

import json

import pytest

from openresource.client.openai_shapes import (
    STREAM_END,
    NoSuchModel,
    chosen_model,
    fitting,
    model_list,
    stream_of_completion,
)
from openresource.client.services import Choice, Listing
from openresource.market.services import Permissions, Version

VERSION = Version("bafy", "1.0.0", "call", 0, None, "MIT", "Chats.", "text", "tolerant", 1, 1, 5_000)
ADA, BOB = "0x" + "a" * 40, "0x" + "b" * 40


def listing(name: str, publisher: str = ADA) -> tuple[Listing, str]:
    return Listing(Choice(publisher, name, VERSION), 1, Permissions(), (), ()), "method"


def test_a_model_is_a_services_name_or_its_full_name() -> None:
    found = [listing("chat"), listing("poet"), listing("poet", BOB)]
    assert chosen_model(found, "chat", "/p")[0].choice.name == "chat"
    assert chosen_model(found, f"{BOB}/poet", "/p")[0].choice.publisher == BOB
    with pytest.raises(NoSuchModel, match=BOB):
        chosen_model(found, "poet", "/p")


@pytest.mark.parametrize("model", [None, "", "default"])
def test_without_a_model_the_only_service_is_meant(model: str | None) -> None:
    assert chosen_model([listing("chat")], model, "/p")[0].choice.name == "chat"
    with pytest.raises(NoSuchModel, match="chat, poet"):
        chosen_model([listing("chat"), listing("poet")], model, "/p")


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(NoSuchModel, match="there are: chat"):
        chosen_model([listing("chat")], "gpt-x", "/p")


def test_models_are_listed_as_clients_expect() -> None:
    listed = model_list([listing("chat")[0]])
    assert listed["data"] == [{"id": "chat", "object": "model", "created": 5, "owned_by": ADA}]


def test_members_that_a_method_does_not_know_are_left_out_and_named() -> None:
    schema = {"properties": {"messages": {}}, "additionalProperties": False}
    assert fitting({"messages": [], "top_p": 1, "stream": True}, schema) == (
        {"messages": []},
        ["top_p", "stream"],
    )
    assert fitting({"x": 1}, {}) == ({"x": 1}, [])
    assert fitting({"x": 1}, replace_all(schema, True)) == ({"x": 1}, [])


def replace_all(schema: dict[str, object], others: bool) -> dict[str, object]:
    return {**schema, "additionalProperties": others}


def test_a_whole_completion_becomes_the_stream_that_was_asked_for() -> None:
    completion = {
        "id": "c1",
        "created": 7,
        "model": "chat",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}
        ],
    }
    raw = stream_of_completion(completion)
    assert raw.endswith(STREAM_END)
    chunks = [json.loads(event[6:]) for event in raw.split(b"\n\n") if event.startswith(b"data: {")]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": "Hi"}, {}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert stream_of_completion("nonsense") == STREAM_END
