"""Git as publishing meets it: bare repositories, their trees written out as files, and repositories of others cloned.

It never checks anything out, so no filter, hook or attribute of a repository runs here, and it never fetches a submodule.
Open `trees.py` first: what a commit may hold, and how it becomes a folder.
"""
