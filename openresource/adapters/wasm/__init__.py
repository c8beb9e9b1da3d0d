"""Runs WebAssembly modules by wasmtime, in a worker process that is itself in the best sandbox of this machine.

A module reaches nothing but what WASI gives it: its input, a folder of its own, the release to read. Its work is
counted in fuel, its memory is bounded by the engine, and what it was compiled to is made and used inside the sandbox
alone. Open `driver.py`; `guest/wasm_guest.py` is the worker.
"""
