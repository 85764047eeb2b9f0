"""Scores of answers, against values worked out by hand."""

import time
from typing import Any

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from student.tasks.step_by_step import TASK
from student.tasks.step_by_step.judging import count_steps, judge, label_of, reaches, summarise
from student.tasks.step_by_step.task import StepByStep

TRUTH = "( ( 12.0 - 2.0 ) - 7.0 )"


def example(task: str, rationale: str = "", truth: str = TRUTH, is_equation: bool = True) -> Example:
    metadata = {"item": "i", "task": task, "input": "How many?", "label": truth, "equation": is_equation}
    return Example("i", (), rationale=rationale, metadata=metadata, label=truth)


@pytest.mark.parametrize(
    "rationale, counts",
    [
        ("She had 12 - 2 = 10 left. 10 - 7 = 3.", (2, 2)),
        ("She had 12 - 2 = 11 left. (11 - 7) * 2 = 8.", (2, 1)),
        ("x = 5, so 5 = 5 and 2 / 4 = 0.5.", (1, 1)),
        ("So 3 * = 4 and 2 + 2 = four.", (1, 0)),
        ("1,000 - 200 = 800 and 900 + 100 = 1,000.", (2, 2)),
        ("", (0, 0)),
    ],
)
def test_steps_of_arithmetic_are_counted(rationale: str, counts: tuple[int, int]) -> None:
    assert count_steps(rationale) == counts


def test_endless_digits_take_no_time() -> None:
    """Would catch a pattern that tries every division of a run of digits: bad models write such runs."""
    started = time.monotonic()
    for text in ("3" * 5000, "3 " * 5000, "(" * 5000, "1 + " * 2000 + "="):
        count_steps(text)
        judge(example("question"), text)
    assert time.monotonic() - started < 60  # it would be centuries


@pytest.mark.parametrize(
    "text, label",
    [("( 1 + 2 )", "( 1 + 2 )"), ("She has 3. The answer is (1 + 2).", "(1 + 2)"), ("the answer is 3", "3"), ("", "")],
)
def test_a_label_is_the_whole_answer_or_what_follows_the_marker(text: str, label: str) -> None:
    assert label_of(text) == label


@pytest.mark.parametrize(
    "rationale, does", [("10 left, so 3 remain.", True), ("3 and then 10", False), ("", False), ("so 3.0.", True)]
)
def test_a_rationale_reaches_the_answer_with_its_last_number(rationale: str, does: bool) -> None:
    assert reaches(rationale, TRUTH) is does


@pytest.mark.parametrize(
    "rationale, value",
    [
        ("So he has -3", "-3"),
        ("-3", "-3"),
        ("5 - 8 = -3.", "-3"),
        ("x=-3", "-3"),
        ("it is (-3.0)", "-3"),
        ("That is 5-3", "3"),
        ("That is 5 -3", "3"),
        ("(4 + 1)-3", "3"),
        ("a range of 1.5-3", "3"),
        ("from the plan B-3", "3"),
    ],
)
def test_the_last_number_of_a_rationale_has_its_sign(rationale: str, value: str) -> None:
    """Would catch rationales that can never reach a negative answer, and subtractions that are taken for one."""
    other = value.removeprefix("-") if value.startswith("-") else f"-{value}"
    assert reaches(rationale, value) and not reaches(rationale, other)


def test_numbers_that_are_too_long_or_in_other_digits_are_no_value() -> None:
    """Would catch an evaluation that ends at the first answer of a bad model."""
    for text in ("7" * 150, "so \u0663"):
        assert judge(example("explain"), text)["reaches"] == 0
    assert reaches("So there are 1,000 apples.", "( 400.0 + 600.0 )")


def test_metrics_are_over_the_answers_of_their_task() -> None:
    """Would catch rationales that count as wrong labels, and labels as missing rationales."""
    answers = [
        (example("predict"), "( 12 - 9 )"),
        (example("predict"), "( 12 - 2 )"),
        (example("predict"), "( 12 - x )"),
        (example("predict"), ""),
        (example("explain", "12 - 2 = 10. 10 - 7 = 3."), "12 - 2 = 10. 10 - 7 = 3."),
        (example("explain"), "12 - 2 = 9."),
        (example("explain"), ""),
        (example("question"), "12 - 2 = 10. So 3 are left. The answer is (12 - 2) - 7."),
    ]
    scores = [judge(item, text) for item, text in answers]
    assert all(score.keys() == scores[0].keys() for score in scores)
    assert summarise(scores) == {
        "label_accuracy": pytest.approx(2 / 5),
        "malformed_labels": pytest.approx(2 / 5),
        "rationale_parse_rate": pytest.approx(3 / 4),
        "rationale_reaches_answer": pytest.approx(2 / 4),
        "rationale_steps_right": pytest.approx(3 / 4),
        "rationale_rouge_l": pytest.approx(1.0),
    }


def test_labels_that_are_no_equations_are_compared_as_texts() -> None:
    item = example("predict", truth="contradiction", is_equation=False)
    assert judge(item, " Contradiction. ")["right"] == 1 and judge(item, "neutral")["right"] == 0
    assert judge(item, "neutral")["malformed"] == 0 and judge(item, "")["malformed"] == 1


def test_an_example_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match="not an example of step_by_step"):
        judge(Example("x", ()), "1")


def test_panels_and_charts_show_rationale_beside_equation_and_value() -> None:
    task: Any = TASK.settings.model_validate(
        {"name": "step_by_step", "curves": {"standard": {"50": ["a"], "100": ["b"]}}}
    )
    assert isinstance(task, StepByStep)
    hit, miss = task.panel(example("predict"), "( 12 - 9 )"), task.panel(example("explain"), "12 < 2. 9 - 1 = 8.")
    assert hit is not None and "value" in hit.answer and hit.caption == "right"
    assert miss is not None and "12 &lt; 2" in miss.answer and miss.caption == "1 of 1 steps right"
    answers = [
        {
            "id": f"i-{task_name}",
            "text": text,
            "metadata": dict(example(task_name).metadata),
            "scores": judge(example(task_name), text),
        }
        for task_name, text in (("predict", "( 12 - 2 )"), ("explain", "12 - 2 = 11."))
    ]
    table, other, curve = task.charts({"a": answers, "b": answers})
    for text in ("12 - 2 = 11. [0 of 1 steps right]", "( 12 - 2 )", "10 (true: 3)", "wrong"):
        assert text in table.html, text
    assert other.caption.startswith("b:") and "<svg" in curve.html
