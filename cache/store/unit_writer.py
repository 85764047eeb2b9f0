"""Write one unit: encode, make durable, read back, compare, commit. Readers ignore the unit until its commit exists."""

import hashlib
import uuid
from collections.abc import Sequence

import numpy as np

from cache.errors import InputError, IntegrityError
from cache.parts.layout import Profile
from cache.parts.part import EncodedPart, encode_part
from cache.parts.part_reader import PartReader
from cache.parts.unit_arrays import UnitArrays
from cache.rows.codebook import Codebook, plain_codebook
from cache.rows.codec import QuantisationError, decode_logprobs, encode_logprobs, measure_error
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.base import NotCreatedError, Storage
from cache.storage.memory_file import MemoryFile
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.commits import (
    Commit,
    CommittedExample,
    commit_path,
    part_path,
    publish_commit,
    remove_unused,
    unit_name,
    withdraw_if_incomplete,
)
from cache.store.unit_checks import check_unit

NO_ERROR = QuantisationError(0.0, 0.0)
_NOT_WRITTEN = "what was read back is not what was written; the disk or its driver is at fault"


def write_unit(
    storage: Storage,
    spec: StoreSpec,
    records: Sequence[Record],
    profile: Profile = "compact",
    codebooks: CodebookChoice | None = None,
    previous_error: QuantisationError = NO_ERROR,
) -> tuple[Commit, bool]:
    """Write `records` as one part and commit it. Returns the commit, and whether it was the first of its unit.

    codebooks: those of a writer of many units (only the compact profile uses them). previous_error: the quantisation
    error that the records already have, if they were read from a store.
    Raises InputError, before any file exists, if a record is not valid for the spec, and StoreError if the storage
    cannot be written.
    """
    if not records:
        raise InputError("a unit needs at least one record")
    arrays = check_unit(records, spec)
    if profile != "compact":
        codebook, digest = plain_codebook(spec.vocab_size), ""
    else:
        codebooks = codebooks or CodebookChoice(storage, spec)
        codebook = codebooks.of_unit(arrays.targets, arrays.tokens)
        digest = codebook.digest
    unit = unit_name([record.key for record in records])
    encoded = encode_part(part_path(unit, uuid.uuid4().hex), records, arrays, spec, codebook, digest, profile)
    path = encoded.info.path
    try:
        storage.write_file(path, encoded.data)
        error = _read_back(storage, encoded, arrays, spec, codebook)
        total = QuantisationError(previous_error.max_abs_error + error.max_abs_error, previous_error.kl + error.kl)
        commit = _make_commit(unit, spec, records, arrays, encoded, profile, digest, total)
    except BaseException:
        remove_unused(storage, path)
        raise
    try:
        is_first = publish_commit(storage, commit)
    except NotCreatedError:
        remove_unused(storage, path)
        raise
    # After any other error the commit may exist, now or later, so the part stays. Garbage collection removes it if not.
    if not is_first:
        remove_unused(storage, path)
    else:
        withdraw_if_incomplete(storage, commit_path(unit), [path])
    return commit, is_first


def _make_commit(
    unit: str,
    spec: StoreSpec,
    records: Sequence[Record],
    arrays: UnitArrays,
    encoded: EncodedPart,
    profile: Profile,
    codebook: str,
    error: QuantisationError,
) -> Commit:
    log_tail = arrays.targets.log_tail[arrays.targets.exact_counts > 0].astype(np.float64)
    rows = arrays.target_rows.tolist()
    return Commit(
        unit=unit,
        fingerprint=spec.fingerprint,
        part=encoded.info,
        sha256=hashlib.sha256(encoded.data).hexdigest(),
        profile=profile,
        codebook=codebook,
        examples=tuple(
            CommittedExample(r.key, r.tokenized.origin, len(r.tokenized.tokens), target_rows)
            for r, target_rows in zip(records, rows, strict=True)
        ),
        entries=len(arrays.targets.ids),
        retained_mass=float(-np.expm1(log_tail).mean()) if len(log_tail) else 0.0,
        max_abs_error=error.max_abs_error,
        kl=error.kl,
    )


def _read_back(
    storage: Storage, encoded: EncodedPart, unit: UnitArrays, spec: StoreSpec, codebook: Codebook
) -> QuantisationError:
    """Read the file, decode it like any reader, compare it with the records, and measure the quantisation error.

    Raises IntegrityError if they differ.
    """
    path = encoded.info.path
    what = f"{storage}/{path}"
    data = storage.read(path)
    if data != encoded.data:
        raise IntegrityError(f"{what}: {_NOT_WRITTEN}")
    part = PartReader(MemoryFile(storage, path, data), encoded.info, spec.targets, lambda digest: codebook)
    window = part.window(0, part.tokens)
    token_logprobs = decode_logprobs(encode_logprobs(unit.token_logprobs))
    same = (
        np.array_equal(window.tokens, unit.tokens)
        and np.array_equal(window.segments, unit.segments)
        and np.array_equal(window.token_logprobs, token_logprobs, equal_nan=True)
        and np.array_equal(part.token_starts, unit.starts)
        and part.all_descriptions() == encoded.descriptions
    )
    if not same:
        raise IntegrityError(f"{what}: {_NOT_WRITTEN}")
    return measure_error(unit.targets, window.targets, spec.vocab_size, what)
