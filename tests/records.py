"""Random records, and fixtures of an empty store for them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store

VOCAB = 500
MakeRecords = Callable[..., list[Record]]


@pytest.fixture
def spec() -> StoreSpec:
    return StoreSpec(
        "teacher", "weights", "tokenizer", "template", VOCAB, VOCAB - 3, "float32", TargetSpec("topk", 16), None
    )


@pytest.fixture
def storage(tmp_path: Path, spec: StoreSpec) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    return storage


def random_targets(rng: np.random.Generator, rows: int, k: int = 16, vocab: int = VOCAB) -> SparseTargets:
    """The k largest of random distributions."""
    logits = rng.normal(size=(rows, vocab)) * 3
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    ids = np.argsort(-log_p, axis=1)[:, :k]
    held = np.take_along_axis(log_p, ids, axis=1)
    with np.errstate(divide="ignore"):
        log_tail = np.log(np.clip(1 - np.exp(held).sum(axis=1), 0, 1)) if k < vocab else np.full(rows, -np.inf)
    return SparseTargets(
        np.arange(0, rows * k + 1, k),
        ids.ravel().astype(np.uint32),
        held.ravel().astype(np.float32),
        log_tail.astype(np.float32),
    )


@pytest.fixture
def make_records() -> MakeRecords:
    def make(count: int, seed: int = 0, prompt: int = 4, response: int = 6) -> list[Record]:
        rng = np.random.default_rng(seed)
        records = []
        for i in range(count):
            n = prompt + response
            segments = np.array([Segment.PROMPT] * prompt + [Segment.RESPONSE] * response, np.uint8)
            tokens = rng.integers(0, VOCAB - 3, n).astype(np.uint32)
            example = Example(f"example {i}", ({"role": "user", "content": "text"},), "", "ü", {"n": i})
            tokenized = TokenizedExample(example, tokens, segments)
            targets = concatenate([empty_targets(prompt - 1), random_targets(rng, response), empty_targets(1)])
            token_logprobs = np.full(n, np.nan, np.float32)
            token_logprobs[prompt:] = -1.5
            records.append(Record(tokenized.key, tokenized, targets, token_logprobs))
        return records

    return make
