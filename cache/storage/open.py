"""Addresses of stores, and the storage that an address names."""

from pathlib import Path

from cache.errors import StoreError
from cache.settings import resolve_uri
from cache.storage.base import Storage
from cache.storage.local import LocalStorage


def open_storage(uri: str | Path) -> Storage:
    """The storage of a store: a folder, or an address such as s3://bucket/prefix. Touches nothing yet."""
    text = str(uri)
    if "://" in text:
        from cache.storage.object_store import ObjectStorage

        return ObjectStorage(text)
    return LocalStorage(text)


def absolute_uri(uri: str, root: Path) -> str:
    """An address as it is; a path taken from `root`. Raises StoreError for no text at all."""
    if not uri:
        raise StoreError("the path of a store is empty; give a folder or an address such as s3://bucket/prefix")
    return resolve_uri(uri, root)
