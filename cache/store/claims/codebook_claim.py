"""The codebook of a store: the first writer claims it, and all others use it."""

import hashlib
import uuid
from typing import Any

import numpy as np

from cache.errors import InputError, IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.parts import layout
from cache.parts.zarr_shard import decode_chunks, decode_index, encode_array, group_metadata
from cache.rows.codebook import Codebook, plain_codebook
from cache.storage.base import NotCreatedError, Storage
from cache.store.commits import remove_unused, withdraw_if_incomplete

CLAIM = "codebook.json"


def claim_codebook(storage: Storage, codebook: Codebook) -> Codebook:
    """Make `codebook` the store's. Returns the one that the store has then, which may be another writer's."""
    existing = read_codebook(storage, len(codebook.order))
    if existing is not None:
        return existing
    codebook.validate()
    folder = f"codebooks/{uuid.uuid4().hex}.zarr"
    attributes = {"kind": layout.CODEBOOK_KIND, "format": 1, "digest": codebook.digest, "by_token": codebook.by_token}
    files = {"zarr.json": group_metadata(attributes)}
    for name, array in layout.codebook_arrays(len(codebook.order), *codebook.table.shape).items():
        files[f"{name}/zarr.json"] = array.metadata()
        files[f"{name}/{array.path}"] = encode_array(array, getattr(codebook, name))
    try:
        storage.write_folder(folder, files)
    except BaseException:
        remove_unused(storage, folder)
        raise
    claim = {
        "path": folder,
        "digest": codebook.digest,
        "vocab_size": len(codebook.order),
        "lists": codebook.table.shape[0],
        "width": codebook.table.shape[1],
        "by_token": codebook.by_token,
        "files": {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in files.items()},
    }
    try:
        is_first = storage.create(CLAIM, encode_document(claim))
    except NotCreatedError:
        remove_unused(storage, folder)
        raise
    if is_first:
        withdraw_if_incomplete(storage, CLAIM, folder, files)
        return codebook
    remove_unused(storage, folder)
    winner = read_codebook(storage, len(codebook.order))
    assert winner is not None
    return winner


def read_claim(storage: Storage) -> dict[str, Any] | None:
    """The document that names the store's codebook: path, digest, shape, files. None if there is no codebook."""
    return decode_document(storage.read(CLAIM), f"{storage}/{CLAIM}") if storage.size(CLAIM) is not None else None


def read_codebook(storage: Storage, vocab_size: int) -> Codebook | None:
    """The store's codebook, or None if there is none. Raises IntegrityError if it is missing, altered or invalid."""
    claim = read_claim(storage)
    if claim is None:
        return None
    arrays = layout.codebook_arrays(claim["vocab_size"], claim["lists"], claim["width"])
    values = {}
    for name, array in arrays.items():
        file = f"{claim['path']}/{name}/{array.path}"
        data = storage.read(file)
        bounds = decode_index(array, data[-array.index_bytes :], f"{storage}/{file}")
        values[name] = decode_chunks(array, bounds, data, 0, array.chunks, f"{storage}/{file}")[: array.shape[0]]
    values.setdefault(layout.TABLE, np.zeros((1, 0), values[layout.ORDER].dtype))
    codebook = Codebook(**values, by_token=claim["by_token"])
    if codebook.digest != claim["digest"] or len(codebook.order) != vocab_size:
        raise IntegrityError(f"{storage}/{claim['path']}: is not the codebook that {CLAIM} names")
    try:
        codebook.validate()
    except InputError as error:
        raise IntegrityError(f"{storage}/{claim['path']}: {error}") from error
    return codebook


def open_codebook(storage: Storage, digest: str, vocab_size: int) -> Codebook:
    """The codebook with this digest; "" means that codes are ids.

    Raises IntegrityError if the store has no codebook, or one with another digest.
    """
    if not digest:
        return plain_codebook(vocab_size)
    codebook = read_codebook(storage, vocab_size)
    if codebook is None:
        raise IntegrityError(f"{storage}/{CLAIM}: missing")
    if codebook.digest != digest:
        raise IntegrityError(f"{storage}/{CLAIM}: names codebook {codebook.digest}, a part was written with {digest}")
    return codebook
