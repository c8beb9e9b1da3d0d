"""Rules: JavaScript expressions that a closed, metered evaluator answers; nothing reaches Python's eval.

`lexer.py` and `parser.py` turn text into the nodes of `syntax.py`; `compiler.py` turns nodes into closures
(`closures.py`) over an environment (`environment.py`). Values are plain Python ones (`values.py`); what they can do is in `strings.py`,
`arrays.py`, `members.py` and `globals.py`; regular expressions have their own bounded matcher.
Open `compiler.py` first.
"""
