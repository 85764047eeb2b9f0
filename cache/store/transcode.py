"""Copy a store into another profile: the same ids and values with another encoding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.permutation import sorted_permutation
from cache.parts.codebook_learning import SAMPLE_ENTRIES, learn_codebook
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.on_grid import on_grid
from cache.rows.record import Record
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.claims.codebook_claim import claim_codebook, newest_generation
from cache.store.claims.tokenizer_files import transfer_tokenizer
from cache.store.commits import committed_units, create_store, unit_name
from cache.store.fill import require_profile, require_same_profile
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import document_path, quarantine_example, read_entry
from cache.store.reading.blocks import token_blocks
from cache.store.segments.keys import Array, is_among, keys_of_hex
from cache.store.snapshot_reading import read_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.withdrawal.forgotten import forgotten_keys, mark_forgotten, read_forgotten


def transcode_store(
    source: str,
    target: str,
    profile: Profile,
    snapshot: int | None = None,
    unit_examples: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Copy a snapshot (default: the newest) of the store at `source` to the store at `target`, in `profile`.

    Ids and log-probabilities stay the same; entries of one level may change their order. Units stay the same too,
    unless `unit_examples` sets another size; an example in two units is copied once. The codebook of a compact target
    is learned from the whole source, not from a first unit, so this can make a store smaller.
    Examples that are forgotten in the source are left out, and marked in the target too.
    Units that the target contains already are skipped, so a rerun continues. At the end a snapshot is taken.
    progress: called with (units done, units). Memory: one unit and, for a codebook, SAMPLE_ENTRIES entries.
    Raises StoreError if the source cannot be read, or if the target has another spec or units in another profile.
    """
    require_profile(profile)
    if unit_examples is not None and unit_examples < 1:
        raise InputError(f"{unit_examples} examples a unit; give 1 or more")
    if _normalised_uri(source) == _normalised_uri(target):
        raise InputError(f"{target}: is the source itself; give another store as target")
    store = LogitStore.open(source, snapshot)
    storage = open_storage(target)
    create_store(storage, store.spec)
    transfer_tokenizer(store.storage, storage)
    units = _units(store, unit_examples, _copy_forgotten(store, storage))
    names = [unit_name([store.key(int(i)) for i in unit]) for unit in units]
    present = set(committed_units(storage)) & set(names)
    require_same_profile(storage, present, profile)
    if profile == "compact":
        _claim_codebook(storage, store)
    codebooks = CodebookChoice(storage, store.spec)
    for done, (name, unit) in enumerate(zip(names, units, strict=True), start=1):
        if name not in present:
            records = [_unshifted(record, store.spec) for record in store[unit]]
            write_unit(storage, store.spec, records, profile, codebooks, store.rounding(unit.tolist()))
        progress(done, len(units))
    _copy_quarantine(store, storage)
    take_snapshot(storage)


def _units(store: LogitStore, unit_examples: int | None, forgotten: Array) -> list[npt.NDArray[np.int64]]:
    """Examples of each unit of the target. forgotten: keys, sorted."""
    keys = np.concatenate([each.in_order for each in store.index.keys])
    examples = np.flatnonzero(~is_among(keys, forgotten))
    if unit_examples is None:
        cuts = np.flatnonzero(np.diff(store.index.unit_of[examples])) + 1
    else:
        cuts = np.arange(unit_examples, len(examples), unit_examples)
    return [unit for unit in np.split(examples, cuts) if len(unit)]


def _unshifted(record: Record, spec: StoreSpec) -> Record:
    return replace(record, targets=on_grid(record.targets, spec.targets))


def _claim_codebook(storage: Storage, store: LogitStore) -> None:
    """If the target has no codebook, give it one that is learned from an even sample of the source."""
    if newest_generation(storage) or not store.rows.any():
        return
    order = sorted_permutation(len(store), seed=0, number=0)
    most = SAMPLE_ENTRIES // store.spec.targets.max_entries
    enough = int(np.searchsorted(np.cumsum(store.rows[order], dtype=np.int64), most)) + 1
    sample = np.sort(order[:enough])
    targets, tokens = [], []
    for block in token_blocks(store.tokens[sample]):
        windows = []
        for window in store.read([int(i) for i in sample[block.start : block.stop]]):
            rows = np.flatnonzero(window.targets.counts)
            if len(rows):
                windows.append(window.part(int(rows[0]), int(rows[-1]) + 1))
        # Copies: views would keep the longer runs in memory.
        targets.append(concatenate([window.targets for window in windows]))
        tokens += [window.tokens.copy() for window in windows]
    whole = concatenate(targets)
    learned = learn_codebook(whole, np.concatenate(tokens), store.spec.targets, store.spec.vocab_size)
    claim_codebook(storage, 1, learned, len(whole))


def _copy_forgotten(store: LogitStore, storage: Storage) -> Array:
    """Mark the examples in the target that are forgotten in the source. Returns the keys of both, sorted."""
    for key in forgotten_keys(store.storage):
        mark_forgotten(storage, [key], read_forgotten(store.storage, key).reason)
    return keys_of_hex(forgotten_keys(storage))


def _copy_quarantine(store: LogitStore, storage: Storage) -> None:
    if store.snapshot is None:
        return
    forgotten = set(forgotten_keys(storage))
    for key in read_snapshot(store.storage, store.snapshot, quiet=True).quarantine:
        if key in forgotten:
            continue
        if store.storage.size(document_path(key)) is not None:  # a retry may have removed it after the snapshot
            entry = read_entry(store.storage, key)
            quarantine_example(storage, key, entry.id, entry.reason, entry.time)


def _normalised_uri(uri: str) -> str:
    return uri.rstrip("/") if "://" in uri else str(Path(uri).resolve())
