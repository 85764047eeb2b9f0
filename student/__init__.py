"""Students: everything that learns from a store, or is measured with one.

Rooms, from the lowest to the highest; an import goes only downward:

    tasks/                  domains: how examples are built, and how answers are judged
    losses/                 objectives, computed from hidden states in blocks
    models/                 students: built, loaded, and their logits
    tokenizers/             tokenizers of students, and stores in the tokens of another tokenizer
    data/                   examples of stores and files as batches
    classification/         texts with classes, for classifiers
    training/  evaluation/  a run under DeepSpeed, from its plan to the saved student; metrics of a student

Never imports teacher_serving or Ray. The names below are the public face; each is imported at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from student.data.torch_dataset import StoreDataset
    from student.evaluation.language_model import evaluate_language_model
    from student.losses.settings import LossSettings
    from student.tasks import TASKS, Task, TaskKind
    from student.training.hf_trainer import DistillationCollator, DistillationLoss, fused_student, objectives_for
    from student.training.settings import TrainSettings
    from student.training.train import train

_HOMES = {
    "DistillationCollator": "training.hf_trainer",
    "DistillationLoss": "training.hf_trainer",
    "LossSettings": "losses.settings",
    "StoreDataset": "data.torch_dataset",
    "TASKS": "tasks",
    "Task": "tasks",
    "TaskKind": "tasks",
    "TrainSettings": "training.settings",
    "evaluate_language_model": "evaluation.language_model",
    "fused_student": "training.hf_trainer",
    "objectives_for": "training.hf_trainer",
    "train": "training.train",
}

__all__ = [
    "TASKS",
    "DistillationCollator",
    "DistillationLoss",
    "LossSettings",
    "StoreDataset",
    "Task",
    "TaskKind",
    "TrainSettings",
    "evaluate_language_model",
    "fused_student",
    "objectives_for",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
