"""Publish a student: a folder that others load with Transformers, or a model on a hub."""

import re
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import ModelCard

from cache.errors import InputError
from cache.exchange.publication import CARD, require_new_folder, upload
from cache.storage.hub_folder import HUB
from student.training.run_files import MODEL, RESULT

CONFIG = "config.json"
_ADDRESS = re.compile(r"hf://(?!datasets/)(?P<name>[\w.-]+/[\w.-]+)/?")
# Files of an earlier publication that this one may not have: other shards, adapters, a tokenizer of another kind.
REPLACED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "adapter/**")


def student_of(source: str) -> Path | None:
    """The folder of the student, if `source` is the output of a training run, or such a folder. None for others.

    Raises InputError for a run that has not saved its student yet.
    """
    folder = Path(source)
    if "://" in source or not folder.is_dir():
        return None
    if (folder / CONFIG).is_file() and (folder / CARD).is_file():
        return folder
    is_run = (folder / RESULT).is_file() or (folder / "checkpoints").is_dir()
    if is_run and not (folder / MODEL / CONFIG).is_file():
        raise InputError(f"{source}: this run has not saved its student yet; let it end first")
    return folder / MODEL if is_run else None


def publish_student(student: Path, target: str, title: str | None, licence: str | None, private: bool) -> str:
    """Copy the folder of a student to a new folder, or to a model on a hub. Returns where its card is.

    target: a folder, or hf://OWNER/NAME, which is made if it does not exist; an earlier publication there is replaced.
    title, licence: of the card, which otherwise keeps those that training wrote. Raises InputError for another target,
    and StoreError if the hub refuses.
    """
    if not target.startswith(HUB):
        if "://" in target:
            raise InputError(f"{target}: publish into a folder, or to {HUB}OWNER/NAME")
        if Path(target).resolve().is_relative_to(student.resolve()):
            raise InputError(f"{target}: lies inside the student's folder; give a folder outside")
        require_new_folder(Path(target), target)
        draft = Path(f"{target.rstrip('/')}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(student, draft)
        _write_card(draft, title, licence)
        shutil.rmtree(target, ignore_errors=True)  # it is empty
        draft.rename(target)
        return str(Path(target) / CARD)
    match = _ADDRESS.fullmatch(target)
    if match is None:
        raise InputError(f"{target}: is no model on a hub; write {HUB}OWNER/NAME")
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=student.parent) as name:
        draft = Path(name) / "model"
        shutil.copytree(student, draft, copy_function=_link)
        _write_card(draft, title, licence)
        return upload(draft, match["name"], private, "model", REPLACED)


def _write_card(folder: Path, title: str | None, licence: str | None) -> None:
    """The card that training wrote, with another title and a licence if they are given."""
    card = folder / CARD
    text = card.read_text()
    card.unlink()  # it may be linked
    if licence is not None:
        loaded = ModelCard(text)
        loaded.data["license"] = licence
        text = str(loaded)
    if title is not None:
        text = re.sub(r"^# .*$", lambda match: f"# {title}", text, count=1, flags=re.MULTILINE)
    card.write_text(text)


def _link(source: str, target: str) -> None:
    """Weights that are only sent are not copied where the disk can link them."""
    try:
        Path(target).hardlink_to(source)
    except OSError:  # another disk
        shutil.copy2(source, target)
