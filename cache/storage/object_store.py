"""A store in an object store that speaks S3 (or another that obstore knows), with conditional writes.

Credentials, region and endpoint come from the environment, by the names that the services' own tools use, such as
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL; they reach neither a message nor a pickle.
"""

import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from cache.errors import IntegrityError, StoreError
from cache.storage.base import Range, check_name

REQUESTS_AT_ONCE = 16
# A request that fails is tried again, and one that hangs is given up, so that a wrong address is told in seconds.
RETRIES: Any = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
TIMEOUTS = {"connect_timeout": "5s", "timeout": "300s"}
INSTALL = "pip install 'obstore>=0.12'"


class ObjectStorage:
    """One prefix of a bucket. Safe to share between threads and to pickle.

    Not usable in a process that was forked after its first request: start workers with "spawn".
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if not parts.netloc or parts.username or parts.password or parts.query:
            raise StoreError(f"store {_without_secrets(uri)!r}: expected an address such as s3://bucket/prefix")
        self._uri = uri.rstrip("/")
        self._lock = threading.Lock()
        self._store: Any = None
        self._owner = 0

    def __getstate__(self) -> str:
        return self._uri

    def __setstate__(self, uri: str) -> None:
        self.__init__(uri)  # type: ignore[misc]

    def __str__(self) -> str:
        return self._uri

    def read(self, name: str) -> bytes:
        return self._read(check_name(name, self))

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        store = self._connected()

        def read(wanted: Range) -> bytes:
            name, start, length = wanted
            if length == 0:
                return b""
            try:
                return bytes(store.get_range(check_name(name, self), start=start, length=length))
            except FileNotFoundError:
                raise IntegrityError(f"{self._uri}/{name}: missing") from None
            except Exception as error:
                size = self.size(name)
                if size is not None and size <= start:
                    return b""  # the object ends before the range: the caller tells how
                raise self._refusal(name, "read", error) from error

        if len(ranges) == 1:
            return [read(ranges[0])]
        with ThreadPoolExecutor(min(len(ranges), REQUESTS_AT_ONCE) or 1) as pool:
            return list(pool.map(read, ranges))

    def size(self, name: str) -> int | None:
        try:
            return int(self._connected().head(check_name(name, self))["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._refusal(name, "read", error) from error

    def names(self, folder: str, suffix: str = "") -> list[str]:
        check_name(folder, self)
        try:
            found = self._connected().list_with_delimiter(folder)
        except Exception as error:
            raise self._refusal(folder, "listed", error) from error
        paths = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        names = {path.rstrip("/").rpartition("/")[2] for path in paths}
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def drafts(self) -> list[str]:
        return []  # an object appears whole or not at all

    def walk(self, folder: str) -> Iterator[str]:
        yield from sorted(each["path"] for each in self._found(folder))

    def create(self, name: str, data: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError

        try:
            self._connected().put(check_name(name, self), data, mode="create")
        except AlreadyExistsError:
            # A server may write and then fail to say so; the client's second try then finds its own first one. Whoever
            # must know that it was the first writes something that nobody else does, as commits do.
            return self._read(name) == data
        except Exception as error:
            raise self._refusal(name, "written", error) from error
        return True

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        store = self._connected()

        def write(item: tuple[str, bytes]) -> None:
            name = check_name(f"{folder}/{item[0]}", self)
            try:
                store.put(name, item[1])
            except Exception as error:
                raise self._refusal(name, "written", error) from error

        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(write, files.items()))

    def remove_folder(self, folder: str) -> None:
        names = list(self.walk(folder))
        try:
            for start in range(0, len(names), 1000):
                self._connected().delete(names[start : start + 1000])
        except Exception as error:
            raise self._refusal(folder, "removed", error) from error

    def age(self, folder: str) -> float:
        changed = [each["last_modified"] for each in self._found(folder)]
        if not changed:
            return 0.0
        # The service's clock, not ours: an object written now tells its time.
        probe = f".clock/{uuid.uuid4().hex}"
        try:
            self._connected().put(probe, b"")
            now = self._connected().head(probe)["last_modified"]
            self._connected().delete(probe)
        except Exception as error:
            raise self._refusal(probe, "written", error) from error
        return float((now - max(changed)).total_seconds())

    def _read(self, name: str) -> bytes:
        try:
            return bytes(self._connected().get(name).bytes())
        except FileNotFoundError:
            raise IntegrityError(f"{self._uri}/{name}: missing") from None
        except Exception as error:
            raise self._refusal(name, "read", error) from error

    def _found(self, name: str) -> list[Any]:
        """What the service tells of all objects below a folder, or of the one object of that name."""
        if self.size(name) is not None:
            return [self._connected().head(name)]
        try:
            return list(self._connected().list(name).collect())
        except Exception as error:
            raise self._refusal(name, "listed", error) from error

    def _connected(self) -> Any:
        """The client, made at the first request."""
        with self._lock:
            if self._store is None:
                try:
                    from obstore import store as stores
                except ImportError:
                    raise StoreError(f"store {self._uri!r}: an object store needs obstore; {INSTALL}") from None
                options: Any = dict(TIMEOUTS)
                if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
                    options["allow_http"] = True
                connect: Any = stores.from_url
                try:
                    self._store = connect(self._uri, client_options=options, retry_config=RETRIES)
                except Exception as error:
                    raise StoreError(f"store {self._uri!r}: {_first_line(error)}") from error
                self._owner = os.getpid()
            if self._owner != os.getpid():
                raise StoreError(
                    f"store {self._uri!r}: opened before this process was forked; start workers with spawn"
                )
            return self._store

    def _refusal(self, name: str, what: str, error: Exception) -> StoreError:
        """What to raise for an error of the client, in one line."""
        if isinstance(error, StoreError):
            return error
        hint = ""
        if self._uri.startswith("s3://") and "AWS_ACCESS_KEY_ID" not in os.environ:
            hint = "; the environment has no AWS_ACCESS_KEY_ID"
        return StoreError(f"{self._uri}/{name}: cannot be {what}: {_first_line(error)}{hint}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _without_secrets(uri: str) -> str:
    """The address without a user, password or query, any of which may hold a secret."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
