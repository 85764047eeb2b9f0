"""What training runs have noted: losses, grouped so that only comparable ones share an axis, and samples of text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from student.training.run_files import METRICS, SAMPLES

# Keys of a metrics line that are not the mean of a loss term.
NOT_TERMS = frozenset(
    {
        "step",
        "objective",
        "lr",
        "gradient_norm",
        "tokens",
        "real_token_share",
        "learned_token_share",
        "examples_without_loss",
        "skipped_steps",
        "tokens_per_s",
        "memory_mib",
        "mfu",
        "seconds",
        "data_wait_seconds",
        "snapshot",
        "heldout_objective",
    }
)
# Samples that are shown: prompts, and steps.
MAX_ROWS, MAX_STEPS = 3, 4
# Characters of a long prompt that are shown: its end, after which the student writes.
MAX_PROMPT = 600
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


class SampleRow(NamedTuple):
    """texts: what the run wrote after the prompt, by step. reference: of the example; may be empty."""

    run: str
    prompt: str
    texts: dict[int, str]
    reference: str


def sample_rows(trainings: Mapping[str, Path]) -> list[SampleRow]:
    """The first prompts of each run that has samples."""
    rows = []
    for name, output in trainings.items():
        path = output / SAMPLES
        lines = [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []
        # Those of the last step: a run may go on with other prompts.
        for sample in lines[-1]["samples"][:MAX_ROWS] if lines else []:
            texts = {
                line["step"]: each["text"]
                for line in lines
                for each in line["samples"]
                if each["prompt"] == sample["prompt"]
            }
            shown = {step: texts[step] for step in _spread(list(texts))}
            rows.append(SampleRow(name, _end_of(sample["prompt"]), shown, sample["reference"]))
    return rows


def _spread(steps: Sequence[int]) -> list[int]:
    """A few of the steps, the first and the last among them."""
    count = min(MAX_STEPS, len(steps))
    return [steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)]


def _end_of(prompt: str) -> str:
    return prompt if len(prompt) <= MAX_PROMPT else f"… {prompt[-MAX_PROMPT:]}"
