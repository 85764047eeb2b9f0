"""Store: which parts count, and access to all examples at once.

    commits, index, snapshots      which parts count, as documents and as columns
    logit_store, store_info        LogitStore: the examples of a snapshot by number; totals
    unit_writer, fill              write one unit, or all units of a stream of records
    claims/                        the codebook and the tokenizer of a store
    transcode                      copy into another profile
    verify, garbage_collection     check every byte; remove files that nothing refers to

In: a storage and records. Out: a store that any number of readers share. Writers need no lock: files are created once
and never changed. It knows nothing of other file forms (exchange), models or training. Import from the modules, or
from `cache`, which loads them when they are used.
"""
