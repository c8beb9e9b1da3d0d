"""The shapes that stock OpenAI clients expect: a list of models, a completion as a stream, requests cut to a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from openresource.client.services import Listing
from openresource.primitives.errors import Refusal

STREAM_END: Final = b"data: [DONE]\n\n"
MODEL: Final = "model"

Found = TypeVar("Found", bound=tuple[Listing, Any])


class NoSuchModel(Refusal):
    template = "No service called {model} has the path {path}; there are: {known}."
    way_out = "Name one of them as model, or publish a service with a method at that path."


def model_list(listings: Sequence[Listing]) -> dict[str, Any]:
    """What GET /v1/models answers."""
    return {
        "object": "list",
        "data": [
            {
                "id": listing.choice.name,
                "object": MODEL,
                "created": listing.choice.version.published_at_ms // 1000,
                "owned_by": listing.choice.publisher,
            }
            for listing in listings
        ],
    }


def chosen_model(found: Sequence[Found], model: Any, path: str) -> Found:
    """The service that a request's `model` names; without one, the only service there is."""
    named = [one for one in found if model in (one[0].choice.name, one[0].choice.service)]
    if len(named) == 1:
        return named[0]
    if model in (None, "", "default") and len(found) == 1:
        return found[0]
    known = ", ".join(one[0].choice.service if len(named) > 1 else one[0].choice.name for one in found)
    raise NoSuchModel(model=str(model or "(none named)"), path=path, known=known or "none")


def fitting(body: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The members that a method knows, and the names of those it does not; clients send many it never heard of."""
    if schema.get("additionalProperties", True) is not False:
        return dict(body), []
    known = schema.get("properties") or {}
    kept = {name: value for name, value in body.items() if name in known}
    return kept, [name for name in body if name not in known]


def stream_of_completion(completion: Any) -> bytes:
    """A whole chat completion as the stream that a client asked for, for services that answer at once."""
    record = completion if isinstance(completion, dict) else {}
    head = {name: record.get(name) for name in ("id", "created", MODEL)}
    events = []
    for choice in record.get("choices") or []:
        message = choice.get("message") or {}
        first = {"role": message.get("role", "assistant"), "content": message.get("content", "")}
        for delta, reason in ((first, None), ({}, choice.get("finish_reason") or "stop")):
            chunk = {
                **head,
                "object": "chat.completion.chunk",
                "choices": [{"index": choice.get("index", 0), "delta": delta, "finish_reason": reason}],
            }
            events.append(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n")
    return b"".join(events) + STREAM_END
