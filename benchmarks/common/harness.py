"""What all benchmarks share: medians with their spread, and results that say where they come from."""

import json
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cache.documents import write_json
from cluster.job.outputs import hardware

RESULTS = Path(__file__).resolve().parents[1] / "results"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def finish(name: str, results: dict[str, Any], save: bool, file: str | None = None) -> None:
    """Print the results as one JSON line, the last of the output; with `save` keep them in benchmarks/results/.

    file: name of the result there, where one benchmark leaves several.
    """
    if save:
        origin = {
            "command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "hardware": hardware(),
        }
        write_json(RESULTS / f"{file or name}.json", {**origin, **results})
    print(json.dumps(results))
