"""Fill a store from any stream of records, unit by unit. A rerun continues an interrupted run."""

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
from cache.store.claims.codebook_claim import read_codebook
from cache.store.commits import commit_path, committed_units, create_store, read_commit, unit_name
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit

# Tokens that are in memory at a time. At k = 64 a decoded token takes about 0.6 KB.
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

    The store is created with the first unit. Units that it contains already are skipped, so a rerun with the same
    records continues an interrupted run. progress: called with (examples done, total).
    Raises InputError if a record is not valid or there is none, StoreError if the store has another spec or profile.
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
                codebook = read_codebook(storage, spec.vocab_size)  # None before the first unit, which creates it
            write_unit(storage, spec, unit, profile, codebook)
        done += len(unit)
        progress(done, total)
    if not done:
        raise InputError(f"{uri}: nothing to store: the source has no examples")
    take_snapshot(storage)


def token_blocks(lengths: npt.NDArray[Any], max_tokens: int = BLOCK_TOKENS) -> Iterator[range]:
    """Ranges of consecutive examples with at most `max_tokens` tokens together; a longer example is a range of its own.

    lengths: number of tokens of each example, [examples].
    """
    start, tokens = 0, 0
    for i, length in enumerate(lengths.tolist()):
        if i > start and tokens + length > max_tokens:
            yield range(start, i)
            start, tokens = i, 0
        tokens += length
    if start < len(lengths):
        yield range(start, len(lengths))


def require_profile(profile: str) -> None:
    """Raise InputError unless `profile` is a profile of the store format."""
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r}: unknown; give one of {', '.join(PROFILES)}")


def require_same_profile(storage: Storage, units: Iterable[str], profile: Profile) -> None:
    """Raise StoreError if one of these committed units has another profile."""
    for unit in units:
        existing = read_commit(storage, unit)[0].part.profile
        if existing != profile:
            raise StoreError(
                f"{storage}/{commit_path(unit)}: exists with profile {existing}, requested {profile}; "
                "give another target"
            )
