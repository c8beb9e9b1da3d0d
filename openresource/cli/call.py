"""`call`: call a service, pay, check the receipt, print the answer."""

import base64
import json
import sys
from typing import Any

import click

from openresource.cli.inputs import Given, given
from openresource.cli.output import (
    Progress,
    dry_run_option,
    home_option,
    insist_option,
    json_option,
    json_text,
    network_node_option,
    note,
    plain,
    show,
    usage_error,
)
from openresource.cli.session import client_of, run
from openresource.market.allowances import DEPTH_DEFAULT, DEPTH_MAX, Allowance, checked_allowance
from openresource.primitives.amounts import text_from_uain, uain_from_text


@click.command(
    epilog="""\b
Example:  openresource call sentiment text="I like it"
          openresource call gist text=@letter.txt --max-price 0.01
          openresource call search search query="loans" passages:='["A bank", "A cat"]'
          openresource call chat stream prompt="Hello" --stream
          openresource call digest text=@letter.txt --allow 0.01
\b
Inputs:   key=value by the method's types · key=@file (@- is standard input) · key:=JSON · --input FILE
Exit codes: 0 answered and paid · 1 refused or failed (nothing was paid) · 2 wrong usage or inputs
            3 node or provider away · 4 deadline passed · 5 over a spending limit · 130 interrupted"""
)
@click.argument("service")
@click.argument("words", nargs=-1, metavar="[METHOD] [KEY=VALUE]...")
@click.option("--input", "input_file", help="A JSON object with all inputs; - is standard input.")
@click.option("--max-price", help="The most that this call may cost, in AIN.")
@click.option(
    "--allow", "allow", metavar="AIN", help="What its program may spend on calls of other services."
)
@click.option(
    "--depth",
    type=click.IntRange(0, DEPTH_MAX),
    default=DEPTH_DEFAULT,
    show_default=True,
    help="How many calls below each other the allowance reaches.",
)
@click.option(
    "--allow-service",
    "allowed",
    multiple=True,
    metavar="SERVICE",
    help="A service that it may be spent on; none named: any that is open to everyone.",
)
@click.option("--stream", is_flag=True, help="Print values as the program makes them.")
@click.option(
    "--deadline",
    "deadline_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@click.option("--why", is_flag=True, help="Say who was considered, with figures, and why this provider.")
@insist_option
@home_option
@network_node_option
@dry_run_option
@json_option
def call(
    service: str,
    words: tuple[str, ...],
    input_file: str | None,
    max_price: str | None,
    allow: str | None,
    depth: int,
    allowed: tuple[str, ...],
    stream: bool,
    deadline_seconds: float,
    why: bool,
    insist: bool,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Call SERVICE (name, publisher/name, either with @version), pay for it and check the receipt.

    The payment channel opens by itself, within your limits (openresource money). No answer, no pay. A service that calls
    others gets nothing for that without --allow.
    """
    if allowed and allow is None:
        usage_error("--allow-service says what an allowance may be spent on: give one with --allow AMOUNT.")
    allowance = None if allow is None else checked_allowance(uain_from_text(allow), depth, allowed)
    caller = Caller(
        service,
        given(words, input_file),
        max_price,
        deadline_seconds,
        as_json,
        says_why=why,
        insists=insist,
        allowance=allowance,
    )
    run(caller.run(home, node_url, stream=stream, dry_run=dry_run))


class Caller:
    """One call from its words to what is printed."""

    def __init__(
        self,
        service: str,
        words: Given,
        max_price: str | None,
        deadline_seconds: float,
        as_json: bool,
        *,
        says_why: bool = False,
        insists: bool = False,
        allowance: Allowance | None = None,
    ) -> None:
        self._allowance = allowance
        self._service = service
        self._method = words.method
        self._words = words
        self._max_price_uain = None if max_price is None else uain_from_text(max_price)
        self._deadline_seconds = deadline_seconds
        self._as_json = as_json
        self._says_why = says_why
        self._insists = insists
        self._progress = Progress(quiet=as_json)

    async def run(self, home: str | None, node_url: str | None, *, stream: bool, dry_run: bool) -> None:
        """Make the call, or only say what it would cost."""
        async with client_of(home, node_url) as client:
            calls = await client.calls()
            inputs = await self._inputs(client)
            plan = await calls.plan(
                self._service,
                self._method,
                inputs,
                max_price_uain=self._max_price_uain,
                deadline_seconds=self._deadline_seconds,
                progress=self._progress,
                insists=self._insists,
                allowance=self._allowance,
            )
            if self._allowance is None:
                await self._say_calls(client, plan)
            if dry_run:
                await self._say_price(client, plan)
                return
            try:
                if stream:
                    await self._stream(calls, plan)
                else:
                    self._print(await calls.call(plan))
            finally:
                if self._says_why and not self._as_json:
                    self._progress.clear()
                    for line in why_lines(plan.considered, plan.failed):
                        note(line)

    async def _say_calls(self, client: Any, plan: Any) -> None:
        """A service that calls others does less without an allowance, or nothing."""
        declared = (await client.directory.interface(plan.choice.program)).calls
        if declared is not None and not self._as_json:
            usual = (
                f"--allow {text_from_uain(declared.allowance_uain)}" if declared.allowance_uain else "--allow"
            )
            depth = f" --depth {declared.depth}" if declared.depth != DEPTH_DEFAULT else ""
            self._progress.clear()
            note(f"It calls {', '.join(declared.services)}, which you have not allowed: {usual}{depth}")

    async def _inputs(self, client: Any) -> dict[str, Any]:
        if self._words.file is not None:
            # A file is read without asking anybody what a method takes.
            return self._words.inputs({})
        choice = await client.directory.choose(self._service)
        interface = await client.directory.interface(choice.program)
        return self._words.inputs(interface.method(self._method, choice.service).input)

    async def _say_price(self, client: Any, plan: Any) -> None:
        choice, offers = await client.quote(self._service)
        if not offers:
            from openresource.client.calls import NoProvider

            raise NoProvider(service=choice.service, version=choice.version.version)
        placement, price = offers[0]
        considered = (await client.calls()).considered(choice, offers)
        limits = client.home.limits()
        allowed_uain = 0 if self._allowance is None else self._allowance.budget_uain
        record = {
            "service": choice.service,
            "version": choice.version.version,
            "method": plan.method.name,
            "provider": placement.provider,
            "isolation": placement.isolation,
            "price_uain": price.total_uain,
            "price": text_from_uain(price.total_uain),
            "allowance_uain": allowed_uain,
            "most_uain": price.total_uain + allowed_uain,
            "within_limits": price.total_uain <= limits.per_call_uain,
            "dry_run": True,
            "why": [one.to_json() for one in considered],
        }
        self._progress.clear()
        within = "within" if record["within_limits"] else "above"
        show(
            record,
            as_json=self._as_json,
            text=f"Would call {plan.method.name} of {choice.service} {choice.version.version} at {placement.provider} "
            f"for {record['price']} AIN ({within} your limit of {text_from_uain(limits.per_call_uain)} a call). "
            + (
                f"Its program may spend up to {text_from_uain(allowed_uain)} AIN more on others. "
                if allowed_uain
                else ""
            )
            + "Nothing was spent.",
        )
        if self._says_why and not self._as_json:
            for line in why_lines(considered, ()):
                note(line)

    async def _stream(self, calls: Any, plan: Any) -> None:
        from openresource.client.calls import Exchange
        from openresource.client.facade import values_of

        exchange = Exchange()
        is_text = False
        async for value in values_of(calls.stream(plan, exchange)):
            self._progress.clear()
            text = _text_of(value)
            if self._as_json or text is None:
                click.echo(json_text({"value": value} if self._as_json else value))
            else:
                is_text = True
                click.echo(_for_screen(text), nl=False)
        if is_text:
            click.echo()
        answer = exchange.answer
        assert answer is not None, "a stream that ends without a refusal has its answer"
        if self._as_json:
            click.echo(json.dumps({"receipt": answer.receipt, **_facts(answer), "why": answer.why}))
        else:
            note(_line(answer))

    def _print(self, answer: Any) -> None:
        self._progress.clear()
        if self._as_json:
            value = answer.value
            if isinstance(value, bytes):
                value = {"base64": base64.b64encode(value).decode(), "content_type": answer.content_type}
            show({"value": value, **_facts(answer), "why": answer.why}, as_json=True, text="")
            return
        if isinstance(answer.value, bytes):
            if sys.stdout.isatty():
                note(f"{len(answer.value)} bytes of {answer.content_type}: add  > FILE  to keep them.")
            else:
                sys.stdout.buffer.write(answer.value)
                sys.stdout.buffer.flush()
        elif isinstance(answer.value, str):
            click.echo(_for_screen(answer.value))
        else:
            click.echo(json_text(answer.value, indent=2))
        note(_line(answer))


def why_lines(considered: Any, failed: Any) -> list[str]:
    """Who could have been called, a line each, the one that was called first."""
    lines = []
    for one in considered:
        time = f"{one.latency_ms:.0f} ms" if one.latency_ms else "time unknown"
        wait = f", {one.wait_ms} ms of waiting" if one.wait_ms else ""
        reason = f" ({one.reason})" if one.reason else ""
        lines.append(
            f"  {one.verdict:<12} {one.provider}  cost {one.cost:.2f}: {text_from_uain(one.price_uain)} AIN, {time}{wait}, "
            f"{one.in_flight} of {one.capacity} places taken, {one.isolation}{reason}"
        )
    for one in failed:
        risk = f"; it may charge {text_from_uain(one.at_risk_uain)} AIN yet" if one.at_risk_uain else ""
        lines.append(f"  failed       {one.provider}  {one.reason}{risk}")
    return lines


def _for_screen(text: str) -> str:
    """An answer's text: untouched on its way to a file or a program, tamed where a person reads it."""
    return plain(text) if sys.stdout.isatty() else text


def _text_of(value: Any) -> str | None:
    """What of a streamed value is plain text; None if it is more than that."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        (only,) = value.values()
        return only if isinstance(only, str) else None
    return None


def _facts(answer: Any) -> dict[str, Any]:
    return {
        "price_uain": answer.price_uain,
        "price": answer.price,
        "provider": answer.provider,
        "service": answer.service,
        "version": answer.version,
        "isolation": answer.isolation,
        "milliseconds": round(answer.milliseconds, 1),
        "receipt_id": answer.receipt_id,
        "total_uain": answer.total_uain,
        "inner": [one.to_json() for one in answer.inner],
    }


def _line(answer: Any) -> str:
    line = (
        f"{answer.price} AIN to {answer.provider} ({answer.isolation}, {answer.milliseconds:.0f} ms), "
        f"receipt {answer.receipt_id}"
    )
    if not answer.inner:
        return line
    return "\n".join((line, *inner_lines(answer.inner), f"{answer.total} AIN in all"))


def inner_lines(results: Any, indent: str = "  ") -> list[str]:
    """What a program had others do for it, a line each, those below it further in."""
    lines = []
    for one in results:
        if one.answer is None:
            risk = f"; it may charge {text_from_uain(one.at_risk_uain)} AIN yet" if one.at_risk_uain else ""
            lines.append(f"{indent}└ {one.service}: no answer ({one.error.get('code', 'refused')}){risk}")
            continue
        answer = one.answer
        lines.append(
            f"{indent}└ {answer.price} AIN for {answer.service} to {answer.provider}, receipt {answer.receipt_id}"
        )
        lines += inner_lines(answer.inner, indent + "  ")
    return lines
