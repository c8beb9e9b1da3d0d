"""Runs programs by bubblewrap: own namespaces for files, network, processes and users, on any Linux that allows them.

It never decides what a program may cost or whom it serves. Open `driver.py` first; `arguments.py` holds the recipe.
"""
