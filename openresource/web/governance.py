"""What was decided and said about a program, and what a provider's work is worth: pages, and files for other registries."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from openresource.client.kills import story_of
from openresource.client.reputation import erc8004_of, standing_of
from openresource.market.fields import is_cid_text
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import checksum_address, is_address
from openresource.web.site import Site

BUYERS_SHOWN = 50


class ProgramUnknown(Refusal):
    template = "There is no program {program} on this chain."
    way_out = "Look for its service: /services."


class ProviderUnknown(Refusal):
    template = "{provider} is not an address."
    way_out = "See who runs services: /providers."


class Governance:
    """Pages about programs and providers as the chain knows them."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/programs/{cid}", self.program, methods=["GET"]),
            Route("/providers/{address}", self.provider, methods=["GET"]),
            Route("/providers/{address}/registration.json", self.registration, methods=["GET"]),
            Route("/providers/{address}/feedback.json", self.feedback, methods=["GET"]),
        ]

    async def program(self, request: Request) -> Response:
        """Votes about a program, reports and their answers."""
        cid = request.path_params["cid"]
        record = await self._site.chain.read(f"/programs/{cid}") if is_cid_text(cid) else None
        if record is None:
            raise ProgramUnknown(program=cid[:80])
        story = await story_of(self._site.chain, cid)
        return self._site.page(request, "program.html", story=story, record=record)

    async def provider(self, request: Request) -> Response:
        """A provider's reputation, and what it is made of."""
        standing = await standing_of(self._site.chain, _address(request))
        pairs = sorted(standing.pairs.items(), key=lambda item: -item[1].fee_uain)
        return self._site.page(
            request,
            "provider.html",
            standing=standing,
            reputation=standing.reputation,
            pairs=pairs[:BUYERS_SHOWN],
        )

    async def registration(self, request: Request) -> Response:
        """The provider's registration file in the form of ERC-8004."""
        return JSONResponse((await self._files(request))["registration"])

    async def feedback(self, request: Request) -> Response:
        """Its feedback files in one list."""
        return JSONResponse((await self._files(request))["feedback"])

    async def _files(self, request: Request) -> dict[str, Any]:
        address = _address(request)
        page = str(request.url.replace(path=f"/providers/{address}", query=""))
        return await erc8004_of(self._site.chain, self._site.market.directory, address, page=page)


def _address(request: Request) -> str:
    address = request.path_params["address"]
    if not is_address(address):
        raise ProviderUnknown(provider=address[:80])
    return checksum_address(address)
