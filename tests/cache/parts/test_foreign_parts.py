"""Parts that another writer made: other chunks and codecs, more arrays, fields of later versions, unknown codecs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cache.errors import IntegrityError, LogitbankError
from cache.parts import layout, part, zarr_zip
from cache.parts.part import EncodedPart, encode_part
from cache.parts.part_reader import PartReader
from cache.parts.unit_arrays import gather
from cache.parts.zarr_shard import ArraySpec, encode_array
from cache.rows.codebook import Codebook, plain_codebook
from cache.rows.record import Record
from cache.rows.spec import TargetMode
from cache.storage.memory_file import MemoryFile
from tests.cache.rows.rows import MODES, TARGETS, VOCAB, assert_same_window, random_record, store_spec

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")


def records_of(mode: TargetMode) -> list[Record]:
    """More than two chunks of tokens, one example longer than a chunk, and an empty one."""
    rng = np.random.default_rng(5)
    return [
        random_record(rng, f"{i}", *each, TARGETS[mode]) for i, each in enumerate([(3, 40), (2, 900), (0, 0), (4, 300)])
    ]


def plain(digest: str) -> Codebook:
    return plain_codebook(VOCAB)


def encode(mode: TargetMode) -> EncodedPart:
    records = records_of(mode)
    return encode_part("p", records, gather(records), store_spec(TARGETS[mode]), plain(""), "", "compact")


def open_encoded(encoded: EncodedPart, mode: TargetMode) -> PartReader:
    return PartReader(MemoryFile("store", "p", encoded.data), encoded.info, TARGETS[mode], plain)


Change = Callable[[str, ArraySpec], ArraySpec]


def other_chunks(name: str, spec: ArraySpec) -> ArraySpec:
    """A length that differs from array to array."""
    lengths = (60 + sum(name.encode()) % 300, 256, 700, 2 * max(1, spec.shape[0]))
    return replace(spec, chunk=max(1, lengths[sum(name.encode()) % 4]))


def other_codecs(name: str, spec: ArraySpec) -> ArraySpec:
    codecs: Mapping[str, Any] = {"pcodec": "zstd", "pcodec_sorted": "raw", "zstd": "raw"}
    return replace(spec, codec=codecs[spec.codec] if spec.codec != "raw" else "zstd")


CHANGES: dict[str, Change] = {
    "chunks": other_chunks,
    "codecs": other_codecs,
    "both": lambda name, spec: other_codecs(name, other_chunks(name, spec)),
    "no names of dimensions": lambda name, spec: replace(spec, dimensions=()),
}


@pytest.mark.parametrize("tokens", [256, 1000], ids="{} tokens between starts".format)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", MODES)
def test_other_chunks_and_codecs_are_read(
    mode: TargetMode, change: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a reader that takes a length or a codec from its own constants."""
    expected = open_encoded(encode(mode), mode)
    part_arrays = layout.part_arrays
    with monkeypatch.context() as patch:
        patch.setattr(layout, "TOKEN_CHUNK", tokens)
        patch.setattr(
            layout,
            "part_arrays",
            lambda *arguments: {name: CHANGES[change](name, a) for name, a in part_arrays(*arguments).items()},
        )
        encoded = encode(mode)
    assert encoded.data != encode(mode).data
    found = open_encoded(encoded, mode)
    found.check_all()
    rng = np.random.default_rng(0)
    ends = [0, tokens - 1, tokens, 511, 512, 513, expected.tokens]
    for start, stop in [
        *(sorted(rng.choice(expected.tokens, 2)) for _ in range(12)),
        *pairwise(ends),
    ]:
        first, last = sorted((int(start), int(stop)))
        assert_same_window(found.window(first, last), expected.window(first, last))
    assert found.descriptions(range(4)) == expected.descriptions(range(4))


