"""Bytes and numbers that everyone agrees on: keys, hashing, encoding, paths, amounts, limits and refusals.

It never opens a file or a socket, reads a clock, draws chance or logs: keys, salts and entropy arrive as arguments.
Open `errors.py` first, then `encoding.py`; each module stands for one noun.
"""
