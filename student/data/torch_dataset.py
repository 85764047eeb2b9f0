"""A store as a torch dataset, for training loops that are not ours. Gives numpy arrays; a collator makes tensors."""

from collections.abc import Sequence

from torch.utils.data import Dataset

from cache.rows.record import Window
from cache.store.logit_store import LogitStore


class StoreDataset(Dataset[Window]):
    """The examples of a store's snapshot in the store's order. A whole batch is fetched in one request.

    Loader workers each open their own files. A store on S3 needs workers that are spawned:
    DataLoader(..., multiprocessing_context="spawn").
    """

    def __init__(self, uri: str, snapshot: int | None = None) -> None:
        self.store = LogitStore.open(uri, snapshot)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, i: int) -> Window:
        return self.store.window(i)

    def __getitems__(self, examples: Sequence[int]) -> list[Window]:
        return self.store.read(examples)
