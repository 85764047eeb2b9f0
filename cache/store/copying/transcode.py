"""Copy a store into another profile: the same ids and values with another encoding."""

from dataclasses import replace

import numpy as np

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
from cache.store.copying.copied_units import copy_quarantine, require_other_store, units_of_copy
from cache.store.fill import require_profile, require_same_profile
from cache.store.logit_store import LogitStore
from cache.store.reading.blocks import token_blocks
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit


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
    require_other_store(source, target)
    store = LogitStore.open(source, snapshot)
    storage = open_storage(target)
    create_store(storage, store.spec)
    transfer_tokenizer(store.storage, storage)
    units = units_of_copy(store, storage, unit_examples)
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
    copy_quarantine(store, storage)
    take_snapshot(storage)


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
