"""`init` and `check`: begin a service in a folder, and try it without publishing anything."""

import ast
import re
from pathlib import Path

import click

from openresource.cli.output import json_option, show
from openresource.cli.session import run
from openresource.market.services import is_service_name
from openresource.primitives.errors import Refusal

CANDIDATES = ("service.py", "main.py", "app.py", "predict.py")
SOURCE_BYTES_MAX = 1024 * 1024
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")

MANIFEST = """\
name = "{name}"
version = "0.1.0"
summary = "{summary}"
license = "Apache-2.0"
royalty = "0.0001"        # what you earn of every call, in AIN

[run]
kind = "python"
entry = "{entry}"

[resources]
memory = "256Mi"
timeout_s = 30
"""
METHOD = """
[[methods]]
name = "{method}"
example = {{input = {{text = "hello"}}}}      # every provider tries this first
price = {{model = "per_call", amount = "0.001"}}
"""
SERVICE = '''\
"""A service: each public method can be called; its types are its interface."""


class Service:
    """Loaded once and kept warm; put what takes long into `setup`."""

    def setup(self) -> None:
        """Runs once, before the first call."""
        self.suffix = "!"

    def shout(self, text: str, times: int = 1) -> str:
        """Say it louder."""
        return (text.upper() + self.suffix) * times
'''


class ManifestExists(Refusal):
    template = "{file} exists already."
    way_out = "Change it as you like and try it: openresource check {folder}"


class NameUnusable(Refusal):
    template = "{name} cannot be made into the name of a service."
    way_out = "Give one with --name: lower-case letters, digits and hyphens."


@click.command(
    epilog="""\b
Example:  openresource init ./my-service
          openresource check ./my-service && openresource publish ./my-service
\b
Exit codes: 0 written · 1 refused (nothing is overwritten) · 2 wrong usage"""
)
@click.argument("folder", type=click.Path(file_okay=False), default=".")
@click.option("--name", help="The service's name. Default: the folder's.")
@json_option
def init(folder: str, name: str | None, as_json: bool) -> None:
    """Write an openresource.toml into FOLDER: for the Python program that is there, else for a small one to change."""
    place = Path(folder)
    manifest = place / "openresource.toml"
    if manifest.exists():
        raise ManifestExists(file=str(manifest), folder=folder)
    chosen = name or _NOT_IN_NAMES.sub("-", place.resolve().name.lower()).strip("-")[:63]
    if not is_service_name(chosen):
        raise NameUnusable(name=name or place.resolve().name)
    place.mkdir(parents=True, exist_ok=True)
    found = find_entry(place)
    written = ["openresource.toml"]
    if found is None:
        (place / "service.py").write_text(SERVICE)
        written.append("service.py")
        text = MANIFEST.format(name=chosen, summary="Says it louder.", entry="service:Service")
        text += METHOD.format(method="shout")
    else:
        text = MANIFEST.format(name=chosen, summary="", entry=found)
    manifest.write_text(text)
    entry = found or "service:Service"
    show(
        {"folder": str(place), "name": chosen, "entry": entry, "written": written},
        as_json=as_json,
        text=f"Wrote {' and '.join(written)} in {place} (entry {entry}).\n"
        f"Try it:      openresource check {folder}\nPublish it:  openresource publish {folder}",
    )


@click.command(
    epilog="""\b
Example:  openresource check ./my-service
\b
Exit codes: 0 it would be published · 1 refused, with the reason · 2 wrong usage"""
)
@click.argument("folder", type=click.Path(file_okay=False), default=".")
@json_option
def check(folder: str, as_json: bool) -> None:
    """Read FOLDER as publish would, start the program in a sandbox, run its examples; nothing leaves this machine."""
    from openresource.cli.publish import publication_text, tried

    outcome = run(tried(folder, as_json=as_json))
    show(outcome, as_json=as_json, text=lambda: publication_text(outcome))


def find_entry(folder: Path) -> str | None:
    """The first public class or function of the first program file that is there."""
    for name in CANDIDATES:
        file = folder / name
        if not file.is_file() or file.stat().st_size > SOURCE_BYTES_MAX:
            continue
        try:
            body = ast.parse(file.read_bytes()).body
        except (SyntaxError, ValueError):
            continue
        for kinds in (ast.ClassDef, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in body:
                if isinstance(node, kinds) and not node.name.startswith("_"):
                    return f"{file.stem}:{node.name}"
    return None
