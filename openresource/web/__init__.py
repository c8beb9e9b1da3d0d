"""Pages: the marketplace, the explorer, the console. They read the chain and pay through `client` only.

It never touches a key or the chain's files itself. Open `app.py` first: the list of pages.
"""
