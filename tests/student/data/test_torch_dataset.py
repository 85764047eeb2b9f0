"""StoreDataset takes a path or an open store, and works with a plain DataLoader."""

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from cache.errors import InputError
from cache.rows.record import Window
from cache.store.logit_store import LogitStore
from student.data.torch_dataset import StoreDataset
from tests.cache.rows.rows import assert_same_window
from tests.cache.store.mixed_stores import open_mixed


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    return open_mixed(tmp_path_factory.mktemp("dataset") / "store", "topk")[0]


def test_an_open_store_is_used_as_it_is(store: LogitStore) -> None:
    dataset = StoreDataset(store)
    assert dataset.store is store and len(dataset) == len(store)
    assert_same_window(dataset[2], store.window(2))
    with pytest.raises(InputError, match="snapshot 1: the store is open at snapshot 1; leave it out"):
        StoreDataset(store, snapshot=1)


def test_a_path_is_opened(store: LogitStore) -> None:
    path = str(store.storage)
    for dataset in (StoreDataset(path), StoreDataset(Path(path)), StoreDataset(path, snapshot=1)):
        assert dataset.store.snapshot == 1 and len(dataset) == len(store)


@pytest.mark.parametrize("context", [None, "spawn"])
def test_a_plain_loader_gives_batches_as_lists_of_windows(store: LogitStore, context: str | None) -> None:
    """Would catch torch's "batch must contain tensors" for examples of different lengths, also within workers."""
    workers = {"num_workers": 1, "multiprocessing_context": context} if context else {}
    windows: list[Window] = []
    for batch in DataLoader(StoreDataset(store), batch_size=3, **workers):  # type: ignore[arg-type]
        assert isinstance(batch, list) and len(batch) <= 3
        windows += batch
    assert len(windows) == len(store)
    for window, expected in zip(windows, store.read(range(len(store))), strict=True):
        assert_same_window(window, expected)
