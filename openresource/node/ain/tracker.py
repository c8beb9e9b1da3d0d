"""Reports of a node's status to a tracker, as AI Network's nodes send them; nobody minds when there is no tracker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import httpx2

from openresource.node.ain.parameters import NodeParameters
from openresource.node.rpc import PROTOCOL_VERSION, encode

REPORT_SECONDS_MAX: Final = 10.0
INTERVAL_SECONDS_MIN: Final = 0.1

Facts = dict[str, Any]
_log = logging.getLogger("openresource.node.ain.tracker")


async def report_to_tracker(
    parameters: NodeParameters, status: Callable[[], Facts], now_ms: Callable[[], int]
) -> None:
    """Reports for as long as the node runs."""
    async with httpx2.AsyncClient(
        timeout=REPORT_SECONDS_MAX, trust_env=False, follow_redirects=False
    ) as client:
        while True:
            await _report(client, parameters.text("TRACKER_UPDATE_JSON_RPC_URL"), status(), now_ms())
            seconds = float(parameters.number("TRACKER_UPDATE_INTERVAL_MS")) / 1000
            await asyncio.sleep(max(seconds, INTERVAL_SECONDS_MIN))


async def _report(client: httpx2.AsyncClient, url: str, status: Facts, now_ms: int) -> None:
    params = {**status, "updatedAt": now_ms, "protoVer": PROTOCOL_VERSION}
    body = encode({"jsonrpc": "2.0", "method": "updateNodeInfo", "params": params, "id": 0})
    request = client.build_request("POST", url, content=body, headers={"Content-Type": "application/json"})
    try:
        response = await client.send(request, stream=True)
        await response.aclose()
    except httpx2.HTTPError as error:
        _log.debug("the tracker was not reached", extra={"facts": {"url": url, "reason": str(error)}})
