"""The end of a run whose gradients or weights are not finite."""

from pathlib import Path

from cache.errors import LogitbankError
from student.training.run_files import checkpoint_folder, complete_checkpoints
from student.training.run_settings import RunSettings


class DivergenceError(LogitbankError):
    """A run has no finite gradients or weights any more. All ranks raise it at the same step."""


def refuse_divergence(step: int, skipped_in_a_row: int, run: RunSettings, checkpoints: Path) -> None:
    """Raise DivergenceError after run.max_skipped_steps steps in a row that changed nothing, or if no step ever did."""
    first = step - skipped_in_a_row + 1
    if skipped_in_a_row >= run.max_skipped_steps:
        raise DivergenceError(
            f"steps {first} to {step}: the gradients are not finite, so these steps were left out "
            f"(run.max_skipped_steps = {run.max_skipped_steps}); {_advice(checkpoints)}"
        )
    if step == run.total_steps and skipped_in_a_row == step:
        raise DivergenceError(
            f"steps 1 to {step}: the gradients are not finite, so nothing was learned; {_advice(checkpoints)}"
        )


def refuse_weights(step: int, checkpoints: Path) -> None:
    """Raise DivergenceError for weights that are not finite."""
    raise DivergenceError(f"step {step}: the weights are not finite any more; {_advice(checkpoints)}")


def _advice(checkpoints: Path) -> str:
    steps = complete_checkpoints(checkpoints)
    kept = (
        f"the last good checkpoint is {checkpoint_folder(checkpoints, steps[-1])}" if steps else "no checkpoint exists"
    )
    return f"{kept}; train into another output with a lower optimizer.lr, or look for bad values in model and data"
