"""`python -m openresource.node --home FOLDER [--port N]`: a node for supervisors, which says on one line when it is ready."""

from __future__ import annotations

import argparse
import json
import sys

from openresource.node.logs import log_to
from openresource.node.service import DEFAULT_PORT, NodeService
from openresource.primitives.errors import Refusal


def _say_ready(service: NodeService) -> None:
    facts = {"ready": True, "url": service.url, "port": service.port, "genesis_hash": service.genesis_hash}
    print(json.dumps(facts), flush=True)


def main() -> int:
    """Serve until a signal; a refusal is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m openresource.node")
    parser.add_argument("--home", required=True)
    parser.add_argument("--network", default="local")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes any free port")
    parser.add_argument("--host", default=None)
    arguments = parser.parse_args()
    log_to()
    try:
        NodeService(
            arguments.home,
            arguments.network,
            port=arguments.port,
            host=arguments.host,
            on_ready=_say_ready,
        ).run()
    except Refusal as refusal:
        print(json.dumps({"ready": False, "error": refusal.to_json()}), flush=True)
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
