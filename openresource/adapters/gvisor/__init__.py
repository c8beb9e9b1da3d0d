"""Runs programs in gVisor: a kernel of its own in user space stands between a program and this machine's kernel.

It never fetches images: what a program sees is made from the same folders as under bubblewrap. Open `driver.py` first;
`bundles.py` writes what the runtime reads.
"""
