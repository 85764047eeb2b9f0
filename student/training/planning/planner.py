"""Plan a training job: check that its parts fit together, and save what every rank would otherwise compute again."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from cache.errors import LogitbankError
from cache.examples.tokenizers import tokenizer_digest
from cache.progress import Progress, no_progress
from student.classification.source import ClassSource
from student.data.sources import describe_left_out
from student.models.build import router_note
from student.models.generation_settings import contradictions_of
from student.models.model_parts import head_of
from student.training.deepspeed_options import require_accepted
from student.training.engine.optimizers import require_optimizer
from student.training.export import require_savable
from student.training.planning.examples import aligned_store
from student.training.planning.inputs import InputBuilder, TrainingInputs, order_of
from student.training.planning.plan import (
    TrainingPlan,
    classes_file,
    job_digest,
    plan_folder,
    read_plan,
    sizes_file,
    write_plan,
)
from student.training.planning.stores import OpenStores, describe_stores
from student.training.planning.vocabulary import choose_vocabulary, load_vocabulary
from student.training.run_files import steps_done
from student.training.settings import TrainSettings
from student.training.steps.step_stream import require_steps_of_whole_examples

# Bytes of an attention mask that a plan mentions.
LARGE_MASK = 1 << 29


def plan_training(
    settings: TrainSettings,
    stores: OpenStores,
    progress: Progress = no_progress,
    begin: Callable[[], None] = lambda: None,
) -> TrainingPlan:
    """Make the plan of a job, and write it below its output. A run that continues keeps the plan that it has.

    begin: called before a plan is written, when the job can work.
    Raises a LogitbankError, and leaves no plan, if data, loss, tokenizer and model do not fit together, and
    SpecMismatchError if a run continues with a tokenizer that has changed.
    """
    require_accepted(settings.deepspeed)
    existing = read_plan(settings) if steps_done(settings.output) else None
    if existing is not None:
        load_vocabulary(settings, plan_folder(settings), existing)
        return existing
    # In a folder of its own: a job that cannot work leaves nothing behind.
    with tempfile.TemporaryDirectory() as name:
        draft = Path(name)
        vocabulary = choose_vocabulary(settings, stores, draft)
        inputs = InputBuilder(settings, vocabulary, stores, progress=progress).build()
        require_steps_of_whole_examples(inputs.batches.sizes, settings.run.step_size)
        require_optimizer(inputs.model, settings.optimizer, list(head_of(inputs.model).parameters()))
        require_savable(inputs.model, inputs.tokenizer, settings.trusts_code)
        _save_sources(inputs, draft)
        plan = TrainingPlan(
            job_digest(settings),
            vocabulary.path,
            tokenizer_digest(vocabulary.tokenizer),
            vocabulary.size,
            inputs.examples,
            int(inputs.batches.sizes.sum()),
            describe_stores(stores.open_all(settings.data)),
            _notes(inputs, settings),
            vocabulary.form.template_date,
            order_of(inputs.sources["train"]),
        )
        begin()
        write_plan(settings, plan, draft)
    return plan


def plan_on_first_rank(settings: TrainSettings, stores: OpenStores) -> TrainingPlan:
    """Plan on rank 0, for a launcher without a driver such as torchrun. The other ranks wait and receive the plan.

    If rank 0 cannot plan the job, every rank raises its error.
    """
    # NCCL sends from a GPU. Ranks of one machine must not share it, and no GPU has been selected yet.
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if dist.get_backend() == "nccl" else None
    result: list[TrainingPlan | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            result[0] = plan_training(settings, stores)
        except Exception as error:
            result[0] = error if isinstance(error, LogitbankError) else RuntimeError(f"rank 0 cannot plan: {error!r}")
            dist.broadcast_object_list(result, src=0, device=device)
            raise
    dist.broadcast_object_list(result, src=0, device=device)
    plan = result[0]
    if isinstance(plan, Exception):
        raise plan
    assert plan is not None
    return plan


def _save_sources(inputs: TrainingInputs, folder: Path) -> None:
    for split, source in inputs.sources.items():
        if isinstance(source, ClassSource):
            source.save(classes_file(folder, split))
        elif (store := aligned_store(source)) is not None:
            store.sizes.save(sizes_file(folder, split))


def _notes(inputs: TrainingInputs, settings: TrainSettings) -> str:
    """What was left out or cut, of the training and the held-out examples, and how they were aligned."""
    notes = [_mask_note(inputs, settings)] if settings.data.pack_to else []
    if settings.data.replay is not None:
        notes.append(f"replay: {settings.data.replay.examples} with the weight {settings.data.replay.weight:g}")
    for split, source in inputs.sources.items():
        name = "training" if split == "train" else "held-out"
        if left_out := sum(source.left_out.values()):
            total = len(source) + left_out
            notes.append(f"{left_out:,} of {total:,} {name} examples left out: {describe_left_out(source.left_out)}")
        if isinstance(source, ClassSource) and source.truncated and settings.classes is not None:
            notes.append(
                f"{source.truncated:,} of {len(source):,} {name} texts cut to classes.max_tokens = "
                f"{settings.classes.max_tokens:,} tokens"
            )
        elif not isinstance(source, ClassSource) and (store := aligned_store(source)) is not None:
            notes.append(str(store.shares) if split == "train" else f"{name}: {store.shares}")
        if split == "heldout" and settings.heldout is not None and len(source) > settings.heldout.limit:
            notes.append(f"heldout.limit: the first {settings.heldout.limit:,} of {len(source):,} held-out examples")
    if settings.samples is not None and len(inputs.samples) < settings.samples.count:
        notes.append(
            f"samples: {len(inputs.samples)} different prompts that the model has positions for, and samples.count = "
            f"{settings.samples.count}"
        )
    if contradictions := contradictions_of(settings.model.pretrained):
        notes.append(f"generation settings of model.pretrained without effect, left out: {', '.join(contradictions)}")
    notes.append(router_note(inputs.model.config))
    return "; ".join(filter(None, notes))


def _mask_note(inputs: TrainingInputs, settings: TrainSettings) -> str:
    """What the attention mask of packed rows needs, in words; empty if it is small, or if there is none."""
    row, attention = settings.data.pack_to or 0, inputs.model.config._attn_implementation
    size = {"sdpa": 1, "eager": 4}.get(attention, 0) * row**2
    if size < LARGE_MASK:
        return ""
    return (
        f"a packed row of {row:,} tokens needs an attention mask of up to {size / (1 << 30):.1f} GiB with {attention} "
        "attention; a smaller data.pack_to needs less"
    )
