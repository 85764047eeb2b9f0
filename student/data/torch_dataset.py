"""A store as a torch dataset, for training loops outside this project. Items are numpy arrays, see Window."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset
from torch.utils.data._utils.collate import default_collate_fn_map

from cache.errors import InputError
from cache.rows.record import Window
from cache.store.logit_store import LogitStore
from cache.store.reading.sequence import RecordSequence


class StoreDataset(Dataset[Window]):
    """The examples of a store's snapshot, in the order of the store. A whole batch is read in one request.

    store: an open LogitStore or StoreUnion, or the path or address of a store. snapshot: its number, if `store` is not
    open yet (default: the newest). Raises InputError for a snapshot beside an open store.

    Examples differ in length, so the default collate function of a DataLoader gives a batch as a list of Windows. For
    tensors pass a collator: DistillationCollator (student/training/hf_trainer.py), or a function of your own.
    Workers of a loader open the files anew. A store on S3 needs workers that are spawned:
    DataLoader(..., multiprocessing_context="spawn").
    """

    def __init__(self, store: RecordSequence | str | Path, snapshot: int | None = None) -> None:
        if isinstance(store, RecordSequence):
            if snapshot is not None:
                pinned = f" at snapshot {store.snapshot}" if isinstance(store, LogitStore) else ""
                raise InputError(f"snapshot {snapshot}: the store is open{pinned}; leave it out")
            self.store: RecordSequence = store
        else:
            self.store = LogitStore.open(store, snapshot)
        _register_collate()

    def __setstate__(self, state: dict[str, RecordSequence]) -> None:
        self.__dict__.update(state)
        _register_collate()  # a spawned worker has a table of its own

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, i: int) -> Window:
        return self.store.window(i)

    def __getitems__(self, examples: Sequence[int]) -> list[Window]:
        return self.store.read(examples)


def _register_collate() -> None:
    """Teach torch's default_collate to keep Windows as a list, by the table that it documents for other types."""
    default_collate_fn_map.setdefault(Window, _as_list)


def _as_list(windows: list[Window], *, collate_fn_map: object = None) -> list[Window]:
    return windows
