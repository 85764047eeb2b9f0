"""A store's texts come out as an examples file."""

from pathlib import Path

import pytest

from cache.errors import InputError
from cache.examples.files.jsonl import read_examples
from cache.exchange.texts import BATCH, export_texts
from tests.cache.rows.rows import TARGETS
from tests.cache.store.reading.chat_stores import chat_records, chat_spec, write_store


def test_all_texts_are_read_back_in_order(tmp_path: Path) -> None:
    """Would catch a lost last block, and texts without their metadata."""
    spec = chat_spec(TARGETS["nucleus"])
    with write_store(tmp_path / "store", spec, chat_records(spec.targets, BATCH + 50)) as store:
        seen: list[tuple[int, int]] = []
        export_texts(store, tmp_path / "texts.jsonl", lambda done, total: seen.append((done, total)))
        assert read_examples(tmp_path / "texts.jsonl") == store.texts(range(len(store)))
        assert seen[-1] == (len(store), len(store)) and len(store) > BATCH
        with pytest.raises(InputError, match=r"texts\.jsonl"):
            export_texts(store, tmp_path / "texts.jsonl")
