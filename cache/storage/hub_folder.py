"""A store that was published on a hub: its files, kept in the cache of huggingface_hub on this machine."""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from cache.errors import InputError, StoreError
from cache.storage.local import LocalStorage

HUB = "hf://"
PREFIX = f"{HUB}datasets/"
_ADDRESS = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<folder>.+?))?/?")


class HubFolder(LocalStorage):
    """A store at hf://datasets/OWNER/NAME[@REVISION][/FOLDER], which can be read only.

    All its files are downloaded when it is opened for the first time on a machine; a revision is downloaded once.
    Raises InputError for another address, and StoreError if the hub cannot be read.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__(download(address))

    def __getstate__(self) -> str:  # type: ignore[override]
        return self._address

    def __setstate__(self, address: str) -> None:  # type: ignore[override]
        self.__init__(address)  # type: ignore[misc]

    def __str__(self) -> str:
        return self._address

    def create(self, name: str, data: bytes) -> bool:
        raise self._read_only(name)

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        raise self._read_only(folder)

    def write_file(self, name: str, data: bytes) -> None:
        raise self._read_only(name)

    def remove_folder(self, folder: str) -> None:
        raise self._read_only(folder)

    def _read_only(self, name: str) -> StoreError:
        return StoreError(
            f"{self._address}: a store on a hub can be read only, and this would change {name}; copy it to a folder"
        )


def repository(address: str) -> tuple[str, str | None, str]:
    """OWNER/NAME, revision, and folder ("" for the whole) of an address. Raises InputError if it is none."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise InputError(f"{address!r}: is no data set on a hub; write hf://datasets/OWNER/NAME/FOLDER")
    try:
        validate_repo_id(match["name"])
    except HFValidationError as error:
        raise InputError(f"{address!r}: {' '.join(str(error).split())}") from None
    return match["name"], match["revision"], match["folder"] or ""


def download(address: str) -> Path:
    """The folder of this machine with the files at an address. Raises StoreError if the hub cannot be read."""
    from huggingface_hub import snapshot_download

    name, revision, folder = repository(address)
    try:
        root = snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=f"{folder}/**" if folder else None
        )
    except Exception as error:  # the library has errors of its HTTP client, of names and of files
        raise StoreError(f"{address}: cannot be downloaded: {' '.join(str(error).split())}") from error
    return Path(root) / folder
