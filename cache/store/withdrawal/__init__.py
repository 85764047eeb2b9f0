"""What a store must not keep: documents about examples that are forgotten, and about units that had such examples.

    forgotten.py   `forgotten/<key>.json`: an example that must not be kept, without any of its texts
    withdrawn.py   `withdrawn/<unit>.json`: a unit in whose place another one counts, without its forgotten examples

They are never removed: a writer that was suspended may bring such an example or unit again. Knows no snapshots.
"""
