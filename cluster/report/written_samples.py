"""Texts that students wrote while they learned, as a page shows them: a row for each prompt, some steps in columns."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from student.training.run_files import SAMPLES

MAX_ROWS, MAX_STEPS = 3, 4
# Characters of a long prompt that are shown: its end, after which the student writes.
MAX_PROMPT = 600


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
        for number in range(min(MAX_ROWS, len(lines[0]["samples"]) if lines else 0)):
            first = lines[0]["samples"][number]
            texts = {line["step"]: line["samples"][number]["text"] for line in _spread(lines)}
            rows.append(SampleRow(name, _end_of(first["prompt"]), texts, first["reference"]))
    return rows


def _spread(lines: Sequence[Any]) -> list[Any]:
    """A few of the lines, the first and the last among them."""
    count = min(MAX_STEPS, len(lines))
    return [lines[round(i * (len(lines) - 1) / max(count - 1, 1))] for i in range(count)]


def _end_of(prompt: str) -> str:
    return prompt if len(prompt) <= MAX_PROMPT else f"… {prompt[-MAX_PROMPT:]}"
