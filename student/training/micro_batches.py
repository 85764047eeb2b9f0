"""Which examples of a step go into which micro-batch of which rank."""

import numpy as np

from student.data.batches import Batches
from student.training.settings import RunSettings


def micro_batches_of_step(step: int, batches: Batches, run: RunSettings, rank: int, ranks: int) -> list[list[int]]:
    """The examples of each of this rank's micro-batches of a step.

    The objective of a step is a sum over its examples, so any grouping gives the same result. Examples are grouped by
    length: there is less padding, and all ranks process similar lengths at the same time.
    """
    examples = batches.order(step * run.batch_size, run.batch_size, run.seed)
    by_length = examples[np.argsort(batches.sizes[examples], kind="stable")]
    per_group = ranks * run.micro_batch_of(ranks)
    return [by_length[start : start + per_group][rank::ranks].tolist() for start in range(0, run.batch_size, per_group)]
