"""Batches of a compact classifier: texts, with a law over the classes in place of a row of targets."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from cache.errors import InputError
from cache.store.sampling_order import examples_at
from student.classes.class_examples import ClassSource, pad_texts
from student.data.batches import example_weight
from student.data.collate import PADDING
from student.losses.batch import Batch
from student.losses.objectives import Objectives, TargetForm

CLASS_LAWS = TargetForm("complete")


class ClassBatches:
    """Texts whose classes are learned, from a teacher's law over them, from true labels, or from both."""

    def __init__(self, source: ClassSource, objectives: Objectives, weight_key: str | None = None) -> None:
        self.source, self.objectives, self._weight = source, objectives, weight_key
        self.sizes: npt.NDArray[np.int64] = np.array([len(tokens) for tokens in source.tokens])
        hard = [term.objective == "hard_label" for term in objectives.terms]
        if any(hard) and not (source.labels >= 0).any():
            raise InputError("hard_label: no example has a label that is one of the classes; give examples a 'label'")
        if not all(hard) and source.teacher is None:
            raise InputError('these examples have no teacher; use loss.objective = "hard_label" or data.store')

    def batch(self, examples: Sequence[int]) -> Batch:
        """Of a text without a true label the hard-label terms count nothing."""
        picked = np.asarray(examples, np.int64)
        input_ids, mask = pad_texts([self.source.tokens[i] for i in picked], PADDING)
        labels = self.source.labels[picked]
        weights = np.ones((len(self.objectives.terms), len(picked)), np.float32)
        for number, term in enumerate(self.objectives.terms):
            if term.objective == "hard_label":
                weights[number] = labels >= 0
        if self._weight is not None:
            weights *= np.array([example_weight(self.source.examples[i], self._weight) for i in picked], np.float32)
        classes = len(self.source.names)
        law = None if self.source.teacher is None else self.source.teacher.log_probs[picked].astype(np.float64)
        rows = [] if law is None else [_tempered(law, temperature) for temperature in self.objectives.temperatures]
        return Batch(
            {"input_ids": input_ids, "attention_mask": mask},
            torch.arange(len(picked)),
            torch.from_numpy(labels),
            torch.arange(classes).expand(len(picked), classes),
            tuple(map(torch.from_numpy, rows)),
            tuple(torch.full((len(picked),), -torch.inf) for _ in rows),
            torch.full((len(picked),), torch.nan),
            torch.from_numpy(weights),
        )

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        return examples_at(start, count, len(self.source), seed)


def _tempered(log_p: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float32]:
    """A whole law at another temperature, float32 [B, C]: nothing is left out, so its normaliser is known."""
    scaled = log_p / temperature
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True), np.float32)
