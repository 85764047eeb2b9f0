"""Distillation under the Trainer of Transformers: a collator, and a loss in one of two places.

    objectives = objectives_for(dataset.store, LossSettings(), heldout.store)
    model = fused_student(AutoModelForCausalLM.from_pretrained(...), objectives)
    Trainer(model, args, data_collator=DistillationCollator(objectives), train_dataset=dataset, eval_dataset=heldout)

`fused_student` is the way to take: [tokens, vocabulary] logits never exist, and the head runs only on rows that carry a
loss. A model whose logits are made in a way that is not known here keeps its own forward pass, with
`compute_loss_func=DistillationLoss(objectives)`. docs/trainer_example.py runs.

Trainer divides by one number, summed over the micro-batches and ranks of a step. So every term of a mix is a mean over
its own rows only if all terms count the same ones; other mixes are refused, and `logitbank train` takes them. Between
ranks this wants `average_tokens_across_devices`, which is on by default. Trainer's `eval_loss` weighs the mean of each
batch by its examples: that is the mean over examples of loss.average = "examples", but not exactly the one over tokens,
for which there is student.evaluation.heldout_metrics. Dropout stays what the model's configuration says.
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
from cache.store.logit_store import LogitStore
from student.data.collate import collate
from student.data.sources import require_prompt_targets
from student.losses.batch import Batch
from student.losses.batch_terms import coefficients, terms_of
from student.losses.fused_loss import loss_of_logits
from student.losses.objectives import Objectives, TargetForm, require_possible
from student.losses.settings import LossSettings
from student.models.layout import Layout
from student.models.loss_model import LossModel
from student.models.model_parts import require_known_head

# Weights are counted in 2^-20 of a row: Trainer takes the floor of its count, and a sum of weights is rarely whole.
UNITS = 1 << 20


@dataclass(frozen=True, slots=True)
class Labels:
    """What Trainer finds as `labels`: all that the loss needs of a micro-batch, and how much it counts.

    batch: without its inputs. count: int64 [], the sum of the rows' weights in 1 / UNITS.

    No mapping on purpose: Accelerate moves whatever has `to`, but the floats of a mapping Trainer would also cast to
    the precision of the weights, under DeepSpeed.
    """

    batch: Batch
    count: Tensor

    def to(self, device: torch.device) -> "Labels":
        return Labels(self.batch.to(device), self.count.to(device))

    def ne(self, ignored: int) -> Tensor:
        """`labels.ne(-100).sum()` is how Trainer counts."""
        return self.count

    def __getitem__(self, index: Any) -> "Labels":
        """`labels[..., 1:]` is how Trainer leaves out first tokens; here they carry no loss anyway."""
        return self


def objectives_for(store: LogitStore, loss: LossSettings, *others: LogitStore) -> Objectives:
    """The loss made ready for a store, and for `others`, such as a held-out one, that shall have the same.

    Raises StoreError where it is undefined or biased for the targets of one, or these differ in kind;
    SpecMismatchError where their tokenizers differ; InputError for a weight that windows do not have.
    """
    if loss.example_weight is not None:
        raise InputError(
            f"loss.example_weight = {loss.example_weight!r}: a dataset of windows has no metadata; leave it out"
        )
    form = TargetForm.of(store.spec.targets)
    for each in (store, *others):
        require_prompt_targets(each, loss)
        require_possible(loss, TargetForm.of(each.spec.targets), str(each.storage))
        if each.spec.tokenizer != store.spec.tokenizer:
            raise SpecMismatchError(
                f"stores {store.storage} and {each.storage} were captured with different tokenizers"
            )
        if TargetForm.of(each.spec.targets) != form:
            raise StoreError(
                f"one loss learns one kind of targets, and these differ: {store.storage}: {store.spec.targets}; "
                f"{each.storage}: {each.spec.targets}"
            )
    return Objectives.of(loss, form)


class DistillationCollator:
    """Windows to the arguments of a model, int64 [B, L], with `labels` of type Labels.

    layout: by student.models.layout.layout_of(model, pack_to), padded and causal if not given. A model that reads
        packed rows must first pass student.models.packing_probe.refuse_unpackable(model).
    """

    def __init__(self, objectives: Objectives, layout: Layout | None = None) -> None:
        layout = layout or Layout()
        if layout.kind == "encoder_decoder" and objectives.prompts_count:
            raise InputError("loss.segments.prompt: an encoder-decoder reads prompts, and cannot learn to write them")
        _require_same_rows(torch.from_numpy(objectives.segment_weights))
        self.objectives, self.layout = objectives, layout

    def __call__(self, windows: Sequence[Window]) -> dict[str, Any]:
        batch = collate(windows, self.objectives, self.layout)
        _require_same_rows(batch.weights)
        count = (batch.weights[0].double().sum() * UNITS).round().long()
        return {**batch.inputs, "labels": Labels(replace(batch, inputs={}), count)}


class DistillationLoss:
    """`compute_loss_func` of Trainer: the objective from the model's own logits, [B, L, V]."""

    def __init__(self, objectives: Objectives) -> None:
        self.objectives = objectives

    def __call__(self, outputs: Any, labels: Labels, num_items_in_batch: Tensor | None = None) -> Tensor:
        """This micro-batch's part of the objective of a whole step."""
        logits = outputs["logits"].flatten(0, -2).index_select(0, labels.batch.rows)
        step = _coefficients(self.objectives, num_items_in_batch)
        return loss_of_logits(logits, terms_of(labels.batch, self.objectives, step))[0]


