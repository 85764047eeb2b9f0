"""Stores of some hundred chats of all lengths, encoded by a learned tokenizer, in every mode of targets."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cache.examples.example import Example, Segment, TokenizedExample
from cache.parts.layout import Profile
from cache.rendering.render import render, render_prompt
from cache.rows.record import Record
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.tokenizers.bpe import learn_tokenizer
from tests.cache.rows.rows import TARGETS, VOCAB, random_rows

TOPICS = ("sums", "Größen", "数", "")
TARGETS_OF = {**TARGETS, "texts": TargetSpec("topk", 0)}
UNIT_EXAMPLES = 70
COUNT = 300


@cache
def chats(count: int = COUNT) -> tuple[Example, ...]:
    """Chats with and without a rationale, a label and tools, from no text to some hundred words."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(count):
        words = int(rng.choice([0, 3, 20, 200], p=[0.1, 0.5, 0.35, 0.05]))
        numbers = " + ".join(map(str, rng.integers(0, 99, words + 1)))
        metadata: dict[str, Any] = {
            "topic": TOPICS[i % 4],
            "level": i % 3,
            "hard": i % 2 == 0,
            "nested": {"a": [i % 2]},
        }
        if i % 5 == 0:
            metadata["source"] = "web"
        examples.append(
            Example(
                f"chat/{i}",
                ({"role": "system", "content": "Rechne genau: ✓"}, {"role": "user", "content": f"{numbers} = ?"}),
                f"add {words} numbers\n" if i % 3 == 0 else "",
                f"{numbers} is {i}" if i % 7 else "ü",
                metadata,
                str(i) if i % 2 else "",
            )
        )
    return tuple(examples)


@cache
def tokenizer() -> Any:
    return learn_tokenizer(chats(), 400)


@cache
def tokenized_chats(count: int = COUNT) -> tuple[TokenizedExample, ...]:
    """Every tenth is a response that the teacher wrote, and every twentieth a prompt without a response."""
    results = []
    for i, example in enumerate(chats(count)):
        if i % 20 == 7:
            results.append(render_prompt(example, tokenizer()))
            continue
        rendered = render(example, tokenizer())
        origin = f"generated/{i % 3}" if i % 10 == 0 else "scored"
        results.append(TokenizedExample(example, rendered.tokens, rendered.segments, origin))
    return tuple(results)


def chat_records(targets: TargetSpec, count: int = COUNT, seed: int = 1) -> list[Record]:
    """A target before each token of the assistant, from a pool of random rows."""
    rng = np.random.default_rng(seed)
    pool = random_rows(rng, 512, targets) if targets.max_entries else empty_targets(512)
    records = []
    for tokenized in tokenized_chats(count):
        n, prompt = len(tokenized.tokens), tokenized.prompt_length
        parts, left = [empty_targets(min(prompt - 1, n))], n - prompt
        while left > 0:
            start = int(rng.integers(0, 400))
            parts.append(pool.rows(start, start + min(left, 100)))
            left -= len(parts[-1])
        logprobs = np.where(tokenized.segments == Segment.PROMPT, np.nan, -1.25).astype(np.float32)
        rows = concatenate([*parts, empty_targets(1)])
        records.append(Record(tokenized.key, tokenized, rows, logprobs))
    return records


def chat_spec(targets: TargetSpec, **fields: Any) -> StoreSpec:
    values = {
        "teacher": "teacher",
        "weights": "weights",
        "tokenizer": "tokenizer",
        "chat_template": "template",
        **fields,
    }
    return StoreSpec(
        **values, vocab_size=VOCAB, tokenizer_size=len(tokenizer()), dtype="float32", targets=targets, sampling=None
    )


def write_store(folder: Path, spec: StoreSpec, records: list[Record], profile: Profile = "compact") -> LogitStore:
    """A store of these records in units of UNIT_EXAMPLES."""
    storage = LocalStorage(folder)
    create_store(storage, spec)
    for start in range(0, len(records), UNIT_EXAMPLES):
        write_unit(storage, spec, records[start : start + UNIT_EXAMPLES], profile)
    take_snapshot(storage)
    return LogitStore.open(folder)


def chat_store(folder: Path, mode: str, profile: Profile = "compact", count: int = COUNT) -> LogitStore:
    """A store of chats. mode: a mode of targets, or "texts" for texts without targets."""
    targets = TARGETS_OF[mode]
    return write_store(folder, chat_spec(targets), chat_records(targets, count), profile)
