"""A segment is a Zarr group in a zip file that others open; what a later version adds is ignored or refused by name."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr

from cache.errors import IntegrityError, NewerFormatError
from cache.parts.zarr_shard import ArraySpec, encode_array
from cache.parts.zarr_zip import decode_file, encode_zip
from cache.storage.local import LocalStorage
from cache.store.commits import committed_units, read_commit
from cache.store.segments.columns import Segment, concatenate_segments, segment_of_commits
from cache.store.segments.file import SegmentFile, SegmentInfo, decode_segment, encode_segment
from cache.store.segments.files import read_segments, write_segment
from cache.store.segments.keys import keys_of_hex
from tests.cache.store.segments.commits_without_parts import add_commits, begin_store


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    add_commits(storage, begin_store(storage), 40, 70, 1)
    return storage


def whole(storage: LocalStorage) -> Segment:
    return segment_of_commits([read_commit(storage, unit) for unit in committed_units(storage)])


def assert_same(one: Segment, other: Segment) -> None:
    one, other = one.normal(), other.normal()
    for mine, theirs in ((one.units, other.units), (one.examples, other.examples)):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype and np.array_equal(mine[name], theirs[name]), name
    assert np.array_equal(one.keys.in_order, other.keys.in_order) and np.array_equal(one.keys.rank, other.keys.rank)
    assert (one.codebooks, one.origins) == (other.codebooks, other.origins)


def test_a_segment_comes_back_and_equal_segments_are_equal_files(storage: LocalStorage) -> None:
    segment = whole(storage)
    info = write_segment(storage, segment)
    assert_same(read_segments(storage, [info])[0], segment)
    commits = [read_commit(storage, unit) for unit in committed_units(storage)]
    parts = [segment_of_commits(commits[start : start + 7]) for start in range(0, len(commits), 7)]
    assert write_segment(storage, concatenate_segments(parts)) == info
    some = np.arange(len(segment)) % 3 == 0
    picked = segment_of_commits([pair for pair, kept in zip(commits, some.tolist(), strict=True) if kept])
    assert_same(segment.with_units(some), picked)
    left_out = {commits[0][0].unit: [0, 2, 69], commits[5][0].unit: list(range(70))}
    cut = segment.without_positions(left_out)
    assert cut.left_out() == left_out and len(cut.keys) == len(segment.keys) - 73
    assert_same(read_segments(storage, [write_segment(storage, cut)])[0], cut)


def test_a_part_of_a_segment_is_read_by_ranges(storage: LocalStorage) -> None:
    segment = whole(storage)
    file = SegmentFile(storage, write_segment(storage, segment))
    assert file.names() == committed_units(storage)
    mine = segment.keys.in_order[::13]
    others = keys_of_hex(["0" * 32, "f" * 32, *(np.random.default_rng(9).bytes(16).hex() for _ in range(50))])
    assert file.contains(mine).all() and not file.contains(others).any()
    empty = SegmentFile(storage, write_segment(storage, segment_of_commits([])))
    assert empty.names() == [] and not empty.contains(mine).any()


def test_zarr_and_xarray_open_a_segment(storage: LocalStorage) -> None:
    segment = whole(storage)
    info = write_segment(storage, segment)
    group: Any = zarr.open_group(zarr.storage.ZipStore(storage.path(info.path), mode="r"), mode="r")
    assert group.attrs["kind"] == "logitbank.index" and group.attrs["counts"] == {"units": 41, "examples": 2803}
    assert np.array_equal(group["unit/name"][:], segment.units["name"])
    assert np.array_equal(group["example/tokens"][:], segment.examples["tokens"])
    keys = group["keys/sorted"][:][group["example/rank"][:]]
    assert np.array_equal(keys.view("V16").ravel(), segment.keys.in_order)
    assert group["example/tokens"].metadata.dimension_names == ("example",)
    xarray = pytest.importorskip("xarray")
    for name, length in (("unit", 41), ("example", 2803)):
        opened = xarray.open_zarr(zarr.storage.ZipStore(storage.path(info.path), mode="r"), group=name)
        assert opened.sizes[name] == length


def rewritten(data: bytes, attributes: dict[str, Any], drop: str = "", add: bool = False) -> tuple[bytes, SegmentInfo]:
    """A segment with other attributes and arrays, as another version would write it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [n.removesuffix("/zarr.json") for n in archive.namelist() if n.count("/") == 2 and "zarr.json" in n]
    group, values = decode_file(data, names, "x")
    arrays = {}
    for name, column in values.items():
        if name != drop:
            # Other chunks and another codec than today's writer uses.
            spec = ArraySpec(column.shape, str(column.dtype), max(1, min(len(column), 1000)), "zstd")
            arrays[name] = (spec, encode_array(spec, column))
    if add:
        for name in ("unit/colour", "example/shade", "more/depth"):
            spec = ArraySpec((7,), "float32", 7, "raw")
            arrays[name] = (spec, encode_array(spec, np.arange(7)))
    kept = {name: value for name, value in group.attributes.items() if name != "shards"}
    new = encode_zip(arrays, {**kept, **attributes}, ("keys/fence",))
    checksum = int(google_crc32c.value(new.data))
    sha256 = hashlib.sha256(new.data).hexdigest()
    return new.data, SegmentInfo(sha256, len(new.data), checksum, new.tail, new.root, new.crc32c, 41, 2803)


def test_what_a_later_version_adds_is_ignored_or_refused_by_name(storage: LocalStorage) -> None:
    segment = whole(storage)
    data = encode_segment(segment).data
    assert_same(decode_segment(*rewritten(data, {"colour": "red"}, add=True), "x"), segment)
    more = decode_segment(*rewritten(data, {"profiles": ["compact", "tiny", "fast"]}), "x")
    assert np.array_equal(more.units["profile"], segment.units["profile"])  # all are compact
    with pytest.raises(IntegrityError, match="x: has a profile of tiny, compact that this version does not know"):
        decode_segment(*rewritten(data, {"profiles": ["tiny", "compact"]}), "x")
    with pytest.raises(NewerFormatError, match="x: requires the feature 'bands'"):
        decode_segment(*rewritten(data, {"requires": ["bands"]}), "x")
    for name in ("unit/rows", "example/position", "keys/sorted"):
        with pytest.raises(IntegrityError, match=f"x: has no array {name}"):
            decode_segment(*rewritten(data, {}, drop=name), "x")


def test_no_flipped_bit_is_read(storage: LocalStorage) -> None:
    encoded = encode_segment(whole(storage))
    info = write_segment(storage, whole(storage))
    rng = np.random.default_rng(0)
    for position in [0, len(encoded.data) - 1, *rng.integers(0, len(encoded.data), 300).tolist()]:
        damaged = bytearray(encoded.data)
        damaged[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(IntegrityError, match="x: altered or truncated"):
            decode_segment(bytes(damaged), info, "x")


def test_a_shard_of_another_segment_of_one_length_is_noticed(storage: LocalStorage) -> None:
    """Each shard ends in its own crc32c, so the crc32c of the file is the same for any two of them."""
    segment = whole(storage)
    data, info = encode_segment(segment).data, write_segment(storage, segment)
    group, _ = decode_file(data, (), "x")
    offset, size = group.position("unit/name")
    values = group.decode("unit/name", data[offset : offset + size])[::-1].copy()
    shard = encode_array(group.spec("unit/name"), values)
    other = data[:offset] + shard + data[offset + size :]
    assert len(shard) == size and google_crc32c.value(other) == google_crc32c.value(data) and other != data
    with pytest.raises(IntegrityError, match="x: altered or truncated"):
        decode_segment(other, info, "x")
