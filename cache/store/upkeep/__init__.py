"""Take examples and snapshots out of a store.

    replacing.py    write units that have forgotten examples again, without them
    forgetting.py   mark examples as forgotten, by id or by key
    expiring.py     remove old snapshots
    remains.py      where forgotten examples still are
    garbage_collection.py    remove files that nothing refers to

The next snapshot leaves forgotten examples out. Garbage collection removes their files when no snapshot lists them.
"""
