"""Shells by SSH's own protocol: the server of a machine that opens, and a client for those who may enter.

It carries bytes and decides nothing: who may enter and what a session may do is in `provider/shells.py`. Never
forwarded: ports, sockets, agents, displays, files. Open `server.py` first.
"""
