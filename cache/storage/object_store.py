"""A store in an object store: S3, or another service that obstore supports, with conditional writes.

Credentials, region and endpoint come from the environment, under the names that the tools of the service use, such as
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL. They never get into a message or a pickle.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cache.errors import IntegrityError, StoreError
from cache.object_client import RETRIES, connect, first_line, require_address, without_secrets
from cache.storage.base import Range, check_name
from cache.storage.fork_safe_lock import ForkSafeLock
from cache.storage.ranges import Span, read_merged

MAX_REQUESTS = 16
# Longer objects are written in pieces: a service refuses over 5 GiB in one request, and one that fails is repeated.
MAX_PUT_BYTES, MULTIPART_BYTES = 256 << 20, 64 << 20
# Bytes that are read and dropped rather than asked for around: an object store sends them in the time of a request.
MERGED_GAP = 1 << 20
# A conditional write that meets another one is refused although nothing was written (409 of S3). It is tried again.
CONFLICT_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
# Written twice by the first writer of a store: the service must refuse the second.
PROBE = ".conditional-writes"


class ObjectStorage:
    """One prefix of a bucket. Safe to share between threads and to pickle.

    It cannot be used in a process that was forked after the first request: start workers with "spawn".
    """

    def __init__(self, uri: str) -> None:
        require_address(uri, f"store {without_secrets(uri)!r}")
        self._uri = uri.rstrip("/")
        self._lock = ForkSafeLock()
        self._store: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._is_probed = False
        self._owner_pid = 0

    def __getstate__(self) -> str:
        return self._uri

    def __setstate__(self, uri: str) -> None:
        self.__init__(uri)  # type: ignore[misc]

    def __str__(self) -> str:
        return self._uri

    def read(self, name: str) -> bytes:
        return self._read(check_name(name, self))

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        self._connected()  # refuses a forked process, which has no threads
        names = list(dict.fromkeys(name for name, *_ in ranges))
        if len(names) == 1:
            return self._read_spans(check_name(names[0], self), [(start, length) for _, start, length in ranges])
        spans = {check_name(name, self): [(start, n) for other, start, n in ranges if other == name] for name in names}
        found = (
            {
                name: iter(pieces)
                for name, pieces in zip(
                    spans, self._pool().map(self._read_spans, *zip(*spans.items(), strict=True)), strict=True
                )
            }
            if spans
            else {}
        )
        return [next(found[name]) for name, *_ in ranges]

    def _read_spans(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Ranges of one object. The client could merge them, but it fails if the object ends before one of them."""

        def read(runs: list[Span]) -> Sequence[bytes]:
            starts, lengths = [start for start, _ in runs], [length for _, length in runs]
            try:
                return list(self._connected().get_ranges(name, starts=starts, lengths=lengths, coalesce=0))
            except FileNotFoundError:
                raise IntegrityError(f"{self._uri}/{name}: missing") from None
            except Exception as error:
                size = self.size(name)
                if size is None or size >= starts[-1] + lengths[-1]:
                    raise self._store_error(name, "read", error) from error
                # The object ends before one of the ranges. The caller reports it.
                data = self.read(name)
                return [data[start : start + length] for start, length in runs]

        return read_merged(spans, MERGED_GAP, read)

    def size(self, name: str) -> int | None:
        try:
            return int(self._connected().head(check_name(name, self))["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._store_error(name, "read", error) from error

    def names(self, folder: str, suffix: str = "") -> list[str]:
        check_name(folder, self)
        try:
            listing = self._connected().list_with_delimiter(folder)
        except Exception as error:
            raise self._store_error(folder, "listed", error) from error
        paths = [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]
        names = {path.rstrip("/").rpartition("/")[2] for path in paths}
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def drafts(self) -> list[str]:
        return list(self.walk(".clock"))  # objects are created atomically

    def walk(self, folder: str) -> Iterator[str]:
        yield from sorted(entry["path"] for entry in self._entries(folder))

    def total_bytes(self) -> int:
        return sum(entry["size"] for entry in self._list(None))

    def create(self, name: str, data: bytes) -> bool:
        check_name(name, self)
        self._require_conditional_writes()
        return self._create(name, data)

    def write_file(self, name: str, data: bytes) -> None:
        check_name(name, self)
        self._require_conditional_writes()
        self._put(name, data)

    def _put(self, name: str, data: bytes) -> None:
        """Write an object: in one request, unless it is so long that a failed request would cost much."""
        try:
            self._connected().put(name, data, use_multipart=len(data) > MAX_PUT_BYTES, chunk_size=MULTIPART_BYTES)
        except Exception as error:
            raise self._store_error(name, "written", error) from error

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        self._require_conditional_writes()
        self._connected()  # refuses a forked process, which has no threads
        names = {check_name(f"{folder}/{name}", self): data for name, data in files.items()}
        list(self._pool().map(self._put, names, names.values()))

    def remove_folder(self, folder: str) -> None:
        names = list(self.walk(folder))
        try:
            for start in range(0, len(names), 1000):
                self._connected().delete(names[start : start + 1000])
        except Exception as error:
            raise self._store_error(folder, "removed", error) from error

    def changed(self, name: str) -> float:
        try:
            return float(self._connected().head(check_name(name, self))["last_modified"].timestamp())
        except FileNotFoundError:
            return 0.0
        except Exception as error:
            raise self._store_error(name, "read", error) from error

    def age(self, folder: str) -> float:
        times = [entry["last_modified"] for entry in self._entries(folder)]
        if not times:
            return 0.0
        # Use the clock of the service: write an object and read its time.
        probe = f".clock/{uuid.uuid4().hex}"
        try:
            self._connected().put(probe, b"")
            now = self._connected().head(probe)["last_modified"]
            self._connected().delete(probe)
        except Exception as error:
            raise self._store_error(probe, "written", error) from error
        return float((now - max(times)).total_seconds())

    def close(self) -> None:
        with self._lock:
            self._store = None
            self._threads = None  # they end when the last call that uses them does

    def _pool(self) -> ThreadPoolExecutor:
        """Threads for requests about several objects. They are kept until the storage is closed."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(MAX_REQUESTS, "store requests")
            return self._threads

    def _create(self, name: str, data: bytes) -> bool:
        """Create an object. Whatever the service answers, what is read afterwards decides."""
        from obstore.exceptions import AlreadyExistsError

        failures = 0
        for wait in (*CONFLICT_WAITS, 0.0):
            try:
                self._connected().put(name, data, mode="create", use_multipart=False)
                return True
            except StoreError:
                raise
            except Exception as refusal:
                existing = self._content(name, refusal)
                if existing is not None:
                    # The service may have written and lost its answer; the repeated request then meets its own object.
                    # Equal bytes are therefore taken for ours. Commits contain a random path, so they never are by
                    # chance.
                    return existing == data
                failures += not isinstance(refusal, AlreadyExistsError)
                if failures > 1:
                    raise self._store_error(name, "written", refusal) from refusal
            time.sleep(wait)
        raise StoreError(
            f"{self._uri}/{name}: cannot be written: the service says that it exists, and that it does not; run the "
            "job again"
        )

    def _content(self, name: str, refusal: Exception) -> bytes | None:
        """What an object contains after its creation was refused; None if there is no such object."""
        try:
            return bytes(self._connected().get(name).bytes())
        except FileNotFoundError:
            return None
        except Exception:
            raise self._store_error(name, "written", refusal) from refusal

    def _require_conditional_writes(self) -> None:
        """Before the first write: raise StoreError unless the service refuses to create an object again."""
        if self._is_probed:
            return
        first = self._probe("create")
        if isinstance(first, Exception):
            overwritten = self._probe("overwrite")
            if isinstance(overwritten, Exception):
                raise self._store_error(PROBE, "written", first) from first
        again = "exists" if first == "exists" else self._probe("create")
        if isinstance(again, Exception) and first == "written":
            raise self._store_error(PROBE, "written", again) from again
        if again != "exists":
            verdict = f"refuses ({first_line(again)})" if isinstance(again, Exception) else "ignores"
            raise StoreError(
                f"{self._uri}: the service {verdict} conditional writes (If-None-Match: *), without which two writers "
                "can replace each other's files; keep the store in a folder, or in a service that has them, such as "
                "Amazon S3"
            )
        self._is_probed = True

    def _probe(self, mode: str) -> Exception | str:
        """Write the probe. Returns "written", "exists", or the error."""
        from obstore.exceptions import AlreadyExistsError

        store = self._connected()
        try:
            store.put(PROBE, b"", mode=mode)
        except AlreadyExistsError:
            return "exists"
        except Exception as error:
            return error
        return "written"

    def _read(self, name: str) -> bytes:
        try:
            return bytes(self._connected().get(name).bytes())
        except FileNotFoundError:
            raise IntegrityError(f"{self._uri}/{name}: missing") from None
        except Exception as error:
            raise self._store_error(name, "read", error) from error

    def _entries(self, name: str) -> list[Any]:
        """Path, size and time of all objects below a folder, or of the one object with this name."""
        if self.size(name) is not None:
            return [self._connected().head(name)]
        return self._list(name)

    def _list(self, folder: str | None) -> list[Any]:
        try:
            return list(self._connected().list(folder).collect())
        except Exception as error:
            raise self._store_error(folder or "", "listed", error) from error

    def _connected(self) -> Any:
        """The client, which is created at the first request."""
        with self._lock:
            if self._owner_pid not in (0, os.getpid()):
                raise StoreError(
                    f"store {self._uri!r}: opened before this process was forked; start workers with spawn"
                )
            if self._store is None:
                self._store = connect(self._uri, f"store {self._uri!r}", RETRIES)
                self._owner_pid = os.getpid()
            return self._store

    def _store_error(self, name: str, action: str, error: Exception) -> StoreError:
        """The StoreError for an error of the client, with a message of one line."""
        if isinstance(error, StoreError):
            return error
        hint = ""
        if self._uri.startswith("s3://") and "AWS_ACCESS_KEY_ID" not in os.environ:
            hint = "; the environment has no AWS_ACCESS_KEY_ID"
        return StoreError(f"{self._uri}/{name}: cannot be {action}: {first_line(error)}{hint}")
