"""Runs programs that come as container images, by the podman or docker of this machine, without any network.

It never decides which registries may be asked: the operator names them, and none is the default. Open `driver.py`
first; `engines.py` speaks with the command line, `images.py` reads archives, `door.py` stands in a program's network.
"""
