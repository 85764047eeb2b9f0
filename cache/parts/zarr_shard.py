"""The file of a Zarr v3 array with one shard: inner chunks, each with a checksum, and their index.

This module writes and reads the bytes of the standard directly, because zarr-python is some ten times slower on small
chunks. Tests compare the two in both directions. Arrays are chunked along their first axis only.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs.zstd import Zstd
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

from cache.errors import IntegrityError

# "pcodec" for numbers in any order, "pcodec_sorted" for increasing numbers.
Codec = Literal["pcodec", "pcodec_sorted", "zstd", "raw"]
PCODEC_LEVEL, ZSTD_LEVEL = 7, 9
CHECKSUM_BYTES = 4
# The crc32c of any bytes followed by their own crc32c.
CRC_RESIDUE = 0x48674BC7


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape, type and codec of one array. chunk: rows per inner chunk. fill: a value that no valid array contains.

    dimensions: name of each axis; axes of equal names in a group have equal lengths.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: int
    codec: Codec
    dimensions: tuple[str, ...] = ()

    @property
    def chunks(self) -> int:
        """Number of inner chunks, at least one."""
        return max(1, -(-self.shape[0] // self.chunk))

    @property
    def index_bytes(self) -> int:
        """Length of the index at the end of the file: offset and length of every chunk, and a checksum."""
        return 16 * self.chunks + CHECKSUM_BYTES

    @property
    def fill(self) -> Any:
        """Value of elements that were never written. It is invalid data, so an absent chunk is always noticed."""
        kind = np.dtype(self.dtype)
        if kind.kind == "f":
            return np.nan
        return np.iinfo(kind).min if kind.kind == "i" else np.iinfo(kind).max

    @property
    def path(self) -> str:
        """Path of the shard below the array's folder."""
        return "/".join(["c", *("0" for _ in self.shape)])


def encode_array(spec: ArraySpec, values: npt.NDArray[Any]) -> bytes:
    """Encode `values`, of the shape in the spec, as the bytes of a shard."""
    values = np.ascontiguousarray(values, np.dtype(spec.dtype).newbyteorder("<"))
    pieces, index, offset = [], np.empty((spec.chunks, 2), "<u8"), 0
    for number in range(spec.chunks):
        chunk = values[number * spec.chunk : (number + 1) * spec.chunk]
        if len(chunk) < spec.chunk:  # the standard requires full chunks
            padding = np.full((spec.chunk - len(chunk), *spec.shape[1:]), spec.fill, spec.dtype)
            chunk = np.concatenate([chunk, padding])
        piece = _with_checksum(_encode_chunk(spec.codec, chunk))
        pieces.append(piece)
        index[number] = offset, len(piece)
        offset += len(piece)
    return b"".join([*pieces, _with_checksum(index.tobytes())])


def checksum(values: npt.NDArray[Any]) -> int:
    """crc32c of the elements of an array, little-endian.

    Not of the stored bytes: they end in their own crc32c, so that those of any two arrays of one size have the same.
    """
    return int(google_crc32c.value(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()))


def decode_index(spec: ArraySpec, data: bytes, what: str) -> list[int]:
    """Offset of each inner chunk, and the end of the last one. data: the last `spec.index_bytes` of the file.

    Chunks must follow one another without gaps. The standard allows more, but these files never need it.
    Raises IntegrityError, starting with `what`, if the index is damaged.
    """
    if len(data) != spec.index_bytes:
        raise IntegrityError(f"{what}: truncated: {len(data)} bytes of its index, expected {spec.index_bytes}")
    if google_crc32c.value(data) != CRC_RESIDUE:
        raise IntegrityError(f"{what}: its index is altered: its checksum does not match")
    index = np.frombuffer(data, "<u8", 2 * spec.chunks).reshape(spec.chunks, 2)
    bounds = [0, *np.cumsum(index[:, 1]).tolist()]
    if bounds[:-1] != index[:, 0].tolist():
        raise IntegrityError(f"{what}: its chunks do not follow one another")
    return bounds


