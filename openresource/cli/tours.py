"""What `up` shows of a service: inputs that a person recognises, from the `demo.toml` beside its manifest.

title = "How does a short text feel?"
providers = [1, 2]                      which of the three providers run it; if it is left out, 1 and 2, and 3 for a job

[[calls]]
method = "analyze"
say = "A mixed review"
input = {text = "…"}                    or  input_file = "letter.json"

[trigger]                               a write that starts the program, and what is written
method = "analyze"
value = "…"

[job]                                   a run that is checked by others; the third provider lies about its result
method = "analyze"
say = "Who is right about this one?"
policy = "audited:1"
input = {text = "…"}
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.client.releases import DEMO_FILE
from openresource.market.jobs.policies import PolicyInvalid, read_policy
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

DEMO_BYTES_MAX: Final = 256 * 1024
CALLS_MAX: Final = 20
INPUT_BYTES_MAX: Final = 16 * 1024 * 1024
PROVIDERS: Final = (1, 2, 3)
# The last one tells the truth in calls and lies about jobs; it runs only what shows how that ends.
LIAR: Final = 3
HONEST: Final = (1, 2)


class TourInvalid(Refusal):
    template = "{file} cannot be used: {reason}."
    way_out = "See the form in another folder's demo.toml; a folder without one is only published."


@dataclass(frozen=True, slots=True)
class ShownCall:
    """A call that `up` makes: what it is about, and its input."""

    method: str
    say: str
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A value that is written to an app, and the method that the write starts."""

    method: str
    value: Any


@dataclass(frozen=True, slots=True)
class ShownJob:
    """A job that `up` asks for, with the policy by which its result is checked."""

    method: str
    say: str
    input: Mapping[str, Any]
    policy: str


@dataclass(frozen=True, slots=True)
class Tour:
    """One service of the journey."""

    folder: Path
    title: str
    providers: tuple[int, ...] = HONEST
    calls: tuple[ShownCall, ...] = ()
    trigger: Trigger | None = None
    job: ShownJob | None = None


def find_tours(folders: Sequence[Path]) -> list[Tour]:
    """The tours of all folders that hold a program; a folder of folders counts for what is in it."""
    found: list[Tour] = []
    for folder in folders:
        inner = (
            [folder] if _is_program(folder) else sorted(one for one in folder.iterdir() if _is_program(one))
        )
        if not inner:
            raise TourInvalid(file=str(folder), reason="it holds no program with an openresource.toml")
        found.extend(read_tour(one) for one in inner)
    return found


def read_tour(folder: Path) -> Tour:
    """The tour of one folder; without a demo.toml there is nothing to call."""
    file = folder / DEMO_FILE
    if not file.exists():
        return Tour(folder, folder.name)
    try:
        with file.open("rb") as opened:
            table = tomllib.loads(opened.read(DEMO_BYTES_MAX).decode())
        unknown = set(table) - {"title", "providers", "calls", "trigger", "job"}
        if unknown:
            raise TourInvalid(file=str(file), reason=f"{min(unknown)} is not known")
        trigger, job = table.get("trigger"), table.get("job")
        providers = tuple(table.get("providers", HONEST if job is None else PROVIDERS))
        if not providers or not set(providers) <= set(PROVIDERS):
            raise TourInvalid(file=str(file), reason="providers are 1, 2 and 3")
        return Tour(
            folder=folder,
            title=str(table.get("title", folder.name)),
            providers=providers,
            calls=tuple(_call(folder, entry) for entry in table.get("calls", [])[:CALLS_MAX]),
            trigger=None if trigger is None else Trigger(str(trigger["method"]), trigger["value"]),
            job=None if job is None else _job(folder, job),
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as problem:
        raise TourInvalid(file=str(file), reason=f"it is not of the form ({problem})") from None


def _call(folder: Path, entry: Mapping[str, Any]) -> ShownCall:
    given = entry.get("input")
    if given is None:
        content = (folder / str(entry["input_file"])).read_bytes()
        given = parse_json(content, bytes_max=INPUT_BYTES_MAX, depth_max=64)
    if not isinstance(given, dict):
        raise TourInvalid(file=str(folder / DEMO_FILE), reason="inputs are named")
    return ShownCall(str(entry["method"]), str(entry.get("say", "")), given)


def _job(folder: Path, entry: Mapping[str, Any]) -> ShownJob:
    call = _call(folder, entry)
    policy = str(entry.get("policy", "audited:1"))
    try:
        read_policy(policy)
    except PolicyInvalid as refusal:
        raise TourInvalid(file=str(folder / DEMO_FILE), reason=refusal.message) from None
    return ShownJob(call.method, call.say, call.input, policy)


def _is_program(folder: Path) -> bool:
    return (folder / "openresource.toml").is_file()
