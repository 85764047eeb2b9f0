"""A task outside the packages works like one inside, and reading a job file loads no heavy library."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.examples.files.jsonl import read_examples
from cache.registry import PLUGINS_VARIABLE
from tests.models import SMALL_MOLECULES

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = '''
from typing import Literal
from cache.examples.example import Example
from student.tasks import Built, Task, TaskKind

class Sums(Task):
    """Add two numbers."""

    name: Literal["sums"] = "sums"
    largest: int = 3

    def build(self, progress):
        pairs = [(a, b) for a in range(self.largest) for b in range(self.largest)]
        examples = [
            Example(f"{a}+{b}", ({"role": "user", "content": f"{a}+{b}"},), "", str(a + b), metadata={"sum": a + b})
            for a, b in pairs
        ]
        progress(len(pairs), len(pairs))
        return Built({"train": examples[1:], "heldout": examples[:1]})

    def judge(self, example, text):
        return {"right": float(text.strip() == str(example.metadata["sum"]))}

    def summarise(self, scores):
        return {"accuracy": sum(score["right"] for score in scores) / len(scores)}

TASK = TaskKind("sums", Sums)
'''
JOB = 'output = "examples"\n[task]\nname = "sums"\nlargest = 4\n'
# Runs in a process of its own: the registry of this one has its tasks already.
RUN = """
import json, sys
from pathlib import Path
from cache.examples.files.jsonl import read_examples
from cluster.evaluation.task_examples import run_examples
from cluster.evaluation.settings import ExamplesSettings
from cluster.runtime.job_file import load_job
root = Path(sys.argv[1])
job = load_job(root / "job.toml", [], ExamplesSettings, root)
counts = run_examples(job)["examples"]
example = read_examples(root / "examples" / "train.jsonl")[-1]
scores = [job.task.judge(example, text) for text in (example.response, "no number")]
heavy = [name for name in ("rdkit", "torch", "ray") if name in sys.modules]
print(json.dumps([counts, scores, job.task.summarise(scores), job.task.panel(example, ""), heavy]))
"""


@pytest.fixture
def job_folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "sums_plugin.py").write_text(PLUGIN)
    (tmp_path / "job.toml").write_text(JOB)
    yield tmp_path


def test_a_task_in_a_plugin_builds_judges_and_summarises(job_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLUGINS_VARIABLE, "sums_plugin")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{job_folder}")
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(job_folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == (
        '[{"train": 15, "heldout": 1}, [{"right": 1.0}, {"right": 0.0}], {"accuracy": 0.5}, null, []]'
    )
    assert len(read_examples(job_folder / "examples" / "train.jsonl")) == 15
    assert '"largest": 4' in (job_folder / "examples" / "job.json").read_text()


def test_rdkit_is_loaded_when_molecules_are_read(tmp_path: Path) -> None:
    (tmp_path / "molecules.smi").write_text("\n".join(SMALL_MOLECULES))
    code = f"""
import sys
from cluster.evaluation.settings import ExamplesSettings
task = {{"name": "drug_editing", "molecules": {str(tmp_path / "molecules.smi")!r}}}
job = ExamplesSettings.model_validate({{"output": "o", "task": task}})
before = "rdkit" in sys.modules
job.task.build(lambda done, total: None)
print(before, "rdkit" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


def test_the_default_molecules_are_those_of_rdkit() -> None:
    from rdkit import RDConfig

    from student.tasks.drug_editing.molecules import nci_molecules

    assert nci_molecules() == Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    assert nci_molecules().is_file()
