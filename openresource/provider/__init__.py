"""Run programs and sell calls: take new versions, run them in sandboxes, admit payments, claim.

It never keeps the chain. Open `service.py` first: a provider's whole life; `gateway.py` follows one call,
`admission.py` owns the payment state, `journal.py` is why none of it is lost.
"""
