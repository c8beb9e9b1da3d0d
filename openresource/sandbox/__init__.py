"""Runs somebody else's program inside limits: its memory, processor, processes, files, output and time are bounded,
it has no network but what it names and the operator allows, and nothing of this machine is visible to it but what it
was given.

It never decides whom to run or what a call costs, holds no key, and imports no system that we do not own: the drivers
in `adapters` (bubblewrap, confined, gvisor, oci, wasm and others) start processes; everything around them is here.

Open `driver.py` first (the seam), then `instances.py` (one running program), then `pool.py` (kept warm). `drivers.py`
chooses a driver for each program, `views.py` is what a program sees, `egress.py` its one way to a network, and
`seccomp.py` lists the system calls that no program may make, `folders.py` removes what killed processes left. `guest/` runs inside.
"""
