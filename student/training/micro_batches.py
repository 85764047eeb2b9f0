"""Which examples of a step go into which micro-batch of which rank."""

import numpy as np

from student.data.batches import Batches
from student.training.settings import RunSettings


def window_of(step: int, batches: Batches, run: RunSettings, rank: int, ranks: int) -> list[list[int]]:
    """Examples of each of this rank's micro-batches of a step.

    A step is a sum over its examples, so they may be grouped freely: by length, which saves most of the padding, and so
    that all ranks get like lengths at the same time.
    """
    picked = batches.order(step * run.batch_size, run.batch_size, run.seed)
    by_length = picked[np.argsort(batches.sizes[picked], kind="stable")]
    together = ranks * run.micro_batch_size
    return [by_length[start : start + together][rank::ranks].tolist() for start in range(0, run.batch_size, together)]
