"""CaptureJob: a capture job as it is described before its examples are read."""

from dataclasses import dataclass, field
from typing import Any

from cache.errors import InputError
from cache.examples.tokenizers import tokenizer_files
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.local import LocalStorage
from cache.storage.open import open_storage
from cache.store.claims.tokenizer_files import read_tokenizer_claim
from cache.store.commits import SPEC, read_spec
from cache.store.quarantine.entries import quarantined_keys
from cache.store.segments.keys import Array, keys_of_hex, sorting_order
from cache.store.snapshot_reading import current_keys
from cache.store.withdrawal.forgotten import forgotten_keys
from cluster.capture.input.key_set import EMPTY
from cluster.capture.settings import CaptureSettings
from teacher_serving.asking.plan import Limits
from teacher_serving.capture.start import describe
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.settings import TeacherSettings


@dataclass(frozen=True)
class CaptureJob:
    """What the windows of an examples file are planned with. Processes of a cluster get it once.

    committed: keys that the store has, in sorted arrays, void16 each. quarantined, forgotten: those that it has set
    aside, and must not keep; sorted.
    tokenizer: files of the tokenizer for a store that does not contain it yet, by name.
    """

    settings: CaptureSettings
    description: TeacherDescription
    committed: tuple[Array, ...] = ()
    quarantined: Array = field(default_factory=lambda: EMPTY)
    forgotten: Array = field(default_factory=lambda: EMPTY)
    tokenizer: dict[str, bytes] = field(default_factory=dict)

    @property
    def storage(self) -> Storage:
        """The store's files."""
        return open_storage(self.settings.store)

    @property
    def limits(self) -> Limits:
        """The limits of the teacher."""
        teacher = self.settings.teacher
        return Limits(teacher.max_tokens, self.description.spec.vocab_size, teacher.truncation)

    def planning_facts(self) -> dict[str, Any]:
        """The arguments of plan_capture that are the same for all windows."""
        settings, description = self.settings, self.description
        return {
            "tokenizer": description.tokenizer,
            "limits": self.limits,
            "score": settings.score,
            "targets_of": settings.targets.of,
            "generation": settings.generation,
            "prompter": description.prompter,
            "form": description.form,
        }


def open_job(settings: CaptureSettings) -> CaptureJob:
    """Describe a capture job and read what its store has. Loads no weights, reads no examples and writes nothing.

    Raises InputError if the settings are wrong, SpecMismatchError if the store has another spec.
    """
    storage = open_storage(settings.store)
    _require_store_folder(storage)
    stored = read_spec(storage) if storage.size(SPEC) is not None else None
    teacher = _with_stored_date(settings.teacher, stored)
    description = describe(teacher, settings.engine, settings.targets, settings.generation, settings.score)
    if stored:
        stored.require_same(description.spec, str(storage))
    # Raises InputError for a tokenizer that a store could not contain.
    tokenizer = {} if read_tokenizer_claim(storage) else tokenizer_files(description.tokenizer)
    return CaptureJob(
        settings,
        description,
        tuple(current_keys(storage, stored.fingerprint)) if stored else (),
        _sorted(keys_of_hex(quarantined_keys(storage))),
        _sorted(keys_of_hex(forgotten_keys(storage))),
        tokenizer,
    )


def _sorted(keys: Array) -> Array:
    return keys[sorting_order(keys)]


def _require_store_folder(storage: Storage) -> None:
    """Raise InputError if a new store would be among other files, or in place of a file."""
    if not isinstance(storage, LocalStorage):
        return
    root = storage.root
    if root.exists() and not root.is_dir():
        raise InputError(f"store {root}: is a file; give a folder")
    if root.is_dir() and not (root / SPEC).exists() and any(root.iterdir()):
        raise InputError(f"store {root}: is a folder with other files, and no store; give a new folder")


def _with_stored_date(teacher: TeacherSettings, stored: StoreSpec | None) -> TeacherSettings:
    """The settings with the date of the store's prompts: its capture may continue on another day."""
    if teacher.template_date or stored is None or not stored.template_date:
        return teacher
    return teacher.model_copy(update={"template_date": stored.template_date})
