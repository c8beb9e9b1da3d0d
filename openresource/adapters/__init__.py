"""One folder per system that we do not own, each behind a small protocol written by the package that needs it.

It never decides anything of the market or the ledger. Open `bubblewrap/driver.py` first; its protocol is
`sandbox/driver.py`.
"""
