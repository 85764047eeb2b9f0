"""Read snapshots: as they are stored, or, where a file is lost, made again from the commits. Nothing is written."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, combinations
from math import comb

from cache.errors import IntegrityError, StoreError
from cache.json_documents import decode_document, digest, known_fields
from cache.storage.base import Storage
from cache.store.commits import Commit, committed_units, read_commit, read_spec
from cache.store.index import StoreIndex
from cache.store.quarantine.entries import document_path, waiting_keys

# Which commits a lost index listed is found by trial, against the hash in the snapshot. At most so many are tried.
MAX_TRIALS = 4096
CommitFile = tuple[Commit, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The commits and the quarantine of a store at one time.

    commits: hash of the names of the units and the hashes of their commits. index: name of the index file, which is
    the SHA-256 of its content. quarantine: SHA-256 of the file of each entry that waits, by its key.
    """

    number: int
    fingerprint: str
    units: int
    examples: int
    commits: str
    index: str
    quarantine: dict[str, str]

    @property
    def digest(self) -> str:
        """Hash of all fields."""
        return digest(asdict(self))

    @classmethod
    def of_index(
        cls, number: int, fingerprint: str, index: StoreIndex, path: str, quarantine: dict[str, str]
    ) -> "Snapshot":
        """The snapshot that has this index, at `path`."""
        return cls(
            number, fingerprint, len(index.unit), len(index.key), digest(index.commit_hashes()), path, quarantine
        )


def latest_snapshot(storage: Storage) -> int:
    """Number of the newest snapshot that has a file or a companion file; 0 if there is none."""
    return max(snapshot_numbers(storage), default=0)


def snapshot_numbers(storage: Storage) -> list[int]:
    """Numbers for which a snapshot and its companion must exist: 1 to the newest of either kind."""
    return list(range(1, max([0, *_numbers(storage, ".json"), *_numbers(storage, ".sha256")]) + 1))


def open_snapshot(storage: Storage, number: int, quiet: bool = False) -> tuple[Snapshot, StoreIndex]:
    """The snapshot with this number and its index. A lost or damaged file is made again from the commits, in memory.

    What is made again has the hash that the other file names, so it is what was lost. A line in the log says so, unless
    `quiet`. Raises StoreError if there is no such snapshot, and IntegrityError if it cannot be made again.
    """
    try:
        snapshot = read_snapshot(storage, number)
    except IntegrityError as error:
        snapshot = recover_snapshot(storage, number, str(error))
        _log_recovery(error, quiet)
    try:
        return snapshot, read_index(storage, snapshot)
    except IntegrityError as error:
        index = recover_index(storage, snapshot, str(error))
        _log_recovery(error, quiet)
        return snapshot, index


def read_snapshot(storage: Storage, number: int) -> Snapshot:
    """The snapshot with this number. Raises StoreError if there is none, IntegrityError if it is missing or altered."""
    name = snapshot_path(number)
    if storage.size(name) is None and number not in snapshot_numbers(storage):
        raise StoreError(f"{storage}: no snapshot {number}; the newest is {latest_snapshot(storage)}")
    required = [item.name for item in fields(Snapshot)]
    body = decode_document(storage.read(name), f"{storage}/{name}", required)
    return Snapshot(**known_fields(body, Snapshot))


def read_index(storage: Storage, snapshot: Snapshot) -> StoreIndex:
    """The index of a snapshot. Raises IntegrityError if it is missing or altered."""
    data = storage.read(snapshot.index)
    if snapshot.index != index_path(data):
        raise IntegrityError(f"{storage}/{snapshot.index}: altered or truncated: its content does not match its name")
    return StoreIndex.from_bytes(data, f"{storage}/{snapshot.index}")


def check_companion(storage: Storage, snapshot: Snapshot) -> None:
    """Raise IntegrityError unless the companion file of the snapshot exists and agrees with it."""
    name = companion_path(snapshot.number)
    if storage.read(name) != companion(snapshot):
        raise IntegrityError(f"{storage}/{name}: does not agree with snapshot {snapshot.number}")


def recover_index(storage: Storage, snapshot: Snapshot, fault: str) -> StoreIndex:
    """Make the index of a snapshot again from exactly its commits. fault: what is wrong with the file.

    Raises IntegrityError, starting with `fault`, if no choice of the commits has the hash that the snapshot names.
    """
    files = _commit_files(storage)
    for units in _choices(storage, snapshot.number, files, snapshot.units):
        if digest({unit: files[unit][1] for unit in sorted(units)}) == snapshot.commits:
            return StoreIndex.from_commits([files[unit] for unit in units])
    raise IntegrityError(
        f"{fault}; it cannot be made again: which commits snapshot {snapshot.number} lists is unknown, or one is lost"
    )


