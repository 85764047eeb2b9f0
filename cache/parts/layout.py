"""Names, types, chunks and codecs that a writer gives the arrays of a part and of a codebook (format version 1).

A part is a Zarr v3 group in one file. Every array is one shard. `examples/token_start` leads from an example to
its tokens, and `chunks/*_start` leads from chunks of tokens to their entries. A reader takes shapes, chunks and codecs
from the file. cache/README.md describes the format.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from cache.parts.zarr_shard import ArraySpec, Codec
from cache.rows.codebook import Codebook, id_dtype
from cache.rows.codec import pair_dtype
from cache.rows.shared_kernels import FIRST
from cache.rows.spec import TargetSpec

PART_KIND = "logitbank.part"
CODEBOOK_KIND = "logitbank.codebook"
Profile = Literal["compact", "portable", "fast"]
PROFILES: tuple[Profile, ...] = ("compact", "portable", "fast")
# pcodec cannot encode bytes, so text is compressed with zstd wherever numbers are compressed.
NUMBER_CODECS: dict[Profile, Codec] = {"compact": "pcodec", "portable": "zstd", "fast": "raw"}

DESCRIPTION_CHUNK = 1 << 16
# Tokens per chunk: of the arrays of tokens, and on average of the arrays of entries, which are larger.
TOKEN_CHUNK, ENTRY_CHUNK_TOKENS = 512, 384
MAX_ENTRY_CHUNK = 1 << 17
CODEBOOK_CHUNK = 256

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
FIRST_STARTS = "chunks/first_start"
REST_STARTS = "chunks/rest_start"
PAIR_STARTS = "chunks/pair_start"
SAMPLED_STARTS = "chunks/sampled_start"
FIRST_CODES = "first/code"
FIRST_GAPS = "first/gap"
REST_CODES = "rest/code"
REST_GAPS = "rest/gap_pair"
SAMPLED_CODES = "sampled/code"
SAMPLED_DRAWS = "sampled/draws"
GRID = "grid"
CHECKSUMS = "checksums"
CHUNK_BYTES = "chunk_bytes"
ORDER = "order"
TABLE = "table"
LIST_OF = "list_of"

# Arrays that opening a part needs. They are in the tail of the file; all others are read in pieces.
TAIL_ARRAYS = (
    TOKEN_STARTS,
    DESCRIPTION_STARTS,
    FIRST_STARTS,
    REST_STARTS,
    PAIR_STARTS,
    SAMPLED_STARTS,
    GRID,
    CHUNK_BYTES,
    CHECKSUMS,
)


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Sizes that determine the shape of every array of a part.

    first, rest: exact entries up to the FIRST-th of each row, and after it. pairs: pairs of the latter.
    levels: number of levels of the grid up to the last one that is used.
    """

    examples: int
    tokens: int
    description_bytes: int
    first: int
    rest: int
    pairs: int
    sampled: int
    levels: int

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
        arrays[FIRST_GAPS] = entries(counts.first, "uint16")
        arrays[FIRST_CODES] = entries(counts.first, code)
        arrays[REST_GAPS] = entries(counts.pairs, str(pair_dtype(counts.levels)), "pair")
        arrays[REST_CODES] = entries(counts.rest, code)
    if targets.has_sampled:
        arrays[SAMPLED_CODES] = entries(counts.sampled, code)
    if targets.mode == "sampled":
        arrays[SAMPLED_DRAWS] = entries(counts.sampled, "uint32")
    arrays[DESCRIPTIONS] = vector(counts.description_bytes, "uint8", DESCRIPTION_CHUNK, "byte", text)
    arrays[TOKEN_STARTS] = bounds(counts.examples + 1, "example_bound")
    arrays[DESCRIPTION_STARTS] = bounds(counts.examples + 1, "example_bound")
    if targets.has_exact:
        arrays |= {name: bounds(starts, "chunk_bound") for name in (FIRST_STARTS, REST_STARTS, PAIR_STARTS)}
        arrays[GRID] = vector(counts.levels, "float32", counts.levels, "level", increasing)
    if targets.has_sampled:
        arrays[SAMPLED_STARTS] = bounds(starts, "chunk_bound")
    return arrays


def needed_arrays(targets: TargetSpec) -> tuple[list[str], list[str]]:
    """Names of the arrays that a reader of such rows needs: those that are read in pieces, and those of the tail."""
    large, small = [TOKEN_IDS, SEGMENTS, TAIL, SURPRISAL, DESCRIPTIONS], [TOKEN_STARTS, DESCRIPTION_STARTS]
    if targets.has_exact:
        large += [EXACT, FIRST_GAPS, FIRST_CODES, REST_GAPS, REST_CODES]
        small += [FIRST_STARTS, REST_STARTS, PAIR_STARTS, GRID]
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


def codebook_arrays(vocab_size: int, lists: int, width: int) -> dict[str, ArraySpec]:
    """The arrays of a codebook by name."""
    dtype = str(id_dtype(vocab_size))
    arrays = {
        ORDER: ArraySpec((vocab_size,), dtype, vocab_size, "pcodec", ("id",)),
        LIST_OF: ArraySpec((vocab_size,), "uint32", vocab_size, "pcodec", ("id",)),
    }
    if width:
        chunk = min(CODEBOOK_CHUNK, lists)
        arrays[TABLE] = ArraySpec((lists, width), dtype, chunk, "pcodec", ("list", "place"))
    return arrays


def part_attributes(
    counts: PartCounts, targets: TargetSpec, codebook: str, profile: Profile, checked: Sequence[str]
) -> dict[str, Any]:
    """Attributes of the group of a part: everything that a reader needs beside the arrays.

    codebook: digest of the codebook, "" if codes are ids. checked: the arrays whose chunks `chunk_bytes` and
    `checksums` list, in this order.
    """
    return {
        "kind": PART_KIND,
        "format": 1,
        "requires": [],
        "profile": profile,
        "codebook": codebook,
        "first": FIRST,
        "chunk_tokens": TOKEN_CHUNK,
        "counts": asdict(counts),
        "targets": targets.to_document(),
        "checked": list(checked),
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
