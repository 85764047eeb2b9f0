"""Plan a capture job: which examples it needs, which of them the store lacks, and their division into units."""

from collections.abc import Set
from dataclasses import dataclass

from cache.errors import InputError
from cache.examples.jsonl import BadExample, read_examples
from cache.examples.tokenizers import tokenizer_files
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.local import LocalStorage
from cache.storage.open import open_storage
from cache.store.claims.tokenizer_files import read_tokenizer_claim
from cache.store.commits import SPEC, read_spec
from cache.store.quarantine.entries import quarantined_keys
from cache.store.segments.columns import hex_rows
from cache.store.snapshot_reading import current_index
from cache.store.withdrawal.forgotten import forgotten_keys
from cluster.capture.input_summary import InputSummary, explain_input, summarise_input
from cluster.capture.settings import CaptureSettings
from teacher_serving.asking.plan import SCORED_ORIGIN, Limits, Plan, PlannedExample, plan_capture, reject_lines
from teacher_serving.capture.start import describe
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.settings import TeacherSettings

FORGOTTEN = "are forgotten in this store ('logitbank forget') and are left out"


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """A job compared with the store as it is now.

    plan: all responses of the job. units: those that the store lacks, divided into units. input: what becomes of the
    lines of the examples file. others: records of the store that do not belong to this job. tokenizer: files of the
    tokenizer for a store that does not contain it yet, by name. forgotten: responses that the store must not keep,
    which are not in the plan.
    """

    description: TeacherDescription
    plan: Plan
    storage: Storage
    units: list[list[PlannedExample]]
    input: InputSummary
    others: int
    tokenizer: dict[str, bytes]
    forgotten: int = 0

    @property
    def missing_examples(self) -> int:
        """Responses that the store lacks."""
        return sum(map(len, self.units))


def plan_job(settings: CaptureSettings) -> CapturePlan:
    """Plan a capture job. Loads no weights and writes nothing.

    Raises InputError if the settings or examples are wrong, SpecMismatchError if the store has another spec.
    """
    bad: list[BadExample] = []
    everything = read_examples(settings.examples, bad.append)
    examples = everything[: settings.limit]
    storage = open_storage(settings.store)
    _require_store_folder(storage)
    stored = read_spec(storage) if storage.size(SPEC) is not None else None
    teacher = _with_stored_date(settings.teacher, stored)
    description = describe(teacher, settings.engine, settings.targets, settings.generation, settings.score)
    if stored:
        stored.require_same(description.spec, str(storage))
    # Raises InputError for a tokenizer that a store could not contain.
    tokenizer = {} if read_tokenizer_claim(storage) else tokenizer_files(description.tokenizer)
    limits = Limits(settings.teacher.max_tokens, description.spec.vocab_size, settings.teacher.truncation)
    plan = plan_capture(
        examples,
        description.tokenizer,
        limits,
        settings.score,
        settings.targets.of,
        settings.generation,
        description.prompter,
        description.form,
    )
    reject_lines(plan, bad)
    _require_examples(plan, settings)
    forgotten = _leave_out_forgotten(plan, storage)
    committed = committed_keys(storage, stored) if stored else set()
    units = divide_missing(plan, committed | set(quarantined_keys(storage)), settings.unit_size)
    summary = summarise_input(plan, len(bad), len(everything) - len(examples))
    return CapturePlan(
        description, plan, storage, units, summary, len(committed - plan.examples.keys()), tokenizer, forgotten
    )


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


def preview_job(settings: CaptureSettings) -> str:
    """Describe what a run of the job would do. Starts no engine and writes nothing."""
    job = plan_job(settings)
    planned, missing = len(job.plan.examples), job.missing_examples
    lines = [
        f"fingerprint {job.description.spec.fingerprint}",
        f"targets {job.description.spec.targets}",
        str(job.input),
        f"{planned:,} responses ({job.plan.truncated:,} truncated), {planned - missing:,} of them done; {missing:,} to "
        f"capture in {len(job.units):,} units",
    ]
    if job.forgotten:
        lines.append(f"{job.forgotten:,} more responses {FORGOTTEN}")
    if job.others:
        lines.append(
            f"{job.others:,} more records of the store are not of this job: of other jobs, or of lines that were "
            "changed or removed; training reads them too"
        )
    return "\n".join([*lines, *explain_input(job.plan)])


def committed_keys(storage: Storage, spec: StoreSpec) -> set[str]:
    """Keys of all records that are committed and count."""
    return set(hex_rows(current_index(storage, spec.fingerprint).key))


def _leave_out_forgotten(plan: Plan, storage: Storage) -> int:
    """Take the responses out of the plan that the store must not keep. Returns their number."""
    forgotten = [key for key in forgotten_keys(storage) if key in plan.examples or key in plan.rejected]
    for key in forgotten:
        plan.examples.pop(key, None)
        plan.rejected.pop(key, None)
    return len(forgotten)


def divide_missing(plan: Plan, present: Set[str], unit_size: int) -> list[list[PlannedExample]]:
    """Divide the responses whose keys are not present into units, in the order of the plan.

    A unit has at least unit_size responses, except the last. All responses to one example are in one unit, because
    which of them are kept depends on the others.
    """
    units: list[list[PlannedExample]] = []
    for item in (item for key, item in plan.examples.items() if key not in present):
        if not units or (len(units[-1]) >= unit_size and not _have_same_example(units[-1][-1], item)):
            units.append([])
        units[-1].append(item)
    return units


def _have_same_example(a: PlannedExample, b: PlannedExample) -> bool:
    """Whether both are responses of the teacher to the same example."""
    return a.tokenized.example is b.tokenized.example or (
        SCORED_ORIGIN not in (a.tokenized.origin, b.tokenized.origin)
        and a.tokenized.example.identity == b.tokenized.example.identity
    )


def _require_examples(plan: Plan, settings: CaptureSettings) -> None:
    """Raise InputError if there is nothing to capture."""
    if not plan.examples and not plan.rejected:
        requested = "scored responses only" if settings.score else "nothing, since score = false"
        raise InputError(
            f"examples file {settings.examples}: no example has a response, and the job requests {requested}; add a "
            "[generation] table to let the teacher generate responses"
        )
