"""Hostile input by chance: a small corpus, mutated, against everything that reads what strangers send.

An input has failed if an exception that is no refusal comes out, an answer has status 500 or says that the node made a
mistake, it takes longer than `INPUT_SECONDS_MAX` of CPU, or the process grows beyond `MEMORY_BYTES_MAX`.
"""
