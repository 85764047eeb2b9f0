"""Fill a store from any stream of records, unit by unit, so that an interrupted run continues."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy.typing as npt

from cache.errors import InputError, StoreError
from cache.parts.layout import PROFILES, Profile
from cache.progress import Progress, no_progress
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.codebook_claim import read_codebook
from cache.store.commits import commit_path, committed_units, create_store, read_commit, unit_name
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit

# Tokens that are held decoded at a time; at k = 64 about 0.6 KB each.
BLOCK_TOKENS = 1 << 13
UNIT_EXAMPLES = 256


def fill_store(
    uri: str,
    spec: StoreSpec,
    records: Iterable[Record],
    total: int,
    profile: Profile = "compact",
    unit_examples: int = UNIT_EXAMPLES,
    progress: Progress = no_progress,
) -> None:
    """Write records to the store at `uri`, in units of `unit_examples`, and take a snapshot.

    The store is claimed with the first unit. Units that it already holds are skipped, so the same records again
    continue what was interrupted. progress: called with (examples done, total).
    Raises InputError for a record that is not valid or where there is none, StoreError where the store is another.
    """
    require_profile(profile)
    if unit_examples < 1:
        raise InputError(f"{unit_examples} examples a unit; give 1 or more")
    storage, codebook, done = open_storage(uri), None, 0
    present: set[str] = set()
    source = iter(records)
    while unit := list(islice(source, unit_examples)):
        if not done:
            create_store(storage, spec)
            present = set(committed_units(storage))
        name = unit_name([record.key for record in unit])
        require_same_profile(storage, present & {name}, profile)
        if name not in present:
            if profile == "compact" and codebook is None:
                codebook = read_codebook(storage, spec.vocab_size)  # None before the first unit, which brings it
            write_unit(storage, spec, unit, profile, codebook)
        done += len(unit)
        progress(done, total)
    if not done:
        raise InputError(f"{uri}: nothing to store: the source has no examples")
    take_snapshot(storage)


def token_blocks(lengths: npt.NDArray[Any], most: int = BLOCK_TOKENS) -> Iterator[range]:
    """Runs of neighbours that together have at most `most` tokens, or are one. lengths: tokens of each, [examples]."""
    start, held = 0, 0
    for i, length in enumerate(lengths.tolist()):
        if i > start and held + length > most:
            yield range(start, i)
            start, held = i, 0
        held += length
    if start < len(lengths):
        yield range(start, len(lengths))


def require_profile(profile: str) -> None:
    """Raise InputError unless `profile` is one of a store's."""
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r}: unknown; give one of {', '.join(PROFILES)}")


def require_same_profile(storage: Storage, units: Iterable[str], profile: Profile) -> None:
    """Raise StoreError where one of the committed units is in another profile."""
    for unit in units:
        found = read_commit(storage, unit)[0].place.profile
        if found != profile:
            raise StoreError(
                f"{storage}/{commit_path(unit)}: is already there in profile {found}, wanted {profile}; "
                "give another target"
            )
