"""The one place that knows the names, types, chunks and codecs of the arrays in a part (format version 1).

A part is a Zarr v3 group. Every array is one shard, so one file of data. Two levels of starts lead from an example to
its tokens and, by way of chunks of tokens, to its entries; README.md in this folder is the page to read it from.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cache.parts.zarr_shard import ArraySpec, Codec
from cache.rows.codebook import Codebook, id_dtype
from cache.rows.codec import pair_dtype
from cache.rows.kernels import FIRST
from cache.rows.spec import TargetSpec

PART_KIND = "logitbank.part"
CODEBOOK_KIND = "logitbank.codebook"
Profile = Literal["compact", "portable", "fast"]
PROFILES: tuple[Profile, ...] = ("compact", "portable", "fast")
# pcodec has no bytes: text is zstd where numbers are compressed at all.
NUMBER_CODECS: dict[Profile, Codec] = {"compact": "pcodec", "portable": "zstd", "fast": "raw"}

DESCRIPTION_CHUNK = 1 << 16
# Of the arrays of tokens, which are small, and of those of entries: the entries that so many tokens have on average.
TOKEN_CHUNK, ENTRY_CHUNK_TOKENS = 512, 384
LARGEST_ENTRY_CHUNK = 1 << 17
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

# Every array that a part may have, in the order of the columns of a snapshot's index.
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
    """Sizes from which the shape of every array of a part follows.

    first, rest: exact entries up to the FIRST-th of each row, and after it; pairs: of the latter.
    levels: those of the grid that are used, and all before them.
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
        """Elements of the streams that `chunks/<name>_start` tells the starts of."""
        return {"first": self.first, "rest": self.rest, "pair": self.pairs, "sampled": self.sampled}[name]

    @property
    def token_chunks(self) -> int:
        return max(1, -(-self.tokens // TOKEN_CHUNK))


def part_arrays(counts: PartCounts, targets: TargetSpec, codebook: Codebook, profile: Profile) -> dict[str, ArraySpec]:
    """The arrays of a part by name. The last holds the checksum of each chunk of those before it, in their order."""
    numbers = NUMBER_CODECS[profile]
    rising: Codec = "pcodec_sorted" if profile == "compact" else numbers
    text: Codec = "raw" if profile == "fast" else "zstd"
    starts = counts.token_chunks + 1
    code = "uint16" if codebook.reach < np.iinfo(np.uint16).max else "uint32"
    chunk = TOKEN_CHUNK

    def flat(length: int, dtype: str, chunk: int, codec: Codec = numbers) -> ArraySpec:
        return ArraySpec((length,), dtype, max(1, min(chunk, length)), codec)

    def entries(length: int, dtype: str) -> ArraySpec:
        average = -(-length * ENTRY_CHUNK_TOKENS // max(counts.tokens, 1))
        return flat(length, dtype, min(average, LARGEST_ENTRY_CHUNK))

    arrays = {
        TOKEN_STARTS: flat(counts.examples + 1, "int64", counts.examples + 1, rising),
        DESCRIPTION_STARTS: flat(counts.examples + 1, "int64", counts.examples + 1, rising),
        DESCRIPTIONS: flat(counts.description_bytes, "uint8", DESCRIPTION_CHUNK, text),
        TOKEN_IDS: flat(counts.tokens, "uint32", chunk),
        SEGMENTS: flat(counts.tokens, "uint16", chunk),
        TAIL: flat(counts.tokens, "int16", chunk),
        SURPRISAL: flat(counts.tokens, "uint16", chunk),
    }
    if targets.has_exact:
        arrays |= {
            EXACT: flat(counts.tokens, "uint32", chunk),
            FIRST_STARTS: flat(starts, "int64", starts, rising),
            REST_STARTS: flat(starts, "int64", starts, rising),
            PAIR_STARTS: flat(starts, "int64", starts, rising),
            FIRST_CODES: entries(counts.first, code),
            FIRST_GAPS: entries(counts.first, "uint16"),
            REST_CODES: entries(counts.rest, code),
            REST_GAPS: entries(counts.pairs, str(pair_dtype(counts.levels))),
            GRID: flat(counts.levels, "float32", counts.levels, rising),
        }
    if targets.has_sampled:
        arrays |= {
            SAMPLED: flat(counts.tokens, "uint32", chunk),
            SAMPLED_STARTS: flat(starts, "int64", starts, rising),
            SAMPLED_CODES: entries(counts.sampled, code),
        }
    if targets.mode == "sampled":
        arrays[SAMPLED_DRAWS] = entries(counts.sampled, "uint32")
    if targets.entropy:
        arrays[ENTROPY] = flat(counts.tokens, "float32", chunk)
    if targets.temperatures:
        shape = (counts.tokens, len(targets.temperatures))
        arrays[LOG_NORMALIZERS] = ArraySpec(shape, "float32", max(1, min(chunk, counts.tokens)), numbers)
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
    """Attributes of a part's group: all that a reader needs beside the arrays. codebook: its digest, "" if codes are
    ids."""
    return {
        "kind": PART_KIND,
        "format": 1,
        "profile": profile,
        "codebook": codebook,
        "first": FIRST,
        "counts": asdict(counts),
        "targets": targets.to_document(),
    }
