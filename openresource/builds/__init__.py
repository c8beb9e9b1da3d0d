"""Makes a folder or a repository that never heard of this project into a release that can run.

It says what a folder is (`detection.py`, with one small detector for each sort of program) and fetches and compiles
what that needs, in a sandbox with access to package registries only (`building.py`). It never runs a program for
others, knows no price and no key, and imports no system that we do not own.
"""
