"""Take snapshots: numbered, immutable lists of segments of the index, from which a store opens at once."""

from contextlib import suppress
from datetime import UTC, datetime

from cache.errors import IntegrityError
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.commits import read_spec
from cache.store.segments.building import current_pieces, read_state
from cache.store.segments.columns import Segment
from cache.store.segments.file import SegmentFile, SegmentInfo
from cache.store.segments.files import read_segments, restore_segment, segment_faults, units_path, write_segment
from cache.store.snapshot_reading import (
    Snapshot,
    copy_path,
    newest_readable,
    quarantine_hashes,
    read_document,
    read_snapshot,
    snapshot_files,
    snapshot_path,
    with_newest,
)
from cache.store.upkeep.replacing import Replacement, replace_units
from cache.store.withdrawal.forgotten import forgotten_keys, hashes_of_keys


def take_snapshot(storage: Storage) -> Snapshot:
    """Pin everything that is committed now. If nothing changed, the newest snapshot is returned.

    It costs what was committed since the last one. Examples keep their numbers, unless one before them is forgotten:
    forgotten examples are left out, and their units are written again without them.
    Raises IntegrityError if a commit is altered, of another spec, or missing although an earlier snapshot lists it.
    """
    spec = read_spec(storage)
    while True:
        snapshot = with_newest(storage, lambda latest: _next_snapshot(storage, spec, latest))
        if snapshot is not None:
            return snapshot


def _next_snapshot(storage: Storage, spec: StoreSpec, latest: int) -> Snapshot | None:
    """The snapshot after `latest`, or `latest` if nothing changed. None if another writer took one meanwhile."""
    number = 1 + max(latest, snapshot_files(storage)[1])
    previous = newest_readable(storage, latest)
    forgotten = hashes_of_keys(forgotten_keys(storage))
    state = read_state(storage, spec.fingerprint, previous.segments if previous else ())
    is_searched = previous is None or not set(forgotten) <= set(previous.forgotten)
    replacement = replace_units(storage, spec, state, is_searched) if forgotten else Replacement((), ())
    if replacement.replaced:
        state = read_state(storage, spec.fingerprint, state.base)
    if replacement.unreadable:  # the next snapshot tries again
        forgotten = previous.forgotten if previous else ()
    pieces = current_pieces(state, is_searched)
    segments = [_written(storage, piece) for piece in pieces]
    snapshot = Snapshot(
        number=number,
        fingerprint=spec.fingerprint,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        units=sum(segment.units for segment in segments),
        examples=sum(segment.examples for segment in segments),
        segments=tuple(segments),
        quarantine=quarantine_hashes(storage, forgotten_keys(storage)),
        forgotten=forgotten,
    )
    if previous and previous.number == latest:
        _restore_lost(storage, previous)  # a writer may have been killed between its files
        if (previous.segments, previous.quarantine) == (snapshot.segments, snapshot.quarantine):
            return previous
    if not storage.create(snapshot_path(snapshot.number), snapshot.to_bytes()):
        return None
    if snapshot_files(storage)[1] >= snapshot.number:
        # Others took this snapshot and later ones while this writer slept, and expired it. What it lists may be gone.
        storage.remove_folder(snapshot_path(snapshot.number))
        return None
    storage.create(copy_path(snapshot.number), snapshot.to_bytes())
    for piece, info in zip(pieces, segments, strict=True):
        # Of a killed writer, and removed by garbage collection before the snapshot named it.
        if isinstance(piece, Segment) and None in (storage.size(info.path), storage.size(units_path(info.sha256))):
            write_segment(storage, piece)
    return snapshot


def restore_snapshot(storage: Storage, number: int) -> list[str]:
    """Write the lost or damaged files of a snapshot again. Returns their names.

    Raises IntegrityError if a file cannot be made again as it was; the others are written.
    """
    snapshot = read_snapshot(storage, number, quiet=True)
    restored = _restore_documents(storage, snapshot)
    faults = []
    for segment in snapshot.segments:
        if segment_faults(storage, segment):
            try:
                restored += restore_segment(storage, segment)
            except IntegrityError as error:
                faults.append(str(error))
    if faults:
        raise IntegrityError("; ".join(faults))
    return restored


def _restore_lost(storage: Storage, snapshot: Snapshot) -> None:
    """Write files of a snapshot again that are missing or cut. What only a look at every byte finds is not noticed."""
    _restore_documents(storage, snapshot)
    for info in snapshot.segments:
        if storage.size(info.path) != info.bytes or storage.size(units_path(info.sha256)) is None:
            with suppress(IntegrityError):  # which 'verify' names
                restore_segment(storage, info)


def _restore_documents(storage: Storage, snapshot: Snapshot) -> list[str]:
    """Write the document of a snapshot and its copy again where they are lost or damaged. Returns their names."""
    restored = []
    for name in (snapshot_path(snapshot.number), copy_path(snapshot.number)):
        try:
            is_same = read_document(storage, name, snapshot.number) == snapshot
        except IntegrityError:
            is_same = False
        if not is_same:
            storage.remove_folder(name)
            storage.create(name, snapshot.to_bytes())
            restored.append(name)
    return restored


def _written(storage: Storage, piece: SegmentInfo | Segment) -> SegmentInfo:
    """A segment in its file. A file that was lost since it was written is written again."""
    if isinstance(piece, Segment):
        return write_segment(storage, piece)
    try:
        SegmentFile(storage, piece)
        return piece
    except IntegrityError:
        (segment,) = read_segments(storage, [piece], quiet=True)
        again = write_segment(storage, segment)
        if again.path == piece.path:
            restore_segment(storage, piece)
        return again
