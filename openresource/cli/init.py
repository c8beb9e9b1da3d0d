"""`init` and `check`: begin a service in a folder, and try it without publishing anything."""

import re
from pathlib import Path

import click

from openresource.cli.output import json_option, show
from openresource.cli.session import run
from openresource.market.manifests import parse_manifest
from openresource.market.services import is_service_name
from openresource.primitives.errors import Refusal

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_NAME_LINE = re.compile(r'^name = ".*"$', re.MULTILINE)
# Files that say nothing of a program: a folder with no others is begun anew.
ASIDE = ("README", "LICENSE", "LICENCE", ".")

MANIFEST = """\
name = "{name}"
version = "0.1.0"
summary = "Says it louder."
license = "Apache-2.0"
royalty = "0.0001"        # what you earn of every call, in AIN

[run]
kind = "python"
entry = "service:Service"

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
    """Write an openresource.toml into FOLDER: for the program that is there, else for a small one to change.

    What is there is recognised by its files, in any language; see docs/programs.md for the order. Nothing that lies
    there is changed, and nothing is run.
    """
    from openresource.builds.detection import Detected
    from openresource.cli.detecting import detect_folder

    place = Path(folder)
    manifest = place / "openresource.toml"
    if manifest.exists():
        raise ManifestExists(file=str(manifest), folder=folder)
    chosen = name or _NOT_IN_NAMES.sub("-", place.resolve().name.lower()).strip("-")[:63].strip("-")
    if not is_service_name(chosen):
        raise NameUnusable(name=name or place.resolve().name)
    is_empty = not place.is_dir() or all(one.name.upper().startswith(ASIDE) for one in place.iterdir())
    detected: Detected | None = None if is_empty else detect_folder(place)
    if detected is None:
        text = MANIFEST.format(name=chosen) + METHOD.format(method="shout")
        files = {"service.py": SERVICE.encode()}
    else:
        text = _NAME_LINE.sub(f'name = "{chosen}"', detected.manifest_text, count=1)
        files = dict(detected.files)
    place.mkdir(parents=True, exist_ok=True)
    taken = next((name for name in files if (place / name).exists()), "")
    if taken:
        raise ManifestExists(
            file=str(place / taken), folder=folder, remedy=f"Move {taken} away, then begin again."
        )
    for path, content in {"openresource.toml": text.encode(), **files}.items():
        # Never over what is there, even if it has just appeared.
        with open(place / path, "xb") as file:
            file.write(content)
    found = parse_manifest(text)
    written = ["openresource.toml", *files]
    because = detected.because if detected is not None else "A small one to begin with."
    remarks = list(detected.remarks) if detected is not None else []
    show(
        {"folder": str(place), "name": chosen, "kind": found.run.kind, "language": found.build.language,
         "entry": found.run.entry, "command": list(found.run.command), "because": because, "remarks": remarks,
         "written": written},
        as_json=as_json,
        text="\n".join([
            f"Wrote {' and '.join(written)} in {place}: {found.run.kind}. {because}",
            *(f"  {remark}" for remark in remarks),
            f"Try it:      openresource check {folder}",
            f"Publish it:  openresource publish {folder}",
        ]),
    )  # fmt: skip


@click.command(
    epilog="""\b
Example:  openresource check ./my-service
\b
Exit codes: 0 it would be published · 1 refused, with the reason · 2 wrong usage"""
)
@click.argument("folder", type=click.Path(file_okay=False), default=".")
@json_option
def check(folder: str, as_json: bool) -> None:
    """Say what publishing FOLDER would do, then build it, start it in a sandbox and run its examples.

    Nothing leaves this machine but what a build fetches from package registries. A program without examples gets a
    call that does no harm, where its kind has one.
    """
    from openresource.cli.checking import check_text, checked

    outcome = run(checked(folder, as_json=as_json))
    show(outcome, as_json=as_json, text=lambda: check_text(outcome))