class Shard:
    """The shard of an array, to decode chunks of.

    bounds: where each chunk starts, and the end of the last one; in the shard, or in the file that contains it. what:
    name of the array in messages. checksums: crc32c that each chunk of this array must have, CHECKSUM_BYTES each.
    """

    __slots__ = ("_checksums", "_decode", "_row", "bounds", "chunk_size", "dtype", "spec", "what")

    def __init__(self, spec: ArraySpec, bounds: list[int], what: str, checksums: bytes | None = None) -> None:
        self.spec, self.bounds, self.what, self._checksums = spec, bounds, what, checksums
        self.dtype: np.dtype[Any] = np.dtype(spec.dtype)
        self._row = spec.shape[1:]
        self.chunk_size = spec.chunk * math.prod(self._row)
        self._decode = _DECODERS[spec.codec]

    def decode(
        self, data: bytes, first: int, last: int, skip: int = 0, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Values of the chunks first..last - 1, with padding. data: bytes in which the first of them is at `skip`.

        out: a flat array of sufficient length for the result; default: a new array.
        Raises IntegrityError if a chunk is damaged or another one.
        """
        bounds, size, checksums, decode = self.bounds, self.chunk_size, self._checksums, self._decode
        base = bounds[first] - skip
        if len(data) < bounds[last] - base:
            raise IntegrityError(f"{self.what}: truncated: it ends within chunk {last - 1} or before")
        total = (last - first) * size
        position, number = 0, first
        try:
            values = np.empty(total, self.dtype) if out is None else out[:total]
            for number in range(first, last):
                piece = data[bounds[number] - base : bounds[number + 1] - base]
                if _crc32c(piece) != CRC_RESIDUE:
                    raise IntegrityError(f"{self.what}: chunk {number} is altered: its checksum does not match")
                if checksums is not None and piece[-4:] != checksums[4 * number : 4 * number + 4]:
                    raise IntegrityError(f"{self.what}: chunk {number} is not the one that was committed")
                if decode(piece, values[position : position + size]) != size:
                    raise IntegrityError(f"{self.what}: chunk {number} does not contain {size} numbers")
                position += size
        except IntegrityError:
            raise
        except Exception as error:  # codecs raise exceptions of many types
            raise IntegrityError(f"{self.what}: chunk {number} cannot be decoded: {error}") from error
        return values.reshape(-1, *self._row) if self._row else values


def decode_array(spec: ArraySpec, data: bytes, what: str) -> npt.NDArray[Any]:
    """All elements of an array. data: its shard, with the index. Raises IntegrityError, starting with `what`."""
    bounds = decode_index(spec, data[-spec.index_bytes :], what)
    return Shard(spec, bounds, what).decode(data, 0, spec.chunks)[: spec.shape[0]]


def _encode_chunk(codec: Codec, chunk: npt.NDArray[Any]) -> bytes:
    if codec == "pcodec":
        plain = ChunkConfig(PCODEC_LEVEL, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())
        return bytes(standalone.simple_compress(chunk.ravel(), plain))
    if codec == "pcodec_sorted":
        return bytes(standalone.simple_compress(chunk.ravel(), ChunkConfig(PCODEC_LEVEL)))
    if codec == "zstd":
        return bytes(Zstd(level=ZSTD_LEVEL).encode(chunk.tobytes()))
    return bytes(chunk.tobytes())


# Decoders get a chunk followed by its checksum, write the numbers to `out`, and return how many there are.
def _decode_pcodec(piece: bytes, out: npt.NDArray[Any]) -> int:
    progress = _pcodec_into(piece, out)  # stops at the end of the compressed data, before the checksum
    return int(progress.n_processed) if progress.finished else -1


def _decode_zstd(piece: bytes, out: npt.NDArray[Any]) -> int:
    out.view(np.uint8)[:] = np.frombuffer(_ZSTD.decode(piece[:-CHECKSUM_BYTES]), np.uint8)
    return len(out)


def _decode_raw(piece: bytes, out: npt.NDArray[Any]) -> int:
    out.view(np.uint8)[:] = np.frombuffer(piece, np.uint8, len(piece) - CHECKSUM_BYTES)
    return len(out)


_crc32c, _pcodec_into = google_crc32c.value, standalone.simple_decompress_into
_ZSTD = Zstd()
_DECODERS = {"pcodec": _decode_pcodec, "pcodec_sorted": _decode_pcodec, "zstd": _decode_zstd, "raw": _decode_raw}


def _with_checksum(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")
