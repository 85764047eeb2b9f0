"""Reading: what every sequence of stored examples offers, whether it is one store or several.

    sequence      RecordSequence: indices, iteration, batches, selection and tables, on top of a few primitives
    union         several stores as one sequence
    blocks        consecutive examples, a bounded number of tokens at a time
    lookup        one example by its id or key
    selection     examples by origin, size, segments, metadata and texts
    tables        Arrow tables, with the one schema that exports to Parquet have too
    tensors       tensors of torch
    requirements  the memory and the libraries that tables and tensors need

In: the primitives of cache.store.logit_store (numbers of examples, windows, texts). Out: records, numbers and tables.
It knows nothing of snapshots, parts or files.
"""
