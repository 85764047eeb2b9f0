"""A codebook as one file: a Zarr group with the arrays order, list_of, list_start and listed."""

import numpy as np

from cache.errors import IntegrityError
from cache.parts import layout
from cache.parts.zarr_shard import checksum, encode_array
from cache.parts.zarr_zip import decode_file, encode_zip
from cache.rows.codebook import Codebook


def encode_codebook(codebook: Codebook) -> bytes:
    """The file of a codebook. Equal codebooks give equal bytes. Raises InputError if it is not valid."""
    codebook.validate()
    arrays = layout.codebook_arrays(codebook)
    shards = {name: (array, encode_array(array, getattr(codebook, name))) for name, array in arrays.items()}
    checksums = {name: checksum(getattr(codebook, name)) for name in arrays}
    return encode_zip(shards, {**layout.codebook_attributes(codebook), "checksums": checksums}).data


def decode_codebook(data: bytes, digest: str, vocab_size: int, what: str) -> Codebook:
    """The codebook in a file. Its lists were checked when it was written; here the checksums are.

    Raises IntegrityError, starting with `what`, if the file is damaged or is not the codebook with this digest.
    """
    names = (layout.ORDER, layout.LIST_OF, layout.LIST_STARTS, layout.LISTED)
    group, values = decode_file(data, names, what)
    group.require_kind(layout.CODEBOOK_KIND)
    found, by_token, checksums = group.require("digest", "by_token", "checksums")
    for name in names:
        group.position(name)  # names it if the file does not have it
        if checksum(values[name]) != checksums.get(name):
            raise IntegrityError(f"{what}/{name}: altered, or that of another codebook")
    codebook = Codebook(**values, by_token=bool(by_token))
    if found != digest or len(codebook.order) != vocab_size:
        raise IntegrityError(f"{what}: is codebook {found} of {len(codebook.order)} ids, not {digest} of {vocab_size}")
    starts, lists = codebook.list_start, len(codebook.list_start) - 1
    if codebook.list_of.shape != (vocab_size,) or int(codebook.list_of.max(initial=0)) >= lists:
        raise IntegrityError(f"{what}: the list of every id must be one of the {lists}")
    if starts[0] != 0 or starts[-1] != len(codebook.listed) or (np.diff(starts) < 0).any():
        raise IntegrityError(f"{what}: the starts of its lists do not increase from 0 to {len(codebook.listed)}")
    return codebook
