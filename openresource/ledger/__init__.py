"""One chain as arithmetic: the tree, its rules, functions and owners, transactions, blocks.

It never does I/O, reads a clock or draws chance. Open `machine.py` first: it turns transactions into blocks.
`consensus.py` is how AI Network's own validators agree on theirs.
"""
