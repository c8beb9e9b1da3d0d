"""The stage of compositions: samples of the package on a network, and programs that call them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.journeys.kinds_stage import Scene, kinds_stage

ROOT = Path(__file__).resolve().parents[2]
SCRUB_UAIN, GIST_UAIN = 400, 500

HEAD = """
name = "{name}"
summary = "Has gist say it."
license = "MIT"
[run]
{run}
[resources]
memory = "128Mi"
concurrency = 4
[calls]
services = ["gist"]
[[methods]]
name = "say"
input = {{type = "object", properties = {{text = {{type = "string"}}}}, required = ["text"]}}
price = {{model = "per_call", amount = "0.0001"}}
"""


@contextmanager
def composition_stage(folder: Path, *samples: str) -> Iterator[Scene]:
    """Everybody, with some of the package's samples published."""
    with kinds_stage(folder) as scene:
        for sample in samples:
            scene.publish(ROOT / "openresource" / "samples" / sample)
        yield scene


def words(scene: Scene) -> tuple[str, ...]:
    return "--home", str(scene.buyer.folder), "--node", scene.node.url


def publish(scene: Scene, name: str, run: str, source: str, head: str = HEAD) -> None:
    folder = scene.folder / name
    folder.mkdir()
    (folder / "openresource.toml").write_text(head.format(name=name, run=run))
    (folder / "program.py").write_text(source)
    scene.publish(folder)


def spent_uain(scene: Scene) -> int:
    with scene.client() as client:
        return client.asynchronous.books.spent_uain(0)
