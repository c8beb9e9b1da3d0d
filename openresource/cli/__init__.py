"""The words a person types, and the only place where packages are wired together.

It never holds logic of its own. Open `main.py` first: every command is listed there.
"""
