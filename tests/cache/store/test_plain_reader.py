"""The page of the format is enough for a reader: one that uses nothing of this package reads the same as LogitStore."""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cache.examples.example import OPTIONAL_FIELDS
from cache.parts.codebook_learning import list_codebook
from cache.parts.layout import Profile
from cache.rows.record import Record
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import TargetMode
from cache.store.claims.codebook_claim import claim_codebook
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.forgetting import forget_examples
from tests.cache.rows.rows import MODES, TARGETS, random_record, store_spec
from tests.cache.store import plain_reader
from tests.cache.store.make_golden import REQUIRED, STORES, unpack
from tests.cache.store.mixed_stores import new_store
from tests.cache.store.plain_reader import Group, read_store

# Profile of each unit, whether a new codebook is by token, and whether a snapshot is taken before the next unit.
UNITS: tuple[tuple[Profile, bool | None, bool], ...] = (
    ("fast", None, True),
    ("compact", False, False),
    ("compact", True, False),
    ("portable", None, True),
)
LENGTHS = [(0, 0), (1, 0), (0, 1), (1, 1), (3, 10), (6, 0), (9, 60), (4, 20)]


def assert_same(folder: Path) -> int:
    """Both readers read the same. Returns the number of examples."""
    store = LogitStore.open(folder)
    for found, record in zip(read_store(folder), store, strict=True):
        assert (found["key"], found["origin"]) == (record.key, record.tokenized.origin)
        document = json.loads(json.dumps(record.tokenized.example.to_document()))
        assert document == {name: found["example"][name] for name in document}
        assert not set(OPTIONAL_FIELDS) & (set(found["example"]) - set(document))
        assert np.array_equal(found["tokens"], record.tokenized.tokens)
        assert np.array_equal(found["segments"], record.tokenized.segments)
        assert_same_rows(found["rows"], record)
    return len(store)


def assert_same_rows(rows: list[dict[str, Any]], record: Record) -> None:
    targets = record.targets
    assert len(rows) == len(targets.counts)
    assert [row.get("exact", 0) for row in rows] == targets.exact_counts.tolist()
    assert [len(row["ids"]) for row in rows] == targets.counts.tolist()
    assert [id_ for row in rows for id_ in row["ids"]] == targets.ids.tolist()
    logprobs = np.concatenate([np.zeros(0), *(row["logprobs"] for row in rows)])
    assert np.allclose(logprobs, targets.logprobs, rtol=1e-6, atol=1e-6)
    assert np.allclose([row["tail"] for row in rows], np.exp(targets.log_tail), rtol=1e-6, atol=1e-8)
    own = [row["token_logprob"] for row in rows]
    assert np.array_equal(own, record.token_logprobs, equal_nan=True)
    for name, column in (("entropy", targets.entropy), ("log_normalizer", targets.log_normalizers)):
        assert (column is None) == (name not in (rows or [{name: column}])[0]) or not rows
        if column is not None:
            values = np.array([row[name] for row in rows]).reshape(column.shape)
            assert np.array_equal(values, column, equal_nan=True)


def make_store(folder: Path, mode: TargetMode) -> tuple[int, list[Record]]:
    """Every profile and codebook, two segments, a forgotten example, and rows as sharp and as flat as can be."""
    targets = TARGETS[mode]
    spec = store_spec(targets)
    rng = np.random.default_rng(MODES.index(mode))
    storage = new_store(folder, spec)
    written: list[Record] = []
    for unit, (profile, by_token, has_snapshot) in enumerate(UNITS):
        sharpness = [3.0, 0.1, 10.0, 1.0][unit]
        lengths = LENGTHS if unit == 0 else LENGTHS[4:5]
        records = [
            random_record(rng, f"{mode} {unit} {i}", *each, targets, sharpness=sharpness)
            for i, each in enumerate(lengths)
        ]
        if by_token is not None:
            rows = concatenate([record.targets for record in records])
            tokens = np.concatenate([record.tokenized.tokens for record in records])
            learned = list_codebook(rows, tokens, spec.vocab_size, by_token=by_token)
            claim_codebook(storage, unit + 1, learned, len(tokens))
        write_unit(storage, spec, records, profile)
        written += records
        if has_snapshot:
            take_snapshot(storage)
    forget_examples(str(storage), [written[2].key])
    return take_snapshot(storage).number, written


