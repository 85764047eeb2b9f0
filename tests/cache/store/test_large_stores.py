"""Files beyond 4 GiB and counts beyond 2**32 are read as they are. Sparse files and documents alone: no gigabytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.json_documents import decode_document, encode_document
from cache.parts import layout
from cache.parts.layout import PartCounts, part_arrays
from cache.parts.part import crc32c_of
from cache.parts.part_reader import PartReader
from cache.parts.zarr_shard import CHECKSUM_BYTES, ArraySpec, decode_index
from cache.rows.codebook import plain_codebook
from cache.storage.local import LocalStorage
from cache.store.commits import Commit, create_store, read_commit
from cache.store.index import StoreIndex
from cache.store.logit_store import LogitStore
from cache.store.store_info import summarize
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, VOCAB, assert_same_window, random_record, store_spec

GIB = 1 << 30
SPEC = store_spec(TARGETS["topk"])


@pytest.fixture
def commit(tmp_path: Path) -> Commit:
    """Of a unit of one example with two chunks of tokens."""
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    record = random_record(np.random.default_rng(0), "long", 3, 700, SPEC.targets)
    return write_unit(storage, SPEC, [record], "fast")[0]


def with_hole(path: Path, spec: ArraySpec, hole: int) -> tuple[int, int]:
    """Make the first chunk of a shard `hole` bytes long, without content. Returns size and checksum of the index."""
    data = path.read_bytes()
    bounds = decode_index(spec, data[-spec.index_bytes :], "x")
    index = np.frombuffer(data[-spec.index_bytes : -CHECKSUM_BYTES], "<u8").reshape(-1, 2).copy()
    index[0, 1] = hole
    index[1:, 0] += hole - bounds[1]
    body = index.tobytes()
    tail = data[bounds[1] : bounds[-1]] + body + crc32c_of(body).to_bytes(CHECKSUM_BYTES, "little")
    with path.open("r+b") as file:
        file.truncate(hole)
        file.seek(hole)
        file.write(tail)
    return hole + len(tail), crc32c_of(body)


@pytest.mark.parametrize("hole", [2 * GIB - 100, 4 * GIB - 100, 9 * GIB], ids=["2 GiB", "4 GiB", "9 GiB"])
def test_chunks_far_into_a_file_are_read(hole: int, commit: Commit, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    book = plain_codebook(VOCAB)
    expected = PartReader(storage, commit.part, SPEC.targets, book).window(512, 703)
    arrays = part_arrays(commit.part.counts, SPEC.targets, book, "fast")
    sizes, checksums = dict(commit.part.sizes), dict(commit.part.checksums)
    for name in (layout.TOKEN_IDS, layout.FIRST_CODES, layout.REST_CODES, layout.TAIL):
        path = storage.root / commit.part.path / name / arrays[name].path
        sizes[name], checksums[name] = with_hole(path, arrays[name], hole)
        assert path.stat().st_size > hole
    part = PartReader(storage, replace(commit.part, sizes=sizes, checksums=checksums), SPEC.targets, book)
    first = arrays[layout.FIRST_CODES].chunk
    assert first <= part.token_starts[-1] * 8, "entries of the window start after the first chunk"
    assert_same_window(part.window(512, 703), expected)
    assert storage.total_bytes() > 4 * hole


def test_ranges_beyond_32_bits_are_read(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    places = [2**31 - 2, 2**32 - 2, 2**33 + 5]
    with (tmp_path / "file").open("wb") as file:
        for number, place in enumerate(places):
            file.seek(place)
            file.write(bytes([number + 1]) * 4)
    found = storage.read_ranges([("file", place - 1, 6) for place in places])
    assert found == [bytes([0, *[number + 1] * 4, 0]) for number in range(2)] + [bytes([0, 3, 3, 3, 3])]
    assert storage.size("file") == 2**33 + 9


def test_counts_and_sizes_beyond_32_bits_stay_in_commits_indexes_and_totals(commit: Commit) -> None:
    counts = PartCounts(*(2**33 + number for number in range(8)))
    sizes = {name: 2**34 + number for number, name in enumerate(commit.part.sizes)}
    checksums = dict.fromkeys(commit.part.checksums, 2**32 - 1)
    large = [
        replace(
            commit,
            unit=f"{number:024x}",
            part=replace(
                commit.part,
                path=f"parts/{number:024x}/{number:032x}.zarr",
                counts=replace(counts, examples=1),
                sizes=sizes,
                checksums=checksums,
            ),
            examples=(replace(commit.examples[0], key=f"{number:032x}", tokens=2**32 - 1, rows=2**32 - 2),),
            files={name: replace(file, size=2**40) for name, file in commit.files.items()},
            entries=2**45,
        )
        for number in range(3)
    ]
    for each in large:
        assert Commit.from_document(decode_document(encode_document(each.to_document()), "x")) == each
    index = StoreIndex.from_commits([(each, "0" * 64) for each in large])
    index = StoreIndex.from_bytes(index.to_bytes(), "x")
    assert [index.part_info(unit) for unit in range(3)] == [each.part for each in large]
    info = summarize("x", SPEC, None, index, {}, 2**50)
    assert (info.tokens, info.rows, info.stored_rows) == (3 * (2**32 - 1), 3 * (2**32 - 2), 3 * (2**32 - 2))
    assert (info.entries, info.bytes, info.part_bytes) == (3 * 2**45, 2**50, 3 * 2**40 * len(commit.files))
    assert info.doubles == 0


@pytest.mark.parametrize("profile", ["compact", "portable", "fast"])
@pytest.mark.parametrize("mode", ["topk", "threshold", "sampled"])
def test_arrays_of_more_than_2_to_the_32_elements_have_their_shape(mode: str, profile: str) -> None:
    counts = PartCounts(2**20, 2**33 + 1, 2**34, 2**36, 2**37, 2**36, 2**36, 100)
    arrays = part_arrays(counts, TARGETS[mode], plain_codebook(VOCAB), profile)  # type: ignore[index, arg-type]
    assert arrays[layout.TOKEN_IDS].shape == (2**33 + 1,) and arrays[layout.DESCRIPTIONS].shape == (2**34,)
    assert all(array.dtype == "int64" for name, array in arrays.items() if name.endswith("_start"))
    for array in arrays.values():
        assert (array.chunks - 1) * array.chunk < array.shape[0] <= array.chunks * array.chunk
        assert array.index_bytes == 16 * array.chunks + CHECKSUM_BYTES and b'"shape"' in array.metadata()


def test_more_origins_than_16_bits_number_are_kept(commit: Commit) -> None:
    many = (1 << 16) + 5
    examples = tuple(replace(commit.examples[0], key=f"{i:032x}", origin=f"generated/{i}") for i in range(many))
    for count in (1 << 16, many):
        index = StoreIndex.from_commits([(replace(commit, examples=examples[:count]), "0" * 64)])
        index = StoreIndex.from_bytes(index.to_bytes(), "x")
        names = index.origin_names
        assert [names[number] for number in index.origin] == [e.origin for e in examples[:count]]


def test_the_commit_of_the_fixture_is_read_as_usual(commit: Commit, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    assert read_commit(storage, commit.unit)[0] == commit
    assert len(LogitStore.open(storage.root, unpinned=True)) == 1
