"""Write one unit: encode, make durable, read back, compare, commit. Readers ignore the unit until its commit exists."""

import hashlib
import uuid
from collections.abc import Sequence

import numpy as np

from cache.errors import InputError, IntegrityError
from cache.parts.codebook_learning import learn_codebook
from cache.parts.description import differing_fields, require_storable
from cache.parts.layout import Profile
from cache.parts.part import EncodedPart, encode_part
from cache.parts.part_reader import PartReader
from cache.rows.codebook import Codebook, plain_codebook
from cache.rows.codec import QuantisationError, decode_logprobs, encode_logprobs, measure_error
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.base import NotCreatedError, Storage
from cache.storage.memory_file import MemoryFile
from cache.store.claims.codebook_claim import claim_codebook, newest_codebook
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

NO_ERROR = QuantisationError(0.0, 0.0)
_NOT_WRITTEN = "what was read back is not what was written; the disk or its driver is at fault"


def write_unit(
    storage: Storage,
    spec: StoreSpec,
    records: Sequence[Record],
    profile: Profile = "compact",
    codebook: Codebook | None = None,
    previous_error: QuantisationError = NO_ERROR,
) -> tuple[Commit, bool]:
    """Write `records` as one part and commit it. Returns the commit, and whether it was the first of its unit.

    codebook: the store's, if the caller has read it already (only the compact profile uses one). previous_error: the
    quantisation error that the records already have, if they were read from a store.
    Raises InputError, before any file exists, if a record is not valid for the spec, and StoreError if the storage
    cannot be written.
    """
    if not records:
        raise InputError("a unit needs at least one record")
    for record in records:
        _check_record(record, spec)
    _require_distinct(records)
    if profile != "compact":
        codebook, digest = plain_codebook(spec.vocab_size), ""
    else:
        codebook = codebook or store_codebook(storage, spec, records)
        digest = codebook.digest
    unit = unit_name([record.key for record in records])
    encoded = encode_part(part_path(unit, uuid.uuid4().hex), records, spec, codebook, digest, profile)
    path = encoded.info.path
    try:
        storage.write_file(path, encoded.data)
        error = _read_back(storage, encoded, records, spec, codebook)
        total = QuantisationError(previous_error.max_abs_error + error.max_abs_error, previous_error.kl + error.kl)
        commit = _make_commit(unit, spec, records, encoded, profile, digest, total)
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


def store_codebook(storage: Storage, spec: StoreSpec, records: Sequence[Record]) -> Codebook:
    """The codebook for a new unit: the newest of the store. If there is none yet, one is learned from `records`."""
    _, existing = newest_codebook(storage, spec.vocab_size)
    if existing is not None:
        return existing
    targets = concatenate([record.targets for record in records])
    tokens = np.concatenate([record.tokenized.tokens for record in records])
    return claim_codebook(storage, 1, learn_codebook(targets, tokens, spec.targets, spec.vocab_size))


def _make_commit(
    unit: str,
    spec: StoreSpec,
    records: Sequence[Record],
    encoded: EncodedPart,
    profile: Profile,
    codebook: str,
    error: QuantisationError,
) -> Commit:
    log_tail = np.concatenate([r.targets.log_tail[r.targets.exact_counts > 0] for r in records]).astype(np.float64)
    return Commit(
        unit=unit,
        fingerprint=spec.fingerprint,
        part=encoded.info,
        sha256=hashlib.sha256(encoded.data).hexdigest(),
        profile=profile,
        codebook=codebook,
        examples=tuple(
            CommittedExample(r.key, r.tokenized.origin, len(r.tokenized.tokens), r.target_rows) for r in records
        ),
        entries=encoded.entries,
        retained_mass=float(-np.expm1(log_tail).mean()) if len(log_tail) else 0.0,
        max_abs_error=error.max_abs_error,
        kl=error.kl,
    )


