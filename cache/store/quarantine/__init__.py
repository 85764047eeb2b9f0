"""Quarantine: the examples of a capture that have no record, each with the reason, in a small document of its own.

    entries.py   read, write, mark and remove the documents
    reasons.py   count entries by reason

An entry waits as long as its example is in the plan of the last capture and is not captured. Any other entry is
obsolete: its line was mended or removed, or its example was captured later. `quarantine/<key>.json` is the document,
`quarantine/<key>.obsolete` an empty file that marks it as obsolete. Snapshots list the entries that wait.
Knows nothing of commits and snapshots: the callers say what is planned and what is captured.
"""
