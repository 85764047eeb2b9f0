"""Losses: what a student minimises, and its gradient, computed from hidden states without whole logits.

In: hidden states and head of a model, and a Batch with targets. Out: each term's sum, with gradients. `settings` reads
the [loss] table; `objectives/` has the objectives, one a file; `target_forms` says which of them a store's targets
allow; `row_losses` computes losses and gradients of rows of logits, and `head/` block by block from hidden states;
`normalisation` makes means over a whole step of them; `temperature` changes the temperature of distributions.
Knows nothing of models, stores or training loops. To add an objective: see `objectives/__init__.py`.
"""

from typing import TYPE_CHECKING

from cache.lazy_names import lazy_names

if TYPE_CHECKING:
    from student.losses.objective import Objective
    from student.losses.registry import OBJECTIVES
    from student.losses.settings import LossSettings, SegmentWeights, TermSettings

__all__ = ["OBJECTIVES", "LossSettings", "Objective", "SegmentWeights", "TermSettings"]

if not TYPE_CHECKING:
    # At first use: the losses themselves need PyTorch alone.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "student.losses.objective": ("Objective",),
            "student.losses.registry": ("OBJECTIVES",),
            "student.losses.settings": ("LossSettings", "SegmentWeights", "TermSettings"),
        },
    )
