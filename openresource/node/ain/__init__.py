"""Stand where a node of AI Network stands: its configuration, its chain, its consensus, its doors, its peers.

It never changes the chain of our own profile. Open `chain.py` first: the chain with its pool and its front state, without
sockets; `engine.py` lets it run by epochs, `peers.py` joins several nodes, `door.py` answers clients.
`state_sync.py` lets a node begin at a peer's state, `ancestry.py` says whether its old blocks are the validators'.
`follower.py` verifies somebody else's chain, `following.py` fetches it.
"""
