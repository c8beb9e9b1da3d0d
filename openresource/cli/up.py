"""`up`: the whole network on this machine, shown at work, then left running."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from openresource.cli.output import json_option
from openresource.cli.session import run
from openresource.primitives.amounts import text_from_uain

ANSWER_CHARACTERS_MAX = 400
PORT_MAX = 65_535 - 20


@click.command(
    epilog="""\b
Example:  openresource up
          openresource up --once --json | tail -1
          openresource up --examples examples --port 9000
\b
Ports:    N the chain · N+1 pages · N+2 plain address for curl and stock clients · N+10 to N+12 providers
Exit codes: 0 ended by Ctrl-C, or with --once after the journey · 1 refused (port or home in use) or a step failed
            2 wrong usage · 4 nobody ran a service in time · 130 interrupted before everything stood"""
)
@click.option(
    "--port", type=click.IntRange(1, PORT_MAX), default=8080, show_default=True, help="N: the chain's port."
)
@click.option("--host", help="Address for chain, pages and the plain address. Default: this machine only.")
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    help="Folder of the network. Default: ~/.openresource/local, with --once a fresh one that is removed.",
)
@click.option(
    "--examples",
    type=click.Path(exists=True, file_okay=False),
    multiple=True,
    help="A folder with a program, or with several, to publish and call as well.",
)
@click.option("--once", is_flag=True, help="End after the journey.")
@json_option
def up(
    port: int, host: str | None, home: str | None, examples: tuple[str, ...], once: bool, as_json: bool
) -> None:
    """Start a chain, three providers and a plain address here; publish, call and settle for real; stay until Ctrl-C.

    The third provider lies about jobs: it is caught, judged by others, and pays with its bond.
    """
    if home is not None:
        folder, is_temporary = Path(home).expanduser().absolute(), False
    elif once:
        folder, is_temporary = Path(tempfile.mkdtemp(prefix="openresource-up-")), True
    else:
        folder, is_temporary = Path("~/.openresource/local").expanduser(), False
    try:
        run(Up(folder, port, host, [Path(one) for one in examples], as_json).run(once=once))
    finally:
        if is_temporary:
            shutil.rmtree(folder, ignore_errors=True)


class Up:
    """One run of the whole network."""

    def __init__(
        self, folder: Path, port: int, host: str | None, examples: Sequence[Path], as_json: bool
    ) -> None:
        self._folder = folder
        self._port = port
        self._host = host
        self._examples = examples
        self._as_json = as_json
        self._record: dict[str, Any] = {}

    def _say(self, text: str) -> None:
        # With --json standard output belongs to the summary.
        click.echo(text, err=self._as_json)

    async def run(self, *, once: bool) -> None:
        """Start, walk the journey, say what to try, stay; whatever happens, end everything in order."""
        from openresource.cli.local import Local, Ports, Story
        from openresource.cli.tours import find_tours

        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        tours = find_tours([samples_folder(), *self._examples])
        story = Story(self._say)
        local = Local(self._folder, Ports(self._port), tours, story, host=self._host)
        self._say(f"Open Resource on this machine, in {self._folder}\n")
        try:
            journey = asyncio.create_task(self._journey(local, story))
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait((journey, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not journey.done():
                journey.cancel()
                await asyncio.gather(journey, return_exceptions=True)
                raise KeyboardInterrupt
            published: list[Any] = journey.result()
            if not once:
                self._closing_words(local, published)
                watching = asyncio.create_task(local.supervisor.watch())
                await asyncio.wait((watching, stopped), return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()
                watching.cancel()
                self._say("\nEnding: calls in flight end, channels are settled, the chain is closed …")
        finally:
            await local.stop()
        if self._as_json:
            click.echo(json.dumps(self._record, ensure_ascii=False))

    async def _journey(self, local: Any, story: Any) -> list[Any]:
        from openresource.cli.publication import choose_bench

        async def preparing() -> Any:
            return await local.prepare(await asyncio.to_thread(choose_bench))

        async def publishing() -> Any:
            prepared = await story.step("programs tried here", trial, _tried_text)
            return await story.step("published, placed, tested", local.publish(prepared), _placed_text)

        # Programs are tried while the processes start, and published while the doors open: neither needs the other.
        trial = asyncio.create_task(preparing())
        await _together(local.start(), background=trial)
        _, found = await _together(local.ready(), publishing(), background=trial)
        published: list[Any] = found
        await story.step("money", local.fund(), str)
        before, supply_before = await local.balances(), await local.supply_uain()
        for one in published:
            for shown in one.tour.calls:
                self._say(f"\n  {one.tour.title}\n    {_shown_call(one, shown)}")
                await story.step(f"call {one.prepared.manifest.name}", local.call(one, shown), _answer_text)
        for one in published:
            if one.tour.trigger is not None:
                self._say(
                    f"\n  A write that starts a program: {json.dumps(one.tour.trigger.value, ensure_ascii=False)}"
                )
                await story.step("program started by a write", local.trigger(one), _trigger_text)
                break
        caught = None
        for one in published:
            if one.tour.job is not None:
                self._say(f"\n  A job that others check: {one.tour.job.say}")
                caught = await story.step("a liar is caught", local.catch(one), _caught_text)
                break
        self._say("")
        await story.step("claims on the chain", local.settle(), _settled_text)
        after, supply_after = await local.balances(), await local.supply_uain()
        self._balances(before, after, supply_before, supply_after)
        self._record = {
            "steps": [
                {"name": step.name, "milliseconds": step.milliseconds, "detail": step.detail}
                for step in story.steps
            ],
            "balances": {"before": before, "after": after},
            "supply": {"before": supply_before, "after": supply_after},
            "liar": None if caught is None else caught.to_json(),
            "wall_seconds": round(story.wall_seconds, 3),
        }
        assert supply_before == supply_after, "no coin is made or lost by trade"
        return published

    def _balances(
        self, before: dict[str, int], after: dict[str, int], supply_before: int, supply_after: int
    ) -> None:
        self._say("\n  Who was paid (AIN)           before          after         change")
        for name, uain in after.items():
            change = text_from_uain(uain - before[name])
            sign = "+" if uain > before[name] else ""
            self._say(
                f"    {name:<14}{text_from_uain(before[name]):>18}{text_from_uain(uain):>15}{sign + change:>15}"
            )
        same = "the same as before" if supply_before == supply_after else "NOT the same as before"
        self._say(f"    all coins, every holder counted: {text_from_uain(supply_after)} AIN, {same}")

    def _closing_words(self, local: Any, published: Sequence[Any]) -> None:
        from openresource.cli.local import address_of_this_machine

        host = "127.0.0.1" if self._host is None else address_of_this_machine()
        lines = ["\n  It runs. Try:"]
        calls = [(one, call) for one in published for call in one.tour.calls]
        if calls:
            # The shortest input, as these lines are for copying.
            one, call = min(calls, key=lambda pair: len(json.dumps(dict(pair[1].input))))
            name = one.prepared.manifest.name
            body = json.dumps(dict(call.input), ensure_ascii=False)
            url = f"http://{host}:{local.ports.connect}/{name}/{call.method}"
            lines.append(f"    {_http_line(url, body)}")
            home = local.buyer.folder
            keywords = ", ".join(f"{key}={value!r}" for key, value in call.input.items())
            code = f'from openresource import Client; print(Client("{home}").call("{name}", "{call.method}", {keywords}).value)'
            lines.append(f"    {sys.executable} -c {_quoted(code)}")
        jobs = [one for one in published if one.tour.job is not None]
        if jobs:
            lines.append(f"    openresource job list --home {local.buyer.folder}   (and job explain ID)")
        pages_url = local.pages_url.replace("127.0.0.1", host, 1)
        lines.append(f"    {pages_url}   (pages; the link spends from the buyer's wallet)")
        lines += [
            "",
            "  Simulated: all wallets and all providers are yours, on one machine; the coins are those of a local network.",
            "  Provider 3 tells the truth in calls and lies about jobs, on purpose; it runs only what shows how that ends.",
            "  Real: the chain, its rules and blocks; sandboxes; TLS pinned on the chain; vouchers, receipts, claims and balances.",
            f"  The buyer's home, for other terminals: export OPENRESOURCE_HOME={local.buyer.folder}",
            "  Programs of your own, with that home: openresource provide in one terminal, openresource publish FOLDER in another.",
        ]
        if self._host is None and _is_in_container():
            lines.append(
                f"  This is a container: start it with --host 0.0.0.0 and publish the ports {local.ports.node} to "
                f"{local.ports.connect} to reach it from outside."
            )
        lines.append("  Ctrl-C ends everything in order.")
        self._say("\n".join(lines))


async def _together(*works: Any, background: Any) -> list[Any]:
    """All at once; the first that fails ends the others, and what goes on in the background as well."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in (*tasks, background):
            task.cancel()
        await asyncio.gather(*tasks, background, return_exceptions=True)
        raise


