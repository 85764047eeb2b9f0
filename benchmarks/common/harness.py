"""Medians with their range, and results with command, date and hardware."""

import json
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cache.json_documents import write_json
from cluster.runtime.hardware import hardware

RESULTS = Path(__file__).resolve().parents[1] / "results"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def peak_resident() -> float:
    """Peak of this process in MiB. getrusage would include what the parent had when it forked."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def finish(name: str, results: dict[str, Any], save: bool, file: str | None = None) -> None:
    """Print the results as one JSON line, the last of the output. With `save`, write them to benchmarks/results/ too.

    name: of the module in benchmarks/. file: name of the result file, if it differs.
    """
    if save:
        write_json(RESULTS / f"{file or name}.json", {**origin(name), **results})
    print(json.dumps(results))


def origin(name: str) -> dict[str, Any]:
    """Command, date and hardware of results. name: of the module in benchmarks/."""
    return {
        "command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(),
    }
