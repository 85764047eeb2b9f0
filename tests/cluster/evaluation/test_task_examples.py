"""Examples are made once, and belong to the files that they were made of."""

import json
import os
from pathlib import Path

import pytest

from cluster.commands.main import main
from tests.student.tasks.step_by_step.files import write_svamp
from tests.student.training.ranks import TOPK, make_store

HEADER = "id\tquestion_id\tquestion\treference_answer\tstudent_answer\tlabel_5way\n"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    write_answers(tmp_path / "answers.tsv", 60)
    (tmp_path / "job.toml").write_text(
        'output = "out"\n[task]\nname = "science_scoring"\nformat = "beetle_tsv"\ntrain = "answers.tsv"\n'
    )
    return tmp_path / "job.toml"


def write_answers(path: Path, count: int) -> None:
    path.write_text(HEADER + "".join(f"a{i}\tQ1\tWhy?\tA gap\tanswer {i}\tcorrect\n" for i in range(count)))


def run(job: Path) -> int:
    return main(["--root", str(job.parent), "examples", str(job)])


def test_the_same_command_after_a_change_of_the_file_is_refused(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch the old examples of a file that was corrected since."""
    assert run(job) == 0 and run(job) == 0
    answers = job.parent / "answers.tsv"
    os.utime(answers, (1, 1))
    assert run(job) == 0, "another time and the same content is no change"
    write_answers(answers, 70)
    assert run(job) == 2
    assert "answers.tsv: changed since" in capsys.readouterr().err
    answers.unlink()
    assert run(job) == 0, "the examples are there, and their file is not needed any more"
    assert list(json.loads((job.parent / "out/examples.json").read_text())["inputs"]) == [str(answers)]


def test_no_training_example_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.txt").write_text("CCO CCCO\nCCCO CCO\n")
    (tmp_path / "job.toml").write_text(
        'output = "out"\n[task]\nname = "drug_editing"\npairs = "pairs.txt"\nheldout_share = 0.99\n'
    )
    assert run(tmp_path / "job.toml") == 2
    assert "no training example is left; left out: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_wrote_nothing_usable_leaves_an_empty_augmentation(tmp_path: Path, tiny_model: Path) -> None:
    """The demo of recipe dialogues then goes on without it."""
    make_store(tmp_path / "augmented", tiny_model, TOPK, 5)
    (tmp_path / "job.toml").write_text(
        'output = "out"\n[task]\nname = "recipe_dialogue"\nstage = "augmented"\naugmented = "augmented"\n'
        'retrieval = "bm25"\ntriad = false\ndialogues = 30\n'
    )
    assert run(tmp_path / "job.toml") == 0
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == b""


def test_a_file_beside_the_data_set_is_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a resume that is refused for a note or another data set, and the reading of all of them."""
    data = tmp_path / "datasets"
    write_svamp(data)
    (data / "notes.txt").write_text("first")
    job = tmp_path / "job.toml"
    job.write_text(
        'output = "out"\n[task]\nname = "step_by_step"\ndataset = "svamp"\ndata = "datasets"\nllm = "palm"\n'
    )
    assert run(job) == 0
    (data / "notes.txt").write_text("second")
    (data / "cqa").mkdir()
    assert run(job) == 0
    inputs = json.loads((tmp_path / "out/examples.json").read_text())["inputs"]
    assert {str(Path(each).relative_to(data).parent) for each in inputs} == {"svamp", "svamp/llm"}
    write_svamp(data, outputs=["So 3. The answer is (5 - 2)."])
    assert run(job) == 2
    assert "_CoT_0.json: changed since" in capsys.readouterr().err


def test_a_file_of_conversations_that_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a file that is no input because its setting may also name a store."""
    written, other = tmp_path / "written.jsonl", "What hurts?"
    (tmp_path / "job.toml").write_text(
        'output = "out"\n[task]\nname = "medical_conversation"\ndata = "conversations"\n'
        'conversations = "written.jsonl"\nexchanges = [1, 8]\nwords = [1, 100]\n'
    )
    for question, code in (("Where does it hurt?", 0), ("Where does it hurt?", 0), (other, 2)):
        conversation = f"Doctor: {question}\nPatient: My head."
        written.write_text(json.dumps({"instruction": "Extract.", "input": conversation, "output": ""}) + "\n")
        assert run(tmp_path / "job.toml") == code
    assert "written.jsonl: changed since" in capsys.readouterr().err
