"""The marketplace: services to search, one service with its providers and prices, and the form that calls it."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from openresource.client.chain import BadAnswer, NodeAway, WrongNetwork
from openresource.client.forks import forks_of, lineage_of
from openresource.client.kills import standing_of
from openresource.client.reputation import verified_of
from openresource.client.services import Choice, Interface, Method
from openresource.market.allowances import ANY_SERVICE, Allowance, checked_allowance
from openresource.market.labels import labels_of
from openresource.market.placements import Placement
from openresource.market.prices import Price, price_split
from openresource.market.services import EVERYONE
from openresource.primitives.amounts import uain_from_text
from openresource.primitives.errors import Refusal
from openresource.web.calls import Run, text_of
from openresource.web.forms import fields_of, inputs_from, read_form
from openresource.web.security import require_owner
from openresource.web.site import Site, wants_part
from openresource.web.streams import event_frame, stream_response

QUERY_CHARACTERS_MAX: Final = 200
ONCE_CHARACTERS_MAX: Final = 64
USAGE_CHARACTERS_MAX: Final = 600


class PriceNotStated(Refusal):
    template = "The form does not say which price was shown."
    way_out = "Load the page again; nothing was paid."


class Services:
    """Pages about services."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/services", self.search, methods=["GET"]),
            Route("/services/{publisher}/{name}", self.service, methods=["GET"]),
            Route("/services/{publisher}/{name}/call", self.call, methods=["POST"]),
            Route("/answers/{once}", self.answer, methods=["GET"]),
        ]

    async def search(self, request: Request) -> Response:
        query = request.query_params.get("q", "")[:QUERY_CHARACTERS_MAX]
        listings = await self._site.market.listings(query)
        template = "_services.html" if wants_part(request) else "services.html"
        return self._site.page(request, template, query=query, listings=listings)

    async def service(self, request: Request) -> Response:
        return self._site.page(request, "service.html", **await self._facts(request))

    async def call(self, request: Request) -> Response:
        """Call a method with the form's inputs; the price on the form is the most that is paid."""
        require_owner(request)
        form = await read_form(request)
        choice = await self._choice(request)
        interface = await self._site.market.directory.interface(choice.program)
        method = interface.method(form.texts.get("method"), choice.service)
        fields = fields_of(method)
        once = form.texts.get("once", "")[:ONCE_CHARACTERS_MAX]
        try:
            inputs = inputs_from(form, fields, method.input)
            version = f"@{choice.program}" if request.query_params.get("version") else ""
            run = self._site.runs.begin(
                once,
                choice,
                method,
                inputs,
                _max_price(form.texts),
                asked=f"{choice.service}{version}",
                allowance=_allowance(form.texts, interface),
            )
        except Refusal as refusal:
            if wants_part(request):
                fragment = self._site.render("_refused.html", refusal=refusal, once=self._site.runs.fresh())
                return stream_response(_single(fragment))
            raise
        if wants_part(request):
            return stream_response(self._parts(run))
        async for _ in run.watch():
            pass
        return RedirectResponse(f"/answers/{run.once}", 303)

    async def answer(self, request: Request) -> Response:
        """An answer that is still kept, as a page of its own."""
        require_owner(request)
        run = self._site.runs.find(request.path_params["once"])
        return self._site.page(request, "answer.html", run=run)

    async def _choice(self, request: Request) -> Choice:
        publisher, name = request.path_params["publisher"], request.path_params["name"]
        version = request.query_params.get("version", "")
        return await self._site.market.directory.choose(
            f"{publisher}/{name}" + (f"@{version}" if version else "")
        )

    async def _facts(self, request: Request) -> dict[str, Any]:
        site = self._site
        directory = site.market.directory
        choice = await self._choice(request)
        listing, placements, permissions, story = await asyncio.gather(
            directory.listing(choice.publisher, choice.name),
            directory.all_placements(choice),
            directory.permissions(choice),
            self._story(choice),
        )
        placed = sorted(
            (one for one in placements if one.status == "PLACED"),
            key=lambda one: (one.ask_uain, one.provider),
        )
        offers = [(one, await directory.price(choice, one)) for one in placed]
        interface, trouble = await self._interface(choice)
        method = _method(interface, request, choice)
        return {
            "choice": choice,
            "permissions": permissions,
            "offers": offers,
            "others": [one for one in placements if one.status != "PLACED"],
            "best": _best(offers),
            "split": price_split(offers[0][1]) if offers else None,
            "versions": await self._versions(choice),
            **story,
            "is_renounced": listing is not None and listing.is_renounced,
            "is_newest": listing is None or listing.choice.program == choice.program,
            "interface": interface,
            "interface_trouble": trouble,
            "method": method,
            "fields": fields_of(method) if method else (),
            "once": site.runs.fresh(),
            "run": None,
            "wallet_uain": await self._wallet_uain(),
            "limits": site.home.limits(),
            "permitted": permitted,
            "usage": usage_of(choice, method) if method else "",
        }

    async def _story(self, choice: Choice) -> dict[str, Any]:
        """Where a version comes from, what the chain saw of it, and where it stands."""
        chain = self._site.chain
        lineage, forks, seen, standing = await asyncio.gather(
            lineage_of(chain, choice.version),
            forks_of(chain, choice.publisher, choice.name),
            verified_of(chain, choice.program),
            standing_of(chain, choice.program),
        )
        labels = labels_of(choice.version.exactness, seen)
        return {"lineage": lineage, "forks": forks, "labels": labels, "standing": standing}

    async def _interface(self, choice: Choice) -> tuple[Interface | None, str]:
        try:
            return await self._site.market.directory.interface(choice.program), ""
        except (NodeAway, BadAnswer, WrongNetwork):
            raise
        except Refusal as refusal:
            return None, refusal.message

    async def _versions(self, choice: Choice) -> list[tuple[str, str, int]]:
        """Text, program and time of each version, the newest first."""
        record = await self._site.chain.read(f"/services/{choice.service}/versions")
        found = []
        for program, entry in (record or {}).items():
            if isinstance(entry, dict):
                found.append((str(entry.get("version")), program, int(entry.get("published_at_ms") or 0)))
        return sorted(found, key=lambda one: -one[2])

    async def _wallet_uain(self) -> int | None:
        address = self._site.address()
        return await self._site.chain.balance(address) if address else None

    async def _parts(self, run: Run) -> AsyncIterator[bytes]:
        """What happens with a call, piece by piece, until its answer and receipt."""
        render = self._site.render
        yield event_frame(render("_running.html", run=run))
        shown, progress = 0, run.progress
        async for _ in run.watch():
            if run.progress != progress and not shown:
                progress = run.progress
                yield event_frame(render("_progress.html", run=run))
            if shown < len(run.values):
                values, shown = run.values[shown:], len(run.values)
                pieces = [(text_of(value), value) for value in values]
                yield event_frame(render("_pieces.html", pieces=pieces))
        yield event_frame(render("_ended.html", run=run, once=self._site.runs.fresh()))


