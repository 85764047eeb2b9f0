"""One rank of a training run, from its settings to the saved student."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cache.json_documents import write_json
from student.models.attention.sequence_parallel import refuse_unsharable, sequence_group, share_sequences
from student.models.loss_model import LossModel
from student.models.model_parts import head_of
from student.models.quantised import weight_count
from student.training.engine.checkpoints import remove_older
from student.training.engine.config import PRECISIONS
from student.training.engine.deepspeed_engine import Engine, start_ranks
from student.training.engine.first_rank_weights import has_one_reader, has_same_structure, rank_device
from student.training.engine.speed import Arithmetic
from student.training.export import save_student, write_card
from student.training.following import followed
from student.training.loop import Loop, RunProgress
from student.training.mirror.checkpoint_copies import CheckpointCopies
from student.training.model_card import model_card
from student.training.planning.inputs import TrainingInputs, open_inputs
from student.training.planning.plan import TrainingPlan
from student.training.planning.planner import plan_on_first_rank
from student.training.planning.stores import OpenStores
from student.training.run_files import BEST, CHECKPOINTS, MODEL, RESULT, full_disk_named
from student.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run reports at its end (training.json).

    examples, example_tokens: training examples, and all their tokens: those of one pass. tokens: those that carried a
    loss, over all steps. seconds: time in the loop, over all restarts; data_wait_share: the share of it
    that rank 0 waited for data. real_token_share: share of the computed positions that are no padding.
    examples_without_loss: how often an example was used of which no token carried a loss. parameters: those of the
    saved student, its adapters merged. best_step, best_loss: step and held-out loss of the saved student, if there are
    held-out examples. last_loss: the objective of the last step. skipped_steps: those whose gradient was not finite, so
    that they changed nothing. stores: where the examples came from. notes, order: as in TrainingPlan.
    followed: the stretches of a run that follows its store (student.training.following.Stretch).
    """

    steps: int
    examples: int
    example_tokens: int
    examples_left_out: int
    tokens: int
    seconds: float
    tokens_per_s: float
    data_wait_share: float
    real_token_share: float
    examples_without_loss: int
    parameters: int
    trained_parameters: int
    best_step: int | None
    best_loss: float | None
    stores: list[dict[str, Any]]
    notes: str
    planned_steps: int
    stopped_early: bool
    last_loss: float | None
    skipped_steps: int
    order: list[dict[str, int]]
    followed: list[dict[str, int]]


def train(settings: TrainSettings, plan: TrainingPlan | None = None) -> TrainResult:
    """Train, or continue, and save the student in Hugging Face form in `output`/model. Call it on every rank.

    RANK, WORLD_SIZE and MASTER_ADDR must be set. plan: of a driver; without one, rank 0 plans the job.
    """
    with full_disk_named(settings.output):
        return _train(settings, plan)


def _train(settings: TrainSettings, plan: TrainingPlan | None) -> TrainResult:
    start_ranks()
    torch.backends.cuda.matmul.allow_tf32 = settings.run.precision == "tf32"
    if settings.mirror is None:
        return _train_here(settings, plan, None)
    copies = CheckpointCopies(settings.output, settings.mirror, settings.run.keep_checkpoints)
    try:
        copies.restore()
        return _train_here(settings, plan, copies)
    finally:
        copies.close()


