"""Names, types, chunks and codecs that a writer gives the arrays of a part and of a codebook (format version 1).

A part is a Zarr v3 group in one file. Every array is one shard. `examples/token_start` leads from an example to
its tokens, and `chunks/*_start` leads from chunks of tokens to their entries. A reader takes shapes, chunks and codecs
from the file. cache/README.md describes the format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from cache.parts.zarr_shard import ArraySpec, Codec
from cache.rows.codebook import Codebook, id_dtype
from cache.rows.rank_bands import EDGES, gap_dtype
from cache.rows.spec import TargetSpec

PART_KIND = "logitbank.part"
CODEBOOK_KIND = "logitbank.codebook"
Profile = Literal["compact", "portable", "fast"]
PROFILES: tuple[Profile, ...] = ("compact", "portable", "fast")
# pcodec cannot encode bytes, so text is compressed with zstd wherever numbers are compressed.
NUMBER_CODECS: dict[Profile, Codec] = {"compact": "pcodec", "portable": "zstd", "fast": "raw"}

DESCRIPTION_CHUNK = 1 << 16
# Tokens per chunk: of the arrays of tokens, and on average of the arrays of entries.
TOKEN_CHUNK, ENTRY_CHUNK_TOKENS = 1024, 1024
MAX_ENTRY_CHUNK = 1 << 17
CODEBOOK_CHUNK = 1 << 16

TOKEN_STARTS = "examples/token_start"
DESCRIPTION_STARTS = "examples/description_start"
DESCRIPTIONS = "examples/description"
TOKEN_IDS = "tokens/id"
SEGMENTS = "tokens/segment"
EXACT = "tokens/exact"
SAMPLED = "tokens/sampled"
TAIL = "tokens/tail"
SURPRISAL = "tokens/surprisal"
ENTROPY = "tokens/entropy"
LOG_NORMALIZERS = "tokens/log_normalizer"
SAMPLED_STARTS = "chunks/sampled_start"
SAMPLED_CODES = "sampled/code"
SAMPLED_DRAWS = "sampled/draws"
GRID = "grid"
CHECKSUMS = "checksums"
CHUNK_BYTES = "chunk_bytes"
ORDER = "order"
LISTED = "listed"
LIST_STARTS = "list_start"
LIST_OF = "list_of"


def codes_of_band(edge: int) -> str:
    """Name of the array of codes of the band whose first rank is `edge`."""
    return f"rank{edge}/code"


def gaps_of_band(edge: int) -> str:
    """Name of the array of gaps of a band, which are in pairs but in the first."""
    return f"rank{edge}/gap_pair" if edge else "rank0/gap"


def code_starts_of_band(edge: int) -> str:
    """Name of the starts of the codes of a band in each chunk of tokens; in the first band also those of the gaps."""
    return f"chunks/rank{edge}_start"


def pair_starts_of_band(edge: int) -> str:
    """Name of the starts of the pairs of gaps of a band in each chunk of tokens."""
    return f"chunks/rank{edge}_pair_start"


def starts_of_bands(edges: Sequence[int]) -> list[str]:
    """Names of the starts of all bands in each chunk of tokens."""
    return [name(edge) for edge in edges for name in (code_starts_of_band, pair_starts_of_band)[: 2 if edge else 1]]


# Arrays that opening a part needs. They are in the tail of the file; all others are read in pieces.
TAIL_ARRAYS = (
    TOKEN_STARTS,
    DESCRIPTION_STARTS,
    *starts_of_bands(EDGES),
    SAMPLED_STARTS,
    GRID,
    CHUNK_BYTES,
    CHECKSUMS,
)


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Sizes that determine the shape of every array of a part.

    codes, gaps: elements of the streams of each band (gaps: pairs, but in the first). levels: number of levels of the
    grid up to the last one that is used.
    """

    examples: int
    tokens: int
    description_bytes: int
    codes: tuple[int, ...]
    gaps: tuple[int, ...]
    sampled: int
    levels: int

    @property
    def bands(self) -> tuple[int, ...]:
        """First rank of each band that a row uses."""
        return EDGES[: len(self.codes)]

    @property
    def token_chunks(self) -> int:
        """Number of chunks of tokens, at least one."""
        return max(1, -(-self.tokens // TOKEN_CHUNK))


def part_arrays(counts: PartCounts, targets: TargetSpec, codebook: Codebook, profile: Profile) -> dict[str, ArraySpec]:
    """The arrays of a part by name, in the order in the file, but for `chunk_bytes` and `checksums`."""
    numbers = NUMBER_CODECS[profile]
    increasing: Codec = "pcodec_sorted" if profile == "compact" else numbers
    text: Codec = "raw" if profile == "fast" else "zstd"
    starts = counts.token_chunks + 1
    code = "uint16" if codebook.max_codes < np.iinfo(np.uint16).max else "uint32"

    def vector(length: int, dtype: str, chunk: int, dimension: str, codec: Codec = numbers) -> ArraySpec:
        return ArraySpec((length,), dtype, max(1, min(chunk, length)), codec, (dimension,))

    def entries(length: int, dtype: str, dimension: str = "entry") -> ArraySpec:
        average = -(-length * ENTRY_CHUNK_TOKENS // max(counts.tokens, 1))
        return vector(length, dtype, min(average, MAX_ENTRY_CHUNK), dimension)

    def bounds(length: int, dimension: str) -> ArraySpec:
        return vector(length, "int64", length, dimension, increasing)

    arrays = {
        TOKEN_IDS: vector(counts.tokens, "uint32", TOKEN_CHUNK, "token"),
        SEGMENTS: vector(counts.tokens, "uint16", TOKEN_CHUNK, "token"),
        TAIL: vector(counts.tokens, "int16", TOKEN_CHUNK, "token"),
        SURPRISAL: vector(counts.tokens, "uint16", TOKEN_CHUNK, "token"),
    }
    if targets.has_exact:
        arrays[EXACT] = vector(counts.tokens, "uint32", TOKEN_CHUNK, "token")
    if targets.has_sampled:
        arrays[SAMPLED] = vector(counts.tokens, "uint32", TOKEN_CHUNK, "token")
    if targets.entropy:
        arrays[ENTROPY] = vector(counts.tokens, "float32", TOKEN_CHUNK, "token")
    if targets.temperatures:
        shape, names = (counts.tokens, len(targets.temperatures)), ("token", "temperature")
        arrays[LOG_NORMALIZERS] = replace(arrays[TAIL], shape=shape, dtype="float32", dimensions=names)
    if targets.has_exact:
        gap = str(gap_dtype(counts.levels))
        for edge, codes, gaps in zip(counts.bands, counts.codes, counts.gaps, strict=True):
            arrays[gaps_of_band(edge)] = entries(gaps, gap, "pair" if edge else "entry")
            arrays[codes_of_band(edge)] = entries(codes, code)
    if targets.has_sampled:
        arrays[SAMPLED_CODES] = entries(counts.sampled, code)
    if targets.mode == "sampled":
        arrays[SAMPLED_DRAWS] = entries(counts.sampled, "uint32")
    arrays[DESCRIPTIONS] = vector(counts.description_bytes, "uint8", DESCRIPTION_CHUNK, "byte", text)
    arrays[TOKEN_STARTS] = bounds(counts.examples + 1, "example_bound")
    arrays[DESCRIPTION_STARTS] = bounds(counts.examples + 1, "example_bound")
    if targets.has_exact:
        arrays |= {name: bounds(starts, "chunk_bound") for name in starts_of_bands(counts.bands)}
        arrays[GRID] = vector(counts.levels, "float32", counts.levels, "level", increasing)
    if targets.has_sampled:
        arrays[SAMPLED_STARTS] = bounds(starts, "chunk_bound")
    return arrays


def needed_arrays(targets: TargetSpec, bands: Sequence[int]) -> tuple[list[str], list[str]]:
    """Names of the arrays that a reader of such rows needs: those that are read in pieces, and those of the tail.

    bands: first rank of each band.
    """
    large, small = [TOKEN_IDS, SEGMENTS, TAIL, SURPRISAL, DESCRIPTIONS], [TOKEN_STARTS, DESCRIPTION_STARTS]
    if targets.has_exact:
        large += [EXACT, *(name(edge) for edge in bands for name in (gaps_of_band, codes_of_band))]
        small += [*starts_of_bands(bands), GRID]
    if targets.has_sampled:
        large += [SAMPLED, SAMPLED_CODES]
        small += [SAMPLED_STARTS]
    if targets.mode == "sampled":
        large += [SAMPLED_DRAWS]
    if targets.entropy:
        large += [ENTROPY]
    if targets.temperatures:
        large += [LOG_NORMALIZERS]
    return large, small


def check_array(chunks: int) -> ArraySpec:
    """`chunk_bytes` and `checksums`: a number for each chunk of all arrays that are read in pieces."""
    return ArraySpec((chunks,), "uint32", chunks, "raw", ("chunk",))


def codebook_arrays(codebook: Codebook) -> dict[str, ArraySpec]:
    """The arrays of a codebook by name."""
    vocab_size, listed, starts = len(codebook.order), len(codebook.listed), len(codebook.list_start)
    dtype = str(id_dtype(vocab_size))
    return {
        ORDER: ArraySpec((vocab_size,), dtype, vocab_size, "pcodec", ("id",)),
        LIST_OF: ArraySpec((vocab_size,), "uint32", vocab_size, "pcodec", ("id",)),
        LIST_STARTS: ArraySpec((starts,), "int64", starts, "pcodec_sorted", ("list_bound",)),
        LISTED: ArraySpec((listed,), dtype, max(1, min(CODEBOOK_CHUNK, listed)), "pcodec", ("listed",)),
    }


def part_attributes(
    counts: PartCounts,
    targets: TargetSpec,
    codebook: str,
    profile: Profile,
    checked: Sequence[str],
    checksums: Mapping[str, int],
) -> dict[str, Any]:
    """Attributes of the group of a part: everything that a reader needs beside the arrays.

    codebook: digest of the codebook, "" if codes are ids. checked: the arrays whose chunks `chunk_bytes` and
    `checksums` list, in this order. checksums: of the elements of each array of the tail.
    """
    return {
        "kind": PART_KIND,
        "format": 1,
        "requires": [],
        "profile": profile,
        "codebook": codebook,
        "bands": list(counts.bands) if targets.has_exact else [],
        "chunk_tokens": TOKEN_CHUNK,
        "counts": asdict(counts),
        "targets": targets.to_document(),
        "checked": list(checked),
        "checksums": dict(checksums),
    }


def codebook_attributes(codebook: Codebook) -> dict[str, Any]:
    """Attributes of the group of a codebook."""
    return {
        "kind": CODEBOOK_KIND,
        "format": 1,
        "requires": [],
        "digest": codebook.digest,
        "by_token": codebook.by_token,
    }
