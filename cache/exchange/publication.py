"""Publish a snapshot of a store: a folder with a data card, in a form that others can read, or a data set on a hub."""

import os
import shutil
import tempfile
from contextlib import suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

from cache.errors import InputError, StoreError
from cache.exchange.data_card import data_card, data_folder
from cache.exchange.parquet import export_parquet
from cache.progress import Progress, no_progress
from cache.settings import public_name
from cache.storage.hub_folder import PREFIX, repository
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore

Form = Literal["store", "parquet"]
CARD = "README.md"
PARQUET = "train.parquet"
# What the format of a store knows. Leases and notes of drivers stay at home.
FOLDERS = (
    *("snapshots", "index", "commits", "parts", "codebooks", "tokenizers"),
    *("forgotten", "withdrawn", "quarantine"),
)
FILES = ("tokenizer.json",)


def publish(
    store: LogitStore, target: str, form: Form, title: str, licence: str | None, private: bool, progress: Progress
) -> str:
    """Publish the snapshot that `store` has open. Returns where the card is.

    target: a folder that is empty or new, or hf://datasets/OWNER/NAME, which is made if it does not exist. form: the
    store itself, or one Parquet file with everything. licence: its identifier on hubs. private: of a new data set.
    progress: called with (done, all), of files or examples. The teacher is named without its local path.
    Raises InputError for another target, and StoreError if the hub refuses.
    """
    if not target.startswith(PREFIX):
        folder = Path(target)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{target}: is not empty; give a new folder")
        write_publication(store, folder, form, title, licence, progress=progress)
        return str(folder / CARD)
    name, revision, path = repository(target)
    if revision or path:
        raise InputError(f"{target}: is a part of a data set; give {PREFIX}{name}, a data set of its own")
    beside = Path(str(store.storage)).parent
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=beside if beside.is_dir() else None) as draft:
        write_publication(store, Path(draft), form, title, licence, name, progress)
        return upload(Path(draft), name, private)


def write_publication(
    store: LogitStore,
    folder: Path,
    form: Form,
    title: str,
    licence: str | None,
    name: str = "",
    progress: Progress = no_progress,
) -> None:
    """Write the card and the data. The card is written last: a folder with one is complete.

    name: OWNER/NAME on a hub, for the card.
    """
    store = copy(store)
    store.spec = replace(store.spec, teacher=public_name(store.spec.teacher))
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / data_folder(form)
    if form == "parquet":
        data.mkdir()
        export_parquet(store, data / PARQUET, progress=progress)
    else:
        _copy(store, data, progress)
    draft = folder / f".{CARD}.tmp"
    draft.write_text(data_card(store.info(), form, title, licence, name))
    draft.replace(folder / CARD)


def _copy(store: LogitStore, target: Path, progress: Progress) -> None:
    """Copy the files of a store. Snapshots are listed first: what they refer to is there when the rest is listed."""
    source = store.storage
    create_store(LocalStorage(target), store.spec)
    names = [name for folder in FOLDERS for name in source.walk(folder)]
    names += [name for name in FILES if source.size(name) is not None]
    for done, name in enumerate(names, start=1):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, LocalStorage):
            _copy_file(source.path(name), path)
        else:
            path.write_bytes(source.read(name))
        progress(done, len(names))


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file, or give it a second name: files of a store are never changed in place."""
    with suppress(OSError):
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload a folder as a data set, in one commit. Returns its address. Raises StoreError if the hub refuses."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder, commit_message="Publish a store")
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        raise StoreError(
            f"{PREFIX}{name}: the hub refused: {' '.join(str(error).split())}; HF_TOKEN must be a token that may "
            "write there"
        ) from error
    return f"{PREFIX}{name}"
