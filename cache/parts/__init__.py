"""Parts: the records of one unit as a Zarr v3 group, and random access to its tokens.

    layout         names, types, chunks and codecs of all arrays
    description    the JSON of an example: what can be stored of it
    part           encode_part: records to files, and PartInfo, with which a reader opens them
    part_reader    PartReader: any run of tokens, from few ranges of bytes
    zarr_shard     the bytes of an array with one shard
    codebook_learning  the codebook that makes the parts of a store smallest

In: records, a spec, a codebook. Out: files by name, and from these windows and records. It knows nothing of commits,
snapshots, or other parts. An array is added in layout and in part; readers ignore arrays that layout does not list.
Import from the modules: they load numba and pcodec.
"""
