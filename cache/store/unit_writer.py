"""Write one unit: encode, make durable, read back, compare, commit. Until the commit nothing counts."""

import hashlib
import uuid
from collections.abc import Sequence

import numpy as np

from cache.errors import InputError, IntegrityError
from cache.parts.layout import Profile
from cache.parts.part import PartPlace, encode_part
from cache.parts.part_reader import PartReader
from cache.rows.codebook import Codebook, plain_codebook
from cache.rows.codec import QuantisationError, decode_logprobs, encode_logprobs, measure_error
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.base import Storage
from cache.store.codebook_claim import claim_codebook, read_codebook
from cache.store.codebook_learning import learn_codebook
from cache.store.commits import Commit, CommittedExample, FileSeal, publish, unit_name

NOTHING_LOST = QuantisationError(0.0, 0.0)


def write_unit(
    storage: Storage,
    spec: StoreSpec,
    records: Sequence[Record],
    profile: Profile = "compact",
    codebook: Codebook | None = None,
    lost: QuantisationError = NOTHING_LOST,
) -> tuple[Commit, bool]:
    """Write `records` as one part and commit it. The flag tells whether this commit won.

    codebook: the store's, where the caller holds it already (only the compact profile has one). lost: what rounding had
    cost the records before, where they come from a store.
    Raises InputError, before any file exists, where a target is not valid for the spec, and StoreError where the
    storage refuses.
    """
    if not records:
        raise InputError("a unit needs at least one record")
    for record in records:
        _check(record, spec)
    if profile != "compact":
        codebook, digest = plain_codebook(spec.vocab_size), ""
    else:
        codebook = codebook or store_codebook(storage, spec, records)
        digest = codebook.digest
    unit = unit_name([record.key for record in records])
    encoded = encode_part(f"parts/{unit}/{uuid.uuid4().hex}.zarr", records, spec, codebook, digest, profile)
    place = encoded.place
    try:
        storage.write_folder(place.path, encoded.files)
        error = _read_back(storage, place, records, spec, codebook)
        tail = np.concatenate([r.targets.log_tail[r.targets.exact_counts > 0] for r in records]).astype(np.float64)
        commit = Commit(
            unit=unit,
            fingerprint=spec.fingerprint,
            place=place,
            examples=tuple(
                CommittedExample(r.key, r.tokenized.origin, len(r.tokenized.tokens), r.target_rows) for r in records
            ),
            files={name: FileSeal(len(d), hashlib.sha256(d).hexdigest()) for name, d in sorted(encoded.files.items())},
            entries=sum(len(record.targets.ids) for record in records),
            retained_mass=float(-np.expm1(tail).mean()) if len(tail) else 0.0,
            max_abs_error=lost.max_abs_error + error.max_abs_error,
            kl=lost.kl + error.kl,
        )
        won = publish(storage, commit)
    except BaseException:
        storage.remove_folder(place.path)
        raise
    if not won:
        storage.remove_folder(place.path)
    return commit, won


def store_codebook(storage: Storage, spec: StoreSpec, records: Sequence[Record]) -> Codebook:
    """The store's codebook. Where it has none yet, one is learned from `records`."""
    found = read_codebook(storage, spec.vocab_size)
    if found is not None:
        return found
    targets = concatenate([record.targets for record in records])
    tokens = np.concatenate([record.tokenized.tokens for record in records])
    return claim_codebook(storage, learn_codebook(targets, tokens, spec.targets, spec.vocab_size))


def seal_file(storage: Storage, name: str) -> FileSeal:
    """Length and SHA-256 of a file as it is now."""
    data = storage.read(name)
    return FileSeal(len(data), hashlib.sha256(data).hexdigest())


def _check(record: Record, spec: StoreSpec) -> None:
    what = f"example {record.tokenized.example.id}"
    n = len(record.tokenized.tokens)
    targets = record.targets
    if len(record.key) != 32 or not set(record.key) <= set("0123456789abcdef"):
        raise InputError(f"{what}: key {record.key!r} is not 32 hexadecimal digits")
    if not n == len(record.tokenized.segments) == len(targets) == len(record.token_logprobs):
        raise InputError(f"{what}: tokens, segments and targets differ in length")
    if n and int(record.tokenized.tokens.max()) >= spec.vocab_size:
        raise InputError(f"{what}: a token id is outside the vocabulary of {spec.vocab_size}")
    if n and int(targets.counts.max()) > spec.targets.most_entries:
        raise InputError(
            f"{what}: a row has {int(targets.counts.max())} entries; {spec.targets.mode} targets of this store have "
            f"at most {spec.targets.most_entries}"
        )
    if (targets.exact is not None) != spec.targets.has_sampled and len(targets.ids):
        raise InputError(f"{what}: sampled entries do not go with {spec.targets.mode} targets")
    if spec.targets.mode == "sampled" and int(targets.exact_counts.sum()):
        raise InputError(f"{what}: a row has exact entries; sampled targets have none")
    widths = 0 if targets.log_normalizers is None else targets.log_normalizers.shape[1]
    if n and len(targets.ids) and (targets.entropy is not None) != spec.targets.entropy:
        raise InputError(f"{what}: entropy is {'not ' if spec.targets.entropy else ''}what the store's spec declares")
    if n and len(targets.ids) and widths != len(spec.targets.temperatures):
        raise InputError(f"{what}: {widths} log-normalisers a row; the spec declares {len(spec.targets.temperatures)}")
    targets.validate(spec.vocab_size, what)
    if (record.token_logprobs > 1e-3).any():
        raise InputError(f"{what}: a token's own log-probability is {np.nanmax(record.token_logprobs)}, above 0")
    _check_sampled(targets, spec.targets, what)


def _check_sampled(targets: SparseTargets, spec: TargetSpec, what: str) -> None:
    """Raise InputError where a sampled entry does not stand for what the mode says: only that is stored."""
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
    storage: Storage, place: PartPlace, records: Sequence[Record], spec: StoreSpec, codebook: Codebook
) -> QuantisationError:
    """Read the part as any reader would, hold it against the records, and measure what rounding cost."""
    what = f"{storage}/{place.path}"
    part = PartReader(storage, place, spec.targets, codebook)
    window = part.window(0, place.counts.tokens)
    same = np.array_equal(window.tokens, np.concatenate([r.tokenized.tokens for r in records]))
    same &= np.array_equal(window.segments, np.concatenate([r.tokenized.segments for r in records]))
    own = np.concatenate([r.token_logprobs for r in records])
    same &= np.array_equal(window.token_logprobs, decode_logprobs(encode_logprobs(own)), equal_nan=True)
    same &= all(part.description(i)["key"] == record.key for i, record in enumerate(records))
    if not same:
        raise IntegrityError(f"{what}: what was read back is not what was written; the disk or its driver is at fault")
    return measure_error(concatenate([r.targets for r in records]), window.targets, spec.vocab_size, what)
