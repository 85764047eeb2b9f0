"""Files beyond 4 GiB and counts beyond 2**32 are read as they are. Sparse files and documents alone: no gigabytes."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cache.json_documents import decode_document, encode_document
from cache.parts import layout, part, zarr_zip
from cache.parts.layout import PartCounts, part_arrays
from cache.parts.part import PartInfo
from cache.parts.part_reader import PartReader
from cache.parts.unit_arrays import gather
from cache.parts.zarr_metadata import array_document, array_spec
from cache.parts.zarr_shard import CHECKSUM_BYTES
from cache.parts.zarr_zip import group_of_file
from cache.rows.codebook import Codebook, plain_codebook
from cache.rows.record import Record
from cache.storage.local import LocalStorage
from cache.store.commits import Commit, create_store, part_path, read_commit
from cache.store.index import StoreIndex
from cache.store.logit_store import LogitStore
from cache.store.segments.columns import segment_of_commits
from cache.store.segments.files import read_segments, write_segment
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
    return write_unit(storage, SPEC, [long_record()], "fast")[0]


def long_record() -> Record:
    return random_record(np.random.default_rng(0), "long", 3, 700, SPEC.targets)


def plain(digest: str) -> Codebook:
    return plain_codebook(VOCAB)


class Shifted(io.BytesIO):
    """A file that begins with a hole, of which only what follows is kept."""

    hole = 0

    def tell(self) -> int:
        return super().tell() + self.hole

    def seek(self, place: int, whence: int = 0) -> int:
        return super().seek(place - self.hole if whence == 0 else place, whence) + self.hole


@pytest.mark.parametrize("hole", [2 * GIB - 100, 4 * GIB - 100, 9 * GIB], ids=["2 GiB", "4 GiB", "9 GiB"])
def test_chunks_far_into_a_file_are_read(
    hole: int, commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By us and by a reader of zip files: their directory has offsets of 64 bits then."""
    storage = LocalStorage(tmp_path / "store")
    expected = PartReader(storage, commit.part, SPEC.targets, plain).window(512, 703)
    monkeypatch.setattr(Shifted, "hole", hole)
    monkeypatch.setattr(part, "encode_zip", lambda *arguments: zarr_zip.encode_zip(*arguments, Shifted()))
    encoded = part.encode_part("far.zarr.zip", [long_record()], gather([long_record()]), SPEC, plain(""), "", "fast")
    path = storage.root / "far.zarr.zip"
    with path.open("wb") as file:
        file.seek(hole)
        file.write(encoded.data)
    info = replace(encoded.info, bytes=hole + len(encoded.data))
    assert info.tail > hole and info.bytes == path.stat().st_size
    assert_same_window(PartReader(storage, info, SPEC.targets, plain).window(512, 703), expected)
    assert path.stat().st_blocks * 512 < GIB
    group: Any = zarr.open_group(zarr.storage.ZipStore(path), mode="r")
    assert np.array_equal(group["tokens/id"][512:], expected.tokens)


def test_an_entry_of_more_than_32_bits_is_written_and_read(
    commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit of zip files without 64 bits set to a few bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    storage = LocalStorage(tmp_path / "store")
    encoded = part.encode_part("large.zarr.zip", [long_record()], gather([long_record()]), SPEC, plain(""), "", "fast")
    assert len(encoded.data) > commit.part.bytes, "sizes and offsets of 64 bits are written beside those of 32"
    storage.write_file("large.zarr.zip", encoded.data)
    expected = PartReader(storage, commit.part, SPEC.targets, plain).window(0, 703)
    assert_same_window(PartReader(storage, encoded.info, SPEC.targets, plain).window(0, 703), expected)
    assert group_of_file(encoded.data, "x").attributes["counts"]["tokens"] == 703
    group: Any = zarr.open_group(zarr.storage.ZipStore(storage.root / "large.zarr.zip"), mode="r")
    assert np.array_equal(group["tokens/id"][...], expected.tokens)


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


def _written_index(folder: Path, commits: list[Commit]) -> StoreIndex:
    """The index of commits, written and read."""
    storage = LocalStorage(folder / "index")
    info = write_segment(storage, segment_of_commits([(commit, "0" * 64) for commit in commits]))
    return StoreIndex.of_segments(read_segments(storage, [info]))


def test_counts_and_sizes_beyond_32_bits_stay_in_commits_indexes_and_totals(commit: Commit, tmp_path: Path) -> None:
    place = PartInfo("", bytes=2**40, tail=2**40 - 10, root=2**40 - 5, crc32c=2**32 - 1)
    large = [
        replace(
            commit,
            unit=f"{number:024x}",
            part=replace(place, path=part_path(f"{number:024x}", f"{number:032x}")),
            examples=(commit.examples[0]._replace(key=f"{number:032x}", tokens=2**32 - 1, rows=2**32 - 2),),
            entries=2**45,
        )
        for number in range(3)
    ]
    for each in large:
        assert Commit.from_document(decode_document(encode_document(each.to_document()), "x")) == each
    index = _written_index(tmp_path, large)
    assert [index.part_info(unit) for unit in range(3)] == [each.part for each in large]
    info = summarize("x", SPEC, None, index, {}, 2**50)
    assert (info.tokens, info.rows, info.stored_rows) == (3 * (2**32 - 1), 3 * (2**32 - 2), 3 * (2**32 - 2))
    assert (info.entries, info.bytes, info.part_bytes) == (3 * 2**45, 2**50, 3 * 2**40)
    assert info.doubles == 0


@pytest.mark.parametrize("profile", ["compact", "portable", "fast"])
@pytest.mark.parametrize("mode", ["topk", "threshold", "sampled"])
def test_arrays_of_more_than_2_to_the_32_elements_have_their_shape(mode: str, profile: str) -> None:
    counts = PartCounts(2**20, 2**33 + 1, 2**34, (2**36, 2**37), (2**36, 2**36), 2**36, 100)
    arrays = part_arrays(counts, TARGETS[mode], plain_codebook(VOCAB), profile)  # type: ignore[index, arg-type]
    assert arrays[layout.TOKEN_IDS].shape == (2**33 + 1,) and arrays[layout.DESCRIPTIONS].shape == (2**34,)
    assert all(array.dtype == "int64" for name, array in arrays.items() if name.endswith("_start"))
    for array in arrays.values():
        assert (array.chunks - 1) * array.chunk < array.shape[0] <= array.chunks * array.chunk
        assert array.index_bytes == 16 * array.chunks + CHECKSUM_BYTES
        assert array_spec(array_document(array), "x").shape == array.shape


def test_more_origins_than_16_bits_number_are_kept(commit: Commit, tmp_path: Path) -> None:
    many = (1 << 16) + 5
    examples = tuple(commit.examples[0]._replace(key=f"{i:032x}", origin=f"generated/{i}") for i in range(many))
    for count in (1 << 16, many):
        index = _written_index(tmp_path, [replace(commit, examples=examples[:count])])
        names = index.origin_names
        assert [names[number] for number in index.origin] == [e.origin for e in examples[:count]]


def test_the_commit_of_the_fixture_is_read_as_usual(commit: Commit, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    assert read_commit(storage, commit.unit)[0] == commit
    assert len(LogitStore.open(storage.root, unpinned=True)) == 1
