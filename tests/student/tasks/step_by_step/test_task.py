"""What the task builds: the examples of each kind of student, shares of the items, and what is left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.progress import no_progress
from student.tasks.step_by_step.task import StepByStep
from student.tasks.task import Built
from tests.real_data import real_data
from tests.student.tasks.step_by_step.files import SVAMP, write_lines, write_svamp

TURNS = ({"role": "user", "content": "?"},)


def build(**settings: Any) -> Built:
    return StepByStep.model_validate({"name": "step_by_step", **settings}).build(no_progress)


def synthetic(**settings: Any) -> Built:
    return build(**{"llm": "own", "problems": (60, 10, 20), **settings})


def text(example: Example) -> tuple[str, str]:
    return str(example.messages[0]["content"]), example.rationale + example.response


def test_two_tasks_an_item_with_their_prefixes() -> None:
    splits = synthetic().splits
    assert {name: len(examples) for name, examples in splits.items()} == {
        "train": 120,
        "valid": 20,
        "test": 40,
        "test_labels": 20,
    }
    predict, explain = splits["train"][:2]
    question = predict.metadata["input"]
    assert text(predict) == (f"predict: {question}", predict.label) and predict.metadata["task"] == "predict"
    assert text(explain)[0] == f"explain: {question}" and explain.metadata["task"] == "explain"
    assert explain.rationale and not explain.response and explain.metadata["item"] == predict.metadata["item"]
    assert splits["test_labels"] == splits["test"][::2]


def test_other_kinds_of_students_and_a_teacher_have_other_examples() -> None:
    standard = synthetic(model_type="standard").splits["train"]
    chain = synthetic(model_type="chain").splits["train"]
    questions = synthetic(model_type="questions", llm=None).splits["train"]
    assert len(standard) == len(chain) == len(questions) == 60
    assert text(standard[0]) == (standard[0].metadata["input"], standard[0].label)
    prompt, answer = text(chain[0])
    assert prompt == standard[0].metadata["input"] and answer.endswith(f" The answer is {chain[0].label}.")
    assert text(questions[0]) == (prompt, "") and questions[0].label == chain[0].label


def test_a_smaller_share_is_a_part_of_a_larger_one_and_the_test_stays() -> None:
    """Would catch a curve over shares whose points differ by chance, and one that is measured on other items."""
    items = {
        share: [
            example.metadata["item"] for example in synthetic(subsample=share, model_type="standard").splits["train"]
        ]
        for share in (0.25, 0.5, 1.0)
    }
    assert [len(each) for each in items.values()] == [15, 30, 60]
    assert set(items[0.25]) < set(items[0.5]) < set(items[1.0])
    assert synthetic(subsample=0.25).splits["test"] == synthetic(subsample=1.0, problems=(600, 10, 20)).splits["test"]
    other = synthetic(subsample=0.25, model_type="standard", run=1).splits["train"]
    assert {example.metadata["item"] for example in other} != set(items[0.25])


def test_labels_of_the_llm_are_for_training_only_and_must_have_a_value(tmp_path: Path) -> None:
    write_svamp(tmp_path)
    built = build(dataset="svamp", data=tmp_path, llm="palm", label_type="llm")
    labels = {e.metadata["item"]: e.response for e in built.splits["train"] if e.metadata["task"] == "predict"}
    assert labels == {"svamp-train-0": "(5 - 2)", "svamp-train-1": "(3 + 4)"}
    assert built.facts["train"]["left_out"] == {"without a usable label of the LLM": 1}
    assert built.facts["test"]["llm"]["malformed_labels"] == 1
    assert [e.response for e in built.splits["test_labels"]] == [row["label"] for row in SVAMP]
    assert not built.splits["valid"]  # a tenth of three items


def test_a_rationale_without_a_usable_label_is_still_learned(tmp_path: Path) -> None:
    """As in the published code. Would catch an item that is dropped whole."""
    write_svamp(tmp_path, outputs=["So 3. The answer is (5 - 2).", "So 7. The answer is (3 +.", "no marker here"])
    built = build(dataset="svamp", data=tmp_path, llm="palm", label_type="llm")
    assert [e.id for e in built.splits["train"]] == [
        *("svamp-train-0-predict", "svamp-train-0-explain", "svamp-train-1-explain"),
    ]
    assert built.facts["train"]["left_out"] == {"without a usable label of the LLM": 2}


def test_a_rationale_keeps_the_label_that_was_written_with_it(tmp_path: Path) -> None:
    """Would catch the rationale of one answer with the label of another."""
    item = synthetic(model_type="standard").splits["train"][0].metadata["item"]
    texts = ["The answer is ( 9 - 5 ).", "9 + 5 = 14. The answer is ( 9 + 5 ).", "So 4. The answer is ( 9 - 5 )."]
    texts.append("Nothing of use. The answer is ( 9 - ).")
    path = captured(tmp_path / "answers.jsonl", [(item, "question", each) for each in texts])
    built = synthetic(llm="captured", answers=path, label_type="llm", model_type="chain")
    assert [(e.rationale.strip(), e.response) for e in built.splits["train"]] == [
        ("9 + 5 = 14.", "The answer is ( 9 + 5 )."),
        ("So 4.", "The answer is ( 9 - 5 )."),
    ]


def test_items_without_a_rationale_keep_their_label(tmp_path: Path) -> None:
    write_svamp(tmp_path, outputs=["no marker here", "So 7. The answer is (3 + 4).", ""])
    built = build(dataset="svamp", data=tmp_path, llm="palm")
    assert [e.id for e in built.splits["train"]] == [
        *("svamp-train-0-predict", "svamp-train-1-predict", "svamp-train-1-explain", "svamp-train-2-predict"),
    ]
    assert built.facts["train"]["left_out"] == {"without a rationale": 2}


def test_answers_of_asdiv_that_are_no_number_are_left_out_and_counted(tmp_path: Path) -> None:
    """Would catch labels that no answer can reach, and outputs that move to other items."""
    write_svamp(tmp_path)
    answers = ["1:2 (ratio)", "6 (apples)", "Ann"]
    rows = [{"Body": f"Body {answer}.", "Question": "?", "Answer": answer} for answer in answers]
    write_lines(tmp_path / "asdiv" / "asdiv_train.json", rows)
    texts = [f"So {number}. The answer is ({number})." for number in range(3)]
    (tmp_path / "asdiv" / "llm").mkdir()
    (tmp_path / "asdiv" / "llm" / "train_CoT_0.json").write_text(json.dumps(texts))
    built = build(dataset="asdiv", data=tmp_path, llm="palm")
    asdiv = {
        (e.metadata["item"], text(e)[1])
        for split in ("train", "valid")
        for e in built.splits[split]
        if e.metadata["item"].startswith("asdiv")
    }
    assert asdiv == {("asdiv-train-1", "6"), ("asdiv-train-1", "So 1.")}
    counts = [built.facts[split]["left_out"].get("whose true label has no value", 0) for split in ("train", "valid")]
    assert sum(counts) == 2 and built.facts["train"]["items"] + built.facts["valid"]["items"] == 4


def test_own_labels_are_true_with_and_without_a_rationale(tmp_path: Path) -> None:
    """Would catch an item that is thrown away, and true labels that are counted as mistakes of an LLM."""
    rows = [{"input": f"Question {i}?", "label": f"word {i}", "rationale": "Why." if i % 2 else ""} for i in range(4)]
    for split in ("train", "test"):
        write_lines(tmp_path / "generic" / f"generic_{split}.json", rows)
    built = build(dataset="generic", data=tmp_path, llm="own", label_type="llm")
    labels = [e.response for e in built.splits["train"] if e.metadata["task"] == "predict"]
    assert labels == [row["label"] for row in rows]
    assert built.facts["train"] == {"items": 4, "left_out": {"without a rationale": 2}}
    assert "llm" not in built.facts["test"]


def captured(path: Path, answers: list[tuple[str, str, str]]) -> Path:
    examples = [
        Example(f"{item}-{task}", TURNS, response=answer, metadata={"item": item, "task": task})
        for item, task, answer in answers
    ]
    write_examples(path, examples)
    return path


def test_answers_of_a_teacher_become_labels_and_rationales(tmp_path: Path) -> None:
    """Several rationales an item become several examples; would catch one that goes to another item."""
    problems = synthetic(model_type="standard").splits["train"]
    one, two, three = (example.metadata["item"] for example in problems[:3])
    answers = [
        *((one, "predict", "( 1 + 2 )"), (one, "explain", "Because 1."), (one, "explain", "Because 2.")),
        *((two, "question", "So it is 3. The answer is ( 4 - 1 )."), (two, "question", "no answer")),
        *((three, "predict", "( x )"), ("another", "predict", "5")),
    ]
    path = captured(tmp_path / "answers.jsonl", answers)
    built = synthetic(llm="captured", answers=path, label_type="llm")
    assert [(e.metadata["item"], e.metadata["task"], text(e)[1]) for e in built.splits["train"]] == [
        (one, "predict", "( 1 + 2 )"),
        (one, "explain", "Because 1."),
        (one, "explain", "Because 2."),
        (two, "predict", "( 4 - 1 )"),
        (two, "explain", "So it is 3."),
    ]
    assert built.facts["train"]["left_out"] == {
        "answers_to_other_items": 1,
        "without a usable label of the LLM": 58,
    }
    assert [e.rationale for e in built.splits["test"] if e.metadata["task"] == "explain"]  # those of the grammar
    assert "llm" in built.facts["train"] and "llm" not in built.facts["test"]


def test_answers_to_other_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of them is to one of the 60 items"):
        synthetic(llm="captured", answers=captured(tmp_path / "a.jsonl", [("other", "predict", "1")]))
    (tmp_path / "b.jsonl").write_text('{"prompt": "x", "response": "1"}\n')
    with pytest.raises(InputError, match=r"example 1 has no metadata 'item' and 'task'"):
        synthetic(llm="captured", answers=tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dataset": "svamp"}, "needs 'data'"),
        ({"llm": "captured"}, "belong together"),
        ({"answers": "a.jsonl"}, "belong together"),
        ({"llm": "palm"}, "no published outputs for synthetic"),
        ({"label_type": "llm"}, "needs 'llm'"),
        ({"subsample": 0}, "greater than 0"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StepByStep.model_validate({"name": "step_by_step", **settings})


def test_rationales_need_a_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give task\.llm"):
        build()
    write_lines(tmp_path / "generic" / "generic_train.json", [{"input": "a", "label": "b"}])
    with pytest.raises(InputError, match=r"generic_test\.json: no such file"):
        build(dataset="generic", data=tmp_path, llm="own")


@pytest.mark.parametrize(
    "settings, names",
    [
        ({}, []),
        ({"llm": "captured", "answers": Path("a.jsonl")}, ["a.jsonl"]),
        ({"dataset": "cqa", "data": Path("d")}, ["d/cqa"]),
        (
            {"dataset": "asdiv", "data": Path("d"), "llm": "gpt"},
            ["d/asdiv", "d/svamp", "d/gpt-neox/asdiv", "d/gpt-neox/svamp"],
        ),
    ],
)
def test_inputs_are_the_folders_that_are_read(settings: dict[str, Any], names: list[str]) -> None:
    task = StepByStep.model_validate({"name": "step_by_step", **settings})
    assert task.inputs() == [Path(name) for name in names]


def test_the_whole_of_svamp_is_accounted_for() -> None:
    """800 and 200 items: none is lost between the files and the examples."""
    built = build(dataset="svamp", data=real_data("svamp").parent, llm="palm", label_type="llm")
    counts = {split: built.facts[split]["items"] for split in ("train", "valid", "test")}
    assert counts == {"train": 720, "valid": 80, "test": 200}
    left_out = built.facts["train"]["left_out"]
    labels = sum(example.metadata["task"] == "predict" for example in built.splits["train"])
    assert labels + left_out["without a usable label of the LLM"] == 720
    assert json.dumps(built.facts)
    assert {example.metadata["label"] for example in built.splits["test"]} and all(
        e.rationale + e.response for e in built.splits["test"]
    )


def test_an_answer_that_the_capture_split_keeps_its_parts(tmp_path: Path) -> None:
    """Would catch a label that is looked for again, at a marker that the teacher was not asked for."""
    item = synthetic(model_type="standard").splits["train"][0].metadata["item"]
    metadata = {"item": item, "task": "question", "teacher_label": "( 1 + 2 )"}
    answer = Example("a", TURNS, rationale="So 3. ", response="Answer: ( 1 + 2 )", metadata=metadata)
    write_examples(tmp_path / "answers.jsonl", [answer])
    built = synthetic(llm="captured", answers=tmp_path / "answers.jsonl", label_type="llm")
    assert [text(e)[1] for e in built.splits["train"]] == ["( 1 + 2 )", "So 3."]
