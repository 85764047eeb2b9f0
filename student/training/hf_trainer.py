"""Distillation under the Trainer of Transformers: a collator, and a loss in one of two places.

    objectives = objectives_for(dataset.store, LossSettings(), heldout.store)
    model = fused_student(AutoModelForCausalLM.from_pretrained(...), objectives)
    Trainer(model, args, data_collator=DistillationCollator(objectives), train_dataset=dataset, eval_dataset=heldout)

Prefer `fused_student`: the [tokens, vocabulary] logits are never in memory, and the head runs only on rows with a loss.
A model that computes its logits in an unknown way keeps its own forward pass, with
`compute_loss_func=DistillationLoss(objectives)`. docs/trainer_example.py is a complete example.

Trainer divides by one count, summed over the micro-batches and ranks of a step. Therefore all terms of a loss must
count the same rows. Other losses raise InputError here, and work with `logitbank train`. Across ranks, Trainer needs
`average_tokens_across_devices`, which is on by default. Trainer's `eval_loss` weights the mean of each batch by its
number of examples. This is exact for loss.average = "examples" and approximate for a mean over tokens; for an exact
one use student.evaluation.heldout_metrics. Dropout is as the model's configuration says.
`compute_metrics`, label smoothing and DataParallel are not supported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.rows.record import Window
from cache.store.reading.sequence import RecordSequence
from student.data.batches import require_learnable_prompts
from student.data.collate import collate
from student.data.sources import require_prompt_targets
from student.losses.batch import Batch
from student.losses.head.fused_loss import loss_of_logits
from student.losses.loss_terms import make_loss_terms
from student.losses.normalisation import sum_coefficients
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm, require_supported
from student.losses.weighted_objectives import WeightedObjectives
from student.models.loss_model import LossModel
from student.models.model_parts import require_known_head
from student.models.rows.layout import PADDED, Layout

# Weights are counted in units of 2^-20 rows: Trainer rounds its count down, and a sum of weights is rarely an integer.
UNITS = 1 << 20


@dataclass(frozen=True, slots=True)
class Labels:
    """The `labels` of Trainer: what the loss needs of a micro-batch, and its count.

    batch: without its inputs. count: int64 [], the sum of the rows' weights in units of 1 / UNITS.

    Not a mapping: under DeepSpeed, Trainer would cast the floats of a mapping to the precision of the weights.
    Accelerate moves any object that has `to`.
    """

    batch: Batch
    count: Tensor

    def to(self, device: torch.device) -> "Labels":
        """The same labels on a device."""
        return Labels(self.batch.to(device), self.count.to(device))

    def ne(self, ignored: int) -> Tensor:
        """Trainer counts with `labels.ne(-100).sum()`."""
        return self.count

    def __getitem__(self, index: Any) -> "Labels":
        """Trainer drops first tokens with `labels[..., 1:]`. Here they have no loss, so nothing is dropped."""
        return self


def objectives_for(store: RecordSequence, loss: LossSettings, *others: RecordSequence) -> WeightedObjectives:
    """Prepare the loss for the targets of a store, and check it for `others`, such as a held-out store.

    Raises StoreError if the loss is undefined or biased for the targets of one store, or if the kinds of targets
    differ; SpecMismatchError if the tokenizers differ; InputError for loss.example_weight and loss.terms[].where, since
    windows have no metadata.
    """
    if loss.example_weight is not None:
        raise InputError(
            f"loss.example_weight = {loss.example_weight!r}: a dataset of windows has no metadata; leave it out"
        )
    if any(term.where for term in loss.all_terms):
        raise InputError("loss.terms[].where: a dataset of windows has no metadata; use 'logitbank train'")
    form = TargetForm.of(store.spec.targets)
    for each in (store, *others):
        require_prompt_targets(each, loss)
        require_supported(loss, TargetForm.of(each.spec.targets), str(each.storage))
        if each.spec.tokenizer != store.spec.tokenizer:
            raise SpecMismatchError(
                f"stores {store.storage} and {each.storage} were captured with different tokenizers"
            )
        if TargetForm.of(each.spec.targets) != form:
            raise StoreError(
                f"one loss needs targets of one kind, and these differ: {store.storage}: {store.spec.targets}; "
                f"{each.storage}: {each.spec.targets}"
            )
    return WeightedObjectives.of(loss, form)


class DistillationCollator:
    """Turns windows into the arguments of a model, int64 [B, L], with `labels` of type Labels.

    layout: from student.models.model_parts.layout_of(model, pack_to); by default padded and causal. For packed rows,
        first call student.models.rows.packing_probe.refuse_unpackable(model, row_length=pack_to).
    """

    def __init__(self, objectives: WeightedObjectives, layout: Layout | None = None) -> None:
        layout = layout or PADDED
        require_learnable_prompts(objectives, layout)
        _require_same_rows(torch.from_numpy(objectives.segment_weights))
        self.objectives, self.layout = objectives, layout

    def __call__(self, windows: Sequence[Window]) -> dict[str, Any]:
        batch = collate(windows, self.objectives, self.layout)
        _require_same_rows(batch.weights)
        count = (batch.weights[0].double().sum() * UNITS).round().long()
        return {**batch.inputs, "labels": Labels(replace(batch, inputs={}), count)}


class DistillationLoss:
    """`compute_loss_func` of Trainer: the objective, computed from the model's own logits [B, L, V].

    A model in bfloat16 rounds its logits; `fused_student` computes them in float32.
    """

    def __init__(self, objectives: WeightedObjectives) -> None:
        self.objectives = objectives

    def __call__(self, outputs: Any, labels: Labels, num_items_in_batch: Tensor | None = None) -> Tensor:
        """This micro-batch's summand of the objective of a step."""
        logits = outputs["logits"].flatten(0, -2).index_select(0, labels.batch.rows)
        step = _coefficients(self.objectives, num_items_in_batch)
        return loss_of_logits(logits, make_loss_terms(labels.batch, self.objectives, step))[0]


