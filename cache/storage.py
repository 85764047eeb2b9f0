"""Where the files of a store live. One class a backend; everything above speaks relative paths."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from cache.errors import IntegrityError, StoreError


class LocalStorage:
    """A store in a folder of a local or shared POSIX file system that supports hard links."""

    def __init__(self, root: str | Path) -> None:
        refuse_url(str(root))
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        """Absolute location of `name`; refuses names that leave the store."""
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise IntegrityError(f"{name!r} is not a path inside the store {self.root}")
        return self.root / name

    def read(self, name: str) -> bytes:
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            raise IntegrityError(f"{self.root / name}: missing") from None

    def size(self, name: str) -> int | None:
        """Length of `name` in bytes, or None where there is no such file."""
        try:
            return self.path(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted names of the entries directly in `folder`, unfinished writes left out."""
        try:
            names = [path.name for path in self.path(folder).iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def walk(self, folder: str) -> Iterator[str]:
        """Relative paths of all files below `folder`, sorted."""
        base = self.path(folder)
        for path in sorted(base.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(self.root))

    def create(self, name: str, data: bytes) -> bool:
        """Create `name` durably with all of `data` unless it exists. True if this call created it.

        link() is atomic and never replaces, so of several racing writers exactly one wins, also on NFS.
        """
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
            sync_folder(target.parent)
            return True
        finally:
            draft.unlink(missing_ok=True)

    def sync_tree(self, folder: str) -> None:
        """Flush every file and folder below `folder`, and its parents up to the root, to the disk."""
        top = self.path(folder)
        for here, _, names in os.walk(top, topdown=False):
            for name in names:
                handle = os.open(Path(here) / name, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            sync_folder(Path(here))
        for parent in top.parents:
            sync_folder(parent)
            if parent == self.root:
                break


def refuse_url(store: object) -> None:
    """Raise StoreError for an address of an object store, which as a path would become a local folder."""
    if isinstance(store, str) and "://" in store:
        raise StoreError(f"store {store!r}: only local or shared folders are supported so far; give a path")


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
