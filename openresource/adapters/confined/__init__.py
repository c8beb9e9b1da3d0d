"""Runs programs where namespaces are refused: another uid where root allows it, kernel limits, a filter of system
calls, Landlock where the kernel has it, and a folder of their own that is wiped.

A program at this level has no sockets, so HTTP programs are refused. It is weaker than bubblewrap and never pretends
otherwise: listings, receipts and `doctor` name the level. Open `driver.py` first.
"""