def _train_here(settings: TrainSettings, plan: TrainingPlan | None, copies: CheckpointCopies | None) -> TrainResult:
    stores = OpenStores(settings.data.cache)
    if plan is None:
        plan = plan_on_first_rank(settings, stores)
        if copies is not None:
            copies.share_plan()
    in_4_bits = settings.model.lora is not None and settings.model.lora.quantise is not None
    ranks = dist.get_world_size()
    one_reader = has_one_reader(settings.run, settings.optimizer, settings.deepspeed, ranks, in_4_bits)
    inputs = open_inputs(settings, plan, stores, has_weights=dist.get_rank() == 0 or not one_reader)
    if one_reader and not has_same_structure(inputs.model, rank_device()) and dist.get_rank() != 0:
        inputs = open_inputs(settings, plan, stores)  # the files of the model have more to say than its configuration
    stores.copy_ahead()
    settings = settings.with_steps(plan.examples, plan.tokens)
    counts, arithmetic = count_parameters(inputs.model), Arithmetic.of(inputs.model)
    loss_model = LossModel(inputs.model, inputs.batches.objectives)
    outer = list(head_of(inputs.model).parameters())
    checkpoints = settings.output / CHECKPOINTS
    if (group := sequence_group(settings.run.sequence_parallel)) is not None:
        share_sequences(inputs.model, group)
    engine = Engine(loss_model, settings.optimizer, settings.run, checkpoints, settings.deepspeed, outer)
    if group is not None:
        refuse_unsharable(inputs.model, group, inputs.attention, engine.device)

    def result_of(progress: RunProgress) -> TrainResult:
        return _result(settings, plan, inputs, counts, progress)

    def save_best(progress: RunProgress) -> None:
        if copies is not None:
            copies.wait()
        _save(
            engine,
            inputs,
            model_card(settings, asdict(result_of(progress)), inputs.model.config),
            settings.output / BEST,
            settings,
        )

    progress = Loop(engine, inputs, settings, save_best, copies, arithmetic, group).run()
    if copies is not None:
        copies.wait()  # the best student is about to be moved
    result = result_of(progress)
    card = model_card(settings, asdict(result), inputs.model.config)
    folder, best = settings.output / MODEL, settings.output / BEST
    if result.best_step is None:
        _save(engine, inputs, card, folder, settings)
    elif dist.get_rank() == 0:
        if best.exists():  # otherwise an earlier end of this run has moved it
            shutil.rmtree(folder, ignore_errors=True)
            best.rename(folder)
        write_card(card, folder)
    if dist.get_rank() == 0:
        write_json(settings.output / RESULT, asdict(result))
        # The student is saved. More steps go on from the last checkpoint alone, and each has three times its size.
        remove_older(settings.output / CHECKPOINTS, progress.step, 1)
    if copies is not None:
        copies.finish()
    stores.close()
    dist.barrier()
    return result


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Parameters of the student as it will be saved, its adapters merged; and those that are trained."""
    sizes = [(name, weight_count(weight), weight.requires_grad) for name, weight in model.named_parameters()]
    saved = sum(count for name, count, _ in sizes if "lora_" not in name)
    return saved, sum(count for _, count, is_trained in sizes if is_trained)


def _result(
    settings: TrainSettings,
    plan: TrainingPlan,
    inputs: TrainingInputs,
    counts: tuple[int, int],
    progress: RunProgress,
) -> TrainResult:
    seconds = progress.seconds or 1e-9
    return TrainResult(
        steps=progress.step,
        examples=inputs.examples,
        example_tokens=plan.tokens,
        examples_left_out=sum(inputs.left_out.values()),
        tokens=progress.tokens,
        seconds=progress.seconds,
        tokens_per_s=progress.tokens / seconds,
        data_wait_share=progress.waited / seconds,
        real_token_share=progress.real_share,
        examples_without_loss=progress.without_loss,
        parameters=counts[0],
        trained_parameters=counts[1],
        best_step=progress.best.step,
        best_loss=progress.best.loss,
        stores=plan.stores,
        notes=plan.notes,
        planned_steps=settings.run.total_steps,
        stopped_early=progress.step < settings.run.total_steps and progress.best.ends_run(settings.heldout),
        last_loss=progress.loss,
        skipped_steps=progress.skipped,
        order=plan.order,
        followed=followed(settings.output),
    )


def _save(engine: Engine, inputs: TrainingInputs, card: str, folder: Path, settings: TrainSettings) -> None:
    """Gather the weights from all ranks; rank 0 writes them."""
    dtype, model = PRECISIONS[settings.run.save_dtype or settings.run.precision], settings.model
    # Adapters are merged in float32.
    gathered = engine.full_weights(torch.float32 if model.lora is not None else dtype)
    weights = {name.removeprefix("model."): weight for name, weight in gathered.items()}
    # Adapters of some layers of a model, or of one with other options, belong to no model that anybody has.
    is_base = model.lora is not None and model.layers is None and not model.options
    base = model.pretrained if is_base else None
    if dist.get_rank() == 0:
        save_student(inputs.model, weights, inputs.tokenizer, card, folder, dtype, base or "")
    dist.barrier()
