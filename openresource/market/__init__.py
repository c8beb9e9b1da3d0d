"""Trade as arithmetic: programs, services, placements, channels, vouchers, receipts, holds and jobs.

It never does I/O, reads a clock or draws chance. Open `channels.py` first: deposit once, promise totals, claim.
"""
