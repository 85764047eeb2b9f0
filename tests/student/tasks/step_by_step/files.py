"""Small data sets in the published layout."""

import json
from pathlib import Path
from typing import Any

SVAMP = [
    {"input": "Ann had 5 pens and lost 2.\nHow many are left?", "label": "( 5.0 - 2.0 )"},
    {"input": "There are 3 boxes of 4 eggs.\nHow many eggs are there?", "label": "( 3.0 * 4.0 )"},
    {"input": "Naïve Zoë has 8 plums for 2 friends – how many each?", "label": "( 8.0 \\/ 2.0 )".replace("\\", "")},
]
# The model invents the next question, which may contain an answer too.
OUTPUTS = [
    "Ann has 5 - 2 = 3 pens. The answer is (5 - 2).\n\nQ: Ben has 2 cats.\nA: So 2. The answer is (2 + 2",
    "There are 3 + 4 = 7 eggs. The answer is (3 + 4).\n\nQ: There are",
    "Each has some plums. The answer is (some - 2).",
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_svamp(data: Path, outputs: list[str] | None = None, folder: str = "llm") -> None:
    """Three items a split, with outputs in two files for training and one for the test."""
    for split in ("train", "test"):
        write_lines(data / "svamp" / f"svamp_{split}.json", SVAMP)
    texts = OUTPUTS if outputs is None else outputs
    files = {"train_CoT_0": texts[:2], "train_CoT_1": texts[2:], "test_CoT_0": texts}
    for name, part in files.items():
        if part:
            path = data / "svamp" / folder / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(part))
