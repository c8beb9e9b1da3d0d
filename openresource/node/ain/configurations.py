"""AI Network's own configurations by name: parameters, the blocks at which changes come into force, and their writes."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from openresource import protocol
from openresource.ledger.profile import Network
from openresource.primitives.errors import Refusal


class NetworkUnknown(Refusal):
    template = "There is no configuration named {name}."
    way_out = "Name one of {known}."


@cache
def _document() -> dict[str, Any]:
    text = files("openresource.node.ain").joinpath("data", "networks.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def network_names() -> tuple[str, ...]:
    """The names of the configurations."""
    return tuple(_document()["networks"])


def configuration_of(name: str) -> dict[str, Any]:
    """`blockchain_params`, `timer_flags`, and the `genesis_hash` of a public network."""
    networks = _document()["networks"]
    if name not in networks:
        raise NetworkUnknown(name=name, known=", ".join(networks))
    configuration: dict[str, Any] = networks[name]
    return configuration


def bandages() -> dict[str, Any]:
    """The writes with which changes of the protocol come into force, by the name of the change."""
    found: dict[str, Any] = _document()["bandages"]
    return found


def network_of(name: str) -> Network:
    """The network of a configuration."""
    return protocol.ain_network(name, configuration_of(name), bandages())


def genesis_hash_of(name: str) -> str:
    """The hash of a public network's first block; empty for networks that everybody may begin anew."""
    return str(configuration_of(name).get("genesis_hash", ""))