def samples_folder() -> Path:
    """The programs that come with the package."""
    import openresource

    return Path(openresource.__file__).parent / "samples"


def _tried_text(prepared: Sequence[Any]) -> str:
    return ", ".join(f"{one.manifest.name} ({one.level})" for one in prepared)


def _placed_text(published: Sequence[Any]) -> str:
    parts = []
    for one in published:
        placement = one.placed.placement
        total_uain = placement.ask_uain + one.prepared.manifest.royalty_uain
        parts.append(f"{one.prepared.manifest.name} at {text_from_uain(total_uain)} AIN")
    return ", ".join(parts)


def _shown_call(one: Any, shown: Any) -> str:
    said = f"{shown.say}: " if shown.say else ""
    return said + _clipped(json.dumps(dict(shown.input), ensure_ascii=False))


def _answer_text(answer: Any) -> str:
    return (
        f"{_clipped(json.dumps(answer.value, ensure_ascii=False, default=str))}\n"
        f"           {answer.price} AIN to {answer.provider} ({answer.isolation}), {answer.milliseconds:.0f} ms, "
        f"receipt {answer.receipt_id}"
    )


def _trigger_text(done: Any) -> str:
    return (
        f"{_clipped(json.dumps(done.result, ensure_ascii=False, default=str))}\n"
        f"           written at {done.path}, result at {done.result_path}, job {done.job}, "
        f"{text_from_uain(done.paid_uain)} AIN to {done.provider}"
    )


