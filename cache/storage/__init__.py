"""Storage: files by relative name, in a local or shared folder (local) or in an object store (object_store).

In: names and bytes. Out: the same bytes, durable, or an error that names the file. base defines the protocol Storage.
It knows nothing of what the files contain. Another kind of storage is a class with the methods of Storage and a line in
open_storage; `create` must be atomic, because commits depend on it.
"""

from cache.storage.base import Storage
from cache.storage.open import absolute_uri, open_storage

__all__ = ["Storage", "absolute_uri", "open_storage"]
