"""The codebooks of a store. Each generation is claimed once; all writers then use the newest, and parts name theirs."""

import hashlib
from typing import Any

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.parts.codebook_file import decode_codebook, encode_codebook
from cache.rows.codebook import Codebook, plain_codebook
from cache.storage.base import NotCreatedError, Storage
from cache.store.commits import remove_unused, withdraw_if_incomplete

FOLDER, CLAIM, FILE = "codebooks", ".json", ".zarr.zip"


def claim_codebook(storage: Storage, generation: int, codebook: Codebook, rows: int) -> Codebook:
    """Make `codebook` a generation of the store's, 1 or later. Returns the one that it has then, perhaps of another
    writer. rows: number of rows that it was learned from.
    """
    vocab_size = len(codebook.order)
    if storage.size(claim_path(generation)) is not None:
        return _codebook_of(storage, generation, vocab_size)
    data, name = encode_codebook(codebook), codebook_path(codebook.digest)
    # Created as a whole, because another writer may have learned the same codebook.
    is_new = storage.create(name, data)
    claim = {
        "digest": codebook.digest,
        "rows": rows,
        "bytes": len(data),
        "sha256_of_file": hashlib.sha256(data).hexdigest(),
    }
    try:
        is_first = storage.create(claim_path(generation), encode_document(claim))
    except NotCreatedError:
        if is_new:
            remove_unused(storage, name)
        raise
    if is_first:
        withdraw_if_incomplete(storage, claim_path(generation), [name])
        return codebook
    if is_new and codebook.digest not in {claim["digest"] for claim in read_claims(storage).values()}:
        remove_unused(storage, name)
    return _codebook_of(storage, generation, vocab_size)


def newest_codebook(storage: Storage, vocab_size: int) -> tuple[int, Codebook | None]:
    """The newest generation and its codebook; 0 and None if the store has none.

    Raises IntegrityError if the codebook is missing or altered.
    """
    generation = newest_generation(storage)
    return generation, _codebook_of(storage, generation, vocab_size) if generation else None


def newest_generation(storage: Storage) -> int:
    """The newest generation that was claimed; 0 if there is none."""
    return max(claimed_generations(storage), default=0)


def open_codebook(storage: Storage, digest: str, vocab_size: int) -> Codebook:
    """The codebook with this digest; "" means that codes are ids. Raises IntegrityError if it is missing or altered."""
    if not digest:
        return plain_codebook(vocab_size)
    name = codebook_path(digest)
    return decode_codebook(storage.read(name), digest, vocab_size, f"{storage}/{name}")


def claimed_generations(storage: Storage) -> list[int]:
    """Numbers of the codebooks that were claimed, in order."""
    names = [name.removesuffix(CLAIM) for name in storage.names(FOLDER, CLAIM)]
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def read_claim(storage: Storage, generation: int) -> dict[str, Any]:
    """The document that names a codebook: digest, rows learned from, bytes and SHA-256 of its file."""
    name = claim_path(generation)
    return decode_document(storage.read(name), f"{storage}/{name}", ("digest", "rows", "bytes", "sha256_of_file"))


def read_claims(storage: Storage) -> dict[int, dict[str, Any]]:
    """The documents of all generations."""
    return {generation: read_claim(storage, generation) for generation in claimed_generations(storage)}


def claim_path(generation: int) -> str:
    """Name of the document of a generation."""
    return f"{FOLDER}/{generation}{CLAIM}"


def codebook_path(digest: str) -> str:
    """Name of the file of the codebook with this digest."""
    return f"{FOLDER}/{digest}{FILE}"


def _codebook_of(storage: Storage, generation: int, vocab_size: int) -> Codebook:
    digest = read_claim(storage, generation)["digest"]
    if not isinstance(digest, str) or not digest:
        raise IntegrityError(f"{storage}/{claim_path(generation)}: names no codebook")
    return open_codebook(storage, digest, vocab_size)
