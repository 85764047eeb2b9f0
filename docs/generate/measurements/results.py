"""Read result files, and format their figures."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def read(name: str) -> dict[str, Any]:
    """The result file benchmarks/results/NAME.json."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def spread(values: dict[str, float], form: str, range_form: str | None = None) -> str:
    """Median with the smallest and the largest value, such as "1.015 (0.97 to 1.13)"."""
    outer = range_form or form
    return f"{values['median']:{form}} ({values['min']:{outer}} to {values['max']:{outer}})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def origin(names: Sequence[str]) -> str:
    """Where figures come from: file, command, date and hardware of each result."""
    rows = []
    for name in names:
        result = read(name)
        command = result.get("command", "make demo")
        rows.append(
            (f"`{name}.json`", f"`{command}`", result.get("date", "not in the file"), result.get("hardware", ""))
        )
    return table(("result file", "command", "date", "hardware"), rows)
