"""Look after a store: take examples and snapshots out of it, and make lost commits again.

    replacing.py    write units that have forgotten examples again, without them
    forgetting.py   mark examples as forgotten, by id or by key
    expiring.py     remove old snapshots
    remains.py      where forgotten examples still are
    commit_restoring.py    write lost commits again, from the index and the parts
    garbage_collection.py    remove files that nothing refers to

The next snapshot leaves forgotten examples out. Garbage collection removes their files when no snapshot lists them.
"""
