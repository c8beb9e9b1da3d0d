"""Example services through a whole network: published by one, run by another, called and paid by a third."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from openresource.client.homes import Home
from tests.cli.support import funded_home, run_cli, serving
from tests.examples.support import EXAMPLES, NAMES, manifest_of, run_plain, runtime_of, same
from tests.examples.test_examples_services import samples_of
from tests.support.network import local_node_process

pytestmark = pytest.mark.journey

# A picture in, sound out, a graph; scripts/long examples takes them all.
SOME = ("graph", "ocr", "speak")
CHOSEN = NAMES if os.environ.get("OPENRESOURCE_EXAMPLES") == "all" else SOME
START_SECONDS_MAX = 180


@dataclass(frozen=True)
class Street:
    """A network with a provider that takes everything, and a buyer with coins."""

    folder: Path
    url: str
    buyer: Home


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    with local_node_process(folder / "node") as node:
        words = ("--json", "--accept", "all", "--home", str(folder / "provider"), "--node", node.url)
        with serving("provide", *words):
            yield Street(folder, node.url, funded_home(folder / "buyer", folder / "node", node.url))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHOSEN)
def test_an_example_is_published_called_and_paid(name: str, street: Street) -> None:
    runtime_of(name)
    plain = run_plain(name, name)
    publisher = Home(street.folder / f"publisher-{name}")
    publisher.create_wallet()
    where = ("--node", street.url, "--json")
    published = run_cli(
        "publish",
        str(EXAMPLES / name),
        "--home",
        str(publisher.folder),
        "--deadline",
        str(START_SECONDS_MAX),
        *where,
    )
    assert published.code == 0, published.err
    words = ("call", name, plain.method, "--input", "-", "--home", str(street.buyer.folder), *where)
    called = run_cli(*words, input=json.dumps(plain.input))
    assert called.code == 0, called.err
    same(samples_of(called.json["value"]) if name == "speak" else called.json["value"], plain.output)
    # The publisher's royalty is in the price, and the receipt names the service that was called.
    assert called.json["price_uain"] >= manifest_of(name).royalty_uain > 0
    assert called.json["receipt_id"]
