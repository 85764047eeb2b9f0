"""Parts: the records of one unit as a Zarr v3 group in one file, and random access to its tokens.

    layout         names, types, chunks and codecs with which all arrays are written
    description    the JSON of an example: what can be stored of it, and its reader
    unit_arrays    the records of a unit as arrays
    part           encode_part: records to one file, and PartInfo, with which a reader opens it
    opened_part    open_part: from the end of the file, where everything is and what it must be
    part_reader    PartReader: any run of tokens, from few ranges of bytes
    codebook_file  a codebook as one file
    codebook_learning  the codebook that makes the parts of a store smallest
    zarr_zip       a Zarr group in one zip file
    zarr_metadata  the JSON of Zarr: what a zarr.json says
    zarr_shard     the bytes of an array with one shard

In: records, a spec, a codebook. Out: a file, and from it windows and records. It knows nothing of commits,
snapshots, or other parts. An array is added in layout and in part; readers ignore arrays that they do not know.
Import from the modules: they load numba and pcodec.
"""
