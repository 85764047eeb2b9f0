"""An evaluation says which examples do not count, and why."""

from pathlib import Path

import pytest

from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cluster.evaluation.driver import run_evaluation
from cluster.evaluation.settings import EvaluateSettings


def test_an_evaluation_says_what_it_leaves_out(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch figures of a part of the data that look like those of all."""
    chats = [({"role": "user", "content": f"say {i}"},) for i in range(4)]
    path = tmp_path / "half.jsonl"
    write_examples(path, [Example(str(i), chats[i], response="one", label=label) for i, label in enumerate("abxy")])
    job = {"output": tmp_path / "evaluation", "examples": path, "models": {"kd": str(tiny_model)}}
    classes = {"labels": {"a": ["one"], "b": ["six"]}}
    result = run_evaluation(EvaluateSettings.model_validate({**job, "classes": classes}))
    assert "evaluate: kd: examples left out: 2 a label that is no class\n" in capsys.readouterr().out
    assert result["models"]["kd"]["left_out"] == {"a label that is no class": 2}
