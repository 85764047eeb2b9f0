"""Examples are correct, the split is by molecule, and the judge is strict."""

from pathlib import Path

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from student.tasks.drug_editing.instructions import INSTRUCTIONS
from student.tasks.drug_editing.molecules import parse_molecule, read_molecules
from student.tasks.drug_editing.task import DrugEditing, answer_molecule
from tests.models import SMALL_MOLECULES


@pytest.fixture
def task(tmp_path: Path) -> DrugEditing:
    path = tmp_path / "molecules.smi"
    path.write_text("\n".join([*(f"{s} name" for s in SMALL_MOLECULES), "CC.O salt", "not_a_molecule", ""]))
    return DrugEditing(molecules=path, similarity=0.2, heldout_share=0.3)


def test_every_example_is_a_strict_hit_by_its_own_judge(task: DrugEditing) -> None:
    splits = task.build(lambda done, total: None).splits
    assert splits["train"] and splits["heldout"]
    for example in [*splits["train"], *splits["heldout"]]:
        assert task.judge(example, example.rationale + example.response)["strict"] == 1


def test_no_heldout_molecule_is_in_any_training_pair(task: DrugEditing) -> None:
    splits = task.build(lambda done, total: None).splits
    seen = {example.metadata[end] for example in splits["train"] for end in ("source", "answer")}
    assert not seen & {example.metadata["source"] for example in splits["heldout"]}


def test_building_twice_gives_the_same(task: DrugEditing) -> None:
    assert task.build(lambda done, total: None) == task.build(lambda done, total: None)


@pytest.mark.parametrize(
    "answer, valid, loose, strict, copy",
    [
        ("LogP falls by 1.0.\nAnswer: OCCO", 1, 1, 1, 0),
        ("Answer: CCO", 1, 0, 0, 1),
        ("Answer: OCC", 1, 0, 0, 1),
        ("Answer: CCCCCC", 1, 0, 0, 0),
        ("Answer: C(C)(C)(C)(C)C", 0, 0, 0, 0),
        ("Answer: c1cccc1", 0, 0, 0, 0),
        ("Answer:", 0, 0, 0, 0),
        ("OCCO", 0, 0, 0, 0),
    ],
)
def test_verdicts(task: DrugEditing, answer: str, valid: int, loose: int, strict: int, copy: int) -> None:
    example = Example("1", (), metadata={"task": 101, "source": "CCO"})
    scores = task.judge(example, answer)
    expected = {"task": 101, "valid": valid, "loose": loose, "strict": strict, "copy": copy}
    assert {name: scores[name] for name in expected} == expected
    assert (scores["similarity"] > 0, scores["molecule"] > 0) == (bool(valid), bool(valid))
    assert not copy or scores["similarity"] == 1


def test_a_hit_is_strictly_past_the_threshold() -> None:
    before, after = parse_molecule("CCO"), parse_molecule("OCCO")
    assert before and after
    (acceptors,) = INSTRUCTIONS[107][1]
    assert after.properties["acceptors"] - before.properties["acceptors"] == 1
    assert acceptors.is_hit(before, after, strict=False)
    assert not acceptors.is_hit(before, after, strict=True)


def test_ratios_over_valid_and_over_all_differ(task: DrugEditing) -> None:
    example = Example("1", (), metadata={"task": 101, "source": "CCO"})
    scores = [task.judge(example, text) for text in ("Answer: OCCO", "Answer: CCCCCC", "no", "no")]
    summary = task.summarise(scores)
    assert (summary["validity"], summary["hit_ratio_all"], summary["hit_ratio_valid"]) == (0.5, 0.25, 0.5)


def test_answers_are_found_after_the_marker() -> None:
    assert answer_molecule("Answer:  OCC  and more") == parse_molecule("CCO")
    assert answer_molecule("nothing") is None


@pytest.mark.parametrize(
    "text",
    [
        "**Answer:** CCO",
        "Answer: **CCO**",
        "answer: `CCO`.",
        "ANSWER:\n```\nCCO\n```",
        "Answer: C\nNo, wait.\nAnswer: CCO",
        "### Answer: $\\text{CCO}$",
        "Answer: CCO (ethanol)",
        "<think>Answer: C</think>Answer: CCO.",
    ],
)
def test_a_molecule_is_found_as_models_write_it(text: str) -> None:
    assert answer_molecule(text) == parse_molecule("CCO")


@pytest.mark.parametrize(
    "text", ["Answer: *", "Answer: **", "Answer: *CCO", "Answer: CCO.Cl", "Answer: [Na+].[Cl-]", ""]
)
def test_dummy_atoms_and_salts_are_no_answers(text: str) -> None:
    assert answer_molecule(text) is None


def test_panels_are_drawn(task: DrugEditing) -> None:
    example = Example("1", (), metadata={"task": 101, "source": "CCO"})
    panel = task.panel(example, "Answer: OCCO")
    assert panel and "<svg" in panel.prompt and "<svg" in panel.answer and "strict hit" in panel.caption


def test_a_file_of_pairs_is_no_file_of_molecules(tmp_path: Path) -> None:
    """Would catch a second SMILES that is dropped as a name."""
    (tmp_path / "edits.txt").write_text("".join(f"{'C' * n}O {'C' * n}(=O)O\n" for n in range(2, 9)))
    with pytest.raises(InputError, match="7 lines have two SMILES"):
        read_molecules(tmp_path / "edits.txt", 40)
    (tmp_path / "named.smi").write_text("CCO 12\nCCCO NCI-7\nCCCCO CO\n")
    assert len(read_molecules(tmp_path / "named.smi", 40)[0]) == 3


def test_a_folder_in_the_place_of_a_file_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_molecules(tmp_path, 40)


def test_a_missing_molecules_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        DrugEditing(molecules=tmp_path / "none.smi").build(lambda done, total: None)
