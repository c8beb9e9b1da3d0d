"""Keep and serve the chain: the engine that makes blocks, the store on disk, the door for clients.

It never runs programs and never holds a user's key. Open `service.py` first: a node's whole life; `engine.py` makes
blocks, `door.py` answers, `methods.py` are AI Network's methods and `own_methods.py` ours. `connections.py` answers reads
where they arrive, `submission.py` takes transactions, `signers.py` finds out who signed them.
"""
