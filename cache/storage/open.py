"""Open the storage for a path or an address."""

from pathlib import Path

from cache.errors import StoreError
from cache.settings import resolve_uri
from cache.storage.base import Storage
from cache.storage.local import LocalStorage


def open_storage(uri: str | Path) -> Storage:
    """The storage for a folder, or for an address such as s3://bucket/prefix or hf://datasets/owner/name/folder.

    Reads and writes nothing yet, but downloads a store on a hub.
    """
    text = str(uri)
    if text.startswith("hf://"):
        from cache.storage.hub_folder import HubFolder

        return HubFolder(text)
    if "://" in text:
        from cache.storage.object_store import ObjectStorage

        return ObjectStorage(text)
    return LocalStorage(text)


def absolute_uri(uri: str, root: Path) -> str:
    """Make a path absolute, relative to `root`; an address stays the same. Raises StoreError if `uri` is empty."""
    if not uri:
        raise StoreError("the path of a store is empty; give a folder or an address such as s3://bucket/prefix")
    return resolve_uri(uri, root)
