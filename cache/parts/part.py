"""One part: the file of a unit of records, and the description with which a reader opens it. Knows no commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.parts import layout
from cache.parts.description import describe
from cache.parts.layout import PartCounts, Profile
from cache.parts.unit_arrays import UnitArrays
from cache.parts.zarr_shard import CHECKSUM_BYTES, ArraySpec, checksum, decode_index, encode_array
from cache.parts.zarr_zip import encode_zip
from cache.rows.codebook import Codebook
from cache.rows.codec import EncodedRows, encode_logprobs, encode_rows
from cache.rows.rank_bands import band_counts, gap_counts
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec, TargetSpec


@dataclass(frozen=True, slots=True)
class PartInfo:
    """Where a part is, and what a reader needs to open it with one read of its end. All else is in the file.

    bytes: length of the file. tail: offset of its tail. root: offset of the entry of zarr.json in the zip file.
    crc32c: of the bytes from `tail` to the end.
    """

    path: str
    bytes: int
    tail: int
    root: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """The content of the file of a part, and where it is. descriptions: the texts in it."""

    data: bytes
    info: PartInfo
    descriptions: bytes


def encode_part(
    path: str,
    records: Sequence[Record],
    unit: UnitArrays,
    spec: StoreSpec,
    codebook: Codebook,
    digest: str,
    profile: Profile,
) -> EncodedPart:
    """Encode valid `records` as a part at `path`. unit: their arrays. digest: the codebook's, "" if codes are ids."""
    targets, tokens = unit.targets, unit.tokens
    encoded = encode_rows(targets, tokens, spec.targets, codebook)
    descriptions = [describe(record) for record in records]
    counts = PartCounts(
        examples=len(records),
        tokens=len(tokens),
        description_bytes=sum(map(len, descriptions)),
        codes=_lengths(encoded.code_starts, len(encoded.codes)),
        gaps=_lengths(encoded.gap_starts, len(encoded.gaps)),
        sampled=len(encoded.sampled_code),
        levels=encoded.levels,
    )
    values = {
        **_example_arrays(unit, descriptions),
        **_row_arrays(encoded, spec.targets),
        **_optional_arrays(targets, len(tokens), spec.targets),
        layout.TOKEN_IDS: tokens,
    }
    arrays = {
        name: (array, encode_array(array, values[name]))
        for name, array in layout.part_arrays(counts, spec.targets, codebook, profile).items()
    }
    checked = [name for name in arrays if name not in layout.TAIL_ARRAYS]
    values |= _check_values([arrays[name] for name in checked])
    array = layout.check_array(len(values[layout.CHECKSUMS]))
    for name in (layout.CHUNK_BYTES, layout.CHECKSUMS):
        arrays[name] = (array, encode_array(array, values[name]))
    sums = {name: checksum(values[name].astype(arrays[name][0].dtype)) for name in arrays if name not in checked}
    attributes = layout.part_attributes(counts, spec.targets, digest, profile, checked, sums)
    file = encode_zip(arrays, attributes, layout.TAIL_ARRAYS)
    info = PartInfo(path, len(file.data), file.tail, file.root, file.crc32c)
    return EncodedPart(file.data, info, b"".join(descriptions))


def _check_values(shards: Sequence[tuple[ArraySpec, bytes]]) -> dict[str, npt.NDArray[Any]]:
    """Length and checksum of every chunk of these arrays, as two arrays of the part."""
    lengths, checksums = [], []
    for array, data in shards:
        bounds = decode_index(array, data[-array.index_bytes :], "shard")
        lengths += [end - start for start, end in pairwise(bounds)]
        checksums.append(b"".join(data[end - CHECKSUM_BYTES : end] for end in bounds[1:]))
    return {
        layout.CHUNK_BYTES: np.array(lengths, np.uint32),
        layout.CHECKSUMS: np.frombuffer(b"".join(checksums), "<u4"),
    }


def _example_arrays(unit: UnitArrays, descriptions: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that do not come from the rows, but for the token ids."""
    return {
        layout.TOKEN_STARTS: unit.starts,
        layout.DESCRIPTION_STARTS: _starts([len(text) for text in descriptions]),
        layout.DESCRIPTIONS: np.frombuffer(b"".join(descriptions), np.uint8),
        layout.SEGMENTS: unit.segments,
        layout.SURPRISAL: encode_logprobs(unit.token_logprobs),
    }


def _row_arrays(encoded: EncodedRows, spec: TargetSpec) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the rows: counts, tails, streams, and where the streams start in each chunk of tokens."""
    chunk = layout.TOKEN_CHUNK
    arrays: dict[str, npt.NDArray[Any]] = {
        layout.EXACT: encoded.exact,
        layout.SAMPLED: encoded.sampled,
        layout.TAIL: encoded.tail,
        layout.SAMPLED_STARTS: _chunk_starts(encoded.sampled, chunk),
        layout.SAMPLED_CODES: encoded.sampled_code,
        layout.SAMPLED_DRAWS: encoded.sampled_draws,
        layout.GRID: spec.grid[: encoded.levels],
    }
    in_bands = band_counts(encoded.exact, encoded.edges)
    codes = np.split(encoded.codes, encoded.code_starts[1:])
    gaps = np.split(encoded.gaps, encoded.gap_starts[1:])
    for band, (edge, pairs) in enumerate(zip(encoded.edges, gap_counts(in_bands), strict=True)):
        arrays[layout.codes_of_band(edge)], arrays[layout.gaps_of_band(edge)] = codes[band], gaps[band]
        arrays[layout.code_starts_of_band(edge)] = _chunk_starts(in_bands[band], chunk)
        arrays[layout.pair_starts_of_band(edge)] = _chunk_starts(pairs, chunk)
    return arrays


def _lengths(starts: npt.NDArray[np.int64], end: int) -> tuple[int, ...]:
    """Lengths of streams that follow one another, the last one up to `end`."""
    return tuple(np.diff(starts, append=end).tolist())


def _optional_arrays(targets: SparseTargets, n: int, spec: TargetSpec) -> dict[str, npt.NDArray[Any]]:
    """Entropy and log-normalisers of n tokens, NaN if no row of the unit has a target."""
    entropy, log_normalizers = targets.entropy, targets.log_normalizers
    if entropy is None:
        entropy = np.full(n, np.nan, np.float32)
    if log_normalizers is None:
        log_normalizers = np.full((n, len(spec.temperatures)), np.nan, np.float32)
    return {layout.ENTROPY: entropy, layout.LOG_NORMALIZERS: log_normalizers}


def _starts(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))])


def _chunk_starts(counts: npt.NDArray[np.int64], chunk: int) -> npt.NDArray[np.int64]:
    """Number of entries before each chunk of tokens, and of all entries, int64 [chunks + 1]."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    edges = np.minimum(np.arange(max(1, -(-len(counts) // chunk)) + 1) * chunk, len(counts))
    return np.asarray(before[edges])
