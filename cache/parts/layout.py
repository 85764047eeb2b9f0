"""Names, types, chunks and codecs of the arrays in a part (format version 1). Nothing else defines them.

A part is a Zarr v3 group. Every array is one shard, and so one file. `examples/token_start` leads from an example to
its tokens, and `chunks/*_start` leads from chunks of tokens to their entries. cache/README.md describes the format.
"""

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
ORDER = "order"
TABLE = "table"
LIST_OF = "list_of"

# All arrays that a part can have, in the order of the columns of a snapshot's index.
PART_ARRAYS = (
    TOKEN_STARTS,
    DESCRIPTION_STARTS,
    DESCRIPTIONS,
    TOKEN_IDS,
    SEGMENTS,
    EXACT,
    SAMPLED,
    TAIL,
    SURPRISAL,
    ENTROPY,
    LOG_NORMALIZERS,
    FIRST_STARTS,
    REST_STARTS,
    PAIR_STARTS,
    SAMPLED_STARTS,
    FIRST_CODES,
    FIRST_GAPS,
    REST_CODES,
    REST_GAPS,
    SAMPLED_CODES,
    SAMPLED_DRAWS,
    GRID,
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

    def of_stream(self, name: str) -> int:
        """Number of elements of the streams whose starts are in `chunks/<name>_start`."""
        return {"first": self.first, "rest": self.rest, "pair": self.pairs, "sampled": self.sampled}[name]

    @property
    def token_chunks(self) -> int:
        """Number of chunks of tokens, at least one."""
        return max(1, -(-self.tokens // TOKEN_CHUNK))


def part_arrays(counts: PartCounts, targets: TargetSpec, codebook: Codebook, profile: Profile) -> dict[str, ArraySpec]:
    """The arrays of a part by name. The last one contains the checksum of each chunk of all others, in their order."""
    numbers = NUMBER_CODECS[profile]
    increasing: Codec = "pcodec_sorted" if profile == "compact" else numbers
    text: Codec = "raw" if profile == "fast" else "zstd"
    starts = counts.token_chunks + 1
    code = "uint16" if codebook.max_codes < np.iinfo(np.uint16).max else "uint32"

    def vector(length: int, dtype: str, chunk: int, codec: Codec = numbers) -> ArraySpec:
        return ArraySpec((length,), dtype, max(1, min(chunk, length)), codec)

    def entries(length: int, dtype: str) -> ArraySpec:
        average = -(-length * ENTRY_CHUNK_TOKENS // max(counts.tokens, 1))
        return vector(length, dtype, min(average, MAX_ENTRY_CHUNK))

    arrays = {
        TOKEN_STARTS: vector(counts.examples + 1, "int64", counts.examples + 1, increasing),
        DESCRIPTION_STARTS: vector(counts.examples + 1, "int64", counts.examples + 1, increasing),
        DESCRIPTIONS: vector(counts.description_bytes, "uint8", DESCRIPTION_CHUNK, text),
        TOKEN_IDS: vector(counts.tokens, "uint32", TOKEN_CHUNK),
        SEGMENTS: vector(counts.tokens, "uint16", TOKEN_CHUNK),
        TAIL: vector(counts.tokens, "int16", TOKEN_CHUNK),
        SURPRISAL: vector(counts.tokens, "uint16", TOKEN_CHUNK),
    }
    if targets.has_exact:
        arrays |= {
            EXACT: vector(counts.tokens, "uint32", TOKEN_CHUNK),
            FIRST_STARTS: vector(starts, "int64", starts, increasing),
            REST_STARTS: vector(starts, "int64", starts, increasing),
            PAIR_STARTS: vector(starts, "int64", starts, increasing),
            FIRST_CODES: entries(counts.first, code),
            FIRST_GAPS: entries(counts.first, "uint16"),
            REST_CODES: entries(counts.rest, code),
            REST_GAPS: entries(counts.pairs, str(pair_dtype(counts.levels))),
            GRID: vector(counts.levels, "float32", counts.levels, increasing),
        }
    if targets.has_sampled:
        arrays |= {
            SAMPLED: vector(counts.tokens, "uint32", TOKEN_CHUNK),
            SAMPLED_STARTS: vector(starts, "int64", starts, increasing),
            SAMPLED_CODES: entries(counts.sampled, code),
        }
    if targets.mode == "sampled":
        arrays[SAMPLED_DRAWS] = entries(counts.sampled, "uint32")
    if targets.entropy:
        arrays[ENTROPY] = vector(counts.tokens, "float32", TOKEN_CHUNK)
    if targets.temperatures:
        per_token = arrays[TAIL]
        arrays[LOG_NORMALIZERS] = replace(
            per_token, shape=(*per_token.shape, len(targets.temperatures)), dtype="float32"
        )
    chunks = sum(array.chunks for array in arrays.values())
    return {**arrays, CHECKSUMS: ArraySpec((chunks,), "uint32", chunks, "raw")}


def codebook_arrays(vocab_size: int, lists: int, width: int) -> dict[str, ArraySpec]:
    """The arrays of a codebook by name."""
    dtype = str(id_dtype(vocab_size))
    arrays = {
        ORDER: ArraySpec((vocab_size,), dtype, vocab_size, "pcodec"),
        LIST_OF: ArraySpec((vocab_size,), "uint32", vocab_size, "pcodec"),
    }
    if width:
        arrays[TABLE] = ArraySpec((lists, width), dtype, min(CODEBOOK_CHUNK, lists), "pcodec")
    return arrays


def part_attributes(counts: PartCounts, targets: TargetSpec, codebook: str, profile: Profile) -> dict[str, Any]:
    """Attributes of the group of a part: everything that a reader needs beside the arrays.

    codebook: digest of the codebook, "" if codes are ids.
    """
    return {
        "kind": PART_KIND,
        "format": 1,
        "profile": profile,
        "codebook": codebook,
        "first": FIRST,
        "counts": asdict(counts),
        "targets": targets.to_document(),
    }
