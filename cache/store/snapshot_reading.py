"""Read snapshots: as they are stored, or, where a file is lost, from its copy or the commits. Nothing is written."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError, StoreError
from cache.json_documents import decode_document, digest, encode_document, known_fields, require_fields
from cache.storage.base import Storage
from cache.store.commits import committed_units
from cache.store.index import StoreIndex
from cache.store.quarantine.entries import document_path, read_all, waiting_keys
from cache.store.segments.building import (
    StoreState,
    are_current,
    current_pieces,
    current_sorted_keys,
    load_pieces,
    read_state,
)
from cache.store.segments.file import SegmentFile, SegmentInfo
from cache.store.segments.files import read_segments, recover_segment
from cache.store.segments.keys import Array, keys_of_hex

Result = TypeVar("Result")
FOLDER, DOCUMENT, COPY, EXPIRED = "snapshots", ".json", ".copy.json", ".expired"


class NoSnapshotError(StoreError):
    """There is no snapshot with this number: it was never taken, or it expired."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The units and the quarantine of a store at one time.

    time: when it was taken, ISO 8601 in UTC. segments: of the index, in the order of the examples. quarantine: SHA-256
    of the file of each entry that waits, by its key. forgotten: hash of each key that was forgotten
    then.
    """

    number: int
    fingerprint: str
    time: str
    units: int
    examples: int
    segments: tuple[SegmentInfo, ...]
    quarantine: dict[str, str]
    forgotten: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash of all fields."""
        return digest(asdict(self))

    def to_bytes(self) -> bytes:
        """Content of the document and of its copy."""
        return encode_document(asdict(self))

    @classmethod
    def from_document(cls, body: dict[str, Any], name: str) -> "Snapshot":
        """The snapshot of a document. Raises IntegrityError, starting with `name`, if a field is missing."""
        require_fields(body, cls.__slots__, name)
        segments = []
        for number, values in enumerate(body["segments"]):
            require_fields(values, SegmentInfo.__slots__, f"{name}: segment {number}")
            segments.append(SegmentInfo(**known_fields(values, SegmentInfo)))
        return cls(**{**known_fields(body, cls), "segments": tuple(segments), "forgotten": tuple(body["forgotten"])})


def latest_snapshot(storage: Storage) -> int:
    """Number of the newest snapshot; 0 if there is none."""
    return max(snapshot_numbers(storage), default=0)


def snapshot_numbers(storage: Storage) -> list[int]:
    """Numbers of the snapshots that must exist: from the first that is not expired, to the newest."""
    files, expired = snapshot_files(storage)
    return list(range(expired + 1, max(files) + 1)) if files and max(files) > expired else []


def snapshot_files(storage: Storage) -> tuple[list[int], int]:
    """Numbers of all snapshots of which a file is there, and of the newest that is expired, 0 for none.

    Snapshots expire from the oldest on. A file of one that is expired was left by a command that was killed, or by one
    that slept meanwhile: it counts for nothing.
    """
    names = storage.names(FOLDER)
    heads = {name.removesuffix(DOCUMENT).removesuffix(COPY.removesuffix(DOCUMENT)) for name in names}
    return sorted(_numbers(heads)), max(_numbers(n.removesuffix(EXPIRED) for n in names if EXPIRED in n), default=0)


def _numbers(names: Iterable[str]) -> set[int]:
    return {int(name) for name in names if name.isdecimal() and name == str(int(name))}


def open_snapshot(storage: Storage, number: int, quiet: bool = False) -> tuple[Snapshot, StoreIndex]:
    """The snapshot with this number and its index. What is lost is taken from its copy, or made again from the commits.

    A line in the log says so, unless `quiet`. Raises StoreError if there is no such snapshot, and IntegrityError if it
    cannot be made again.
    """
    snapshot = read_snapshot(storage, number, quiet)
    return snapshot, StoreIndex.of_segments(read_segments(storage, snapshot.segments, quiet))


def current_index(storage: Storage, fingerprint: str, has_forgotten: bool = False) -> StoreIndex:
    """The index of everything that is committed now, or listed by the newest snapshot. Writes nothing.

    has_forgotten: with the forgotten examples that the next snapshot leaves out.
    """

    def read(latest: int) -> StoreIndex:
        state = _current_state(storage, fingerprint, latest)
        if has_forgotten:
            state = replace(state, superseded={}, forgotten=keys_of_hex([]))
        return StoreIndex.of_segments(load_pieces(storage, current_pieces(state, is_complete=False)))

    return with_newest(storage, read)


