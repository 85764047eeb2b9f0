"""The one place that knows the names, types, chunks and codecs of the arrays in a part (format version 1).

A part is a Zarr v3 group. Every array is one shard, so one file of data, whose inner chunks carry a crc32c each.
Two levels of offsets lead from an example to its tokens and from a token to its entries.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.codecs.numcodecs import PCodec
from zarr.errors import ZarrUserWarning

PART_KIND = "logitbank.part"


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """name inside the group, dtype, elements of an inner chunk, and the codec of numbers or of bytes."""

    name: str
    dtype: str
    chunk: int
    codec: str = "pcodec"


# Per example [examples + 1]: where its tokens and its description start.
TOKEN_OFFSETS = ArrayLayout("examples/token_offsets", "int64", 4096)
DESCRIPTION_OFFSETS = ArrayLayout("examples/description_offsets", "int64", 4096)
# UTF-8 JSON of the examples, one after the other.
DESCRIPTIONS = ArrayLayout("examples/descriptions", "uint8", 65536, codec="zstd")
# Per token [tokens].
TOKEN_IDS = ArrayLayout("tokens/id", "uint32", 16384)
SEGMENTS = ArrayLayout("tokens/segment", "uint8", 16384, codec="zstd")
ENTRY_COUNTS = ArrayLayout("tokens/entries", "uint32", 16384)
LOG_TAIL = ArrayLayout("tokens/log_tail", "float32", 16384)
TOKEN_LOGPROBS = ArrayLayout("tokens/logprob", "float32", 16384)
# Per entry, flat over the tokens.
ENTRY_IDS = ArrayLayout("entries/id", "uint32", 32768)
ENTRY_GAPS = ArrayLayout("entries/gap", "uint16", 32768)

ARRAYS = (
    TOKEN_OFFSETS,
    DESCRIPTION_OFFSETS,
    DESCRIPTIONS,
    TOKEN_IDS,
    SEGMENTS,
    ENTRY_COUNTS,
    LOG_TAIL,
    TOKEN_LOGPROBS,
    ENTRY_IDS,
    ENTRY_GAPS,
)


def fill_value(layout: ArrayLayout) -> Any:
    """A value that no valid array holds, so that an absent chunk can never pass for data."""
    dtype = np.dtype(layout.dtype)
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


@contextmanager
def numcodecs_allowed() -> Iterator[None]:
    """Silence zarr's remark that numcodecs' codecs are not in the core specification: the format chooses them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs", category=ZarrUserWarning)
        yield


def create_array(group: zarr.Group, layout: ArrayLayout, data: np.ndarray[Any, Any]) -> None:
    """Write `data` [length] as one shard."""
    shard = max(1, -(-len(data) // layout.chunk)) * layout.chunk
    pcodec = layout.codec == "pcodec"
    with numcodecs_allowed():
        serializer: Any = PCodec(level=8) if pcodec else "auto"
    array = group.create_array(
        layout.name,
        shape=(len(data),),
        dtype=layout.dtype,
        chunks=(layout.chunk,),
        shards=(shard,),
        serializer=serializer,
        compressors=[Crc32cCodec()] if pcodec else [ZstdCodec(level=9), Crc32cCodec()],
        fill_value=fill_value(layout),
        config={"write_empty_chunks": True},
    )
    if len(data):
        array[:] = data.astype(layout.dtype, copy=False)
