"""Keep and serve the chain: the engine that makes blocks, the store on disk, the door for clients.

It never runs programs and never holds a user's key. Open `service.py` first: a node's whole life.
"""
