"""Publish a snapshot of a store: a folder with a data card, in a form that others can read, or a data set on a hub."""

import shutil
import tempfile
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

from cache.errors import InputError, StoreError
from cache.exchange.data_card import DATA_FOLDERS, data_card, data_folder
from cache.exchange.parquet import export_parquet
from cache.progress import Progress, no_progress
from cache.settings import public_name
from cache.storage.base import Storage
from cache.storage.hub_folder import HUB, PREFIX, repository
from cache.storage.local import LocalStorage
from cache.store.claims.tokenizer_files import transfer_tokenizer
from cache.store.commits import commit_path, create_store, read_commits
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.withdrawal.forgotten import forgotten_keys

Form = Literal["store", "parquet"]
CARD = "README.md"
PARQUET = "train.parquet"


def publish(
    store: LogitStore, target: str, form: Form, title: str, licence: str | None, private: bool, progress: Progress
) -> str:
    """Publish the snapshot that `store` has open. Returns where the card is.

    target: a folder that is empty or new, or hf://datasets/OWNER/NAME, which is made if it does not exist; what an
    earlier publication put there is replaced. form: the store itself, or one Parquet file with everything. licence: its
    identifier on hubs. private: of a new data set. progress: called with (done, all), of units or examples.
    Only what the snapshot lists is published; not the quarantine, and not the requests to forget. The teacher is named
    without its local path. Raises InputError for another target, and if a unit of the snapshot still has an example
    that is forgotten; StoreError if the hub refuses.
    """
    require_nothing_forgotten(store)
    if not target.startswith(HUB):
        folder = Path(target)
        _require_folder(store, folder, target)
        write_publication(store, folder, form, title, licence, progress=progress)
        return str(folder / CARD)
    name, revision, path = repository(target)
    if revision or path or not target.startswith(PREFIX):
        raise InputError(f"{target}: is a part of a data set; give {PREFIX}{name}, a data set of its own")
    beside = Path(str(store.storage)).parent
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=beside if beside.is_dir() else None) as draft:
        write_publication(store, Path(draft), form, title, licence, name, progress)
        return upload(Path(draft), name, private, "dataset", [f"{each}/**" for each in DATA_FOLDERS])


def require_nothing_forgotten(store: LogitStore) -> None:
    """Raise InputError if a part of the snapshot has an example that the store must not keep."""
    forgotten = set(forgotten_keys(store.storage))
    if not forgotten:
        return
    for commit, _ in read_commits(store.storage, _units(store)):
        if kept := [example.key for example in commit.examples if example.key in forgotten]:
            raise InputError(
                f"{store.storage}: snapshot {store.snapshot} still has the forgotten example {kept[0]}; run 'logitbank "
                "snapshot' and publish the newest one"
            )


def _units(store: LogitStore) -> list[str]:
    """The names of the units of the snapshot."""
    return [unit.tobytes().hex() for unit in store.index.unit]


def _require_folder(store: LogitStore, folder: Path, target: str) -> None:
    """Raise InputError unless the folder is new, empty, or has only what a publication that was killed has left."""
    if "://" in target:
        raise InputError(f"{target}: publish into a folder, or to {PREFIX}OWNER/NAME")
    if folder.resolve().is_relative_to(Path(str(store.storage)).resolve()):
        raise InputError(f"{target}: lies inside the store itself; give a folder outside")
    require_new_folder(folder, target, DATA_FOLDERS)


def require_new_folder(folder: Path, target: str, left: Collection[str] = ()) -> None:
    """Raise InputError unless the folder is new, or has nothing but `left`."""
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - set(left)):
        raise InputError(f"{target}: is not empty; give a new folder")


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
    folder.mkdir(parents=True, exist_ok=True)
    for left in DATA_FOLDERS:
        shutil.rmtree(folder / left, ignore_errors=True)
    data = folder / data_folder(form)
    named = copy(store)
    named.spec = replace(store.spec, teacher=public_name(store.spec.teacher))
    if form == "parquet":
        data.mkdir()
        export_parquet(named, data / PARQUET, progress=progress)
        info = named.info()
    else:
        _copy(named, data, progress)
        with LogitStore.open(str(data)) as published:
            info = published.info()
    draft = folder / f".{CARD}.tmp"
    draft.write_text(data_card(info, form, title, licence, name))
    draft.replace(folder / CARD)


def _copy(store: LogitStore, target: Path, progress: Progress) -> None:
    """A store of the units of the snapshot, with one snapshot of its own."""
    source, written = store.storage, LocalStorage(target)
    create_store(written, store.spec)
    transfer_tokenizer(source, written)
    for name in source.walk("codebooks"):
        _copy_file(source, name, target)
    units = _units(store)
    for done, unit in enumerate(units, start=1):
        _copy_file(source, store.index.part_info(done - 1).path, target)
        _copy_file(source, commit_path(unit), target)
        progress(done, len(units))
    take_snapshot(written)


def _copy_file(source: Storage, name: str, target: Path) -> None:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, LocalStorage):
        shutil.copyfile(source.path(name), path)
    else:
        path.write_bytes(source.read(name))


def upload(folder: Path, name: str, private: bool, kind: Literal["dataset", "model"], replaced: Sequence[str]) -> str:
    """Upload a folder as a data set or a model, in one commit. Returns its address.

    replaced: patterns of files of an earlier publication that are removed. Raises StoreError if the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, address = HfApi(), f"{PREFIX if kind == 'dataset' else HUB}{name}"
    try:
        api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type=kind,
            folder_path=folder,
            commit_message="Publish a store" if kind == "dataset" else "Publish a student",
            delete_patterns=list(replaced),
        )
    except Exception as error:  # the library has errors of its HTTP client, of names and of tokens
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
        token = "; HF_TOKEN must be a token that may write there" if status in (401, 403) else ""
        raise StoreError(f"{address}: cannot be written: {' '.join(str(error).split())}{token}") from error
    return address
