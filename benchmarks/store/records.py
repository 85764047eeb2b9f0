"""Records of benchmark rows, and what a store of them takes."""

import numpy as np

from benchmarks.common.rows import Rows
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.record import Record
from cache.store.logit_store import LogitStore

UNIT_TOKENS = 1 << 16


WINDOW = 64


def unlearned_bytes(store: LogitStore, records: list[Record]) -> float:
    """Bytes a token of the units that the codebook was not learned from: what a large store comes to."""
    first = int(store.index.unit_of[store.find(records[0].key)])
    others = np.arange(len(store.index.unit)) != first
    size, _, rows = store.index.totals[others].sum(axis=0) if others.any() else store.index.totals.sum(axis=0)
    return float(size / rows)


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
