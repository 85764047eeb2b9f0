"""Generate the demo's table in README.md from benchmarks/results/demo.json."""

import json
from pathlib import Path
from typing import Any

BEGIN = "<!-- demo table: begin (written by `python -m docs.generate`) -->"
END = "<!-- demo table: end -->"
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
    """README.md with the current table between its markers. Raises ValueError if the markers are missing."""
    text = (root / "README.md").read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: the lines {BEGIN!r} and {END!r} are missing")
    result = json.loads((root / "benchmarks/results/demo.json").read_text())
    return f"{before}{BEGIN}\n```\n{table(result)}\n```\n{END}{after}"


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
