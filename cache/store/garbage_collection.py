"""Garbage collection: remove files that no commit, snapshot or claim refers to, once no writer can need them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cache.storage.base import Storage
from cache.store.claims.codebook_claim import FOLDER as CODEBOOKS
from cache.store.claims.codebook_claim import claim_path, codebook_path, read_claims
from cache.store.claims.tokenizer_files import CLAIM as TOKENIZER_CLAIM
from cache.store.claims.tokenizer_files import FOLDER as TOKENIZERS
from cache.store.claims.tokenizer_files import read_tokenizer_claim
from cache.store.commits import commit_path, committed_units, read_commit, read_spec
from cache.store.quarantine.entries import entry_files, obsolete_keys
from cache.store.segments.files import units_path
from cache.store.snapshot_reading import Snapshot, open_snapshot, read_snapshot, snapshot_numbers, snapshot_path

# A writer needs minutes from its first file to its commit. Older files belong to a writer that was killed.
GRACE_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class GarbageReport:
    """removed: names that were removed, or would be in a dry run; bytes: their size. young: names of unreferenced files
    that a writer may still need. withdrawn: commits and claims that a writer made in the moment in which its files,
    older than the grace, were removed; their unit is captured again by the next run.
    """

    removed: list[str] = field(default_factory=list)
    young: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    bytes: int = 0


def collect_garbage(storage: Storage, grace: float = GRACE_SECONDS, dry_run: bool = False) -> GarbageReport:
    """Remove unreferenced attempts, codebooks, indexes and drafts that are older than `grace` seconds, and
    obsolete entries of the quarantine.

    Raises IntegrityError, and removes nothing, if a commit, snapshot or index cannot be read or made again, because
    then it is unknown which files are referenced.
    """
    read_spec(storage)
    referenced = _referenced_names(storage)
    units = storage.names("parts")
    candidates = [f"parts/{unit}/{attempt}" for unit in units for attempt in storage.names(f"parts/{unit}")]
    candidates += [f"{CODEBOOKS}/{name}" for name in storage.names(CODEBOOKS)]
    candidates += [f"{TOKENIZERS}/{name}" for name in storage.names(TOKENIZERS)]
    candidates += [f"index/{name}" for name in storage.names("index")]
    candidates += storage.drafts()
    candidates += [name for key in obsolete_keys(storage) for name in entry_files(key)]
    report = GarbageReport()
    numbers = snapshot_numbers(storage)
    for name in candidates:
        if name in referenced:
            continue
        if storage.age(name) < grace:
            report.young.append(name)
            continue
        size = sum(storage.size(file) or 0 for file in storage.walk(name))
        if _referring_file(storage, name, numbers):
            continue
        report.removed.append(name)
        report.bytes += size
        if dry_run:
            continue
        storage.remove_folder(name)
        # A writer that slept may have made its commit since. It looks for its files afterwards, as is done here: one of
        # the two sees what the other did.
        reference = _referring_file(storage, name, numbers)
        if reference and not name.startswith("index/"):
            storage.remove_folder(reference)
            report.withdrawn.append(reference)
    return report


def _referring_file(storage: Storage, name: str, numbers: Sequence[int]) -> str | None:
    """The commit, claim or snapshot that refers to a file or folder now. numbers: snapshots that do not."""
    kind, _, rest = name.partition("/")
    if kind == "parts":
        path = commit_path(rest.partition("/")[0])
        is_commit = storage.size(path) is not None
        return path if is_commit and read_commit(storage, rest.partition("/")[0])[0].part.path == name else None
    if kind == CODEBOOKS:
        claims = read_claims(storage)
        return next((claim_path(n) for n, claim in claims.items() if codebook_path(claim["digest"]) == name), None)
    if kind == TOKENIZERS:
        claim = read_tokenizer_claim(storage)
        return TOKENIZER_CLAIM if claim and claim["path"] == name else None
    later = [number for number in snapshot_numbers(storage) if number not in numbers] if kind == "index" else []
    return next((snapshot_path(n) for n in later if name in _index_files(read_snapshot(storage, n))), None)


def _referenced_names(storage: Storage) -> set[str]:
    """Names of all parts, indexes and codebooks that a commit, a snapshot or the codebook's claim refers to."""
    commits = [read_commit(storage, unit)[0] for unit in committed_units(storage)]
    parts = [commit.part for commit in commits]
    codebooks = {codebook_path(commit.codebook) for commit in commits if commit.codebook}
    referenced: set[str] = set()
    listed: set[str] = set()  # entries of the quarantine in the newest snapshot
    for number in snapshot_numbers(storage):
        snapshot, index = open_snapshot(storage, number)
        referenced |= _index_files(snapshot)
        listed = {name for key in snapshot.quarantine for name in entry_files(key)}
        parts += [index.part_info(unit) for unit in range(len(index.unit))]
        codebooks |= {codebook_path(digest) for digest in index.codebooks}
    for generation, claim in read_claims(storage).items():
        codebooks |= {claim_path(generation), codebook_path(claim["digest"])}
    tokenizer = read_tokenizer_claim(storage)
    return referenced | listed | codebooks | {part.path for part in parts} | {tokenizer["path"] if tokenizer else ""}


def _index_files(snapshot: Snapshot) -> set[str]:
    """Names of the files of the segments of a snapshot."""
    return {name for info in snapshot.segments for name in (info.path, units_path(info.sha256))}
