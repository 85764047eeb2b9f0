"""Texts of a store as an examples file: JSON Lines for `read_examples`. The form has no place for distributions."""

from collections.abc import Iterator
from pathlib import Path

from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.exchange.conversion import new_output
from cache.progress import Progress, no_progress
from cache.store.reading.sequence import RecordSequence

BATCH = 256


def export_texts(store: RecordSequence, path: str | Path, progress: Progress = no_progress) -> None:
    """Write all examples with their texts and metadata, in the order of the store.

    Responses that the teacher wrote are the `rationale` and `response` of their example. progress: called with
    (examples done, examples). Raises InputError if `path` exists and is not empty. The file is created atomically.
    """
    numbers = store.numbers()

    def texts() -> Iterator[Example]:
        for start in range(0, len(numbers), BATCH):
            yield from store.texts(numbers[start : start + BATCH].tolist())
            progress(min(start + BATCH, len(numbers)), len(numbers))

    with new_output(Path(path)) as draft:
        write_examples(draft, texts())
