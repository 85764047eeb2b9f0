"""Batches of a compact classifier: texts, with a distribution over the classes in place of a row of targets."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from cache.errors import InputError
from cache.examples.example_order import examples_at
from student.classification.source import ClassSource
from student.classification.texts import pad_texts
from student.data.example_weights import example_weight
from student.losses.batch import Batch
from student.losses.target_forms import TargetForm
from student.losses.temperature import complete_at_temperature
from student.losses.weighted_objectives import WeightedObjectives
from student.models.rows.layout import PADDING

CLASS_TARGETS = TargetForm("complete")


class ClassBatches:
    """Texts with their classes: a teacher's distribution over the classes, true labels, or both.

    hard_labels: what hard-label terms learn, the examples' labels or the teacher's most probable classes.
    Raises InputError if the loss needs labels or a teacher and the source has none.
    """

    def __init__(
        self,
        source: ClassSource,
        objectives: WeightedObjectives,
        weight_key: str | None = None,
        hard_labels: Literal["label", "teacher"] = "label",
    ) -> None:
        if hard_labels == "teacher" and source.teacher is None:
            raise InputError('classes.hard_labels = "teacher": these examples have no teacher; give data.store')
        if hard_labels == "teacher" and source.teacher is not None:
            source = replace(source, labels=source.teacher.log_probs.argmax(1).astype(np.int64))
        self.source, self.objectives, self._weight = source, objectives, weight_key
        self.sizes: npt.NDArray[np.int64] = np.array([len(tokens) for tokens in source.tokens])
        if not all(objectives.needs_teacher) and not (source.labels >= 0).any():
            raise InputError("hard_label: no example has a label that is one of the classes; give examples a 'label'")
        if any(objectives.needs_teacher) and source.teacher is None:
            raise InputError('these examples have no teacher; use loss.objective = "hard_label" or data.store')

    def batch(self, examples: Sequence[int], row_of: Sequence[int] | None = None) -> Batch:
        """The batch of these examples. A text without a true label has weight 0 in hard-label terms.

        Without examples, the shortest text with weight 0.
        """
        indices = np.asarray(examples if len(examples) else [int(np.argmin(self.sizes))], np.int64)
        input_ids, mask = pad_texts([self.source.tokens[i] for i in indices], PADDING)
        labels = self.source.labels[indices]
        weights = np.ones((len(self.objectives.terms), len(indices)), np.float32)
        weights[~np.array(self.objectives.needs_teacher)] = labels >= 0
        if self._weight is not None:
            weights *= np.array([example_weight(self.source.examples[i], self._weight) for i in indices], np.float32)
        if not len(examples):
            weights[:] = 0
        classes = len(self.source.names)
        log_p = None if self.source.teacher is None else self.source.teacher.log_probs[indices].astype(np.float64)
        rows = (
            []
            if log_p is None
            else [complete_at_temperature(log_p, temperature) for temperature in self.objectives.temperatures]
        )
        return Batch(
            {"input_ids": input_ids, "attention_mask": mask},
            torch.arange(len(indices)),
            torch.from_numpy(labels),
            torch.arange(classes).expand(len(indices), classes),
            tuple(map(torch.from_numpy, rows)),
            tuple(torch.full((len(indices),), -torch.inf) for _ in rows),
            torch.full((len(indices),), torch.nan),
            torch.from_numpy(weights),
            int(np.count_nonzero(~(weights > 0).any(axis=0))),
        )

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        """Examples at positions start..start + count of the endless stream, int64 [count]."""
        return examples_at(start, count, len(self.source), seed)

    def window_end(self, position: int) -> None:
        """Nothing is gained by reading examples together: all texts are in memory."""

    def hold(self, examples: Sequence[int]) -> None:
        """Nothing to do: all texts are in memory."""
