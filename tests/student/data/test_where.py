"""`data.where` chooses examples by their metadata in every source, and counts what it leaves out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.errors import InputError, StoreError
from cache.examples.tokenizers import tokenizer_digest
from cache.store.logit_store import LogitStore
from student.data.averaged_stores import AveragedStores
from student.data.settings import DataSettings
from student.data.sources import OTHER_METADATA, FileSource, Store, StoreSource
from student.losses.settings import LossSettings
from student.tokenizers.cross_tokenizer_store import CrossTokenizerStore
from tests.cache.rows.rows import TARGETS
from tests.cache.store.reading.chat_stores import chat_records, chat_spec, chats, tokenizer, write_store

LEFT_OUT = f"with {OTHER_METADATA}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogitStore]:
    spec = chat_spec(TARGETS["nucleus"], tokenizer=tokenizer_digest(tokenizer()))
    with write_store(tmp_path_factory.mktemp("where") / "store", spec, chat_records(spec.targets, 150)) as opened:
        yield opened


def sources(store: LogitStore) -> dict[str, Store]:
    return {
        "store": store,
        "union": LogitStore.union([store]),
        "teachers": AveragedStores([store, store], [1, 2]),
        "cross_tokenizer": CrossTokenizerStore(store, tokenizer(), tokenizer()),
    }


@pytest.mark.parametrize("kind", ["store", "union", "teachers", "cross_tokenizer"])
def test_a_run_reads_the_examples_with_these_metadata(store: LogitStore, kind: str) -> None:
    opened, loss = sources(store)[kind], LossSettings()
    whole = StoreSource(opened, DataSettings(store="s"), loss)
    some = StoreSource(opened, DataSettings(store="s", where={"level": 1, "hard": False}), loss)
    wanted = [
        i for i in range(len(whole)) if whole.texts(i).metadata["level"] == 1 and not whole.texts(i).metadata["hard"]
    ]
    assert 0 < len(wanted) < len(whole) / 3
    assert [some.texts(i) for i in range(len(some))] == [whole.texts(i) for i in wanted]
    assert some.left_out[LEFT_OUT] == len(whole) - len(wanted) and not whole.left_out[LEFT_OUT]
    assert some.left_out - whole.left_out == {LEFT_OUT: len(whole) - len(wanted)}
    for window, expected in zip(some.read(range(len(some))), whole.read(wanted), strict=True):
        assert np.array_equal(window.tokens, expected.tokens)


def test_a_file_is_chosen_by_metadata_too() -> None:
    data = DataSettings(examples=Path("some.jsonl"), where={"topic": "数", "source": "web"})
    source = FileSource(chats(100), tokenizer(), data, LossSettings(objective="hard_label"))
    assert [source.texts(i).id for i in range(len(source))] == [f"chat/{i}" for i in range(100) if i % 20 == 10]
    assert source.left_out[LEFT_OUT] == 95
    with pytest.raises(InputError, match=r"examples file some\.jsonl: no example has the metadata 'topik'; there are"):
        FileSource(chats(9), tokenizer(), data.model_copy(update={"where": {"topik": 1}}), LossSettings())


def test_nothing_to_learn_and_unknown_keys_are_explained(store: LogitStore) -> None:
    with pytest.raises(StoreError, match=rf"no example with origin .* fits \(.*\d+ {LEFT_OUT}\)"):
        StoreSource(store, DataSettings(store="s", where={"level": 7}), LossSettings())
    with pytest.raises(InputError, match="no example has the metadata 'lvl'; there are 'hard', 'level'"):
        StoreSource(store, DataSettings(store="s", where={"lvl": 1}), LossSettings())
