"""A buyer's or builder's side: read the chain, choose a provider, pay, check the receipt.

It never runs foreign code and never holds the chain. Open `calls.py` first: it follows one paid call.
"""
