"""Build the examples of a task."""

import time
from collections.abc import Mapping
from typing import Any

from cache.errors import InputError
from cache.examples.files.jsonl import write_examples
from cache.json_documents import write_json
from cluster.evaluation.input_files import file_states, require_unchanged
from cluster.evaluation.settings import ExamplesSettings
from cluster.runtime.outputs import claim, read_json
from cluster.runtime.progress_bars import counter
from student.tasks.task import Task


def run_examples(settings: ExamplesSettings) -> dict[str, Any]:
    """Write one file a split, unless this was done before. Returns the content of examples.json."""
    result = settings.output / "examples.json"
    if not result.exists():
        started = time.monotonic()
        built = settings.task.build(counter("examples", "items"))
        if not built.splits.get("train", [None]) and not built.may_be_empty:
            raise InputError(f"task {settings.task.name}: no training example is left; {_left_out(built.facts)}")
        inputs = file_states(_inputs(settings.task))
        claim(settings.output, settings, holds_work=False)
        for name, examples in built.splits.items():
            write_examples(settings.output / f"{name}.jsonl", examples)
        counts = {name: len(examples) for name, examples in built.splits.items()}
        seconds = time.monotonic() - started
        write_json(result, {"examples": counts, "facts": built.facts, "inputs": inputs, "seconds": seconds})
    else:
        claim(settings.output, settings, holds_work=True)
        require_unchanged(read_json(result).get("inputs", {}), settings.output)
    return dict(read_json(result))


def _inputs(task: Task) -> Any:
    """The values whose paths are the input files of a task."""
    named = task.inputs()
    return task.model_dump() if named is None else list(named)


def _left_out(facts: Mapping[str, Any]) -> str:
    """What was left out, as the facts of a task say it."""
    train = facts.get("train")
    counts = facts.get("left_out") or (train.get("left_out") if isinstance(train, Mapping) else None)
    text = ", ".join(f"{reason} {count}" for reason, count in counts.items()) if isinstance(counts, Mapping) else ""
    return f"left out: {text}" if text else "give other data"
