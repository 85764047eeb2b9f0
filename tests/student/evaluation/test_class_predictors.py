"""A language model that answers with a label is evaluated as a classifier: its law, restricted to the labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.progress import no_progress
from student.classification.settings import ClassSettings
from student.evaluation.classifier import evaluate_classifier
from student.evaluation.heldout_examples import HeldoutExamples
from student.tasks.medical_conversation.task import MedicalConversation
from student.tasks.science_scoring.task import ScienceScoring

WORDS = ("one", "six", "left")
LABELS = {"one": ["one", "green"], "six": ["six"], "left": ["left"]}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "examples.jsonl"
    facts = {"question_id": "q", "question": "", "reference": "", "grade": "correct"}
    examples = [
        Example(
            str(i), ({"role": "user", "content": "say " + "red " * i},), response="one", label=WORDS[i % 3],
            metadata={**facts, "answer": str(i)},
        )
        for i in range(7)
    ]  # fmt: skip
    write_examples(
        path, [*examples, Example("none", examples[0].messages, response="one", metadata=examples[0].metadata)]
    )
    return path


def test_the_probabilities_are_those_of_the_models_own_law(tiny_model: Path, file: Path) -> None:
    """Prompts of several lengths, in batches and alone. Would catch padding that counts, or the wrong position."""
    settings = ClassSettings.model_validate({"labels": LABELS})
    result = evaluate_classifier(str(tiny_model), HeldoutExamples(path=str(file)), settings, no_progress)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    first = [[tokenizer("\n" + text)["input_ids"][1] for text in LABELS[word]] for word in WORDS]
    right = []
    for i in range(7):
        chat = [{"role": "user", "content": "say " + "red " * i}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            law = model(ids).logits[0, -1].softmax(-1)
        mass = np.array([float(law[list(set(tokens))].sum()) for tokens in first])
        right.append(int(mass.argmax()) == i % 3)
    assert result["accuracy"] == pytest.approx(np.mean(right)) and result["labelled"] == 7
    assert result["examples_left_out"] == 1 and "kl_to_teacher" not in result and result["ms_per_text"] > 0
    assert result["majority_accuracy"] == pytest.approx(3 / 7)
    assert result["left_out"] == {"no label": 1}


def test_a_task_judges_the_most_probable_class(tiny_model: Path, file: Path) -> None:
    labels = {"correct": ["one"], "contradictory": ["six"], "partial": ["left"]}
    settings = ClassSettings.model_validate({"labels": labels})
    heldout = HeldoutExamples(path=str(file))
    answers = evaluate_classifier(str(tiny_model), heldout, settings, no_progress, ScienceScoring())["answers"]
    assert len(answers) == 7 and {answer["text"] for answer in answers} <= set(labels)
    for answer in answers:
        assert answer["scores"]["right"] == (answer["text"] == "correct")
        assert 1 / 3 <= answer["scores"]["confidence"] <= 1


def test_points_of_several_questions_have_the_contests_metric_for_every_kind_of_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Would catch pooled QWK alone, which a model that knows no more than the question can raise."""
    labels = {"0": ["one"], "1": ["six"], "2": ["left"]}
    facts = {"question": "", "reference": "", "answer": ""}
    examples = [
        Example(
            str(i),
            ({"role": "user", "content": f"say {i}"},),
            response="one",
            label=str(i % 3),
            metadata={**facts, "question_id": f"q{i % 2}", "grade": str(i % 3)},
        )
        for i in range(12)
    ]
    write_examples(tmp_path / "points.jsonl", examples)
    heldout, task = HeldoutExamples(path=str(tmp_path / "points.jsonl")), ScienceScoring(scale="points")
    settings = ClassSettings.model_validate({"labels": labels})
    result = evaluate_classifier(str(tiny_model), heldout, settings, no_progress, task)
    whole = task.summarise([answer["scores"] for answer in result["answers"]])
    assert result["qwk_of_questions"] == pytest.approx(whole["qwk_of_questions"], nan_ok=True)
    assert result["qwk"] == pytest.approx(whole["qwk"], nan_ok=True)


def test_classes_without_an_order_have_no_qwk(tiny_model: Path, tmp_path: Path) -> None:
    """Would catch a QWK of the headers of notes, which depends on the order in which a job lists them."""
    facts = {"kind": "section", "section_text": "", "conversation": ""}
    examples = [
        Example(
            header, ({"role": "user", "content": header},), response="one", label=header,
            metadata={**facts, "header": header},
        )
        for header in ("CC", "ROS")
    ]  # fmt: skip
    write_examples(tmp_path / "headers.jsonl", examples)
    settings = ClassSettings.model_validate({"labels": {"CC": ["one"], "ROS": ["six"]}})
    heldout = HeldoutExamples(path=str(tmp_path / "headers.jsonl"))
    result = evaluate_classifier(str(tiny_model), heldout, settings, no_progress, MedicalConversation())
    assert "qwk" not in result and result["labelled"] == 2
    assert "qwk" in evaluate_classifier(str(tiny_model), heldout, settings, no_progress)


def test_a_label_inside_an_answer_needs_a_store(tiny_model: Path, file: Path) -> None:
    settings = ClassSettings.model_validate({"labels": LABELS, "at": "label"})
    with pytest.raises(InputError, match="is a place in a written answer"):
        evaluate_classifier(str(tiny_model), HeldoutExamples(path=str(file)), settings, no_progress)


def labelled_file(path: Path, labels: str) -> HeldoutExamples:
    chats = [({"role": "user", "content": f"say {i}"},) for i in range(len(labels))]
    write_examples(path, [Example(str(i), chats[i], response="one", label=label) for i, label in enumerate(labels)])
    return HeldoutExamples(path=str(path))


def test_labels_that_are_no_class_are_counted_and_most_of_them_are_an_error(tiny_model: Path, tmp_path: Path) -> None:
    """Would catch the figures of a network on the few examples of another scale whose labels it happens to know."""
    settings = ClassSettings.model_validate({"labels": {"a": ["one"], "b": ["six"]}})
    half = labelled_file(tmp_path / "half.jsonl", "abxy")
    result = evaluate_classifier(str(tiny_model), half, settings, no_progress)
    assert result["left_out"] == {"a label that is no class": 2} and result["labelled"] == 2
    most = labelled_file(tmp_path / "most.jsonl", "abxyx")
    message = r"model '.*': 3 of 5 examples of .*most.jsonl have .* classes \(a, b\): 'x' \(2\), 'y' \(1\); evaluate"
    with pytest.raises(InputError, match=message):
        evaluate_classifier(str(tiny_model), most, settings, no_progress)
    with pytest.raises(InputError, match=r"model '.*no example has .* labels a, one, b, six .*their labels: 'x' \(2\)"):
        evaluate_classifier(str(tiny_model), labelled_file(tmp_path / "all.jsonl", "xxy"), settings, no_progress)
