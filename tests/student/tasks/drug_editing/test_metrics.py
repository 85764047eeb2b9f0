"""Metrics of edited molecules against values worked out by hand."""

from pathlib import Path

import pytest

from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from student.tasks.drug_editing.charts import round_chart, task_table
from student.tasks.drug_editing.instructions import INSTRUCTIONS
from student.tasks.drug_editing.metrics import score_edit, scores_after_feedback, summarise_edits
from student.tasks.drug_editing.molecules import parse_molecule
from student.tasks.drug_editing.references import References
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


def test_molecules_of_the_training_examples_and_copies_are_not_novel(tmp_path: Path) -> None:
    """Would catch SMILES that are compared as text, and a model that copies its input and is called inventive."""
    prompt = ({"role": "user", "content": "edit"},)
    metadata = {"task": 101, "source": "CCCO", "answer": "OCCO"}
    write_examples(tmp_path / "train.jsonl", [Example("1", prompt, response="Answer: OCCO", metadata=metadata)])
    task = DrugEditing(references=tmp_path / "train.jsonl")
    example = Example("2", prompt, metadata={"task": 101, "source": "CCO"})
    novel = [task.judge(example, f"Answer: {smiles}")["novel"] for smiles in ("C(O)CO", "CCCO", "x", "OCC", "CCCCO")]
    assert novel == [0, 0, 0, 0, 1]


def test_hit_ratio_of_valid_chats_leaves_out_a_chat_with_an_invalid_answer() -> None:
    """As ChatDrug's code: of two chats that end with a hit, one had an invalid answer before it."""
    broken, hit, miss = scores(["x", "OCCO", "CCCCCC"])
    after = [scores_after_feedback(chat) for chat in ([broken, hit], [miss, hit], [miss, miss])]
    metrics = summarise_edits(after)
    assert metrics["hit_ratio_all"] == pytest.approx(2 / 3) and metrics["validity"] == 1
    assert metrics["hit_ratio_valid"] == pytest.approx(1 / 2)


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


@pytest.mark.parametrize(
    "before, after, number, strict",
    [
        ("Cc1cc(C)c(N)c(C)c1", "CN(C)c1ccc(C2(c3ccc(N(C)C)cc3)OC(=O)c3cc(N(C)C)ccc32)cc1", 106, 0),  # 26.02, 36.02
        ("O=C(O)c1ccc([N+](=O)[O-])cc1Cl", "O=c1ccc2cc(Cl)ccc2o1", 102, 0),  # 1.9464, 2.4464
        ("CCCCC(C(C)=O)C(C)=O", "CCOS(=O)(=O)c1ccccc1", 103, 1),  # a difference of little more than 0.1
    ],
)
def test_a_difference_of_the_threshold_is_a_miss_and_a_little_more_a_hit(
    before: str, after: str, number: int, strict: float
) -> None:
    """Would catch binary fractions, in which 36.02 - 26.02 is more than 10, and coarsely rounded properties."""
    first, second = parse_molecule(before), parse_molecule(after)
    assert second is not None and score_edit(first, second, number, None)["strict"] == strict
    nearest = References([second]).nearest(second, first, INSTRUCTIONS[number][1])  # type: ignore[arg-type]
    assert (nearest is not None) == bool(strict)


def test_a_loose_hit_stays_one_when_the_chat_goes_on() -> None:
    """ChatDrug's loose chat would have ended there. Would catch a hit ratio that falls with the rounds."""
    loose, invalid = scores(["OCC", "x"])
    assert loose["loose"] == 0
    loose["loose"] = 1.0
    after = scores_after_feedback([loose, invalid])
    assert (after["loose"], after["strict"], after["valid"]) == (1, 0, 0)
    assert DrugEditing().scores_after([loose, invalid]) == after


def test_a_refusal_is_no_molecule() -> None:
    """Would catch "I cannot" read as hydrogen iodide, which is less soluble than ethanol: a strict hit."""
    example = Example("1", ({"role": "user", "content": "edit"},), metadata={"task": 102, "source": "CCO"})
    assert DrugEditing().judge(example, "Answer: I cannot do that.")["valid"] == 0
    assert DrugEditing().judge(example, "Answer: I")["strict"] == 1
