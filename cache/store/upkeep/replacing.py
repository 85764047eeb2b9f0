"""Write units that have forgotten examples again, without them. The old unit stays until no snapshot lists it."""

import logging
from dataclasses import dataclass

from cache.errors import IntegrityError
from cache.rows.codec import QuantisationError
from cache.rows.on_grid import on_grid
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.commits import Commit, read_commit, unit_name
from cache.store.index import StoreIndex
from cache.store.logit_store import LogitStore
from cache.store.segments.building import StoreState, units_with_forgotten
from cache.store.segments.columns import segment_of_commits
from cache.store.unit_writer import write_unit
from cache.store.withdrawal.withdrawn import withdraw_unit


@dataclass(frozen=True, slots=True)
class Replacement:
    """Names of the units that were written again, and of those that could not be read."""

    replaced: tuple[str, ...]
    unreadable: tuple[str, ...]


def replace_units(storage: Storage, spec: StoreSpec, state: StoreState, is_searched: bool = True) -> Replacement:
    """Write each unit that has forgotten examples again, without them.

    is_searched: whether the base of the state may have some. A killed run is continued by the next. A unit that cannot
    be read stays, and its forgotten examples are only left out of the index; a line in the log says so.
    """
    replaced, unreadable = [], []
    for unit in units_with_forgotten(state, is_searched):
        try:
            _replace_unit(storage, spec, state, *read_commit(storage, unit))
            replaced.append(unit)
        except IntegrityError as error:
            unreadable.append(unit)
            logging.getLogger(__name__).warning("%s; its unit keeps a forgotten example, which is not read", error)
    return Replacement(tuple(replaced), tuple(unreadable))


def _replace_unit(storage: Storage, spec: StoreSpec, state: StoreState, commit: Commit, sha256: str) -> None:
    forgotten = {key.tobytes().hex() for key in state.forgotten}
    kept = [i for i, example in enumerate(commit.examples) if example.key not in forgotten]
    records = _records(storage, spec, commit, sha256, kept)
    # First the document, then the commit: whoever sees the commit sees in whose place it counts.
    withdraw_unit(storage, commit.unit, unit_name([record.key for record in records]) if records else "")
    if records:
        error = QuantisationError(commit.max_abs_error, commit.kl)
        write_unit(storage, spec, records, commit.profile, previous_error=error)


def _records(storage: Storage, spec: StoreSpec, commit: Commit, sha256: str, kept: list[int]) -> list[Record]:
    """Some records of a unit, with values on the grid, so that they are stored as they were."""
    index = StoreIndex.of_segments([segment_of_commits([(commit, sha256)])])
    records = LogitStore(storage, spec, index, None, frozenset())[kept]
    return [Record(r.key, r.tokenized, on_grid(r.targets, spec.targets), r.token_logprobs) for r in records]
