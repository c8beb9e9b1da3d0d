"""Pages about votes, reports, lineage and reputation: what they say, and that nobody's words become markup."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from openresource.client.chain import Chain, set_value
from openresource.client.kills import ask_for_vote, give_vote, make_report
from openresource.client.stakes import add_to_stake
from openresource.market.erc8004 import REGISTRATION_TYPE
from openresource.market.kills import KILL
from openresource.market.services import ForkSource, Version, version_record
from openresource.primitives.keys import PrivateKey, generate_key
from tests.support.network import NodeProcess, local_node_process
from tests.web.support import Page, visit

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"
PARAMETERS = {"market": {"kill_vote_ms": 600_000, "kill_deposit_uain": 1_000, "kill_stake_uain_min": 1_000}}


@dataclass
class Scene:
    node: NodeProcess
    publisher: PrivateKey
    forker: PrivateKey
    programs: list[str]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with local_node_process(tmp_path_factory.mktemp("node"), parameters=PARAMETERS) as node:
        yield asyncio.run(set_up(node))


async def set_up(node: NodeProcess) -> Scene:
    publisher, forker = generate_key(os.urandom(32)), generate_key(os.urandom(32))
    programs: list[str] = []
    async with Chain(node.url) as chain:
        for key in (publisher, forker):
            await node.fund(key.address, 1_000_000)
        for key, name in ((publisher, "source"), (forker, "fork")):
            method = {"name": name, "path": "/x", "input": {}, "output": {}}
            cid = await chain.put_files({"interface.json": json.dumps({"methods": [method]}).encode()})
            fork_of = ForkSource(publisher.address, "source", programs[0]) if programs else None
            version = Version(
                cid, "1.0.0", "call", 10, None, "MIT", "Does it.", "", "bit_exact", 70, fork_of=fork_of
            )
            record = {"publisher": key.address, "name": name, "bytes": 70}
            path = f"/services/{key.address}/{name}/versions/{cid}"
            await chain.submit_final(
                [set_value(f"/programs/{cid}", record), set_value(path, version_record(version))], key
            )
            programs.append(cid)
        renounced = f"/services/{publisher.address}/source/renounced"
        await chain.write(renounced, {"program": programs[0]}, publisher)
        await make_report(chain, forker, programs[0], HOSTILE)
        await add_to_stake(chain, publisher, 5_000)
        evidence = await chain.put_files({"proof": b"seen"})
        await ask_for_vote(chain, forker, programs[0], KILL, HOSTILE, evidence)
        await give_vote(chain, publisher, programs[0], "no")
    return Scene(node, publisher, forker, programs)


def looked_at(scene: Scene, home: Path, *paths: str) -> list[tuple[int, str, Page]]:
    async def run() -> list[tuple[int, str, Page]]:
        async with visit(home, scene.node.url) as here:
            found = [await here.get(path) for path in paths]
            return [(one.status_code, one.text, Page.of(one)) for one in found]

    return asyncio.run(run())


def test_pages_tell_where_a_service_comes_from_and_where_it_stands(scene: Scene, tmp_path: Path) -> None:
    source, fork = f"/services/{scene.publisher.address}/source", f"/services/{scene.forker.address}/fork"
    shown = looked_at(scene, tmp_path, source, fork, f"/programs/{scene.programs[0]}", "/services")
    for status, _, page in shown:
        assert status == 200
        page.check()
    first, second, program, services = (text for _, text, _ in shown)
    assert "nobody: it cannot change any more" in first and f'href="{fork}"' in first
    assert "Made from" in second and f'href="{source}?version={scene.programs[0]}"' in second
    assert ">unaudited<" in first and ">unaudited<" in services
    # Reasons are strangers' words.
    assert HOSTILE not in program and "&lt;script&gt;" in program and "To stop it" in program
    assert "Must be cast" in program and scene.publisher.address in program


def test_a_providers_reputation_is_a_page_and_files_in_the_form_of_erc_8004(
    scene: Scene, tmp_path: Path
) -> None:
    address = scene.publisher.address
    page, registration, feedback = looked_at(
        scene,
        tmp_path,
        f"/providers/{address.lower()}",
        f"/providers/{address}/registration.json",
        f"/providers/{address}/feedback.json",
    )
    assert page[0] == 200 and "Nobody has paid for its work yet." in page[1]
    page[2].check()
    found = json.loads(registration[1])
    assert found["type"] == REGISTRATION_TYPE and found["active"] is False
    assert found["services"][0]["endpoint"].endswith(f"/providers/{address}")
    assert json.loads(feedback[1]) == []


def test_what_is_not_there_is_said_so(scene: Scene, tmp_path: Path) -> None:
    shown = looked_at(
        scene, tmp_path, "/programs/nothing", "/providers/nobody", "/providers/0x12/feedback.json"
    )
    assert [status for status, _, _ in shown] == [404, 404, 404]
