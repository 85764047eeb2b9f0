"""Texts of a run as a report shows them."""

import json
from pathlib import Path

from cluster.report.training_history import MAX_PROMPT, MAX_ROWS, sample_rows


def write(run: Path, steps: list[int], prompts: int) -> Path:
    run.mkdir()
    lines = []
    for step in steps:
        samples = [{"prompt": f"{i}" * 700, "text": f"{i} at {step}\u2028", "reference": "r"} for i in range(prompts)]
        lines.append(json.dumps({"step": step, "samples": samples}, ensure_ascii=False))
    (run / "samples.jsonl").write_text("\n".join([*lines, ""]))
    return run


def test_first_and_last_steps_are_shown(tmp_path: Path) -> None:
    """Would catch texts under another step, more columns than fit a page, and a run without samples that ends it."""
    many, one = write(tmp_path / "many", list(range(0, 101, 10)), 5), write(tmp_path / "one", [0], 1)
    rows = sample_rows({"silent": tmp_path, "many": many, "one": one})
    assert [row.run for row in rows] == ["many"] * MAX_ROWS + ["one"]
    assert rows[1].texts == {step: f"1 at {step}\u2028" for step in (0, 30, 70, 100)}
    assert rows[-1].texts == {0: "0 at 0\u2028"} and rows[-1].reference == "r"
    assert rows[0].prompt == "… " + "0" * MAX_PROMPT


def test_a_file_without_lines(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("")
    assert sample_rows({"run": tmp_path}) == []


def test_prompts_that_changed_on_the_way(tmp_path: Path) -> None:
    """Would catch a text under the prompt of another one, and fewer prompts than before."""
    lines = [(0, "ab"), (10, "bc"), (20, "c")]
    documents = [
        {"step": step, "samples": [{"prompt": p, "text": f"{p}{step}", "reference": ""} for p in prompts]}
        for step, prompts in lines
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    (row,) = sample_rows({"run": tmp_path})
    assert (row.prompt, row.texts) == ("c", {10: "c10", 20: "c20"})