def _caught_text(caught: Any) -> str:
    story = caught.story
    margin = " " * 11
    lines = [f"job {story.job}, {story.policy}"]
    if caught.provisional is not None:
        value = _clipped(json.dumps(caught.provisional.value, ensure_ascii=False))
        lines.append(f"provisional after {caught.provisional_ms} ms, checked by nobody yet: {value}")
    lines.append(f"verdict after {caught.verdict_ms} ms: {story.headline}")
    for one in story.runs:
        slashed = f"; it lost {text_from_uain(one.slashed_uain)} AIN of its bond" if one.slashed_uain else ""
        lines.append(f"  {one.role:<8} {one.provider}  {one.mark:<9} {one.sentence}{slashed}")
    if caught.result is not None:
        lines.append(f"right is: {_clipped(json.dumps(caught.result.value, ensure_ascii=False))}")
    lines.append(
        f"paid {text_from_uain(story.paid_uain)} AIN; anybody checks it: openresource job explain {story.job}"
    )
    return f"\n{margin}".join(lines)


def _settled_text(closed: Sequence[dict[str, Any]]) -> str:
    back_uain = sum(record["returned_uain"] for record in closed)
    return (
        f"{len(closed)} channels settled, {text_from_uain(back_uain)} AIN of deposits returned to the buyer"
    )


def _clipped(text: str) -> str:
    return text if len(text) <= ANSWER_CHARACTERS_MAX else text[:ANSWER_CHARACTERS_MAX] + "…"


def _http_line(url: str, body: str) -> str:
    """A line that calls a service over plain HTTP with what this machine has."""
    if shutil.which("curl"):
        return f"curl {url} -d {_quoted(body)}"
    code = f"import urllib.request as u; print(u.urlopen({url!r}, {body!r}.encode()).read().decode())"
    return f"{sys.executable} -c {_quoted(code)}"


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _is_in_container() -> bool:
    return os.getpid() == 1 or Path("/.dockerenv").exists()
