"""Write the golden stores of format 1, and what reading them must return, to tests/cache/store/golden.

    python -m tests.cache.store.make_golden [another folder]

They are made once, by the first version of the format, and never again: a reader that cannot read them cannot read
anybody's stores. Names are drawn from a seed, so that the same code gives the same files. Each store is one archive: it
has a hundred files of some hundred bytes.
"""

import io
import random
import shutil
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.parts.codebook_learning import list_codebook
from cache.parts.layout import Profile
from cache.rows.record import Window
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import TargetSpec
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import claim_codebook
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.expiring import expire_snapshots
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from cache.store.withdrawal.forgotten import mark_forgotten
from tests.cache.rows.rows import assert_stored, columns, random_record, store_spec

GOLDEN = Path(__file__).resolve().parent / "golden"
VOCAB = 300
# Mode of each store, and the profiles of its units.
STORES: dict[str, tuple[TargetSpec, tuple[Profile, ...]]] = {
    "topk": (TargetSpec("topk", 12, entropy=True, temperatures=(2.0,)), ("compact", "compact", "portable")),
    "nucleus": (TargetSpec("nucleus", 30, mass=0.8), ("fast", "compact", "compact")),
    "threshold": (TargetSpec("threshold", threshold=0.02), ("compact", "fast", "portable")),
    "sampled": (TargetSpec("sampled", draws=24), ("portable", "compact", "fast")),
}
# Tokens of the prompt and of the response of each example, by unit. In one unit they fill several chunks.
LENGTHS = (((3, 9), (0, 0), (2, 14), (4, 0)), ((5, 20), (1, 1)), ((3, 5), (2100, 60), (800, 300)))
# The example that is forgotten after the first snapshot, and the store from whose files it is removed, too.
FORGOTTEN, CLEANED = (0, 2), "threshold"


def write_store(folder: Path, name: str, seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """Write one store; return what reading it gives, by "store/column", all examples one after the other."""
    targets, profiles = STORES[name]
    spec = store_spec(targets, VOCAB)
    rng = np.random.default_rng(seed)
    units = [
        [random_record(rng, f"{name} {unit} {i}", *length, targets, VOCAB) for i, length in enumerate(LENGTHS[unit])]
        for unit in range(len(profiles))
    ]
    storage = LocalStorage(folder)
    create_store(storage, spec)
    rows = concatenate([record.targets for record in units[0]])
    tokens = np.concatenate([record.tokenized.tokens for record in units[0]])
    quarantine_example(storage, "0" * 32, "bad", "too long")
    for generation, (unit, profile) in enumerate(zip(units, profiles, strict=True), start=1):
        end = min(8 * generation, len(tokens))  # a codebook a unit
        learned = list_codebook(rows.rows(0, end), tokens[:end], VOCAB, by_token=targets.mode == "sampled")
        claim_codebook(storage, generation, learned, end)
        write_unit(storage, spec, unit, profile)
    take_snapshot(storage)
    forgotten = units[FORGOTTEN[0]][FORGOTTEN[1]].key
    mark_forgotten(storage, [forgotten], "its author asked for it")
    take_snapshot(storage)
    if name == CLEANED:
        for _ in range(2):
            expire_snapshots(storage, keep=1)
            collect_garbage(storage, grace=-1.0)
            take_snapshot(storage)
    report = verify_store(str(storage))
    assert not report.problems and not report.uncommitted, report.problems
    written = {record.key: record for unit in units for record in unit}
    store = LogitStore.open(str(storage))
    assert len(store) == len(written) - 1
    for record in store:
        assert_stored(record.window, written[record.key].window, targets)
        assert record.tokenized.example == written[record.key].tokenized.example
    return {f"{name}/{column}": values for column, values in contents(store).items()}


def contents(store: LogitStore) -> dict[str, npt.NDArray[np.generic]]:
    """All that can be compared of a store: the columns of its windows in one."""
    windows = store.read(range(len(store)))
    whole = Window(
        np.concatenate([window.tokens for window in windows]),
        np.concatenate([window.segments for window in windows]),
        concatenate([window.targets for window in windows]),
        np.concatenate([window.token_logprobs for window in windows]),
    )
    found: dict[str, npt.NDArray[np.generic]] = {k: v for k, v in columns(whole).items() if v is not None}
    return {**found, "key": store.index.key, "length": store.tokens, "rows": store.rows}


def archive(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w:xz", format=tarfile.PAX_FORMAT) as archived:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = path.read_bytes()
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = len(data)
            archived.addfile(entry, io.BytesIO(data))


def main(target: Path) -> None:
    numbers = random.Random(1)
    uuid.uuid4 = lambda: uuid.UUID(int=numbers.getrandbits(128))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    expected: dict[str, npt.NDArray[np.generic]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(STORES):
            expected |= write_store(Path(folder) / name, name, seed)
            archive(Path(folder) / name, target / f"{name}.tar.xz")
    np.savez_compressed(target / "expected.npz", **expected)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
