"""What a file system answers (full, over quota, stale, failing, no links) ends in one line, and nothing is left."""

import errno
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.errors import IntegrityError, StoreError
from cache.storage.base import NotCreatedError
from cache.storage.local import LocalStorage

ANSWERS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS, errno.EACCES)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    storage.create("present", b"as before")
    return storage


def files(storage: LocalStorage) -> list[str]:
    return [str(path.relative_to(storage.root)) for path in sorted(storage.root.rglob("*")) if path.is_file()]


def failing(number: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """The call, which answers this error and does nothing."""

    def call(*arguments: Any, **options: Any) -> Any:
        if original is os.close:
            original(*arguments)  # close() frees the handle, whatever it answers
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", ANSWERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["fsync", "link", "mkdir"])
def test_a_refused_creation_is_one_line_and_leaves_nothing(
    name: str, number: int, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(storage)
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(number, getattr(os, name)))
        with pytest.raises(StoreError) as refusal:
            storage.create("folder/new", b"data")
        with pytest.raises(StoreError) if name != "link" else pytest.raises(FileExistsError):
            storage.write_folder("folder/other", {"x": b"1"})
            raise FileExistsError  # nothing is linked here
    message = str(refusal.value)
    assert message.startswith(f"{storage.root}/folder/new: cannot be written: ") and os.strerror(number) in message
    assert "\n" not in message
    assert storage.size("folder/new") is None
    certain = name != "link" or number not in (errno.EIO, errno.ESTALE)
    assert isinstance(refusal.value, NotCreatedError) == certain, "whether the file may exist later"
    storage.remove_folder("folder/other")
    assert files(storage) == before
    assert storage.create("folder/new", b"data")


def test_data_that_a_full_device_refuses_are_not_created(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real device that is always full: the error comes with the write, with fsync or with close."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    original = Path.open

    def open_full(self: Path, *arguments: Any, **options: Any) -> Any:
        return original(Path("/dev/full"), "wb") if "x" in str(arguments) else original(self, *arguments, **options)

    for data in (b"short", bytes(1 << 20)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", open_full)
            with pytest.raises(NotCreatedError, match="folder/new: cannot be written: No space left"):
                storage.create("folder/new", data)
            with pytest.raises(StoreError, match="parts/x: cannot be written: No space left"):
                storage.write_folder("parts/x", {"a": data})
    assert files(storage) == ["present"]


class _FailingClose(io.FileIO):
    """A file of a network file system, which reports at close() that its server did not get the data."""

    def close(self) -> None:
        is_open = not self.closed
        super().close()
        if is_open:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_error_of_close_fails_the_write(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def open_remote(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        is_new = "x" in mode
        return io.BufferedWriter(_FailingClose(self, mode)) if is_new else original(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_remote)
    with pytest.raises(NotCreatedError, match="folder/new: cannot be written: Input/output error"):
        storage.create("folder/new", b"data")
    with pytest.raises(StoreError, match="parts/x: cannot be written: Input/output error"):
        storage.write_folder("parts/x", {"a": b"data"})
    storage.remove_folder("parts/x")
    assert files(storage) == ["present"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_without_hard_links_is_named(
    number: int, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(number, os.link))
    with pytest.raises(NotCreatedError, match=r"has no hard links.*put the store on another file system"):
        storage.create("spec.json", b"data")
    assert files(storage) == ["present"]


def test_a_file_system_that_cannot_sync_folders_is_usable(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def sync_files_only(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync_files_only)
    assert storage.create("folder/new", b"data")
    storage.write_folder("parts/x", {"a": b"1"})
    assert storage.read("parts/x/a") == b"1"


def test_a_stale_file_is_opened_once_more(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system forgets open files, for example when a server restarts."""
    pread, calls = os.pread, []

    def stale_at_first(*arguments: Any) -> bytes:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", stale_at_first)
    for _ in range(2):
        assert storage.read_ranges([("present", 3, 6)]) == [b"before"]
    assert len(calls) == 3 and calls[0][0] != calls[2][0]
    monkeypatch.setattr(os, "pread", failing(errno.ESTALE, pread))
    with pytest.raises(StoreError, match=f"present: cannot be read: {os.strerror(errno.ESTALE)}"):
        storage.read_ranges([("present", 3, 6)])
    (storage.root / "present").unlink()
    with pytest.raises(IntegrityError, match="present: missing"):
        storage.read_ranges([("present", 3, 6)])


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES], ids=errno.errorcode.get)
def test_reading_listing_and_removing_name_the_file(
    number: int, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error is never taken for an absent file, an empty folder or a success."""
    storage.write_folder("folder/inner", {"x": b"1"})
    calls: dict[str, tuple[str, Callable[[], Any]]] = {
        "stat": ("folder/inner/x", lambda: storage.size("folder/inner/x")),
        "open": ("folder/inner/x", lambda: storage.read("folder/inner/x")),
        "scandir": ("folder", lambda: list(storage.walk("folder"))),
        "unlink": ("folder", lambda: storage.remove_folder("folder")),
    }
    for name, (file, call) in calls.items():
        with monkeypatch.context() as patch:
            for owner in (os, __import__("io")) if name == "open" else (os,):
                patch.setattr(owner, name, failing(number, getattr(owner, name)))
            with pytest.raises(StoreError, match=f"{re.escape(file)}: cannot be .*{os.strerror(number)}") as refusal:
                call()
        assert "\n" not in str(refusal.value) and not isinstance(refusal.value, IntegrityError), name
    for folder_call in (lambda: storage.names("folder"), storage.drafts, storage.total_bytes):
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", failing(number, os.scandir))
            with pytest.raises(StoreError, match="cannot be listed"):
                folder_call()
    assert storage.read("folder/inner/x") == b"1"


def test_all_bytes_are_counted(storage: LocalStorage) -> None:
    storage.write_folder("folder/inner", {"x": bytes(1000), "y": b""})
    assert storage.total_bytes() == 1000 + len(b"as before")
    assert LocalStorage(storage.root / "absent").total_bytes() == 0
