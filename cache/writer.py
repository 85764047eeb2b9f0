"""Write one unit: encode, flush to disk, read back, compare, commit. Until the commit nothing counts."""

import hashlib
import shutil
import uuid
from collections.abc import Sequence

import numpy as np

from cache.commits import Commit, CommittedExample, FileSeal, publish, unit_name
from cache.errors import InputError, IntegrityError
from cache.part import PartData, read_arrays, write_arrays
from cache.record import Record
from cache.spec import StoreSpec
from cache.storage import LocalStorage


def write_unit(storage: LocalStorage, spec: StoreSpec, records: Sequence[Record]) -> tuple[Commit, bool]:
    """Write `records` as one part and commit it. The flag tells whether this commit won.

    Raises InputError, before any file exists, where a target is not valid for the spec.
    """
    if not records:
        raise InputError("a unit needs at least one record")
    for record in records:
        _check(record, spec)
    unit = unit_name([record.key for record in records])
    part = f"parts/{unit}/{uuid.uuid4().hex}.zarr"
    path = storage.path(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {"unit": unit, "fingerprint": spec.fingerprint}
    try:
        error = write_arrays(path, records, spec.targets.step, attributes)
        storage.sync_tree(part)
        _compare(read_arrays(path), records, 2 * spec.targets.step, part)
        mass = [record.targets.retained_mass(spec.targets.k) for record in records]
        commit = Commit(
            unit=unit,
            part=part,
            fingerprint=spec.fingerprint,
            examples=tuple(
                CommittedExample(r.key, r.tokenized.origin, len(r.tokenized.tokens), r.target_rows) for r in records
            ),
            files={name: seal_file(storage, name) for name in storage.walk(part)},
            entries=sum(len(record.targets.ids) for record in records),
            retained_mass=float(np.concatenate(mass).mean()) if any(map(len, mass)) else 1.0,
            max_abs_error=error.max_abs_error,
            kl=error.kl,
        )
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    won = publish(storage, commit)
    if not won:
        shutil.rmtree(path, ignore_errors=True)
    return commit, won


def seal_file(storage: LocalStorage, name: str) -> FileSeal:
    """Length and SHA-256 of a file as it is on disk now."""
    data = storage.read(name)
    return FileSeal(len(data), hashlib.sha256(data).hexdigest())


def _check(record: Record, spec: StoreSpec) -> None:
    what = f"example {record.tokenized.example.id}"
    n = len(record.tokenized.tokens)
    if not n == len(record.tokenized.segments) == len(record.targets) == len(record.token_logprobs):
        raise InputError(f"{what}: tokens, segments and targets differ in length")
    if n and int(record.tokenized.tokens.max()) >= spec.vocab_size:
        raise InputError(f"{what}: a token id is outside the vocabulary of {spec.vocab_size}")
    if len(record.targets) and int(record.targets.counts.max()) > spec.targets.k:
        raise InputError(f"{what}: a row has more than k = {spec.targets.k} entries")
    record.targets.validate(spec.vocab_size, what)


def _compare(written: PartData, records: Sequence[Record], tolerance: float, part: str) -> None:
    same = len(written) == len(records) and all(
        _same(written.record(i), record, tolerance) for i, record in enumerate(records)
    )
    if not same:
        raise IntegrityError(f"{part}: what was read back is not what was written; the disk or its driver is at fault")


def _same(stored: Record, record: Record, tolerance: float) -> bool:
    return (
        stored.key == record.key
        and np.array_equal(stored.tokenized.tokens, record.tokenized.tokens)
        and np.array_equal(stored.tokenized.segments, record.tokenized.segments)
        and np.array_equal(stored.targets.offsets, record.targets.offsets)
        and np.array_equal(stored.targets.ids, record.targets.ids)
        and np.array_equal(stored.targets.log_tail, record.targets.log_tail)
        and np.array_equal(stored.token_logprobs, record.token_logprobs, equal_nan=True)
        and np.allclose(stored.targets.logprobs, record.targets.logprobs, rtol=0, atol=tolerance)
    )
