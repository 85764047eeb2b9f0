"""Losses over time from the metrics files of training runs, grouped so that only comparable losses share an axis."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from student.training.run_files import METRICS

# Keys of a metrics line that are not the mean of a loss term.
NOT_TERMS = frozenset(
    {
        "step",
        "objective",
        "lr",
        "gradient_norm",
        "tokens",
        "real_token_share",
        "examples_without_loss",
        "skipped_steps",
        "seconds",
        "data_wait_seconds",
        "snapshot",
        "heldout_objective",
    }
)
Curve = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, slots=True)
class LossPanel:
    """Runs with the same objective. curves: (tokens learned from, loss) by run."""

    objective: str
    is_heldout: bool
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{'held-out' if self.is_heldout else 'training'} loss: {self.objective}"


def loss_panels(trainings: Mapping[str, Path]) -> list[LossPanel]:
    """A panel for each objective: the held-out loss of the runs that have one, the training loss of the others."""
    panels: dict[tuple[str, bool], LossPanel] = {}
    for name, output in trainings.items():
        lines = [json.loads(line) for line in (output / METRICS).read_text().splitlines()]
        heldout = [line for line in lines if "heldout_objective" in line]
        key = "heldout_objective" if heldout else "objective"
        objective = _objective(lines[-1]) if lines else ""
        panel = panels.setdefault((objective, bool(heldout)), LossPanel(objective, bool(heldout)))
        # A loss that was not finite is null in the file.
        selected = [line for line in heldout or lines if line[key] is not None]
        panel.curves[name] = [line["tokens"] for line in selected], [line[key] for line in selected]
    return list(panels.values())


def _objective(line: Mapping[str, object]) -> str:
    """The terms of an objective in words, such as "forward kl + hard label"."""
    terms = [name for name in line if name not in NOT_TERMS and not name.startswith("heldout_")]
    return " + ".join(terms).replace("_", " ")