def with_more(document: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {**document, **fields}


def later_version(patch: pytest.MonkeyPatch, attributes: Mapping[str, Any], codecs: Mapping[str, str]) -> None:
    """From now on parts have these attributes too, an array that is read in pieces and one in the tail that no reader
    knows, of an unknown codec, and unknown fields in every zarr.json. codecs: unknown ones of other arrays."""
    array_document, encode_zip = zarr_zip.array_document, zarr_zip.encode_zip
    unknown = {"x/large": "quantum", "x/small": "quantum", **codecs}

    def document_of(spec: ArraySpec) -> dict[str, Any]:
        name = spec.dimensions[-1] if spec.dimensions and spec.dimensions[-1] in unknown else ""
        document = {**array_document(spec), "extra": {"must_understand": False}}
        if name:
            document["codecs"][0]["configuration"]["codecs"][0] = {"name": unknown[name]}
        return document

    def encode_more(arrays: Mapping[str, Any], own: Mapping[str, Any], tail: tuple[str, ...]) -> Any:
        spec = ArraySpec((7,), "uint16", 3, "raw")
        extra = (spec, encode_array(spec, np.arange(7)))
        named = {
            name: (replace(each, dimensions=(*each.dimensions[1:], name)), data)
            for name, (each, data) in {**arrays, "x/large": extra, "x/small": extra}.items()
        }
        return encode_zip(named, {**own, **attributes, "later": 1}, (*tail, "x/small"))

    patch.setattr(zarr_zip, "array_document", document_of)
    patch.setattr(part, "encode_zip", encode_more)


def test_arrays_and_fields_of_a_later_version_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_encoded(encode("topk"), "topk")
    with monkeypatch.context() as patch:
        later_version(patch, {}, {})
        encoded = encode("topk")
    found = open_encoded(encoded, "topk")
    found.check_all()
    assert_same_window(found.window(0, found.tokens), expected.window(0, expected.tokens))
    assert "x/large" in found.sizes and "x/small" in found.sizes


@pytest.mark.parametrize("array", [layout.TOKEN_IDS, "rank0/code", layout.TOKEN_STARTS, layout.GRID, layout.CHECKSUMS])
def test_an_unknown_codec_is_refused_by_name(array: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        later_version(patch, {}, {array: "quantum2"})
        encoded = encode("topk")
    with pytest.raises(IntegrityError, match=rf"^store/p/{array}: codec 'quantum2' is not known") as refusal:
        open_encoded(encoded, "topk")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"requires": ["braids"]}, r"^store/p: requires the feature 'braids'"),
        ({"format": 2}, r"^store/p: has format 2"),
        ({"kind": "other.part"}, r"^store/p: is a 'other\.part', not a 'logitbank\.part'"),
    ],
)
def test_a_part_that_needs_a_later_version_is_refused_by_what_it_needs(
    attributes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        later_version(patch, attributes, {})
        encoded = encode("topk")
    with pytest.raises(LogitbankError, match=message) as refusal:
        open_encoded(encoded, "topk")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("array", ["tokens/id", "rank0/gap", "examples/description_start", "chunk_bytes"])
def test_a_missing_array_is_named(array: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_zip = zarr_zip.encode_zip
    with monkeypatch.context() as patch:
        patch.setattr(
            part,
            "encode_zip",
            lambda arrays, own, tail: encode_zip(
                {name: each for name, each in arrays.items() if name != array},
                {**own, "checked": [name for name in own["checked"] if name != array]},
                tail,
            ),
        )
        encoded = encode("topk")
    with pytest.raises(IntegrityError, match=f"^store/p(: has no array {array}|/chunk_bytes: does not describe)"):
        open_encoded(encoded, "topk")


@pytest.mark.parametrize("mode", MODES)
def test_a_part_is_a_zarr_group_and_any_group_of_it_a_dataset(mode: TargetMode, tmp_path: Path) -> None:
    """A group opens from its own metadata alone; arrays of a group that share a dimension have one length, as xarray
    needs."""
    encoded = encode(mode)
    (tmp_path / "p.zarr.zip").write_bytes(encoded.data)
    group: Any = zarr.open_group(zarr.storage.ZipStore(tmp_path / "p.zarr.zip"), mode="r")
    assert group.metadata.consolidated_metadata is not None
    unconsolidated: Any = zarr.open_group(
        zarr.storage.ZipStore(tmp_path / "p.zarr.zip"), mode="r", use_consolidated=False
    )
    arrays = {name: each for name, each in group.members(max_depth=None) if hasattr(each, "shape")}
    lengths: dict[tuple[str, str], int] = {}
    for name, array in arrays.items():
        names = array.metadata.dimension_names
        assert len(names) == array.ndim
        for dimension, length in zip(names, array.shape, strict=True):
            assert lengths.setdefault((name.rpartition("/")[0], dimension), length) == length, name
        other = unconsolidated[name]
        assert repr(other.metadata) == repr(array.metadata), name
        assert np.array_equal(other[...], array[...], equal_nan=array.dtype.kind == "f"), name
    assert len(arrays) > 12 and set(arrays) == set(group.attrs["shards"])
    tokens = np.concatenate([record.tokenized.tokens for record in records_of(mode)])
    assert np.array_equal(group["tokens/id"][...], tokens)


def test_xarray_opens_the_groups_of_a_part(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    (tmp_path / "p.zarr.zip").write_bytes(encode("topk").data)
    store = zarr.storage.ZipStore(tmp_path / "p.zarr.zip")
    tokens = xarray.open_zarr(store, group="tokens")
    assert tokens["id"].dims == ("token",) and tokens.sizes["token"] == len(tokens["tail"])
    assert xarray.open_zarr(store).attrs["kind"] == layout.PART_KIND


def test_equal_content_gives_equal_bytes() -> None:
    assert encode("threshold").data == encode("threshold").data


@pytest.mark.parametrize("mode", MODES)
def test_other_values_in_an_array_of_the_tail_are_noticed(mode: TargetMode) -> None:
    """The checksum of the tail is the same then: a chunk that ends in its own checksum leaves no trace in another."""
    records = records_of(mode)
    encoded = encode_part("p", records, gather(records), store_spec(TARGETS[mode]), plain(""), "", "fast")
    group = zarr_zip.group_of_file(encoded.data, "p")
    tried = 0
    for name, (offset, size) in group.shards.items():
        if offset < encoded.info.tail:
            continue
        spec, values = group.spec(name), group.decode(name, encoded.data[offset : offset + size]).copy()
        values[len(values) // 2] += 1
        shard = encode_array(spec, values)
        assert len(shard) == size
        data = encoded.data[:offset] + shard + encoded.data[offset + size :]
        with pytest.raises(IntegrityError, match=f"^store/p/{name}: altered, or that of another part$"):
            PartReader(MemoryFile("store", "p", data), encoded.info, TARGETS[mode], plain)
        tried += 1
    assert tried >= 5
