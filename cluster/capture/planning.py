"""Plan a capture job: which examples it needs, which of them the store lacks, and their division into units."""

from dataclasses import dataclass

from cache.errors import InputError
from cache.examples.jsonl import BadExample, read_examples
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.local import LocalStorage
from cache.storage.open import open_storage
from cache.store.commits import SPEC, committed_units, read_commit, read_spec
from cache.store.quarantine.entries import quarantined_keys
from cluster.capture.settings import CaptureSettings
from teacher_serving.asking.plan import SCORED_ORIGIN, Limits, Plan, PlannedExample, plan_capture, reject_lines
from teacher_serving.capture.start import describe
from teacher_serving.engines.description import TeacherDescription

# Rejected examples that a dry run names.
SHOWN_REJECTIONS = 5


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """A job compared with the store as it is now.

    plan: all examples of the job. units: those that the store lacks, divided into units.
    """

    description: TeacherDescription
    plan: Plan
    storage: Storage
    units: list[list[PlannedExample]]

    @property
    def missing_examples(self) -> int:
        """Examples that the store lacks."""
        return sum(map(len, self.units))


def plan_job(settings: CaptureSettings) -> CapturePlan:
    """Plan a capture job. Loads no weights and writes nothing.

    Raises InputError if the settings or examples are wrong, SpecMismatchError if the store has another spec.
    """
    bad: list[BadExample] = []
    examples = read_examples(settings.examples, bad.append)[: settings.limit]
    description = describe(settings.teacher, settings.engine, settings.targets, settings.generation, settings.score)
    limits = Limits(settings.teacher.max_tokens, description.spec.vocab_size, settings.teacher.truncation)
    plan = plan_capture(
        examples,
        description.tokenizer,
        limits,
        settings.score,
        settings.targets.of,
        settings.generation,
        description.prompter,
    )
    reject_lines(plan, bad)
    _require_examples(plan, settings)
    storage = open_storage(settings.store)
    _require_store_folder(storage)
    _require_same_spec(storage, description.spec)
    return CapturePlan(description, plan, storage, missing_units(plan, storage, settings.unit_size))


def _require_store_folder(storage: Storage) -> None:
    """Raise InputError if a new store would be among other files, or in place of a file."""
    if not isinstance(storage, LocalStorage):
        return
    root = storage.root
    if root.exists() and not root.is_dir():
        raise InputError(f"store {root}: is a file; give a folder")
    if root.is_dir() and not (root / SPEC).exists() and any(root.iterdir()):
        raise InputError(f"store {root}: is a folder with other files, and no store; give a new folder")


def preview_job(settings: CaptureSettings) -> str:
    """Describe what a run of the job would do. Starts no engine and writes nothing."""
    job = plan_job(settings)
    rejected = list(job.plan.rejected.values())
    reasons = [f"rejected {name}: {reason}" for name, reason in rejected[:SHOWN_REJECTIONS]]
    if len(rejected) > SHOWN_REJECTIONS:
        reasons.append(f"and {len(rejected) - SHOWN_REJECTIONS:,} more")
    summary = (
        f"fingerprint {job.description.spec.fingerprint}\n{len(job.plan.examples):,} examples planned "
        f"({job.plan.truncated:,} truncated), {len(job.plan.rejected):,} rejected, "
        f"{job.missing_examples:,} missing in {len(job.units):,} units"
    )
    return "\n".join([summary, *reasons])


def missing_units(plan: Plan, storage: Storage, unit_size: int) -> list[list[PlannedExample]]:
    """Divide the examples that are neither committed nor in quarantine into units, in the order of the plan.

    A unit has at least unit_size examples, except the last. All responses to one example are in one unit, because which
    of them are kept depends on the others.
    """
    present = {e.key for unit in committed_units(storage) for e in read_commit(storage, unit)[0].examples}
    present.update(quarantined_keys(storage))
    units: list[list[PlannedExample]] = []
    for item in (item for key, item in plan.examples.items() if key not in present):
        if not units or (len(units[-1]) >= unit_size and not _have_same_example(units[-1][-1], item)):
            units.append([])
        units[-1].append(item)
    return units


def _have_same_example(a: PlannedExample, b: PlannedExample) -> bool:
    """Whether both are responses of the teacher to the same example."""
    return a.tokenized.example.id == b.tokenized.example.id and SCORED_ORIGIN not in (
        a.tokenized.origin,
        b.tokenized.origin,
    )


def _require_same_spec(storage: Storage, spec: StoreSpec) -> None:
    """Raise SpecMismatchError if the store exists and has another spec."""
    if storage.size(SPEC) is not None:
        read_spec(storage).require_same(spec, str(storage))


def _require_examples(plan: Plan, settings: CaptureSettings) -> None:
    """Raise InputError if there is nothing to capture."""
    if not plan.examples and not plan.rejected:
        requested = "scored responses only" if settings.score else "nothing, since score = false"
        raise InputError(
            f"examples file {settings.examples}: no example has a response, and the job requests {requested}; add a "
            "[generation] table to let the teacher generate responses"
        )
