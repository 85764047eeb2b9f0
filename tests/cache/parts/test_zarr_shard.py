"""Our bytes of a Zarr v3 shard are the standard's: zarr-python reads what we write, and we read what it writes."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import IntegrityError
from cache.parts.zarr_metadata import array_document, metadata_bytes
from cache.parts.zarr_shard import ArraySpec, Codec, Shard, decode_index, encode_array

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
DTYPES = ("uint8", "uint16", "uint32", "int16", "int64", "float32")
CODECS: tuple[Codec, ...] = ("pcodec", "pcodec_sorted", "zstd", "raw")
SHAPES: tuple[tuple[int, ...], ...] = ((0,), (1,), (7,), (8,), (9,), (16,), (1000,), (0, 3), (1, 1), (8, 3), (21, 2))


def combinations() -> list[Any]:
    """All but pcodec with bytes, which it does not have."""
    return [
        pytest.param(codec, dtype, id=f"{codec}-{dtype}")
        for codec in CODECS
        for dtype in DTYPES
        if not (codec.startswith("pcodec") and dtype == "uint8")
    ]


def random_values(shape: tuple[int, ...], dtype: str, seed: int = 0) -> npt.NDArray[Any]:
    """Over the whole range of the type, with both ends; NaN and infinities where there are any."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    if dtype == "float32":
        values = rng.normal(size=size).astype(np.float32) * 100
        values[::3] = np.array([np.nan, -np.inf, -0.0], np.float32)[rng.integers(0, 3, len(values[::3]))]
        return values.reshape(shape)
    bounds = np.iinfo(dtype)
    values = rng.integers(bounds.min, bounds.max, size, np.dtype(dtype).type, endpoint=True)
    values[::4] = np.array([bounds.min, bounds.max, 0], dtype)[rng.integers(0, 3, len(values[::4]))]
    return np.asarray(values.reshape(shape))


def write(folder: Path, spec: ArraySpec, values: npt.NDArray[Any]) -> None:
    (folder / spec.path).parent.mkdir(parents=True)
    (folder / "zarr.json").write_bytes(metadata_bytes(array_document(spec)))
    (folder / spec.path).write_bytes(encode_array(spec, values))


def write_with_zarr(folder: Path, spec: ArraySpec, values: npt.NDArray[Any]) -> bytes:
    """The shard as zarr-python writes it.

    numcodecs 0.16 reads "delta_spec": "none" but cannot write it (pcodec 1 renamed it); what is read does not depend
    on it.
    """
    folder.mkdir()
    metadata = metadata_bytes(array_document(spec)).replace(b'"delta_spec":"none"', b'"delta_spec":"auto"')
    (folder / "zarr.json").write_bytes(metadata)
    zarr.open_array(folder, mode="r+")[...] = values
    return (folder / spec.path).read_bytes()


def read(spec: ArraySpec, data: bytes) -> npt.NDArray[Any]:
    bounds = decode_index(spec, data[-spec.index_bytes :], "x")
    return Shard(spec, bounds, "x").decode(data, 0, spec.chunks)[: spec.shape[0]]


