"""Fill a store from any stream of records, unit by unit. A rerun continues an interrupted run."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from cache.errors import InputError, StoreError
from cache.parts.description import describe, require_storable
from cache.parts.layout import PROFILES, Profile
from cache.progress import Progress, no_progress
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.commits import commit_path, committed_units, create_store, read_commit, unit_name
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.withdrawal.forgotten import forgotten_keys

UNIT_EXAMPLES = 256


def fill_store(
    uri: str,
    spec: StoreSpec,
    records: Iterable[Record],
    total: int,
    profile: Profile = "compact",
    unit_examples: int = UNIT_EXAMPLES,
    progress: Progress = no_progress,
) -> int:
    """Write records to the store at `uri`, in units of `unit_examples`, and take a snapshot.

    A record that is the same as an earlier one in all that is stored is left out; the number of these is returned. One
    that only has the same key is kept, under another key that follows from its place among them. Records that the store
    must not keep are left out, and their number is logged.

    The store is created with the first unit. Units that it contains already are skipped, so a rerun with the same
    records continues an interrupted run. progress: called with (examples done, total).
    Raises InputError if a record is not valid or there is none, StoreError if the store has another spec or profile.
    """
    require_profile(profile)
    if unit_examples < 1:
        raise InputError(f"{unit_examples} examples a unit; give 1 or more")
    storage, done = open_storage(uri), 0
    codebooks = CodebookChoice(storage, spec)
    present: set[str] = set()
    forgotten: set[str] = set()
    distinct, left_out = _DistinctRecords(), 0
    source = distinct.of(records)
    while chosen := list(islice(source, unit_examples)):
        if not done:
            create_store(storage, spec)
            present, forgotten = set(committed_units(storage)), set(forgotten_keys(storage))
        unit = [record for record in chosen if record.key not in forgotten]
        left_out += len(chosen) - len(unit)
        name = unit_name([record.key for record in unit])
        require_same_profile(storage, present & {name}, profile)
        if unit and name not in present:
            write_unit(storage, spec, unit, profile, codebooks)
        done += len(chosen)
        progress(done, total)
    if not done:
        raise InputError(f"{uri}: nothing to store: the source has no examples")
    take_snapshot(storage)
    if left_out:
        logging.getLogger(__name__).warning(
            "%s: %d records are forgotten in this store and were left out", uri, left_out
        )
    return distinct.left_out


class _DistinctRecords:
    """Gives every record a key of its own, and leaves out and counts those that are the same as an earlier one."""

    def __init__(self) -> None:
        self.left_out = 0
        self._contents: dict[str, list[bytes]] = {}

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            require_storable(record)
            earlier = self._contents.setdefault(record.key, [])
            content = _content_hash(record)
            if content in earlier:
                self.left_out += 1
                continue
            earlier.append(content)
            key = record.key
            if len(earlier) > 1:
                key = hashlib.sha256(f"{record.key}:{len(earlier) - 1}".encode()).hexdigest()[:32]
            yield replace(record, key=key)


def _content_hash(record: Record) -> bytes:
    """Hash of all that is stored of a record."""
    state = hashlib.sha256(describe(record))
    targets = record.targets
    for array in (
        record.tokenized.tokens,
        record.tokenized.segments,
        record.token_logprobs,
        targets.offsets,
        targets.ids,
        targets.logprobs,
        targets.log_tail,
        targets.exact_counts,
        targets.entropy,
        targets.log_normalizers,
    ):
        if array is not None:
            state.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return state.digest()[:16]


def require_profile(profile: str) -> None:
    """Raise InputError unless `profile` is a profile of the store format."""
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r}: unknown; give one of {', '.join(PROFILES)}")


def require_same_profile(storage: Storage, units: Iterable[str], profile: Profile) -> None:
    """Raise StoreError if one of these committed units has another profile."""
    for unit in units:
        existing = read_commit(storage, unit)[0].profile
        if existing != profile:
            raise StoreError(
                f"{storage}/{commit_path(unit)}: exists with profile {existing}, requested {profile}; "
                "give another target"
            )
