"""Verify a store: read every byte of every committed file and compare it with the checksums of the commits."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from cache.errors import InputError, IntegrityError, StoreError
from cache.examples.example import Example
from cache.parts.codebook_file import decode_codebook
from cache.parts.description import differing_fields
from cache.parts.part_reader import PartReader
from cache.progress import Progress, no_progress
from cache.rows.codebook import Codebook
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.memory_file import MemoryFile
from cache.storage.open import open_storage
from cache.store.claims.codebook_claim import FOLDER as CODEBOOKS
from cache.store.claims.codebook_claim import (
    claim_path,
    claimed_generations,
    codebook_path,
    open_codebook,
    read_claim,
)
from cache.store.claims.tokenizer_files import FOLDER as TOKENIZERS
from cache.store.claims.tokenizer_files import read_tokenizer_claim
from cache.store.commits import (
    Commit,
    commit_path,
    committed_units,
    read_commit,
    read_spec,
)
from cache.store.quarantine.entries import document_path, quarantined_keys, read_entry
from cache.store.root_group import ROOT_GROUP, check_root_group, create_root_group
from cache.store.segments.file import SegmentInfo
from cache.store.segments.files import segment_faults
from cache.store.snapshot_reading import (
    copy_path,
    open_snapshot,
    read_document,
    snapshot_numbers,
    snapshot_path,
)
from cache.store.snapshots import restore_snapshot
from cache.store.upkeep.commit_restoring import examples_of_part, restore_commit
from cache.store.upkeep.remains import find_remains
from cache.store.withdrawal.forgotten import forgotten_keys, hashes_of_keys, read_forgotten
from cache.store.withdrawal.withdrawn import read_withdrawn, superseded_units


@dataclass(slots=True)
class VerifyReport:
    """problems: one line per fault, with the name of the file. uncommitted: files and folders that no commit or claim
    refers to; killed writers leave them. repaired: names of files that were written again. doubles: examples that an
    earlier unit has too; readers see the first. remaining: files that still have forgotten examples."""

    files: int = 0
    bytes: int = 0
    examples: int = 0
    doubles: int = 0
    problems: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    uncommitted: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)


def verify_store(uri: str, progress: Progress = no_progress, repair: bool = False) -> VerifyReport:
    """Check all files of the store at `uri`. progress: called with (units done, units).

    repair: write lost or damaged segments of the index, documents of snapshots and commits again.
    Faults are reported, not raised. Raises StoreError if there is no store at `uri`, or if it cannot be written.
    """
    storage = open_storage(uri)
    report = VerifyReport()
    try:
        spec = read_spec(storage)
    except IntegrityError as error:  # nothing else can be checked without it
        report.problems.append(f"{error}; another store of the same capture job has the same file")
        return report
    _verify_root_group(storage, spec, report, repair)
    hashes = _verify_snapshots(storage, spec, report, repair)
    codebooks = _verify_codebooks(storage, spec, report)
    tokenizers = _verify_tokenizer(storage, report)
    codebook_of = cache(partial(open_codebook, storage, vocab_size=spec.vocab_size))
    superseded = _verify_withdrawal(storage, report)
    units = sorted(set(committed_units(storage)) | set(hashes))
    committed: dict[str, Commit] = {}
    unreadable: set[str] = set()
    for done, unit in enumerate(units, start=1):
        try:
            commit = _commit(storage, spec, unit, hashes.get(unit), codebook_of, report if repair else None)
        except IntegrityError as error:
            report.problems.append(str(error))
            unreadable.add(unit)
        else:
            committed[commit.part.path] = commit
            counted = report.examples
            _verify_part(storage, spec, commit, codebook_of, report)
            if unit in superseded:  # its examples are in the unit that counts in its place
                report.examples = counted
        progress(done, len(units))
    if not report.problems:
        counting = [commit for commit in committed.values() if commit.unit not in superseded]
        _verify_doubles(storage, spec, counting, codebook_of, report)
    _verify_claimed(storage, {commit.codebook for commit in committed.values()}, codebooks, report)
    for unit in sorted(set(storage.names("parts")) - unreadable):
        paths = [f"parts/{unit}/{attempt}" for attempt in storage.names(f"parts/{unit}")]
        report.uncommitted += [path for path in paths if path not in committed]
    for folder, claimed in ((CODEBOOKS, codebooks), (TOKENIZERS, tokenizers)):
        report.uncommitted += [path for name in storage.names(folder) if (path := f"{folder}/{name}") not in claimed]
    return report


def _commit(
    storage: Storage,
    spec: StoreSpec,
    unit: str,
    sha256: str | None,
    codebook_of: Callable[[str], Codebook],
    repaired: VerifyReport | None,
) -> Commit:
    """The commit of a unit. One that a snapshot lists, by its hash, is written again if there is a report for it."""
    try:
        return read_commit(storage, unit, sha256)[0]
    except IntegrityError as error:
        if sha256 is None:
            raise
        if repaired is None:
            raise IntegrityError(f"{error}; 'logitbank verify --repair' writes it again if its part is whole") from None
        if not restore_commit(storage, spec, unit, sha256, codebook_of):
            raise IntegrityError(
                f"{error}; it cannot be made again, because its part or its codebook is damaged"
            ) from None
        repaired.repaired.append(commit_path(unit))
        return read_commit(storage, unit, sha256)[0]


def _verify_root_group(storage: Storage, spec: StoreSpec, report: VerifyReport, repair: bool) -> None:
    try:
        check_root_group(storage, spec.fingerprint)
    except IntegrityError as error:
        if not repair:
            report.problems.append(f"{error}; 'logitbank verify --repair' writes it again")
            return
        storage.remove_folder(ROOT_GROUP)
        create_root_group(storage, spec.fingerprint)
        report.repaired.append(ROOT_GROUP)


def _verify_snapshots(storage: Storage, spec: StoreSpec, report: VerifyReport, repair: bool) -> dict[str, str]:
    """Check snapshots and quarantine. Returns the hash of each commit that a snapshot lists."""
    commits: dict[str, str] = {}
    quarantine: dict[str, str] = {}
    forgotten: tuple[str, ...] = ()
    checked: dict[SegmentInfo, list[str]] = {}  # faults of each segment, which several snapshots may list
    for number in snapshot_numbers(storage):
        faults = _snapshot_faults(storage, number, checked)
        if faults and repair:
            with suppress(IntegrityError):  # the faults stay
                report.repaired += restore_snapshot(storage, number)
            checked.clear()
            faults = _snapshot_faults(storage, number, checked)
        try:
            snapshot, index = open_snapshot(storage, number, quiet=True)
        except IntegrityError as error:
            report.problems += [*faults[:-1], str(error)] if faults else [str(error)]
            continue
        report.problems += [f"{fault}; 'logitbank verify --repair' writes it again" for fault in faults]
        quarantine = snapshot.quarantine
        forgotten = snapshot.forgotten
        if snapshot.fingerprint != spec.fingerprint:
            report.problems.append(f"{storage}/{snapshot_path(number)}: belongs to another spec")
        commits |= index.commit_hashes()
    _verify_quarantine(storage, quarantine, report)
    lost = set(forgotten).difference(hashes_of_keys(forgotten_keys(storage)))
    if lost:
        report.problems.append(
            f"{storage}/forgotten: {len(lost)} documents are missing, though the newest snapshot lists them; a capture "
            "may store their examples again"
        )
    report.problems = list(dict.fromkeys(report.problems))
    return commits


def _snapshot_faults(storage: Storage, number: int, checked: dict[SegmentInfo, list[str]]) -> list[str]:
    """What is wrong with the files of a snapshot, a line a file. checked: faults of segments that were checked."""
    faults, snapshots = [], []
    for name in (snapshot_path(number), copy_path(number)):
        try:
            snapshots.append(read_document(storage, name, number))
        except IntegrityError as error:
            faults.append(str(error))
    if len(snapshots) == 2 and snapshots[0] != snapshots[1]:
        faults.append(f"{storage}/{copy_path(number)}: does not agree with {snapshot_path(number)}")
    for info in snapshots[0].segments if snapshots else ():
        if info not in checked:
            checked[info] = segment_faults(storage, info)
        faults += checked[info]
    return faults


def _verify_withdrawal(storage: Storage, report: VerifyReport) -> dict[str, str]:
    """Check the documents about forgotten examples and withdrawn units, and look for what remains of the former.

    Returns the unit that counts in the place of each withdrawn one.
    """
    for key in forgotten_keys(storage):
        try:
            read_forgotten(storage, key)
        except (StoreError, InputError) as error:
            report.problems.append(str(error))
    report.remaining = list(find_remains(storage).files)
    try:
        return superseded_units(read_withdrawn(storage), set(committed_units(storage)))
    except (StoreError, InputError) as error:
        report.problems.append(str(error))
        return {}


def _verify_quarantine(storage: Storage, listed: Mapping[str, str], report: VerifyReport) -> None:
    """Check every entry, and those that the newest snapshot lists against its hashes.

    An older snapshot may list entries that were removed since, so that their examples are asked for again.
    """
    for key in sorted(set(quarantined_keys(storage)) | set(listed)):
        try:
            read_entry(storage, key)
            if key in listed and hashlib.sha256(storage.read(document_path(key))).hexdigest() != listed[key]:
                report.problems.append(f"{storage}/{document_path(key)}: not the file that the newest snapshot lists")
        except (StoreError, InputError) as error:
            report.problems.append(str(error))


def _verify_codebooks(storage: Storage, spec: StoreSpec, report: VerifyReport) -> set[str]:
    """Check the claims of codebooks and their files. Returns the names of all of them."""
    names = set()
    for generation in claimed_generations(storage):
        names.add(claim_path(generation))
        try:
            claim = read_claim(storage, generation)
        except (StoreError, InputError) as error:
            report.problems.append(str(error))
            return {f"{CODEBOOKS}/{name}" for name in storage.names(CODEBOOKS)}
        names.add(name := codebook_path(claim["digest"]))
        data = _verify_file(storage, name, claim["bytes"], claim["sha256_of_file"], report)
        try:
            if data is not None:
                decode_codebook(data, claim["digest"], spec.vocab_size, f"{storage}/{name}").validate()
        except (StoreError, InputError) as error:
            report.problems.append(f"{storage}/{name}: {error}" if isinstance(error, InputError) else str(error))
    return names


def _verify_claimed(storage: Storage, used: set[str], names: set[str], report: VerifyReport) -> None:
    """Report codebooks of parts that no document claims, and add their names to `names`: they are no garbage."""
    generations = claimed_generations(storage)
    for digest in sorted(used - {""}):
        if (name := codebook_path(digest)) not in names:
            lost = next(number for number in range(1, len(generations) + 2) if number not in generations)
            report.problems.append(f"{storage}/{claim_path(lost)}: missing: no document claims {name}, which parts use")
            names.add(name)


def _verify_tokenizer(storage: Storage, report: VerifyReport) -> set[str]:
    """Check the files of the tokenizer. Returns the folder that the store uses."""
    try:
        claim = read_tokenizer_claim(storage)
    except (StoreError, InputError) as error:
        report.problems.append(str(error))
        return {f"{TOKENIZERS}/{name}" for name in storage.names(TOKENIZERS)}
    if claim is None:
        return set()
    names = {f"{claim['path']}/{name}": checksum for name, checksum in claim["files"].items()}
    for name, (size, sha256) in names.items():
        _verify_file(storage, name, size, sha256, report)
    for name in sorted(set(storage.walk(claim["path"])) - set(names)):
        report.problems.append(f"{storage}/{name}: not part of what was committed")
    return {claim["path"]}


def _verify_file(storage: Storage, name: str, size: int, sha256: str, report: VerifyReport) -> bytes | None:
    """The content of a file, if it is the one that was committed; otherwise a line in the report."""
    try:
        data = storage.read(name)
    except (StoreError, InputError) as error:
        report.problems.append(str(error))
        return None
    report.files += 1
    report.bytes += len(data)
    if len(data) == size and hashlib.sha256(data).hexdigest() == sha256:
        return data
    detail = f"{len(data)} bytes long, committed with {size}" if len(data) != size else "altered since it was committed"
    report.problems.append(f"{storage}/{name}: {detail}")
    return None


def _verify_part(
    storage: Storage, spec: StoreSpec, commit: Commit, codebook_of: Callable[[str], Codebook], report: VerifyReport
) -> None:
    info = commit.part
    data = _verify_file(storage, info.path, info.bytes, commit.sha256, report)
    if data is None:
        return
    if commit.fingerprint != spec.fingerprint:
        report.problems.append(f"{storage}/{commit_path(commit.unit)}: belongs to another spec")
        return
    try:
        part = PartReader(MemoryFile(storage, info.path, data), info, spec.targets, codebook_of)
        part.check_all()
        targets = part.window(0, part.tokens).targets
        targets.validate(spec.vocab_size, f"{storage}/{info.path}")
        examples = examples_of_part(part, targets)
    except (StoreError, InputError) as error:
        report.problems.append(str(error))
        return
    if examples != commit.examples or (len(targets.ids), part.codebook) != (commit.entries, commit.codebook):
        report.problems.append(f"{storage}/{info.path}: does not contain the examples that its commit lists")
    report.examples += len(examples)


def _verify_doubles(
    storage: Storage,
    spec: StoreSpec,
    commits: Sequence[Commit],
    codebook_of: Callable[[str], Codebook],
    report: VerifyReport,
) -> None:
    """Count the examples that an earlier unit has too, and report those that differ from the one that readers see."""
    keys = [np.frombuffer(bytes.fromhex("".join(e.key for e in c.examples)), "V16") for c in commits]
    all_keys = np.concatenate([np.zeros(0, "V16"), *keys])
    order = np.argsort(all_keys, kind="stable")
    same = np.flatnonzero(all_keys[order[1:]] == all_keys[order[:-1]])
    report.doubles = len(same)
    starts = np.cumsum([0, *map(len, keys)])

    def example(place: int) -> tuple[str, str, Example]:
        unit = int(np.searchsorted(starts, place, side="right")) - 1
        info = commits[unit].part
        part = PartReader(storage, info, spec.targets, codebook_of)
        return part.example(place - int(starts[unit]))

    for position in same.tolist():
        first, other = (example(int(order[i])) for i in (position, position + 1))
        if fields := differing_fields(first[2], other[2]):
            report.problems.append(
                f"{storage}: example {other[2].id} of key {other[0]} is not read: another unit has example "
                f"{first[2].id} of this key; they differ in {', '.join(fields)}"
            )