def _check_record(record: Record, spec: StoreSpec) -> None:
    """Raise InputError unless the record is valid for the spec."""
    what = f"example {record.tokenized.example.id}"
    n = len(record.tokenized.tokens)
    if len(record.key) != 32 or not set(record.key) <= set("0123456789abcdef"):
        raise InputError(f"{what}: key {record.key!r} is not 32 hexadecimal digits")
    if not n == len(record.tokenized.segments) == len(record.targets) == len(record.token_logprobs):
        raise InputError(f"{what}: tokens, segments and targets differ in length")
    if n and int(record.tokenized.tokens.max()) >= spec.vocab_size:
        raise InputError(f"{what}: a token id is outside the vocabulary of {spec.vocab_size}")
    if n and int(record.tokenized.tokens.min()) < 0:
        raise InputError(f"{what}: a token id is negative")
    require_storable(record)
    _check_target_form(record.targets, spec.targets, what)
    record.targets.validate(spec.vocab_size, what)
    if (record.token_logprobs > 1e-3).any():
        raise InputError(f"{what}: a token's own log-probability is {np.nanmax(record.token_logprobs)}, above 0")
    _check_sampled(record.targets, spec.targets, what)


def _require_distinct(records: Sequence[Record]) -> None:
    """Raise InputError if two records have one key: readers would see only one of them."""
    by_key: dict[str, Record] = {}
    for record in records:
        if first := by_key.get(record.key):
            one, other = first.tokenized.example, record.tokenized.example
            fields = differing_fields(one, other)
            raise InputError(
                f"examples {one.id} and {other.id}: have one key, {record.key}, and "
                f"{'differ in ' + ', '.join(fields) if fields else 'the same texts'}; readers would see only the "
                f"first; {'give each a key of its own' if fields else 'give it once'}"
            )
        by_key[record.key] = record


def _check_target_form(targets: SparseTargets, spec: TargetSpec, what: str) -> None:
    """Raise InputError unless the targets have the kinds of entries and columns that the spec declares."""
    if len(targets) and int(targets.counts.max()) > spec.max_entries:
        raise InputError(
            f"{what}: a row has {int(targets.counts.max())} entries; {spec.mode} targets of this store have "
            f"at most {spec.max_entries}"
        )
    if (targets.exact is not None) != spec.has_sampled and len(targets.ids):
        raise InputError(f"{what}: sampled entries do not go with {spec.mode} targets")
    if spec.mode == "sampled" and int(targets.exact_counts.sum()):
        raise InputError(f"{what}: a row has exact entries; sampled targets have none")
    if not len(targets.ids):
        return
    if (targets.entropy is not None) != spec.entropy:
        raise InputError(f"{what}: entropy is {'not ' if spec.entropy else ''}what the store's spec declares")
    widths = 0 if targets.log_normalizers is None else targets.log_normalizers.shape[1]
    if widths != len(spec.temperatures):
        raise InputError(f"{what}: {widths} log-normalisers a row; the spec declares {len(spec.temperatures)}")


def _check_sampled(targets: SparseTargets, spec: TargetSpec, what: str) -> None:
    """Raise InputError if a sampled entry has another value than its mode defines: only the defined one is stored."""
    sampled = targets.logprobs[targets.rank_of_entry >= np.repeat(targets.exact_counts, targets.counts)]
    if not len(sampled):
        return
    p = np.exp(sampled.astype(np.float64))
    if spec.mode == "threshold":
        wrong = np.abs(p / spec.threshold - 1) > 1e-3
        expected = f"the threshold {spec.threshold}"
    else:
        draws = p * spec.draws
        wrong = (np.abs(draws - np.rint(draws)) > 1e-2) | (draws < 0.5)
        expected = f"a whole number of {spec.draws} draws"
    if wrong.any():
        raise InputError(f"{what}: a sampled entry stands for {p[wrong][0]:.6g}, which is not {expected}")


def _read_back(
    storage: Storage, encoded: EncodedPart, records: Sequence[Record], spec: StoreSpec, codebook: Codebook
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
    same = np.array_equal(window.tokens, np.concatenate([r.tokenized.tokens for r in records]))
    same &= np.array_equal(window.segments, np.concatenate([r.tokenized.segments for r in records]))
    token_logprobs = np.concatenate([r.token_logprobs for r in records])
    same &= np.array_equal(window.token_logprobs, decode_logprobs(encode_logprobs(token_logprobs)), equal_nan=True)
    same &= all(part.description(i)["key"] == record.key for i, record in enumerate(records))
    if not same:
        raise IntegrityError(f"{what}: {_NOT_WRITTEN}")
    return measure_error(concatenate([r.targets for r in records]), window.targets, spec.vocab_size, what)
