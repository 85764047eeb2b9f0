"""Check the records of a unit before anything is written: what does not fit the spec is refused, with its example.

Facts about a record as a whole are checked one by one. Values are checked for the whole unit at once; only if one of
them is wrong, record by record, so that the error names the example.
"""

from collections.abc import Sequence

import numpy as np

from cache.errors import InputError
from cache.parts.description import differing_fields, require_storable
from cache.parts.unit_arrays import UnitArrays, gather
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec, TargetSpec

_HEX = frozenset("0123456789abcdef")


def check_unit(records: Sequence[Record], spec: StoreSpec) -> UnitArrays:
    """The arrays of the records, one after the other. Raises InputError if a record is not valid for the spec."""
    for record in records:
        _check_record(record, spec)
    _require_distinct(records)
    arrays = gather(records)
    try:
        _check_values(arrays, spec, "unit")
    except InputError:
        for record in records:
            _check_values(gather([record]), spec, _name(record))
        raise
    return arrays


def _name(record: Record) -> str:
    return f"example {record.tokenized.example.id}"


def _check_record(record: Record, spec: StoreSpec) -> None:
    """Raise InputError unless lengths, texts and kinds of columns are right. Afterwards records can be put together."""
    what, targets = _name(record), record.targets
    n = len(record.tokenized.tokens)
    if len(record.key) != 32 or not _HEX.issuperset(record.key):
        raise InputError(f"{what}: key {record.key!r} is not 32 hexadecimal digits")
    if not n == len(record.tokenized.segments) == len(targets) == len(record.token_logprobs):
        raise InputError(f"{what}: tokens, segments and targets differ in length")
    require_storable(record)
    targets.require_shape(what)
    if not len(targets.ids):
        return
    if (targets.exact is not None) != spec.targets.has_sampled:
        raise InputError(f"{what}: sampled entries do not go with {spec.targets.mode} targets")
    if (targets.entropy is not None) != spec.targets.entropy:
        raise InputError(f"{what}: entropy is {'not ' if spec.targets.entropy else ''}what the store's spec declares")
    widths = 0 if targets.log_normalizers is None else targets.log_normalizers.shape[1]
    if widths != len(spec.targets.temperatures):
        raise InputError(f"{what}: {widths} log-normalisers a row; the spec declares {len(spec.targets.temperatures)}")


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


def _check_values(arrays: UnitArrays, spec: StoreSpec, what: str) -> None:
    """Raise InputError, starting with `what`, unless every token and every row is valid."""
    if len(arrays.tokens) and int(arrays.tokens.max()) >= spec.vocab_size:
        raise InputError(f"{what}: a token id is outside the vocabulary of {spec.vocab_size}")
    if len(arrays.tokens) and int(arrays.tokens.min()) < 0:
        raise InputError(f"{what}: a token id is negative")
    targets = arrays.targets
    _check_counts(targets, spec.targets, what)
    targets.validate(spec.vocab_size, what)
    if (arrays.token_logprobs > 1e-3).any():
        raise InputError(f"{what}: a token's own log-probability is {np.nanmax(arrays.token_logprobs)}, above 0")
    if spec.targets.has_sampled:
        _check_sampled(targets, spec.targets, what)


def _check_counts(targets: SparseTargets, spec: TargetSpec, what: str) -> None:
    """Raise InputError if a row has more entries than the spec allows, or exact ones where there are none."""
    if len(targets) and int(targets.counts.max()) > spec.max_entries:
        raise InputError(
            f"{what}: a row has {int(targets.counts.max())} entries; {spec.mode} targets of this store have "
            f"at most {spec.max_entries}"
        )
    if spec.mode == "sampled" and int(targets.exact_counts.sum()):
        raise InputError(f"{what}: a row has exact entries; sampled targets have none")


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
