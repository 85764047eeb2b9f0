"""The segments of everything that is committed now: those of a snapshot, and what was committed since."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.storage.base import Storage
from cache.store.commits import Commit, commit_path, committed_units, read_commit, read_commits
from cache.store.segments.columns import Segment, concatenate_segments, segment_of_commits
from cache.store.segments.file import SegmentFile, SegmentInfo
from cache.store.segments.files import read_segments
from cache.store.segments.keys import Array, is_among, is_first, keys_of_hex, sorting_order
from cache.store.withdrawal.forgotten import forgotten_keys
from cache.store.withdrawal.withdrawn import read_withdrawn, superseded_units

# Of one segment, at most. A larger store has several, which are never written again.
MAX_UNITS, MAX_EXAMPLES = 1 << 16, 1 << 20
# Commits that are in memory at a time.
BATCH_UNITS = 1024
# A segment that is written already, or one in memory.
Piece = SegmentInfo | Segment


@dataclass(frozen=True, slots=True)
class StoreState:
    """What is committed now. base: segments of a snapshot. units: names of all commits. superseded: the unit that
    counts in the place of each withdrawn one. forgotten: keys, sorted."""

    storage: Storage
    fingerprint: str
    base: tuple[SegmentInfo, ...]
    units: tuple[str, ...]
    superseded: Mapping[str, str]
    forgotten: Array


def read_state(storage: Storage, fingerprint: str, base: Sequence[SegmentInfo]) -> StoreState:
    """Look at what is committed now."""
    # In this order: a unit is withdrawn before its successor is committed.
    units = committed_units(storage)
    withdrawn = read_withdrawn(storage)
    superseded = superseded_units(withdrawn, set(units)) if withdrawn else {}
    forgotten = keys_of_hex(forgotten_keys(storage))
    return StoreState(storage, fingerprint, tuple(base), tuple(units), superseded, forgotten)


def current_pieces(state: StoreState, is_searched: bool = True, is_complete: bool = True) -> list[Piece]:
    """The segments of everything that counts now, in order. Only what is new is read, and what has to change.

    is_searched: whether `base` may have forgotten examples. is_complete: whether every commit that `base` lists must
    exist. Raises IntegrityError if a commit is altered, of another spec, or missing although it must exist.
    """
    pieces, new = _base_pieces(state, is_searched, is_complete)
    return _merged(state.storage, [*pieces, *_new_segments(state, new, pieces)])


def current_sorted_keys(state: StoreState) -> list[Array]:
    """The keys of everything that counts now, in sorted arrays. Of each segment of the base nothing else is read."""
    pieces, new = _base_pieces(state, is_searched=True, is_complete=False)
    arrays = [_sorted_keys(state.storage, piece) for piece in pieces]
    return arrays + [segment.keys.sorted for segment in _new_segments(state, new, arrays)]


def are_current(state: StoreState, keys: Array) -> npt.NDArray[np.bool_]:
    """Whether an example that counts now has each of these keys; bool [keys]. Reads only where they would be."""
    pieces, new = _base_pieces(state, is_searched=True, is_complete=False)
    return _are_in(state.storage, [*pieces, *_new_segments(state, new, ())], keys)


def _base_pieces(state: StoreState, is_searched: bool, is_complete: bool) -> tuple[list[Piece], Iterator[str]]:
    """The segments of the base as they are now, and the units that it does not list."""
    pieces: list[Piece] = []
    listed = [_names(state.storage, info) for info in state.base]
    known = set(chain.from_iterable(listed))
    if is_complete:
        _require_all_commits(state, known)
    placed: set[str] = set()
    for info, names in zip(state.base, listed, strict=True):
        piece = _updated(state, info, names, known, placed, is_searched)
        if isinstance(piece, SegmentInfo) or len(piece):
            pieces.append(piece)
    new = (unit for unit in state.units if unit not in known and unit not in placed and unit not in state.superseded)
    return pieces, new


def load_pieces(storage: Storage, pieces: Sequence[Piece], quiet: bool = False) -> list[Segment]:
    """All segments in memory."""
    stored = iter(read_segments(storage, [piece for piece in pieces if isinstance(piece, SegmentInfo)], quiet))
    return [next(stored) if isinstance(piece, SegmentInfo) else piece for piece in pieces]


def _sorted_keys(storage: Storage, piece: Piece) -> Array:
    """The keys of a segment, sorted."""
    if isinstance(piece, Segment):
        return piece.keys.sorted
    try:
        return SegmentFile(storage, piece).keys()
    except IntegrityError:
        return read_segments(storage, [piece], quiet=True)[0].keys.sorted


def _are_in(storage: Storage, pieces: Sequence[Piece | Array], keys: Array) -> npt.NDArray[np.bool_]:
    """Whether one of the segments, or of the sorted arrays of keys, has each of these keys; bool [keys]."""
    order = sorting_order(keys)  # neighbours are looked up near to each other, which caches reward
    ordered = keys[order]
    here = np.zeros(len(keys), bool)
    for piece in pieces:
        here |= _contains(storage, piece, ordered)
    found = np.empty_like(here)
    found[order] = here
    return found


def units_with_forgotten(state: StoreState, is_searched: bool) -> list[str]:
    """Names of the committed units that have a forgotten example and count. is_searched: as in current_pieces.

    A unit whose commit is damaged is one of them if its examples are not all in the index: it may have one.
    """
    units: set[str] = set()
    keys = state.forgotten
    incomplete: list[str] = []
    for info in state.base if is_searched else ():
        (segment,) = read_segments(state.storage, [info], quiet=True)
        here = np.unique(segment.examples["unit"][is_among(segment.keys.in_order, keys)])
        units |= {segment.units["name"][unit].tobytes().hex() for unit in here.tolist()}
        incomplete += segment.left_out()
    # The index leaves out what an earlier unit has, and what is forgotten: only the commits have these keys.
    for unit in incomplete:
        try:
            commit, _ = read_commit(state.storage, unit)
        except IntegrityError:
            units.add(unit)
        else:
            units |= {unit} if _has_one(commit, keys) else set()
    known = {name for info in state.base for name in _names(state.storage, info)}
    for commit, _ in read_commits(state.storage, (unit for unit in state.units if unit not in known)):
        units |= {commit.unit} if _has_one(commit, keys) else set()
    return sorted(units.intersection(state.units) - state.superseded.keys())


def _has_one(commit: Commit, keys: Array) -> bool:
    """Whether a commit has an example with one of these keys."""
    return bool(is_among(keys_of_hex(example.key for example in commit.examples), keys).any())


def _updated(
    state: StoreState, info: SegmentInfo, names: Sequence[str], known: Set[str], placed: set[str], is_searched: bool
) -> Piece:
    """A segment of the base without what is forgotten, and with the successors of its withdrawn units.

    known: names of all units of the base. placed: successors that have their place already; more are added.
    """
    withdrawn = state.superseded.keys() | placed
    olds = [place for place, name in enumerate(names) if name in withdrawn] if withdrawn else []
    if not olds and not (is_searched and _contains(state.storage, info, state.forgotten).any()):
        return info
    (segment,) = read_segments(state.storage, [info], quiet=True)
    segment = segment.with_examples(~is_among(segment.keys.in_order, state.forgotten))
    parts, begin, places = [], 0, np.arange(len(segment))
    for old in olds:
        parts.append(segment.with_units((places >= begin) & (places < old)))
        begin = old + 1
        successor = state.superseded.get(names[old], "")
        former = segment.with_units(places == old).keys  # an earlier unit may have some of its examples
        # A writer may have committed the successor before. Then it may be listed later, without what the old one has.
        if successor and successor not in placed and (successor not in known or len(former)):
            new = segment_of_commits([_checked(state, *read_commit(state.storage, successor))])
            parts.append(new.with_examples(former.contains(new.keys.in_order)))
            placed.add(successor)
    return concatenate_segments([*parts, segment.with_units(places >= begin)])


def _new_segments(state: StoreState, units: Iterator[str], before: Sequence[Piece | Array]) -> list[Segment]:
    """Segments of commits that no earlier one lists. An example that an earlier unit has is left out."""
    found: list[Segment] = []
    while batch := list(islice(units, BATCH_UNITS)):
        segment = segment_of_commits([_checked(state, *pair) for pair in read_commits(state.storage, batch)])
        keys = segment.keys.in_order
        left_out = ~is_first(keys) | is_among(keys, state.forgotten)
        left_out |= _are_in(state.storage, (*before, *found), keys)
        segment = segment.with_examples(~left_out)
        if found and _fits(found[-1], segment):
            segment = concatenate_segments([found.pop(), segment])
        found.append(segment)
    return found


def _merged(storage: Storage, pieces: Sequence[Piece]) -> list[Piece]:
    """Join a new segment with those before it that are not larger, so that there are few segments.

    As in a binary counter: an example is written again a number of times that grows with the logarithm of their number.
    """
    merged: list[Piece] = []
    for piece in pieces:
        merged.append(piece)
        while len(merged) > 1 and isinstance(merged[-1], Segment):
            before, last = merged[-2], merged[-1]
            if _weight(before) > _weight(last) or not _fits(before, last):
                break
            merged[-2:] = [concatenate_segments(load_pieces(storage, [before, last], quiet=True))]
    return merged


def _weight(piece: Piece) -> int:
    return sum(_sizes(piece))


def _fits(one: Piece, other: Piece) -> bool:
    """Whether two segments may become one."""
    (units, examples), (more_units, more_examples) = _sizes(one), _sizes(other)
    return units + more_units <= MAX_UNITS and examples + more_examples <= MAX_EXAMPLES


def _sizes(piece: Piece) -> tuple[int, int]:
    """Number of units and of examples."""
    return (piece.units, piece.examples) if isinstance(piece, SegmentInfo) else (len(piece), len(piece.keys))


def _names(storage: Storage, info: SegmentInfo) -> list[str]:
    """Names of the units of a segment."""
    try:
        return SegmentFile(storage, info).names()
    except IntegrityError:
        return read_segments(storage, [info], quiet=True)[0].names


def _contains(storage: Storage, piece: Piece | Array, keys: Array) -> npt.NDArray[np.bool_]:
    if isinstance(piece, np.ndarray):
        return is_among(keys, piece)
    if isinstance(piece, Segment):
        return piece.keys.contains(keys)
    if not len(keys):
        return np.zeros(0, bool)
    try:
        return SegmentFile(storage, piece).contains(keys)
    except IntegrityError:
        return read_segments(storage, [piece], quiet=True)[0].keys.contains(keys)


def _checked(state: StoreState, commit: Commit, sha256: str) -> tuple[Commit, str]:
    if commit.fingerprint != state.fingerprint:
        raise IntegrityError(f"{state.storage}/{commit_path(commit.unit)}: belongs to another spec")
    return commit, sha256


def _require_all_commits(state: StoreState, known: set[str]) -> None:
    """Raise IntegrityError if a unit that the base lists has no commit any more, which a new snapshot would hide."""
    lost = known.difference(state.units) - state.superseded.keys()
    if lost:
        raise IntegrityError(
            f"{state.storage}/{commit_path(min(lost))}: missing, though a snapshot lists it; 'logitbank verify "
            "--repair' writes it again if its part is whole"
        )
