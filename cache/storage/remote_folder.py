"""Files at an address that are written again and again, such as the copy of a run. Those of a store are not."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cache.errors import StoreError
from cache.object_client import connect, first_line, without_secrets

# Of one request. Longer files are sent in pieces, several at a time; S3 takes 10,000 of them.
PIECE_BYTES, MAX_PIECES = 16 << 20, 10_000
DELETED_AT_ONCE = 1000


class RemoteFolder:
    """Files by name, relative with "/", in a bucket or a folder. Each is replaced completely or not at all.

    Files go from and to the disk in pieces, whatever their size. Safe to share between threads. Every call raises
    StoreError, with the address, if the service or the disk refuses.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        address = self._uri if "://" in uri else Path(uri).absolute().as_uri()
        self._client: Any = connect(address, f"{without_secrets(uri)}")

    def __str__(self) -> str:
        return self._uri

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file below a folder, by its whole name."""
        try:
            return {entry["path"]: entry["size"] for entry in self._client.list(folder).collect()}
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._error(folder, "listed", error) from error

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is no such file."""
        try:
            return bytes(self._client.get(name).bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error(name, "read", error) from error

    def tail(self, name: str, length: int) -> bytes:
        """The last bytes of a file, at most `length`; none if there is no such file."""
        try:
            return bytes(self._client.get(name, options={"range": {"suffix": length}}).bytes())
        except FileNotFoundError:
            return b""
        except Exception as error:
            raise self._error(name, "read", error) from error

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a small file."""
        try:
            self._client.put(name, data, use_multipart=False)
        except Exception as error:
            raise self._error(name, "written", error) from error

    def upload(self, name: str, path: Path) -> None:
        """Write or replace a file with the content of one of this machine."""
        try:
            pieces_need = -(-path.stat().st_size // MAX_PIECES)
            self._client.put(name, path, chunk_size=max(PIECE_BYTES, pieces_need))
        except Exception as error:
            raise self._error(name, "written", error) from error

    def download(self, name: str, path: Path) -> None:
        """Write or replace a file of this machine with the content of one of these files."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("wb") as file:
                # A request for each piece: one for a long file would end at the time limit of a request.
                size = self._client.head(name)["size"]
                for start in range(0, size, PIECE_BYTES):
                    file.write(self._client.get_range(name, start=start, length=min(PIECE_BYTES, size - start)))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except Exception as error:
            raise self._error(name, "read", error) from error
        finally:
            draft.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files. Those that do not exist are none."""
        listed = list(names)
        try:
            for start in range(0, len(listed), DELETED_AT_ONCE):
                self._client.delete(listed[start : start + DELETED_AT_ONCE])
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._error(listed[0], "removed", error) from error

    def _error(self, name: str, action: str, error: Exception) -> StoreError:
        return StoreError(f"{without_secrets(self._uri)}/{name}: cannot be {action}: {first_line(error)}")