def fused_student(model: PreTrainedModel, objectives: Objectives) -> PreTrainedModel:
    """The same model, whose forward pass ends in the loss wherever it is given Labels, and is its own otherwise.

    As it stays a plain model, Trainer's checkpoints and `save_model` are what `from_pretrained` reads. Adapters come
    after: get_peft_model(fused_student(model, objectives), ...).

    Raises InputError for a model whose forward pass was already replaced, or whose logits are not known here.
    """
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    if not isinstance(model, PreTrainedModel) or "forward" in vars(model):
        raise InputError(
            f"model {name!r} of {type(model).__name__} is wrapped, or has another forward pass than its class; give "
            "the plain model, on one device and before adapters, or use compute_loss_func=DistillationLoss(objectives)"
        )
    in_training = model.training
    require_known_head(model.eval(), name)
    model.train(in_training)
    own = type(model).forward

    def forward(
        self: PreTrainedModel, *args: Any, labels: Any = None, num_items_in_batch: Tensor | None = None, **inputs: Any
    ) -> Any:
        if not isinstance(labels, Labels):
            given = {"labels": labels, "num_items_in_batch": num_items_in_batch} if labels is not None else {}
            return own(self, *args, **{key: value for key, value in given.items() if value is not None}, **inputs)
        read = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
        batch = replace(labels.batch, inputs=read)
        return {"loss": LossModel(self, objectives)(batch, _coefficients(objectives, num_items_in_batch)).objective}

    # A method, not a closure over the model: copies of the model then run themselves.
    model.forward = MethodType(forward, model)
    model.accepts_loss_kwargs = True
    return model


def _coefficients(objectives: Objectives, num_items: Tensor | None) -> Tensor:
    """What the rows of each term are multiplied by, float32 [terms]. num_items: as Trainer made it of Labels."""
    if num_items is None:
        raise InputError(
            "num_items_in_batch is missing, so a micro-batch does not know its share of the step; use "
            "DistillationCollator, and a Trainer of transformers >= 5"
        )
    if num_items.dim():
        raise InputError(
            "Trainer put the model on several GPUs of one process (DataParallel), where means are not those of rows; "
            "start it with torchrun or accelerate launch, or show it one GPU with CUDA_VISIBLE_DEVICES"
        )
    return coefficients(objectives, (num_items.double() / UNITS).expand(len(objectives.terms)))


def _require_same_rows(weights: Tensor) -> None:
    """Raise InputError unless all terms weigh the same, [terms, ...]."""
    if not torch.equal(weights, weights[:1].expand_as(weights)):
        raise InputError(
            "terms of the loss weigh different rows, by their segments or because some rows have no teacher, and "
            "Trainer has one count for all; give the terms the same segments, or use 'logitbank train'"
        )
