"""Generate the tables in README.md: of the demo, from benchmarks/results/demo.json, and of the tasks."""

import json
from pathlib import Path
from typing import Any

from docs.generate.tasks_overview import overview

BEGIN = "<!-- demo table: begin (written by `python -m docs.generate`) -->"
END = "<!-- demo table: end -->"
TASKS_BEGIN = "<!-- tasks table: begin (written by `python -m docs.generate`) -->"
TASKS_END = "<!-- tasks table: end -->"
METRICS = (
    "heldout_loss",
    "kl_to_teacher",
    "top1_agreement",
    "parameters",
    "validity",
    "hit_ratio_all",
    "hit_ratio_all_strict",
)
MODELS = ("teacher", "kd", "ce")


def readme(root: Path) -> str:
    """README.md with the current tables between their markers. Raises ValueError if the markers are missing."""
    result = json.loads((root / "benchmarks/results/demo.json").read_text())
    text = between((root / "README.md").read_text(), BEGIN, END, f"```\n{table(result)}\n```")
    return between(text, TASKS_BEGIN, TASKS_END, overview())


def between(text: str, begin: str, end: str, content: str) -> str:
    """The text with `content` between two lines. Raises ValueError if they are missing."""
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the lines {begin!r} and {end!r} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"


def table(result: dict[str, Any]) -> str:
    """Metrics by model, then sizes and seconds, formatted as `logitbank report` prints them."""
    from cluster.report.metrics_table import format_number

    lines = [f"{'':<24}" + "".join(f"{model:>12}" for model in MODELS)]
    for metric in METRICS:
        lines.append(f"{metric:<24}" + "".join(f"{format_number(result[f'{model}_{metric}']):>12}" for model in MODELS))
    lines += [
        "",
        f"{'bytes/token':<24}{result['bytes_per_token']:>12.1f}",
        f"{'captured tokens':<24}{result['captured_tokens']:>12,}",
        f"{'capture tokens/s':<24}{result['capture_tokens_per_s']:>12,.0f}",
        f"{'total':<24}{result['total_seconds']:>10,.0f} s",
    ]
    return "\n".join(lines)
