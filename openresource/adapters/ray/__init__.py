"""Places instances on the machines of one trusted provider by Ray, which decides where; it never runs a program itself.

On each machine an actor of ours holds one of our own sandboxes, and a stranger's program runs in that. Open `driver.py`
first; `keeper.py` is what lives on the other machine.
"""
