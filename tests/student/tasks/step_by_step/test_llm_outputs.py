"""Published outputs of large models: where they end, what their labels are, and how many are right."""

from pathlib import Path

import pytest

from cache.errors import InputError
from student.tasks.step_by_step.datasets import DATA_SETS, read_split
from student.tasks.step_by_step.items import Explanation, Item, is_right
from student.tasks.step_by_step.llm_outputs import FORMS, add_outputs, bracketed, describe_explanations, parse_output
from tests.real_data import real_data
from tests.student.tasks.step_by_step.files import OUTPUTS, write_svamp


@pytest.mark.parametrize(
    "name, text, rationale, label",
    [
        ("svamp", OUTPUTS[0], "Ann has 5 - 2 = 3 pens.", "(5 - 2)"),
        ("svamp", "So 10 left. The answer is (12 - 2) - 7.\n\nQ: x", "So 10 left.", "(12 - 2) - 7"),
        ("svamp", "She has 9 apples in", "", ""),
        ("svamp", "", "", ""),
        ("cqa", "Cats sit. So the answer is (c) mat.\n\nQ: What?", "Cats sit.", "mat"),
        ("esnli", "He sleeps.\nAnswer: contradiction\n\nPremise: A dog", "He sleeps.", "contradiction"),
        ("esnli", "The Premise says so.\nAnswer: neutral\n\nPremise: next", "The Premise says so.", "neutral"),
        ("anli1", "It is not said. So the answer is neutral.\n\nPremise: B", "It is not said.", "neutral"),
        ("anli2", "It is not said. The answer is neutral.", "It is not said.", "neutral"),
    ],
)
def test_rationale_and_label_end_before_the_next_question(name: str, text: str, rationale: str, label: str) -> None:
    assert parse_output(text, FORMS[name]) == Explanation(rationale, label)


def test_brackets_lose_the_rest_of_an_equation() -> None:
    assert (
        bracketed("(12 - 2) - 7") == "(12 - 2)" and bracketed("((1) + (2)).") == "((1) + (2))" and bracketed("7") == ""
    )


@pytest.mark.parametrize("folder", ["llm", "palm"])
def test_outputs_belong_to_the_items_in_their_order(tmp_path: Path, folder: str) -> None:
    """Would catch files in the order of their names as text, and labels that are shifted by one."""
    write_svamp(tmp_path, folder=folder)
    items = read_split(DATA_SETS["svamp"], tmp_path, "train", "")
    explained = add_outputs(items, tmp_path, "svamp", "train", "palm")
    assert [item.explanations[0].label for item in explained] == ["(5 - 2)", "(3 + 4)", "(some - 2)"]
    facts = describe_explanations(explained)
    assert facts == {
        "items": 3,
        "explanations": 3,
        "rationale_parse_rate": 1.0,
        "label_accuracy": pytest.approx(1 / 3),
        "without_label": 0,
        "label_accuracy_as_published": pytest.approx(1 / 3),
        "malformed_labels": 1,
    }


def test_ten_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_svamp(tmp_path, outputs=[])
    folder = tmp_path / "svamp" / "llm"
    folder.mkdir()
    for number in range(11):
        (folder / f"train_CoT_{number}.json").write_text(f'["s {number}. The answer is ({number})."]')
    items = [Item(str(i), "q", "( 1 )", True) for i in range(12)]
    explained = add_outputs(items, tmp_path, "svamp", "train", "palm")
    assert [item.explanations[0].label if item.explanations else None for item in explained] == [
        *(f"({number})" for number in range(11)),
        None,
    ]


def test_a_gap_between_the_files_is_refused(tmp_path: Path) -> None:
    """Their texts belong to the items by their order alone."""
    write_svamp(tmp_path, outputs=OUTPUTS)
    items = read_split(DATA_SETS["svamp"], tmp_path, "train", "")
    folder = tmp_path / "svamp" / "llm"
    (folder / "train_CoT_1.json").rename(folder / "train_CoT_x.json")
    with pytest.raises(InputError, match=r"no file .*train_CoT_1\.json, but there is train_CoT_x\.json; "):
        add_outputs(items, tmp_path, "svamp", "train", "palm")
    (folder / "train_CoT_x.json").unlink()
    (folder / "train_CoT_0.json").rename(folder / "train_CoT_1.json")
    with pytest.raises(InputError, match=r"no file .*train_CoT_0\.json, but there is train_CoT_1\.json; "):
        add_outputs(items, tmp_path, "svamp", "train", "palm")


def test_outputs_of_other_files_are_refused(tmp_path: Path) -> None:
    write_svamp(tmp_path, outputs=[*OUTPUTS, "one more"])
    items = read_split(DATA_SETS["svamp"], tmp_path, "train", "")
    with pytest.raises(InputError, match=r"4 texts for 3 items"):
        add_outputs(items, tmp_path, "svamp", "train", "palm")
    (tmp_path / "svamp" / "llm" / "test_CoT_0.json").write_text('["a",\n3, "c"]')
    with pytest.raises(InputError, match=r"test_CoT_0\.json, line 2: '3' is not a text"):
        add_outputs(items, tmp_path, "svamp", "test", "palm")
    with pytest.raises(InputError, match=r"no file .*valid_CoT_0\.json"):
        add_outputs(items, tmp_path, "svamp", "valid", "palm")
    with pytest.raises(InputError, match=r"gpt-neox.svamp.train\.json: no such file"):
        add_outputs(items, tmp_path, "svamp", "train", "gpt")


@pytest.mark.parametrize(
    "label, truth, is_equation, right",
    [
        ("( 5 - 2 )", "( 5.0 - 2.0 )", True, True),
        ("3", "( 5.0 - 2.0 )", True, True),
        ("(29/2) and (30/2)", "( 30.0 / 2.0 )", True, False),  # Python's eval gives 15
        ("", "( 1 )", True, False),
        ("1 / 0", "1 / 0", True, False),
        ("Contradiction.", "contradiction", False, True),
        ("", "", False, False),
    ],
)
def test_equations_are_right_by_their_value(label: str, truth: str, is_equation: bool, right: bool) -> None:
    assert is_right(label, truth, is_equation) is right


def test_palm_s_rationales_of_svamp_have_the_published_accuracy() -> None:
    """74.0% (Hsieh et al. 2023), as their code reads the labels; with whole equations it is 77.5%."""
    data = real_data("svamp").parent
    items = add_outputs(read_split(DATA_SETS["svamp"], data, "test", ""), data, "svamp", "test", "palm")
    facts = describe_explanations(items)
    assert len(items) == 200 and facts["label_accuracy_as_published"] == 0.74
    assert facts["label_accuracy"] == 0.775 and facts["without_label"] == 2 and facts["malformed_labels"] == 5