@pytest.mark.parametrize("mode", MODES)
def test_it_reads_every_mode_profile_and_codebook(mode: TargetMode, tmp_path: Path) -> None:
    newest, written = make_store(tmp_path, mode)
    store = LogitStore.open(tmp_path)
    assert len(store.index.keys) == 2 and set(store.index.codebook.tolist()) == {0, 1, 2}
    assert sorted(store.index.profile.tolist()) == [0, 0, 1, 2]
    assert assert_same(tmp_path) == len(written) - 1
    (tmp_path / f"snapshots/{newest}.json").unlink()
    assert assert_same(tmp_path) == len(written) - 1


@pytest.mark.parametrize("name", [name for name in STORES if name != REQUIRED])
def test_it_reads_the_golden_stores(name: str, tmp_path: Path) -> None:
    """With an example of more than two thousand tokens, and one with all that a later version may add."""
    folder = unpack(name, tmp_path)
    assert assert_same(folder) >= 6


def test_it_refuses_a_store_that_requires_a_feature(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"spec.json requires \['braids'\]"):
        next(read_store(unpack(REQUIRED, tmp_path)))


@pytest.mark.parametrize("pattern", ["spec.json", "index/*.zarr.zip", "parts/*/*.zarr.zip", "codebooks/*.zarr.zip"])
def test_it_notices_altered_bytes_by_the_checksums_of_the_page(pattern: str, tmp_path: Path) -> None:
    """In what it reads: the chunks, and the tail of a part."""
    make_store(tmp_path, "topk")
    path = next(path for path in sorted(tmp_path.glob(pattern)) if is_listed(path, tmp_path))
    data = path.read_bytes()
    group = Group(data, KINDS[pattern]) if pattern in KINDS else None
    shards = group.attributes["shards"].values() if group is not None else [(0, len(data) - 1)]
    for offset, size in list(shards)[:: max(1, len(shards) // 6)]:
        place = offset + size // 3
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match=r"is altered|Expecting|Invalid"):
            list(read_store(tmp_path))
    path.write_bytes(data)
    assert list(read_store(tmp_path))


KINDS = {
    "index/*.zarr.zip": "logitbank.index",
    "parts/*/*.zarr.zip": "logitbank.part",
    "codebooks/*.zarr.zip": "logitbank.codebook",
}


def is_listed(path: Path, folder: Path) -> bool:
    """Whether the newest snapshot leads to a file."""
    store = LogitStore.open(folder)
    texts = [
        *(store.index.part_info(unit).path for unit in range(len(store.index.unit))),
        *store.index.codebooks,
        (folder / f"snapshots/{store.snapshot}.json").read_text(),
        "spec.json",
    ]
    return any(path.name.partition(".")[0] in text for text in texts)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("mode", MODES)
def test_zarr_reads_the_arrays_of_every_file_as_it_does(mode: TargetMode, tmp_path: Path) -> None:
    make_store(tmp_path, mode)
    compared = 0
    for pattern, kind in KINDS.items():
        for path in tmp_path.glob(pattern):
            group: Any = zarr.open_group(zarr.storage.ZipStore(path), mode="r")
            mine = Group(path.read_bytes(), kind)
            assert dict(group.attrs) == mine.attributes
            for name in mine.attributes["shards"]:
                array = group[name]
                assert array.dtype == mine[name].dtype
                assert np.array_equal(array[...], mine[name], equal_nan=array.dtype.kind == "f"), name
                compared += 1
    assert compared > 100


def test_it_uses_nothing_but_the_page() -> None:
    """Would fail if it took from the package what the page does not say, or grew."""
    source = Path(str(plain_reader.__file__)).read_text()
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    others = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert others == {"numpy", "numcodecs", "pcodec"}
    assert sum(1 for line in source.splitlines() if line.strip()) <= 150
