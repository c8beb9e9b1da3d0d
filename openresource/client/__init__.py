"""A buyer's or builder's side: read the chain, choose a provider, pay, check the receipt.

It never runs foreign code and never holds the chain. Open `facade.py` for what there is to use, `calls.py` to follow
one paid call, `publishing.py` to follow a publication. `jobs.py` asks for runs
that others check, `inner_calls.py` makes the calls that programs ask for. `node_wire.py` speaks with a node, `wires.py`
with providers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openresource.client.facade import AsyncClient, Client
    from openresource.market.allowances import allow

__all__ = ["AsyncClient", "Client", "allow"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from openresource.client import facade

        return getattr(facade, name)
    raise AttributeError(f"openresource.client has no {name}")
