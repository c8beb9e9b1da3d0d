"""Run programs and sell calls: take new versions, run them in sandboxes, admit payments, claim.

It never keeps the chain. Open `service.py` first: a provider's whole life; `gateway.py` follows one call.
`placements.py` decides what runs here (by `policies.py`), `admission.py` which calls begin, `payments.py` writes the 402.
"""
