"""The teacher's tokenizer in a store: it is read without the folder that the teacher had."""

import hashlib
import tempfile
import uuid
from pathlib import Path
from typing import Any

from cache.errors import InputError, IntegrityError
from cache.examples.tokenizers import load_tokenizer
from cache.json_documents import decode_document, encode_document
from cache.rows.spec import StoreSpec
from cache.storage.base import NotCreatedError, Storage, check_name
from cache.store.commits import remove_unused, withdraw_if_incomplete

CLAIM = "tokenizer.json"
FOLDER = "tokenizers"
# Teacher of an imported store, unless the import names one: no folder, and no name to look for on a hub.
UNNAMED_TEACHER = "imported"
# Digest in the spec of a store that was imported without its tokenizer.
UNKNOWN_TOKENIZER = "unknown"
GIVE_TOKENIZER = "give the teacher's: --tokenizer of 'logitbank inspect', tokenizer.path of a training job"


def claim_tokenizer(storage: Storage, spec: StoreSpec, files: dict[str, bytes]) -> None:
    """Put the tokenizer of the spec into the store, unless the store has it.

    files: by name, as cache.examples.tokenizers.tokenizer_files makes them.
    """
    if storage.size(CLAIM) is None:
        _claim_files(storage, spec.tokenizer, files)


def transfer_tokenizer(source: Storage, target: Storage) -> None:
    """Put the tokenizer of another store into a store, if the one has it and the other has not."""
    claim = read_tokenizer_claim(source)
    if claim is not None and target.size(CLAIM) is None:
        _claim_files(target, claim["digest"], {name: _read(source, claim, name) for name in claim["files"]})


def _claim_files(storage: Storage, tokenizer: str, files: dict[str, bytes]) -> None:
    folder = f"{FOLDER}/{uuid.uuid4().hex}"
    try:
        storage.write_folder(folder, files)
    except BaseException:
        remove_unused(storage, folder)
        raise
    checksums = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in files.items()}
    try:
        is_first = storage.create(CLAIM, encode_document({"path": folder, "digest": tokenizer, "files": checksums}))
    except NotCreatedError:
        remove_unused(storage, folder)
        raise
    if is_first:
        withdraw_if_incomplete(storage, CLAIM, [f"{folder}/{name}" for name in files])
    else:
        remove_unused(storage, folder)


def read_tokenizer_claim(storage: Storage) -> dict[str, Any] | None:
    """The document that names the store's tokenizer: path, digest, files. None if the store has none."""
    if storage.size(CLAIM) is None:
        return None
    return decode_document(storage.read(CLAIM), f"{storage}/{CLAIM}", ("path", "digest", "files"))


def copy_tokenizer(storage: Storage, folder: Path) -> bool:
    """Write the files of the store's tokenizer into a folder. Returns False if the store has none.

    Raises IntegrityError if a file is missing or altered.
    """
    claim = read_tokenizer_claim(storage)
    if claim is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    for name in claim["files"]:
        data = _read(storage, claim, name)
        path = folder / check_name(name, storage)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return True


def _read(storage: Storage, claim: dict[str, Any], name: str) -> bytes:
    """A file of the tokenizer. Raises IntegrityError if it is missing or altered."""
    data = storage.read(f"{claim['path']}/{name}")
    if hashlib.sha256(data).hexdigest() != claim["files"][name][1]:
        raise IntegrityError(f"{storage}/{claim['path']}/{name}: altered since it was written")
    return data


def open_tokenizer(storage: Storage, spec: StoreSpec) -> Any:
    """Load the tokenizer with which a store was captured: the one in the store, or the teacher's.

    Raises InputError, with what to give, if there is neither.
    """
    with tempfile.TemporaryDirectory() as name:
        if copy_tokenizer(storage, Path(name)):
            tokenizer = load_tokenizer(name, what=f"tokenizer of the store {storage}")
            tokenizer.name_or_path = f"{storage}/{FOLDER}"
            return tokenizer
    reason = "is a service" if spec.service else "has no name" if spec.teacher == UNNAMED_TEACHER else ""
    if reason:
        raise InputError(f"store {storage}: contains no tokenizer, and its teacher {reason}; {GIVE_TOKENIZER}")
    try:
        return load_tokenizer(spec.teacher, what=f"store {storage} contains no tokenizer, and that of its teacher")
    except InputError as error:
        raise InputError(f"{error}; {GIVE_TOKENIZER}") from error
