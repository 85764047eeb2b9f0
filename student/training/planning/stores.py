"""The stores of a job, each opened once in a process."""

from contextlib import suppress
from typing import Any

from cache.errors import SpecMismatchError, StoreError
from cache.storage.local_copies import CopyFolder
from cache.storage.open import open_storage
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from student.data.settings import CacheSettings, DataSettings


class OpenStores:
    """Opens stores and returns the same object when a store is requested again. Not safe between threads.

    cache: where parts that are read are copied to.
    """

    def __init__(self, cache: CacheSettings | None = None) -> None:
        self._copies = None if cache is None else CopyFolder(cache.folder, int(cache.gib * (1 << 30)))
        self._stores: dict[tuple[str, int | None], LogitStore] = {}

    def open(self, uri: str, snapshot: int | None) -> LogitStore:
        """Open one snapshot of a store; None: the newest."""
        store = self._stores.get((uri, snapshot))
        if store is None:
            store = LogitStore.open(uri, snapshot, copies=self._copies)
            self._stores[uri, snapshot] = self._stores[uri, store.snapshot] = store
        return store

    def copy_ahead(self) -> None:
        """Copy the parts of all open stores in the background, where a cache has room for them."""
        for store in set(self._stores.values()):
            store.copy_ahead()

    def close(self) -> None:
        """Close all stores. They open their files again if they are read later."""
        for store in set(self._stores.values()):
            store.close()

    def open_all(self, data: DataSettings) -> list[LogitStore]:
        """Open every store that `data` names, in order. Raises SpecMismatchError if their tokenizers differ."""
        stores = [self.open(item.store, item.snapshot) for item in data.stores]
        for store in stores[1:]:
            if store.spec.tokenizer != stores[0].spec.tokenizer:
                raise SpecMismatchError(
                    f"stores {stores[0].storage} and {store.storage} were captured with different tokenizers; "
                    "all stores of one run need the same tokenizer"
                )
        return stores


def describe_stores(stores: list[LogitStore]) -> list[dict[str, Any]]:
    """Uri, snapshot, fingerprint, teacher and targets of each store, for model cards and result files."""
    return [
        {
            "uri": str(store.storage),
            "snapshot": store.snapshot,
            "fingerprint": store.spec.fingerprint,
            "teacher": store.spec.teacher,
            "targets": str(store.spec.targets),
        }
        for store in stores
    ]


def newest_snapshot(uri: str) -> int | None:
    """Pin what is committed, and return the number of the newest snapshot; None if there is none.

    Where the store may only be read, the newest snapshot of others counts.
    """
    with suppress(StoreError):
        take_snapshot(open_storage(uri))
    with suppress(StoreError), LogitStore.open(uri) as store:
        return store.snapshot
    return None
