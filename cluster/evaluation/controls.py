"""Answers that no model wrote: they show what the best and the worst scores of a task are, and test its judges."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cache.examples.example import Example
from cache.json_documents import write_json
from cluster.runtime.outputs import read_json
from student.tasks import Task

# reference: the response of each example. shuffled: the response of another example, so a fluent wrong answer.
Control = Literal["reference", "shuffled"]


def control_result(control: Control, task: Task, examples: Sequence[Example], file: Path) -> dict[str, Any]:
    """The metrics and answers of a control, as an evaluation has them of a model. They are written once."""
    if not file.exists():
        started = time.monotonic()
        texts = control_answers(control, examples)
        scores = [task.judge(example, text) for example, text in zip(examples, texts, strict=True)]
        answers = [
            {"id": example.id, "text": text, "scores": score, "metadata": example.metadata}
            for example, text, score in zip(examples, texts, scores, strict=True)
        ]
        write_json(file, {**task.summarise(scores), "answers": answers, "seconds": time.monotonic() - started})
    return dict(read_json(file))


def control_answers(control: Control, examples: Sequence[Example]) -> list[str]:
    """The answer to each prompt. Shuffled ones are the next different response; with one response alone, it stays."""
    references = [example.rationale + example.response for example in examples]
    if control == "reference":
        return references
    turned = [references[i + 1 :] + references[: i + 1] for i in range(len(references))]
    return [
        next((text for text in others if text != reference), reference)
        for reference, others in zip(references, turned, strict=True)
    ]