async def _single(fragment: str) -> AsyncIterator[bytes]:
    yield event_frame(fragment)


def _method(interface: Interface | None, request: Request, choice: Choice) -> Method | None:
    if interface is None:
        return None
    return interface.method(request.query_params.get("method") or None, choice.service)


def _best(offers: list[tuple[Placement, Price]]) -> tuple[Placement, Price] | None:
    return min(offers, key=lambda one: (one[1].total_uain, one[0].provider)) if offers else None


def permitted(who: Mapping[str, bool] | None) -> str:
    """Who is permitted something, in words."""
    if who is None or who.get(EVERYONE, False):
        return "everybody"
    named = sum(1 for is_permitted in who.values() if is_permitted)
    return f"{named} address{'' if named == 1 else 'es'}" if named else "nobody but the publisher"


def usage_of(choice: Choice, method: Method) -> str:
    """A command line that calls the method, with its example's input where there is one."""
    example = method.example.get("input") if method.example else None
    required = method.input.get("required")
    names = required if isinstance(required, list) and required else method.parameters
    values = example if isinstance(example, Mapping) else {str(name): "…" for name in names}
    words = [f"openresource call {choice.service} {method.name}"]
    for name, value in values.items():
        if isinstance(value, str):
            words.append(shlex.quote(f"{name}={'@' if value.startswith('@') else ''}{value}"))
        else:
            words.append(shlex.quote(f"{name}:={json.dumps(value, ensure_ascii=False)}"))
    return " ".join(words)[:USAGE_CHARACTERS_MAX]


def _allowance(texts: Any, interface: Interface) -> Allowance | None:
    """What stood in the form for calls of others; as deep as the program says that it takes, and to nobody else."""
    text, declared = texts.get("allow", "").strip(), interface.calls
    if not text or declared is None:
        return None
    services = () if ANY_SERVICE in declared.services else declared.services
    return checked_allowance(uain_from_text(text), declared.depth, services)


def _max_price(texts: Any) -> int:
    """The price that stood on the button: nobody pays more than was shown."""
    try:
        return uain_from_text(texts["max_price"])
    except KeyError:
        raise PriceNotStated() from None
