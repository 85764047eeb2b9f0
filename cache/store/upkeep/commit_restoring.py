"""Write a lost or damaged commit again, from the index and the part. The index has the SHA-256 that proves it."""

import hashlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from cache.errors import IntegrityError, StoreError
from cache.json_documents import encode_document
from cache.parts.layout import PROFILES
from cache.parts.part_reader import PartReader
from cache.rows.codebook import Codebook
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.memory_file import MemoryFile
from cache.store.commits import Commit, CommittedExample, commit_path
from cache.store.index import StoreIndex
from cache.store.snapshot_reading import open_snapshot, snapshot_numbers

CodebookOf = Callable[[str], Codebook]


def restore_commit(storage: Storage, spec: StoreSpec, unit: str, sha256: str, codebook_of: CodebookOf) -> bool:
    """Write the commit of a unit again, whose file had this hash. Returns False if it cannot be made as it was."""
    name = bytes.fromhex(unit)
    for number in reversed(snapshot_numbers(storage)):
        with suppress(StoreError):  # a part or a snapshot that is damaged too; an older one may list another part
            _, index = open_snapshot(storage, number, quiet=True)
            for place in np.flatnonzero((index.unit == np.frombuffer(name, np.uint8)).all(axis=1)).tolist():
                document = encode_document(_commit_of(storage, spec, index, place, codebook_of).to_document())
                if hashlib.sha256(document).hexdigest() == sha256:
                    storage.remove_folder(commit_path(unit))
                    return storage.create(commit_path(unit), document)
    return False


def examples_of_part(part: PartReader, targets: SparseTargets) -> tuple[CommittedExample, ...]:
    """What the commit of a part must list. targets: of all tokens of the part."""
    starts = part.token_starts
    rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(targets.counts > 0)])
    examples = []
    for i in range(len(starts) - 1):
        key, origin, _ = part.example(i)
        examples.append(
            CommittedExample(key, origin, starts[i + 1] - starts[i], int(rows[starts[i + 1]] - rows[starts[i]]))
        )
    return tuple(examples)


def _commit_of(storage: Storage, spec: StoreSpec, index: StoreIndex, unit: int, codebook_of: CodebookOf) -> Commit:
    """The commit of a unit of the index. Raises IntegrityError if its part is missing or damaged."""
    info = index.part_info(unit)
    data = storage.read(info.path)
    if len(data) != info.bytes:
        raise IntegrityError(f"{storage}/{info.path}: {len(data)} bytes long, committed with {info.bytes}")
    part = PartReader(MemoryFile(storage, info.path, data), info, spec.targets, codebook_of)
    book = int(index.codebook[unit])
    retained_mass, max_abs_error, kl = index.quality[unit].tolist()
    return Commit(
        unit=index.unit[unit].tobytes().hex(),
        fingerprint=spec.fingerprint,
        part=info,
        sha256=hashlib.sha256(data).hexdigest(),
        profile=PROFILES[int(index.profile[unit])],
        codebook=index.codebooks[book - 1] if book else "",
        examples=examples_of_part(part, part.window(0, part.tokens).targets),
        entries=int(index.totals[unit, 1]),
        retained_mass=retained_mass,
        max_abs_error=max_abs_error,
        kl=kl,
    )
