"""The plan of a training job: plain data that the driver makes once, and every rank reads.

    OUTPUT/plan/plan.json            the fields of TrainingPlan
    OUTPUT/plan/tokenizer/           the tokenizer, if the job learns one
    OUTPUT/plan/SPLIT-sizes.npz      sizes of a store's examples in the tokens of a student with its own tokenizer
    OUTPUT/plan/SPLIT-classes.npz    the texts of a classifier with their classes

SPLIT is "train" or "heldout". Imports no torch.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from cache.json_documents import digest, write_json
from student.training.settings import TrainSettings

PLAN = "plan"
PLAN_FILE = "plan.json"

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What ranks need to know beside the settings.

    job: digest of the settings that the plan depends on.
    tokenizer: folder or hub name of the student's tokenizer; None if it is saved with the plan.
    tokenizer_digest: hash of this tokenizer (cache.examples.tokenizers.tokenizer_digest).
    vocab_size: minimum number of logits of the student.
    examples, tokens: number of training examples, and of all their tokens.
    stores: facts of each training store, for cards and results.
    notes: what was aligned or left out, in words; may be empty.
    template_date: the day that the student's chat template writes as today; "" if it writes none.
    order: of each store or file of language-model examples, the fields of cache.examples.example_order.Shuffle.
    """

    job: str
    tokenizer: str | None
    tokenizer_digest: str
    vocab_size: int
    examples: int
    tokens: int
    stores: list[dict[str, Any]]
    notes: str = ""
    template_date: str = ""
    order: list[dict[str, int]] = field(default_factory=list)


def plan_folder(settings: TrainSettings) -> Path:
    """The folder that the plan of a job is in."""
    return settings.output / PLAN


def tokenizer_folder(folder: Path) -> Path:
    """Where a plan in `folder` has the tokenizer that the job learns."""
    return folder / "tokenizer"


def sizes_file(folder: Path, split: Split) -> Path:
    """Where a plan has the aligned sizes of a split (student.tokenizers.cross_tokenizer_store.AlignedSizes)."""
    return folder / f"{split}-sizes.npz"


def classes_file(folder: Path, split: Split) -> Path:
    """Where a plan has the texts and classes of a split (student.classification.source.ClassSource)."""
    return folder / f"{split}-classes.npz"


def job_digest(settings: TrainSettings) -> str:
    """Digest of the settings that a plan depends on."""
    depends_on = {"data", "tokenizer", "model", "loss", "heldout", "classes"}
    values = settings.model_dump(mode="json", include=depends_on)
    for name in ("prefetch", "readers", "cache"):
        values["data"].pop(name)
    # Keys that earlier versions had not, where they change nothing: a run that began before goes on with its plan.
    if not values["model"]["options"]:
        del values["model"]["options"]
    if values["model"]["lora"] is not None and values["model"]["lora"]["quantise"] is None:
        del values["model"]["lora"]["quantise"]
    for table in (values["loss"], *values["loss"]["terms"]):
        for name in ("perplexity_power", "min_student_entropy"):
            if table[name] is None:
                del table[name]
    # A model that was tested with one packed row at a time is tested again before it reads several.
    return digest(values | {"packs_several_rows": settings.packed_rows > 1})


def read_plan(settings: TrainSettings) -> TrainingPlan | None:
    """The plan of this job. None if there is no valid plan, or one of another version or of a job with other settings.

    A truncated or malformed plan.json counts as no plan: the job is planned again.
    """
    path = plan_folder(settings) / PLAN_FILE
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if isinstance(values, dict):
        values.setdefault("tokens", 0)  # an earlier version had none, and no job that needs them
    if not isinstance(values, dict) or set(values) != {each.name for each in fields(TrainingPlan)}:
        return None
    plan = TrainingPlan(**values)
    return plan if plan.job == job_digest(settings) else None


def write_plan(settings: TrainSettings, plan: TrainingPlan, draft: Path) -> None:
    """Put a plan into its folder, with the files of `draft`. plan.json comes last: the plan counts once it exists.

    Files of an earlier plan are removed, or overwritten. Other files in the folder stay.
    """
    folder = plan_folder(settings)
    for path in (folder / PLAN_FILE, *(file(folder, split) for file in (sizes_file, classes_file) for split in SPLITS)):
        path.unlink(missing_ok=True)
    shutil.copytree(draft, folder, dirs_exist_ok=True)
    write_json(folder / PLAN_FILE, asdict(plan))
