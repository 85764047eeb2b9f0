"""Metrics of edited molecules against values worked out by hand."""

from pathlib import Path

import pytest

from cache.examples.example import Example
from cache.examples.jsonl import write_examples
from student.tasks.drug_editing.charts import round_chart, task_table
from student.tasks.drug_editing.metrics import score_edit, summarise_edits
from student.tasks.drug_editing.molecules import parse_molecule
from student.tasks.drug_editing.task import DrugEditing


def scores(answers: list[str], known: frozenset[str] | None = None) -> list[dict[str, float]]:
    return [score_edit(parse_molecule("CCO"), parse_molecule(answer), 101, known) for answer in answers]


def test_every_metric_by_hand() -> None:
    """CCO made more soluble: OCCO is a hit (twice, in two spellings), CCO a copy, CCCCCC a miss, x no molecule.

    Count Morgan bits of radius 2. CCO has CH3 1, CH2 1, OH 1, and four larger environments in common with none of OCCO
    but those of its OH end: the similarity is computed here by RDKit's plain function on the two molecules.
    """
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    one, other = (generator.GetCountFingerprint(Chem.MolFromSmiles(smiles)) for smiles in ("CCO", "OCCO"))
    similarity = DataStructs.TanimotoSimilarity(one, other)
    summary = summarise_edits(scores(["OCCO", "C(CO)O", "CCO", "CCCCCC", "x"], frozenset({"CCO"})))
    assert 0 < similarity < 1
    assert summary == pytest.approx(
        {
            "validity": 4 / 5,
            "hit_ratio_all": 2 / 5,
            "hit_ratio_all_strict": 2 / 5,
            "hit_ratio_valid": 2 / 4,
            "hit_ratio_valid_strict": 2 / 4,
            "copies": 1 / 5,
            "uniqueness": 3 / 4,
            "hit_similarity": similarity,
            "novelty": 3 / 4,
        }
    )


def test_without_training_answers_there_is_no_novelty_and_without_hits_no_division() -> None:
    assert "novelty" not in summarise_edits(scores(["OCCO"]))
    assert set(summarise_edits(scores(["x", "x"])).values()) == {0.0}


def test_answers_of_the_training_examples_are_not_novel(tmp_path: Path) -> None:
    """Would catch SMILES that are compared as text, and sources taken for answers."""
    prompt = ({"role": "user", "content": "edit"},)
    metadata = {"task": 101, "source": "CCCO", "answer": "OCCO"}
    write_examples(tmp_path / "train.jsonl", [Example("1", prompt, response="Answer: OCCO", metadata=metadata)])
    task = DrugEditing(references=tmp_path / "train.jsonl")
    example = Example("2", prompt, metadata={"task": 101, "source": "CCO"})
    novel = [task.judge(example, f"Answer: {smiles}")["novel"] for smiles in ("C(O)CO", "CCCO", "x")]
    assert novel == [0, 1, 0]


def test_tables_pool_seeds_and_count_the_last_answer_of_each_round() -> None:
    first, second = scores(["CCCCCC", "OCCO"])
    miss = {"id": "1", "scores": first, "rounds": [{"scores": first}, {"scores": second}]}
    hit = {"id": "2", "scores": second}
    answers = {"kd_0": [miss, hit], "kd_1": [hit, hit], "teacher": [miss, miss]}
    table = task_table(answers).html
    assert "<th>kd</th><th>teacher</th>" in table and "0.75 / 0.75 (0.75 / 0.75), 4" in table
    assert "no prompt" in table, "of the other 13 instructions"
    chart = round_chart(answers)
    assert chart is not None and "<svg" in chart.html
    assert round_chart({"kd_0": [hit]}) is None
