"""Garbage collection: remove files that no commit, snapshot or claim refers to, once no writer can need them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cache.errors import IntegrityError, StoreError
from cache.storage.base import Storage
from cache.store.claims.codebook_claim import FOLDER as CODEBOOKS
from cache.store.claims.codebook_claim import claim_path, codebook_path, read_claims
from cache.store.claims.tokenizer_files import CLAIM as TOKENIZER_CLAIM
from cache.store.claims.tokenizer_files import FOLDER as TOKENIZERS
from cache.store.claims.tokenizer_files import read_tokenizer_claim
from cache.store.commits import commit_path, committed_units, read_commit, read_commits, read_spec
from cache.store.quarantine.entries import entry_files, obsolete_keys
from cache.store.segments.files import units_path
from cache.store.segments.keys import keys_of_hex
from cache.store.snapshot_reading import Snapshot, open_snapshot, read_snapshot, snapshot_numbers, snapshot_path
from cache.store.upkeep.expiring import expired_files
from cache.store.upkeep.remains import draft_has_key, has_described, has_key
from cache.store.withdrawal.forgotten import forgotten_keys
from cache.store.withdrawal.withdrawn import read_withdrawn, superseded_units

# A writer needs minutes from its first file to its commit. Older files belong to a writer that was killed.
GRACE_SECONDS = 24 * 3600.0
_WAITS_FOR_WRITER = (
    "{} may have a forgotten example, and a writer may still need it: run 'logitbank gc' again after the grace"
)


@dataclass(slots=True)
class GarbageReport:
    """removed: names that were removed, or would be in a dry run; bytes: their size. young: names of unreferenced files
    that a writer may still need. withdrawn: commits and claims that a writer made in the moment in which its files,
    older than the grace, were removed; their unit is captured again by the next run. waiting: lines about what still
    has forgotten examples, and why.
    """

    removed: list[str] = field(default_factory=list)
    young: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _References:
    """Names of files that something refers to. forgotten: keys. replaced: commits and parts of units in whose place
    another one counts and that no snapshot lists. numbers: of the snapshots."""

    names: frozenset[str]
    forgotten: tuple[str, ...]
    replaced: tuple[str, ...]
    numbers: tuple[int, ...]


def collect_garbage(storage: Storage, grace: float = GRACE_SECONDS, dry_run: bool = False) -> GarbageReport:
    """Remove unreferenced attempts, codebooks, segments and drafts that are older than `grace` seconds, and obsolete
    entries of the quarantine. Files with forgotten examples are removed at once, unless a snapshot lists them.

    Raises IntegrityError, and removes nothing, if a commit, snapshot or segment cannot be read or made again, because
    then it is unknown which files are referenced.
    """
    read_spec(storage)
    report = GarbageReport()
    references = _references(storage, report)
    for name in references.replaced:  # a commit comes before its part
        _remove(storage, name, report, dry_run)
    for name in expired_files(storage):
        _remove(storage, name, report, dry_run)
    for name in _candidates(storage, references):
        if name in references.names or name in references.replaced:
            continue
        has_forgotten = _has_forgotten(storage, name, references.forgotten)
        if has_forgotten is not True and storage.age(name) < grace:
            report.young.append(name)
            report.waiting += [_WAITS_FOR_WRITER.format(name)] if has_forgotten is None else []
        elif not _referring_file(storage, name, references.numbers):
            _remove_unreferenced(storage, name, report, dry_run, references.numbers)
    return report


def _remove_unreferenced(
    storage: Storage, name: str, report: GarbageReport, dry_run: bool, numbers: Sequence[int]
) -> None:
    """Remove a file or folder that nothing refers to, and see that nothing did meanwhile. numbers: known snapshots."""
    content = b""
    if name.startswith("index/") and not dry_run:
        with suppress(IntegrityError):  # another process removes it too
            content = storage.read(name)
    _remove(storage, name, report, dry_run)
    # A writer that slept may have made its commit since. It looks for its files afterwards, as is done here: one of the
    # two sees what the other did.
    reference = None if dry_run else _referring_file(storage, name, numbers)
    if reference and content:
        storage.create(name, content)
    elif reference and not name.startswith("index/"):
        storage.remove_folder(reference)
        report.withdrawn.append(reference)


def _remove(storage: Storage, name: str, report: GarbageReport, dry_run: bool) -> None:
    report.bytes += sum(storage.size(file) or 0 for file in storage.walk(name))
    report.removed.append(name)
    if not dry_run:
        storage.remove_folder(name)


def _candidates(storage: Storage, references: _References) -> list[str]:
    """Names of all files and folders that may be garbage."""
    units = storage.names("parts")
    candidates = [f"parts/{unit}/{attempt}" for unit in units for attempt in storage.names(f"parts/{unit}")]
    for folder in (CODEBOOKS, TOKENIZERS, "index"):
        candidates += [f"{folder}/{name}" for name in storage.names(folder)]
    candidates += storage.drafts()
    keys = dict.fromkeys([*obsolete_keys(storage), *references.forgotten])
    return candidates + [name for key in keys for name in entry_files(key) if storage.size(name) is not None]


def _has_forgotten(storage: Storage, name: str, forgotten: Sequence[str]) -> bool | None:
    """Whether an unreferenced file has a forgotten example. None: it may have one, and is not complete."""
    kind, _, rest = name.partition("/")
    if not forgotten:
        return False
    if name.rpartition("/")[2].startswith("."):
        return None if draft_has_key(storage, name, forgotten) else False
    if kind == "parts":
        return has_described(storage, name, list(forgotten))
    if kind == "index":
        return name.endswith(".zarr.zip") and has_key(storage, name, keys_of_hex(forgotten))
    return kind == "quarantine" and rest.partition(".")[0] in forgotten


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


def _references(storage: Storage, report: GarbageReport) -> _References:
    """Names of all files that a commit, a snapshot or a claim refers to. Tells the report what waits."""
    forgotten = forgotten_keys(storage)
    commits = {commit.unit: commit for commit, _ in read_commits(storage, committed_units(storage))}
    withdrawn = read_withdrawn(storage)
    superseded = superseded_units(withdrawn, set(commits)) if withdrawn else {}
    names: set[str] = set()
    quarantined: set[str] = set()  # entries in the newest snapshot
    listing: dict[str, list[int]] = {}  # the snapshots that list each unit in whose place another one counts
    numbers = snapshot_numbers(storage)
    for number in numbers:
        try:
            snapshot, index = open_snapshot(storage, number)
        except StoreError:
            if number in snapshot_numbers(storage):
                raise
            continue  # it expired meanwhile
        names |= _index_files(snapshot)
        quarantined = {name for key in snapshot.quarantine for name in entry_files(key)}
        names |= {index.part_info(unit).path for unit in range(len(index.unit))}
        names |= {codebook_path(digest) for digest in index.codebooks}
        for unit in superseded.keys() & index.commit_hashes().keys():
            listing.setdefault(unit, []).append(number)
    replaced, keys = [], set(forgotten)
    for unit, commit in commits.items():
        if unit in superseded and unit not in listing:
            replaced += [commit_path(unit), commit.part.path]
            continue
        names |= {commit.part.path, *([codebook_path(commit.codebook)] if commit.codebook else [])}
        if unit in listing:
            report.waiting.append(
                f"{commit_path(unit)} has forgotten examples; snapshots {_span(listing[unit])} list it: run 'logitbank "
                "expire' if no run needs them"
            )
        elif not keys.isdisjoint(example.key for example in commit.examples):
            report.waiting.append(f"{commit_path(unit)} has forgotten examples: run 'logitbank snapshot' first")
    for generation, claim in read_claims(storage).items():
        names |= {claim_path(generation), codebook_path(claim["digest"])}
    tokenizer = read_tokenizer_claim(storage)
    names |= quarantined | {tokenizer["path"] if tokenizer else ""}
    report.waiting += _listed_quarantine(quarantined, forgotten)
    return _References(frozenset(names), tuple(forgotten), tuple(replaced), tuple(numbers))


def _listed_quarantine(quarantined: set[str], forgotten: Sequence[str]) -> list[str]:
    """Lines about entries of forgotten examples that the newest snapshot lists."""
    entries = [name for key in forgotten for name in entry_files(key) if name in quarantined]
    return [
        f"{name} is about a forgotten example: run 'logitbank snapshot' first" for name in entries if "json" in name
    ]


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _index_files(snapshot: Snapshot) -> set[str]:
    """Names of the files of the segments of a snapshot."""
    return {name for info in snapshot.segments for name in (info.path, units_path(info.sha256))}
