"""Which gRPC status says which refusal, and how a refusal travels with its way out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import grpc

from openresource.primitives.errors import Refusal

ERROR_KEY: Final = "openresource-error-bin"
ERROR_BYTES_MAX: Final = 6_000

_CODES: Final[Mapping[int, grpc.StatusCode]] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    402: grpc.StatusCode.FAILED_PRECONDITION,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    410: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code_of(http_status: int) -> grpc.StatusCode:
    """The code for what HTTP would say."""
    return _CODES.get(http_status, grpc.StatusCode.UNKNOWN)


def error_metadata(refusal: Mapping[str, Any]) -> tuple[str, bytes]:
    """The whole refusal, as trailing metadata."""
    data = json.dumps(refusal, ensure_ascii=False, default=str).encode()
    if len(data) > ERROR_BYTES_MAX:
        data = json.dumps({**refusal, "facts": {}}, ensure_ascii=False, default=str).encode()[
            :ERROR_BYTES_MAX
        ]
    return ERROR_KEY, data


class RpcUnknown(Refusal):
    template = "No service here has the rpc {path}."
    way_out = "See its .proto, interface.proto beside interface.json; name the service in openresource-service if several have it."


class TooManyServices(Refusal):
    template = "The rpc {path} belongs to several services: {services}."
    way_out = "Name one in the metadata openresource-service."
