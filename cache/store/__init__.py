"""Store: which parts count, and access to all examples at once.

    commits, root_group            which parts count, and what the store says of itself
    segments/, index               facts about units and examples: as files, and as columns in memory
    snapshots, snapshot_reading    numbered lists of segments: take and read them
    logit_store, store_info        LogitStore: the examples of a snapshot by number; totals
    reading/                       batches, selections, tables and tensors of records
    unit_writer, unit_checks, fill write one unit, or all units of a stream of records
    claims/                        the codebooks and the tokenizer of a store
    transcode                      copy into another profile
    quarantine/                    examples that could not be captured
    withdrawal/, upkeep/           forgotten examples; remove them, old snapshots and unused files
    verify                         check every byte

In: a storage and records. Out: a store that any number of readers share. Writers need no lock: files are created once
and never changed. It knows nothing of other file forms (exchange), models or training. Import from the modules, or
from `cache`, which loads them when they are used.
"""
