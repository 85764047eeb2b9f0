"""Write the golden stores of format 1, and what reading them must return, to tests/cache/store/golden.

    python -m tests.cache.store.make_golden [another folder]

They are made once, by the first version of the format, and never again: a reader that cannot read them cannot read
anybody's stores. This program stays to show what is in them. Names are drawn from a seed and times are fixed, so that
the same code gives the same files.
Two are of a later version: `later` has more fields, columns and arrays everywhere, `required` requires a feature too.
"""

import io
import lzma
import random
import shutil
import sys
import tarfile
import tempfile
import uuid
from contextlib import nullcontext
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from cache.parts.codebook_learning import list_codebook
from cache.parts.layout import Profile
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import claim_codebook
from cache.store.claims.tokenizer_files import claim_tokenizer
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
from tests.cache.store.later_version import FEATURE, later_spec, later_writer

GOLDEN = Path(__file__).resolve().parent / "golden"
VOCAB = 300
# Mode of each store, and the profiles of its units.
STORES: dict[str, tuple[TargetSpec, tuple[Profile, ...]]] = {
    "topk": (TargetSpec("topk", 12, entropy=True, temperatures=(2.0,)), ("compact", "compact", "portable")),
    "nucleus": (TargetSpec("nucleus", 30, mass=0.8, temperatures=(1.0, 4.0)), ("fast", "compact", "compact")),
    "threshold": (TargetSpec("threshold", threshold=0.02, entropy=True), ("compact", "fast", "compact")),
    "sampled": (TargetSpec("sampled", draws=24), ("portable", "compact", "compact")),
    "later": (TargetSpec("threshold", threshold=0.05), ("compact", "portable")),
    "required": (TargetSpec("topk", 4), ("compact",)),
}
REQUIRED, LATER = "required", ("later", "required")
# Tokens of the prompt and of the response of each example, by unit, and how sharp its rows are.
LENGTHS = (
    ((3, 9, 3.0), (0, 0, 3.0), (2, 14, 2.0), (4, 0, 3.0), (3, 5, 0.1)),
    ((5, 20, 3.0), (2060, 20, 3.0), (30, 40, 1.0)),
    ((1, 1, 3.0), (2, 25, 4.0)),
)
# The example that is forgotten after the first snapshots, and the stores from whose files it is removed, too.
FORGOTTEN, CLEANED = (0, 2), ("threshold", "later")


class FixedTime(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2026, 1, 1, tzinfo=tz)


def records_of(name: str, seed: int) -> list[list[Record]]:
    """The records of a store, by unit."""
    targets, profiles = STORES[name]
    rng = np.random.default_rng(seed)
    return [
        [
            random_record(rng, f"{name} {unit} {i}", prompt, response, targets, VOCAB, sharpness)
            for i, (prompt, response, sharpness) in enumerate(LENGTHS[unit])
            if name not in LATER or prompt < 100
        ]
        for unit in range(len(profiles))
    ]


def spec_of(name: str) -> StoreSpec:
    spec = store_spec(STORES[name][0], VOCAB)
    return later_spec(spec) if name in LATER else spec


def write_store(storage: LocalStorage, name: str, units: list[list[Record]]) -> None:
    """One segment a unit, a codebook a unit, one forgotten example, a quarantine entry and files of a tokenizer."""
    (targets, profiles), spec = STORES[name], spec_of(name)
    create_store(storage, spec)
    claim_tokenizer(storage, spec, {"tokenizer.json": b"{}"})
    quarantine_example(storage, "0" * 32, "bad", "too long")
    rows = concatenate([record.targets for record in units[0]])
    tokens = np.concatenate([record.tokenized.tokens for record in units[0]])
    for generation, (unit, profile) in enumerate(zip(units, profiles, strict=True), start=1):
        end = min(10 * generation, len(tokens))
        by_token = targets.mode == "sampled" or generation == 3
        learned = list_codebook(rows.rows(0, end), tokens[:end], VOCAB, by_token=by_token)
        claim_codebook(storage, generation, learned, end)
        write_unit(storage, spec, unit, profile)
        take_snapshot(storage)
    mark_forgotten(storage, [units[FORGOTTEN[0]][FORGOTTEN[1]].key], "its author asked for it")
    take_snapshot(storage)
    if name in CLEANED:
        for _ in range(2):
            expire_snapshots(storage, keep=1)
            collect_garbage(storage, grace=-1.0)
            take_snapshot(storage)


def check_store(storage: LocalStorage, name: str, units: list[list[Record]]) -> dict[str, npt.NDArray[np.generic]]:
    """What reading a store gives, by "store/column", all examples one after the other."""
    report = verify_store(str(storage))
    assert not report.problems and not report.uncommitted, report.problems
    written = {record.key: record for unit in units for record in unit}
    store = LogitStore.open(str(storage))
    assert len(store) == len(written) - 1
    for record in store:
        assert_stored(record.window, written[record.key].window, STORES[name][0])
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


def unpack(name: str, folder: Path) -> Path:
    """Unpack a golden store. Returns its folder."""
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archived:
        archived.extractall(folder / name, filter="data")
    return folder / name


def main(target: Path) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("cache.") and vars(module).get("datetime") is datetime:
            module.datetime = FixedTime  # type: ignore[attr-defined]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    expected: dict[str, npt.NDArray[np.generic]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(STORES):
            numbers = random.Random(seed)
            uuid.uuid4 = lambda numbers=numbers: uuid.UUID(int=numbers.getrandbits(128))
            storage, units = LocalStorage(Path(folder) / name), records_of(name, seed)
            with later_writer((FEATURE,) if name == REQUIRED else ()) if name in LATER else nullcontext():
                write_store(storage, name, units)
                expected |= check_store(storage, name, units)
            archive(Path(folder) / name, target / f"{name}.tar.xz")
    columns_of_all = io.BytesIO()
    np.savez(columns_of_all, **expected)  # type: ignore[arg-type]
    (target / "expected.npz.xz").write_bytes(lzma.compress(columns_of_all.getvalue()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
