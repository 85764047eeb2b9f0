"""Figures in the README are those that a command wrote."""

import json
from pathlib import Path

import pytest

from cluster.show import number

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("model", ["teacher", "kd", "ce"])
def test_the_demo_table_is_the_result_file(model: str) -> None:
    readme = (ROOT / "README.md").read_text()
    results = json.loads((ROOT / "benchmarks/results/demo.json").read_text())
    column = ["teacher", "kd", "ce"].index(model) + 1
    for metric in ("heldout_loss", "kl_to_teacher", "top1_agreement", "validity", "hit_ratio_all"):
        line = next(line for line in readme.splitlines() if line.startswith(f"{metric} "))
        assert line.split()[column] == number(results[f"{model}_{metric}"])


def test_the_file_tree_names_what_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    named = readme.partition("## Files")[2].partition("## Develop")[0]
    for package in ("cache", "teacher_serving", "student", "cluster"):
        for path in (ROOT / package).glob("*.py"):
            assert path.name == "__init__.py" or path.name in named, f"{path} is not in the README's file tree"
