"""What the pages show works: job files are valid, and the plugin of extend.md registers itself."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs.generate.job_files import jobs

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {"capture": "capture", "heldout": "capture", "student": "train", "evaluate": "evaluate"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def job_files() -> list[tuple[str, str, str]]:
    """Page, command and text of every job file whose first line names it, such as "# student.toml"."""
    pages = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    return [
        (page, COMMANDS[name[1]], text)
        for page in pages
        for text in blocks(page, "toml")
        if (name := re.match(r"# (?:\S*/)?(\w+)\.toml", text)) and name[1] in COMMANDS
    ]


def test_pages_have_job_files() -> None:
    assert len(job_files()) >= 7


@pytest.mark.parametrize(("page", "command", "text"), job_files())
def test_a_job_file_on_a_page_is_valid(page: str, command: str, text: str) -> None:
    jobs()[command].model_validate(tomllib.loads(text))


def test_the_plugin_on_the_page_works(tmp_path: Path) -> None:
    [source] = [text for text in blocks("docs/extend.md", "python") if "TASK = " in text]
    (tmp_path / "additions.py").write_text(source)
    (tmp_path / "job.toml").write_text('output = "out"\n[task]\nname = "additions"\n')
    environment = {**os.environ, "LOGITBANK_PLUGINS": "additions", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "cluster.commands.main", "--root", str(tmp_path), "examples", "job.toml"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    lines = (tmp_path / "out" / "heldout.jsonl").read_text().splitlines()
    assert [json.loads(line)["response"] for line in lines[:2]] == ["0", "1"]
