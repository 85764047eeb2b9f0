"""Build the examples of a task."""

import time
from typing import Any

from cache.examples.files.jsonl import write_examples
from cache.json_documents import write_json
from cluster.evaluation.settings import ExamplesSettings
from cluster.runtime.outputs import claim, read_json
from cluster.runtime.progress_bars import counter


def run_examples(settings: ExamplesSettings) -> dict[str, Any]:
    """Write one file a split, unless this was done before. Returns the content of examples.json."""
    result = settings.output / "examples.json"
    if not result.exists():
        started = time.monotonic()
        built = settings.task.build(counter("examples", "items"))
        claim(settings.output, settings, holds_work=False)
        for name, examples in built.splits.items():
            write_examples(settings.output / f"{name}.jsonl", examples)
        counts = {name: len(examples) for name, examples in built.splits.items()}
        write_json(result, {"examples": counts, "facts": built.facts, "seconds": time.monotonic() - started})
    else:
        claim(settings.output, settings, holds_work=True)
    return dict(read_json(result))
