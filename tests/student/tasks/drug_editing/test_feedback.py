"""Feedback says what was wrong, names the nearest right molecule, and training chats have the same form."""

from collections import Counter
from pathlib import Path

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from student.tasks.drug_editing.building import Options, build_examples
from student.tasks.drug_editing.feedback import feedback_text
from student.tasks.drug_editing.instructions import INSTRUCTIONS, all_hit
from student.tasks.drug_editing.molecules import Molecule, parse_molecule, similarity
from student.tasks.drug_editing.pairs import pairs_of_molecules
from student.tasks.drug_editing.references import References
from student.tasks.drug_editing.task import DrugEditing
from tests.models import SMALL_MOLECULES


def molecule(smiles: str) -> Molecule:
    parsed = parse_molecule(smiles)
    assert parsed is not None
    return parsed


MOLECULES = [molecule(smiles) for smiles in SMALL_MOLECULES]


@pytest.mark.parametrize("number", [101, 102, 107, 206])
@pytest.mark.parametrize("source", ["CCO", "c1ccccc1N"])
def test_the_nearest_right_molecule_is_that_of_a_plain_search(number: int, source: str) -> None:
    before, changes = molecule(source), INSTRUCTIONS[number][1]
    query = molecule("CCCC")
    right = [m for m in MOLECULES if all_hit(changes, before, m, strict=True) and m.smiles != "OCCO"]
    found = References(MOLECULES).nearest(query, before, changes, {"OCCO"})
    if not right:
        assert found is None
    else:
        assert found is not None and found in right
        assert similarity(query, found) == max(similarity(query, m) for m in right)


def test_feedback_says_what_was_wrong() -> None:
    before, changes = molecule("CCO"), INSTRUCTIONS[206][1]
    assert feedback_text(before, None, changes, None) == "That is not a valid molecule.\nTry again."
    assert feedback_text(before, before, changes, None).startswith("That is the same molecule.")
    text = feedback_text(before, molecule("CCCCO"), changes, None)
    assert text == "LogP rises by 0.8, but must fall. TPSA stays the same, but must rise.\nTry again."
    counts = feedback_text(molecule("CCO"), molecule("OCCO"), INSTRUCTIONS[108][1], None)
    assert counts.startswith("donors rise by 1, which is too little.")


def test_a_strict_hit_gets_no_feedback_and_a_miss_gets_a_reference(tmp_path: Path) -> None:
    prompt = ({"role": "user", "content": "edit"},)
    pairs = [("CCCO", "OCCO"), ("CCO", "OCCCO")]
    examples = [
        Example(a, prompt, response=f"Answer: {b}", metadata={"task": 101, "source": a, "answer": b}) for a, b in pairs
    ]
    write_examples(tmp_path / "train.jsonl", examples)
    task = DrugEditing(references=tmp_path / "train.jsonl")
    example = Example("2", prompt, metadata={"task": 101, "source": "CCO"})
    assert task.feedback(example, "Answer: OCCO", 1) is None
    (turn,) = task.feedback(example, "Answer: CCCCC", 1) or [{}]
    assert turn["role"] == "user" and "A right one is OCCCO" in turn["content"]
    write_examples(tmp_path / "other.jsonl", [Example("1", prompt, response="x")])
    with pytest.raises(InputError, match=r"other\.jsonl: example 1 has no molecule 'source'.*training examples"):
        DrugEditing(references=tmp_path / "other.jsonl").feedback(example, "Answer: CCCCC", 1)


def test_chats_with_misses_are_misses_and_never_name_the_answer() -> None:
    """Would catch a wrong answer that is right, feedback that gives the answer away, and two equal misses."""
    pairs = pairs_of_molecules(MOLECULES, Counter(), 0.2, lambda done, total: None)
    built = build_examples(pairs, Options(0.1, None, 1.0, balanced=True, varied=True), lambda done, total: None)
    chats = built.splits["train"]
    assert len(chats) > 20 and {example.metadata["misses"] for example in chats} == {1, 2}
    for example in [*chats, *built.splits["replay"]]:
        changes = INSTRUCTIONS[example.metadata["task"]][1]
        before, answers = molecule(example.metadata["source"]), example.messages[1::2]
        assert len(answers) == example.metadata["misses"] and len({turn["content"] for turn in answers}) == len(answers)
        assert [turn["role"] for turn in example.messages] == ["user", *["assistant", "user"] * len(answers)]
        for wrong, feedback in zip(answers, example.messages[2::2], strict=True):
            after = parse_molecule(wrong["content"].split("Answer: ")[1])
            assert after is None or not all_hit(changes, before, after, strict=True)
            assert f" {example.metadata['answer']}\n" not in feedback["content"]
    assert not any(example.metadata.get("misses") for example in built.splits["heldout"])


def test_a_held_out_molecule_is_in_no_training_chat() -> None:
    """Would catch one that is shown as a wrong answer, with its properties in the feedback."""
    pairs = pairs_of_molecules(MOLECULES, Counter(), 0.2, lambda done, total: None)
    built = build_examples(pairs, Options(0.3, None, 1.0, balanced=True, varied=True), lambda done, total: None)
    heldout = {example.metadata["source"] for example in built.splits["benchmark"]}
    shown = {
        word
        for example in [*built.splits["train"], *built.splits["replay"]]
        for turn in example.messages
        for word in turn["content"].split()
    }
    assert heldout and not heldout & shown