def current_keys(storage: Storage, fingerprint: str) -> list[Array]:
    """The keys of everything that is committed now, in sorted arrays: 16 bytes an example in memory. Writes nothing."""
    return with_newest(storage, lambda latest: current_sorted_keys(_current_state(storage, fingerprint, latest)))


def are_committed(storage: Storage, fingerprint: str, keys: Array) -> npt.NDArray[np.bool_]:
    """Whether an example with each of these keys is committed now; bool [keys]. Reads only where they would be."""
    return with_newest(storage, lambda latest: are_current(_current_state(storage, fingerprint, latest), keys))


def _current_state(storage: Storage, fingerprint: str, latest: int) -> StoreState:
    """What is committed now, beside the newest snapshot that can be read."""
    previous = newest_readable(storage, latest)
    return read_state(storage, fingerprint, previous.segments if previous else ())


def with_newest(storage: Storage, action: Callable[[int], Result]) -> Result:
    """The result of an action that reads the newest snapshot, of which it gets the number; 0 if there is none.

    It is done again if it fails because that snapshot expired meanwhile and its files were removed.
    """
    while True:
        latest = latest_snapshot(storage)
        try:
            return action(latest)
        except StoreError:
            if latest_snapshot(storage) == latest:
                raise


def newest_readable(storage: Storage, latest: int) -> Snapshot | None:
    """The newest snapshot of which everything can be read or made again. None if there is none.

    Raises IntegrityError if one that cannot be made again lists more units than are committed: then commits are lost.
    """
    for number in reversed([each for each in snapshot_numbers(storage) if each <= latest]):
        units = 0
        try:
            snapshot = read_snapshot(storage, number, quiet=True)
            units = snapshot.units
            for info in snapshot.segments:
                _require_readable(storage, info)
            return snapshot
        except IntegrityError as error:
            if units > len(committed_units(storage)):
                raise
            logging.getLogger(__name__).warning("%s; the next snapshot lists all commits", error)
        except NoSnapshotError:  # older ones are expired
            return None
    return None


def _require_readable(storage: Storage, info: SegmentInfo) -> None:
    try:
        SegmentFile(storage, info)
    except IntegrityError as error:
        recover_segment(storage, info, error)


def read_snapshot(storage: Storage, number: int, quiet: bool = False) -> Snapshot:
    """The document of a snapshot, or its copy if that is lost or damaged.

    Raises StoreError if there is no such snapshot, IntegrityError if both are missing or altered.
    """
    try:
        return read_document(storage, snapshot_path(number), number)
    except IntegrityError as error:
        fault = error
    numbers = snapshot_numbers(storage)
    if number not in numbers:
        newest = f"the newest is {numbers[-1]}" if numbers else "there is none"
        oldest = f", the oldest {numbers[0]}; earlier ones are expired" if numbers and numbers[0] > 1 else ""
        raise NoSnapshotError(f"{storage}: no snapshot {number}; {newest}{oldest}")
    try:
        snapshot = read_document(storage, copy_path(number), number)
    except IntegrityError as error:
        raise IntegrityError(f"{fault}; so is its copy: {error}") from error
    if not quiet:
        logging.getLogger(__name__).warning("%s; its copy was read: 'logitbank verify --repair' writes it again", fault)
    return snapshot


def read_document(storage: Storage, name: str, number: int) -> Snapshot:
    """The snapshot in a file. Raises IntegrityError if it is missing, altered or of another number."""
    snapshot = Snapshot.from_document(decode_document(storage.read(name), f"{storage}/{name}"), f"{storage}/{name}")
    if snapshot.number != number:
        raise IntegrityError(f"{storage}/{name}: is the document of snapshot {snapshot.number}")
    return snapshot


def quarantine_hashes(storage: Storage, forgotten: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of the file of each entry of the quarantine that waits now, by its key. Forgotten ones are left out."""
    keys = sorted(set(waiting_keys(storage)).difference(forgotten))
    hashes = read_all(lambda key: hashlib.sha256(storage.read(document_path(key))).hexdigest(), keys)
    return dict(zip(keys, hashes, strict=True))


def snapshot_path(number: int) -> str:
    """Name of the document of a snapshot."""
    return f"{FOLDER}/{number}{DOCUMENT}"


def expired_path(number: int) -> str:
    """Name of the document that says that all snapshots up to this one are expired."""
    return f"{FOLDER}/{number}{EXPIRED}"


def copy_path(number: int) -> str:
    """Name of the copy of the document of a snapshot."""
    return f"{FOLDER}/{number}{COPY}"
