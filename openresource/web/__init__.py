"""Pages: the marketplace, the chain as it happens, the tree, and where the money is; for one person's browser.

Everything is read and paid through `client`. The pages never hold a key in the browser, never write to the chain on
their own, never open a file of a provider or a node, never load anything from another machine, and never believe a
text: whatever comes from the chain or from a program is shown as text. Nothing is spent without the token of the link
that the pages print when they start. Browsers send cookies to every port of a host, so that token keeps out other
sites and other people, not a hostile server on this very machine.

Open `app.py` first: the list of pages.
"""