def assert_identical(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("codec, dtype", combinations())
def test_zarr_python_reads_what_we_write(codec: Codec, dtype: str, tmp_path: Path) -> None:
    for number, shape in enumerate(SHAPES):
        for chunk in {1, 8, max(1, shape[0])} if shape[0] < 100 else {8, 300}:
            spec = ArraySpec(shape, dtype, chunk, codec)
            values = random_values(shape, dtype, number)
            folder = tmp_path / f"{number}.{chunk}"
            write(folder, spec, values)
            array = zarr.open_array(folder, mode="r")
            assert array.shards == (spec.chunks * chunk, *shape[1:]) and array.chunks == (chunk, *shape[1:])
            assert_identical(np.asarray(array[...]), values)
            if shape[0]:
                assert_identical(np.asarray(array[shape[0] // 2 :]), values[shape[0] // 2 :])
            assert_identical(read(spec, (folder / spec.path).read_bytes()), values)


@pytest.mark.parametrize("codec, dtype", combinations())
def test_we_read_what_zarr_python_writes(codec: Codec, dtype: str, tmp_path: Path) -> None:
    for number, (shape, chunk) in enumerate([((1,), 1), ((8,), 8), ((24,), 8), ((21,), 8), ((16, 3), 8), ((5, 2), 5)]):
        spec = ArraySpec(shape, dtype, chunk, codec)
        values = random_values(shape, dtype, number)
        values[::chunk] = 1  # zarr-python leaves out a chunk of nothing but fill values
        assert_identical(read(spec, write_with_zarr(tmp_path / str(number), spec, values)), values)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "pcodec"])
def test_zarr_python_and_we_write_the_same_bytes(codec: Codec, tmp_path: Path) -> None:
    """Not promised by the standard, and so a sign of a change in a dependency that the golden store should be told."""
    spec = ArraySpec((40,), "uint32", 16, codec)
    values = random_values(spec.shape, spec.dtype)
    assert write_with_zarr(tmp_path / "a", spec, values) == encode_array(spec, values)


def test_metadata_names_nothing_but_what_the_standard_knows() -> None:
    """An unknown key without "must_understand": false obliges readers to refuse the array."""
    known = {
        "zarr_format",
        "node_type",
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "fill_value",
        "codecs",
        "attributes",
    }
    for codec in CODECS:
        assert set(array_document(ArraySpec((3, 2), "float32", 2, codec))) == known


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(0, 100),
    chunk=st.integers(1, 40),
    codec=st.sampled_from(CODECS),
    data=st.data(),
)
def test_any_run_of_chunks_is_a_slice_of_the_array(
    seed: int, length: int, chunk: int, codec: Codec, data: st.DataObject
) -> None:
    spec = ArraySpec((length,), "uint32", chunk, codec)
    values = random_values((length,), "uint32", seed)
    file = encode_array(spec, values)
    bounds = decode_index(spec, file[-spec.index_bytes :], "x")
    first = data.draw(st.integers(0, spec.chunks - 1))
    last = data.draw(st.integers(first + 1, spec.chunks))
    found = Shard(spec, bounds, "x").decode(file[bounds[first] : bounds[last]], first, last)
    assert len(found) == (last - first) * chunk
    expected = values[first * chunk : last * chunk]
    assert_identical(found[: len(expected)], expected)
    assert (found[len(expected) :] == spec.fill).all()


@pytest.mark.parametrize("codec", CODECS)
def test_every_single_flipped_bit_of_a_file_is_noticed(codec: Codec) -> None:
    spec = ArraySpec((20,), "uint16", 8, codec)
    file = encode_array(spec, random_values(spec.shape, spec.dtype))
    for position in range(8 * len(file)):
        damaged = bytearray(file)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError, match=r"^x: .*(checksum|follow)"):
            read(spec, bytes(damaged))


@pytest.mark.parametrize("codec", CODECS)
def test_a_file_that_is_cut_or_grown_is_noticed(codec: Codec) -> None:
    spec = ArraySpec((20,), "uint16", 8, codec)
    file = encode_array(spec, random_values(spec.shape, spec.dtype))
    for length in range(len(file)):
        with pytest.raises(IntegrityError, match=r"^x: "):
            read(spec, file[:length])
        if length:
            with pytest.raises(IntegrityError, match=r"^x: "):
                read(spec, file[length:])
    bounds = decode_index(spec, file[-spec.index_bytes :], "x")
    with pytest.raises(IntegrityError, match="x: truncated: it ends within chunk 2"):
        Shard(spec, bounds, "x").decode(file[: bounds[-1] - 1], 0, 3)


@pytest.mark.parametrize("codec", CODECS)
def test_a_sound_file_of_another_shape_or_type_does_not_pass(codec: Codec) -> None:
    """Checksums alone would let the file of another array through."""
    spec = ArraySpec((16,), "uint16", 8, codec)
    other = ArraySpec((16,), "uint64", 8, codec)
    with pytest.raises(IntegrityError, match="x: chunk 0 "):
        read(spec, encode_array(other, np.arange(16, dtype=np.uint64)))
    longer = encode_array(ArraySpec((24,), "uint16", 8, codec), np.arange(24, dtype=np.uint16))
    with pytest.raises(IntegrityError, match=r"^x: "):
        read(spec, longer)


def test_a_file_of_zarr_python_with_absent_chunks_is_refused_not_misread(tmp_path: Path) -> None:
    """The standard leaves chunks of fill values out; ours never are, and an absent one must not pass for data."""
    spec = ArraySpec((24,), "uint16", 8, "raw")
    values = np.arange(24, dtype=np.uint16)
    values[8:16] = spec.fill
    data = write_with_zarr(tmp_path / "a", spec, values)
    with pytest.raises(IntegrityError, match="do not follow one another"):
        read(spec, data)
