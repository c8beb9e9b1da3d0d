"""A second ledger, slow and obvious, and the machine that runs it beside the real one.

`state` is a flat dictionary of paths, `rules` and `execution` are written from the protocol's words alone, `world` makes
random transactions, `run` compares. Nothing here imports the parts of `openresource.ledger` that it judges.
"""
