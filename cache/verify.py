"""Scrub a store: every byte of every file that counts is read and held against what was committed."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cache.commits import (
    Commit,
    check_companion,
    committed_units,
    quarantined,
    read_commit,
    read_snapshot,
    read_spec,
    snapshot_files,
)
from cache.documents import unseal
from cache.errors import InputError, IntegrityError
from cache.part import read_arrays
from cache.spec import StoreSpec
from cache.storage import LocalStorage
from cache.writer import seal_file


@dataclass(slots=True)
class VerifyReport:
    """problems: one line a fault, each naming its file. uncommitted: parts that no commit counts, left by kills."""

    files: int = 0
    bytes: int = 0
    examples: int = 0
    problems: list[str] = field(default_factory=list)
    uncommitted: list[str] = field(default_factory=list)


def verify(uri: str, progress: Callable[[int, int], None] = lambda done, total: None) -> VerifyReport:
    """Check all files of the store at `uri`; `progress(units done, units)` is called after each unit."""
    storage = LocalStorage(uri)
    report = VerifyReport()
    spec = read_spec(storage)
    hashes = _verify_snapshots(storage, spec, report)
    units = sorted(set(committed_units(storage)) | set(hashes))
    counted: set[str] = set()
    unreadable: set[str] = set()
    for done, unit in enumerate(units, start=1):
        try:
            commit = read_commit(storage, unit, hashes.get(unit))
        except IntegrityError as error:
            report.problems.append(str(error))
            unreadable.add(unit)
        else:
            counted.add(commit.part)
            _verify_part(storage, spec, commit, report)
        progress(done, len(units))
    for unit in sorted(set(storage.list("parts")) - unreadable):
        paths = [f"parts/{unit}/{attempt}" for attempt in storage.list(f"parts/{unit}")]
        report.uncommitted += [path for path in paths if path not in counted]
    return report


def _verify_snapshots(storage: LocalStorage, spec: StoreSpec, report: VerifyReport) -> dict[str, str]:
    """Check snapshots and quarantine; return the hash that each pinned commit must have."""
    commits: dict[str, str] = {}
    set_aside: dict[str, str] = {}
    for number in snapshot_files(storage):
        try:
            snapshot = read_snapshot(storage, number)
            check_companion(storage, snapshot)
            commits |= snapshot.commits
            set_aside |= snapshot.quarantine
            if snapshot.fingerprint != spec.fingerprint:
                report.problems.append(f"{storage}/snapshots/{number}.json: belongs to another spec")
        except IntegrityError as error:
            report.problems.append(str(error))
    for key in sorted(set(quarantined(storage)) | set(set_aside)):
        name = f"quarantine/{key}.json"
        try:
            unseal(storage.read(name), f"{storage}/{name}")
        except IntegrityError as error:
            report.problems.append(str(error))
    return commits


def _verify_part(storage: LocalStorage, spec: StoreSpec, commit: Commit, report: VerifyReport) -> None:
    before = len(report.problems)
    for name, expected in commit.files.items():
        try:
            found = seal_file(storage, name)
        except IntegrityError as error:
            report.problems.append(str(error))
            continue
        report.files += 1
        report.bytes += found.size
        if found != expected:
            detail = f"{found.size} bytes long, committed with {expected.size}"
            report.problems.append(
                f"{storage}/{name}: {detail if found.size != expected.size else 'altered since it was committed'}"
            )
    for name in sorted(set(storage.walk(commit.part)) - set(commit.files)):
        report.problems.append(f"{storage}/{name}: not part of what was committed")
    if len(report.problems) > before:
        return
    try:
        part = read_arrays(storage.path(commit.part))
        part.targets.validate(spec.vocab_size, f"{storage}/{commit.part}")
    except (InputError, IntegrityError) as error:
        report.problems.append(str(error))
        return
    keys = [description["key"] for description in part.descriptions]
    if keys != [example.key for example in commit.examples]:
        report.problems.append(f"{storage}/{commit.part}: does not hold the examples that its commit lists")
    report.examples += len(part)
