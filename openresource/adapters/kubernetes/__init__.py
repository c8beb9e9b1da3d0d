"""Runs programs that come as container images in a Kubernetes cluster, one job for each instance, hardened throughout.

It never sets a cluster up and never asks for more than a namespace. Open `driver.py` first; `manifests.py` renders what
the cluster is asked for, also for operators who apply it themselves.
"""