def fused_student(model: PreTrainedModel, objectives: WeightedObjectives) -> PreTrainedModel:
    """The same model, whose forward pass computes the loss if it gets Labels, and is unchanged otherwise.

    It stays a plain model, so `from_pretrained` loads Trainer's checkpoints. Add adapters afterwards:
    get_peft_model(fused_student(model, objectives), ...).

    Raises InputError for a model whose forward pass is already replaced, or that computes its logits in an unknown way.
    """
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    if not isinstance(model, PreTrainedModel) or "forward" in vars(model):
        raise InputError(
            f"model {name!r} of {type(model).__name__} is wrapped, or its forward pass is not that of its class; give "
            "the plain model, on one device and before adapters, or use compute_loss_func=DistillationLoss(objectives)"
        )
    in_training = model.training
    require_known_head(model.eval(), name)
    model.train(in_training)
    original = type(model).forward

    def forward(
        self: PreTrainedModel, *args: Any, labels: Any = None, num_items_in_batch: Tensor | None = None, **inputs: Any
    ) -> Any:
        if not isinstance(labels, Labels):
            extra = {"labels": labels, "num_items_in_batch": num_items_in_batch} if labels is not None else {}
            return original(self, *args, **{key: value for key, value in extra.items() if value is not None}, **inputs)
        tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
        batch = replace(labels.batch, inputs=tensors)
        return {"loss": LossModel(self, objectives)(batch, _coefficients(objectives, num_items_in_batch)).objective}

    # A method, not a closure over the model: a copy of the model then runs its own weights.
    model.forward = MethodType(forward, model)
    model.accepts_loss_kwargs = True
    return model


def _coefficients(objectives: WeightedObjectives, num_items: Tensor | None) -> Tensor:
    """The factors of the rows of each term, float32 [terms]. num_items: as Trainer counts it from Labels."""
    if num_items is None:
        raise InputError(
            "num_items_in_batch is missing, so the share of a micro-batch in its step is not known; use "
            "DistillationCollator, and a Trainer of transformers >= 5"
        )
    if num_items.dim():
        raise InputError(
            "Trainer uses several GPUs in one process (DataParallel), which does not average over rows; "
            "start it with torchrun or accelerate launch, or set CUDA_VISIBLE_DEVICES to one GPU"
        )
    return sum_coefficients(objectives, (num_items.double() / UNITS).expand(len(objectives.terms)))


def _require_same_rows(weights: Tensor) -> None:
    """Raise InputError unless all terms have the same weights, [terms, ...]."""
    if not torch.equal(weights, weights[:1].expand_as(weights)):
        raise InputError(
            "the terms of the loss have weights on different rows, by their segments or because some rows have no "
            "teacher, and Trainer has one count for all terms; give them the same segments, or use 'logitbank train'"
        )
