"""Records of benchmark rows, and how they are written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.common.rows import Rows
from cache.examples.example import Example, Segment, TokenizedExample
from cache.parts.layout import Profile
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.claims.codebook_claim import newest_generation
from cache.store.unit_writer import write_unit

UNIT_TOKENS = 1 << 16


WINDOW = 64


@dataclass(frozen=True, slots=True)
class WrittenUnit:
    """Tokens, bytes and CPU seconds of a unit, and the generation of the store's codebook after it was written."""

    tokens: int
    bytes: int
    seconds: float
    generation: int


def write_units(
    storage: Storage, spec: StoreSpec, records: Sequence[Record], profile: Profile, unit_tokens: int
) -> list[WrittenUnit]:
    """Write the records as a capture does, in units of about so many tokens."""
    codebooks, written = CodebookChoice(storage, spec), []
    begin = size = 0
    for end, record in enumerate(records, start=1):
        size += len(record.targets)
        if size >= unit_tokens or end == len(records):
            started = time.process_time()
            commit, _ = write_unit(storage, spec, records[begin:end], profile, codebooks)
            seconds = time.process_time() - started
            written.append(WrittenUnit(size, commit.part.bytes, seconds, newest_generation(storage)))
            begin, size = end, 0
    return written


def unlearned(units: Sequence[WrittenUnit]) -> list[WrittenUnit]:
    """The units after the last one at which a codebook was learned, from it or from those before."""
    last = units[-1].generation
    first = next(i for i, unit in enumerate(units) if unit.generation == last)
    return list(units[first + 1 :]) or list(units[first:])


def as_records(rows: Rows) -> list[Record]:
    """One record a document; every token carries a target."""
    records = []
    for number in range(len(rows.offsets) - 1):
        start, stop = int(rows.offsets[number]), int(rows.offsets[number + 1])
        segments = np.full(stop - start, Segment.RESPONSE, np.uint8)
        example = Example(str(number), ())
        tokenized = TokenizedExample(example, rows.tokens[start:stop], segments, f"scored/{number}")
        records.append(Record(tokenized.key, tokenized, rows.targets(start, stop), rows.token_logprobs[start:stop]))
    return records
