"""interface.json: what a service's methods take and give, from its manifest and from what its code says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openresource.market.manifest_tables import InvalidManifest
from openresource.market.manifests import METHODS_MAX, Manifest, Method
from openresource.market.schemas import InvalidSchema, check_schema
from openresource.sandbox.driver import ProgramDidNotStart

SUMMARY_CHARACTERS_MAX: Final = 300


def interface_of(manifest: Manifest, told: Mapping[str, Any]) -> dict[str, Any]:
    """The interface; `told` is what a program has said of itself, which a stranger wrote: a Python program by its types,
    a gRPC program by its descriptors, an HTTP program that declares nothing by its OpenAPI document, others nothing."""
    tells_all = manifest.run.tongue in ("python", "grpc")
    tells = tells_all or (manifest.run.tongue == "http" and bool(told.get("methods")))
    described = _described(told) if tells else {}
    listed = {method.name: method for method in manifest.methods}
    if tells_all:
        for number, name in enumerate(listed):
            if name not in described:
                raise InvalidManifest(
                    field=f"methods[{number}].name",
                    found=f'"{name}"',
                    expected=f"the program has {', '.join(described)}",
                )
    names = list(described) if tells_all else list({**listed, **described})
    return {"methods": [_method(name, listed.get(name), described.get(name, {})) for name in names]}


def _method(name: str, listed: Method | None, described: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": name,
        "path": listed.path if listed is not None else f"/{name}",
        "summary": (listed.summary if listed is not None else "") or described.get("summary", ""),
        "input": described.get("input", {}),
        "output": described.get("output", {}),
        "stream": bool(described.get("stream", False)),
    }
    if listed is None:
        return entry
    for part in ("input", "output", "example"):
        document = getattr(listed, part)
        if isinstance(document, Mapping):
            entry[part] = dict(document)
    entry["stream"] = entry["stream"] or listed.stream
    return entry


def _described(told: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A program's words about itself, checked."""
    methods = told.get("methods")
    if not isinstance(methods, list) or not 0 < len(methods) <= METHODS_MAX:
        raise ProgramDidNotStart(reason=f"it must have 1 to {METHODS_MAX} methods", stderr="")
    found: dict[str, Mapping[str, Any]] = {}
    for method in methods:
        if (
            not isinstance(method, dict)
            or not isinstance(method.get("name"), str)
            or len(method["name"]) > 64
        ):
            raise ProgramDidNotStart(reason="it described a method without a name", stderr="")
        try:
            check_schema(method.get("input", {}), field=f"{method['name']}.input")
            check_schema(method.get("output", {}), field=f"{method['name']}.output")
        except InvalidSchema as refusal:
            raise ProgramDidNotStart(reason=refusal.message, stderr="") from None
        summary = method.get("summary", "")
        found[method["name"]] = {
            "summary": str(summary)[:SUMMARY_CHARACTERS_MAX],
            "input": method.get("input", {}),
            "output": method.get("output", {}),
            "stream": method.get("stream") is True,
        }
    return found