def recover_snapshot(storage: Storage, number: int, fault: str) -> Snapshot:
    """Make the document of a snapshot again. Its companion has the hash of the lost document.

    Raises IntegrityError, starting with `fault`, if nothing that is there has that hash.
    """
    try:
        expected, _, name = storage.read(companion_path(number)).decode("ascii").partition("  ")
    except (IntegrityError, ValueError):
        expected, name = "", ""
    if name == f"{number}.json\n":
        fingerprint = read_spec(storage).fingerprint
        lists = list(_quarantine_lists(storage, number))
        for index, path in _possible_indexes(storage, number):
            for quarantine in lists:
                snapshot = Snapshot.of_index(number, fingerprint, index, path, quarantine)
                if snapshot.digest == expected:
                    return snapshot
    raise IntegrityError(f"{fault}; it cannot be made again from the commits and {companion_path(number)}")


def quarantine_hashes(storage: Storage) -> dict[str, str]:
    """SHA-256 of the file of each entry of the quarantine that waits now, by its key."""
    return {key: hashlib.sha256(storage.read(document_path(key))).hexdigest() for key in waiting_keys(storage)}


def companion(snapshot: Snapshot) -> bytes:
    """Content of the companion file of a snapshot."""
    return f"{snapshot.digest}  {snapshot.number}.json\n".encode()


def index_path(data: bytes) -> str:
    """Name of the file of an index with this content."""
    return f"snapshots/{hashlib.sha256(data).hexdigest()}.npz"


def snapshot_path(number: int) -> str:
    """Name of the file of a snapshot."""
    return f"snapshots/{number}.json"


def companion_path(number: int) -> str:
    """Name of the companion file of a snapshot."""
    return f"snapshots/{number}.sha256"


def _numbers(storage: Storage, suffix: str) -> list[int]:
    """Numbers of the files with this suffix. Files with other names do not belong to the format."""
    names = [name.removesuffix(suffix) for name in storage.names("snapshots", suffix)]
    return [int(name) for name in names if name.isdecimal() and name == str(int(name))]


def _log_recovery(error: IntegrityError, quiet: bool) -> None:
    if not quiet:
        logging.getLogger(__name__).warning(
            "%s; it was made again from the commits, for this reader only: 'logitbank verify --repair' writes it", error
        )


def _commit_files(storage: Storage) -> dict[str, CommitFile]:
    """All commits that can be read, and the hashes of their files, by unit."""
    files: dict[str, CommitFile] = {}
    for unit in committed_units(storage):
        try:
            files[unit] = read_commit(storage, unit)
        except IntegrityError:
            continue  # a choice without it is tried; if it was listed, none has the right hash
    return files


def _choices(storage: Storage, number: int, files: dict[str, CommitFile], size: int | None) -> Iterator[frozenset[str]]:
    """Sets of units that a snapshot may list, the likeliest first. size: number of units, if it is known.

    A snapshot lists what the one before listed, and nothing that the one after did not. Between the two, older commits
    are likelier.
    """
    least = next((units for n in range(number - 1, 0, -1) if (units := _listed_units(storage, n)) is not None), set())
    last = latest_snapshot(storage)
    most = next((units for n in range(number + 1, last + 1) if (units := _listed_units(storage, n)) is not None), None)
    open_units = (set(files) if most is None else most & set(files)) - least
    if not least <= set(files):
        return
    in_order = sorted(open_units, key=lambda unit: (storage.changed(f"commits/{unit}.json"), unit))
    if size is None:
        yield from (frozenset(least.union(in_order[:count])) for count in range(len(in_order), -1, -1))
        return
    missing = size - len(least)
    if 0 <= missing <= len(in_order):
        yield frozenset(least.union(in_order[:missing]))
        if comb(len(in_order), missing) <= MAX_TRIALS:  # files that were copied may have lost their times
            yield from (frozenset(least.union(some)) for some in combinations(in_order, missing))


def _listed_units(storage: Storage, number: int) -> set[str] | None:
    """The units of another snapshot, or None if it cannot be read."""
    try:
        return set(read_index(storage, read_snapshot(storage, number)).commit_hashes())
    except StoreError:
        return None


def _possible_indexes(storage: Storage, number: int) -> Iterator[tuple[StoreIndex, str]]:
    """Indexes, and their paths, that a snapshot whose document is lost may name."""
    for name in storage.names("snapshots", ".npz"):
        path = f"snapshots/{name}"
        try:
            data = storage.read(path)
            index = StoreIndex.from_bytes(data, path)
        except StoreError:
            continue
        if index_path(data) == path:
            yield index, path
    files = _commit_files(storage)
    for units in _choices(storage, number, files, None):
        index = StoreIndex.from_commits([files[unit] for unit in units])
        yield index, index_path(index.to_bytes())


def _quarantine_lists(storage: Storage, number: int) -> Iterator[dict[str, str]]:
    """Quarantines that a snapshot whose document is lost may list: that of now, of its neighbours, or between them."""
    now = quarantine_hashes(storage)
    neighbours: list[dict[str, str]] = []
    for other in (number - 1, number + 1):
        try:
            neighbours.append(read_snapshot(storage, other).quarantine)
        except StoreError:
            continue
    order: Sequence[str] = sorted(now, key=lambda key: (storage.changed(document_path(key)), key))
    older = ({key: now[key] for key in order[:count]} for count in range(min(len(order), MAX_TRIALS)))
    yield from chain([now], neighbours, older)
