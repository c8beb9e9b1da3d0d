"""Run programs and sell calls: take new versions, build them, run them in sandboxes, admit payments, claim.

It never keeps the chain. Open `service.py` first: a provider's whole life; `gateway.py` follows one call,
`admission.py` owns the payment state, `journal.py` is why none of it is lost. `placements.py` takes versions and
`succession.py` lets them go, `lanes.py` and `fleets.py` share out places, `shells.py` opens the machine to wallets, and
`joining.py` takes other machines in. `jobs.py` lives with each job, `inner_calls.py` hands on what programs ask of others.
"""
