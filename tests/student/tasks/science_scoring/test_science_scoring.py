"""Splits do not leak, grades collapse as the corpus says, and judging agrees with values worked out by hand."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.progress import no_progress
from student.tasks.science_scoring.charts import answer_charts, by_question, comparison_charts
from student.tasks.science_scoring.data import split_answers, withhold_grades
from student.tasks.science_scoring.grades import grade_word
from student.tasks.science_scoring.prompts import plain
from student.tasks.science_scoring.readers import GradedAnswer
from student.tasks.science_scoring.task import ScienceScoring
from student.tasks.science_scoring.transfer import make_transfer
from tests.student.tasks.science_scoring.answer_files import BEETLE, BEETLE_HEADER, MOHLER, text


def answer(number: int, words: str, grade: str = "correct", question: str = "Q1") -> GradedAnswer:
    return GradedAnswer(f"a{number}", question, "Why?", "a gap", words, grade, f"line {number}")


def graded(example: Example) -> tuple[str, str]:
    return str(example.metadata["question_id"]), plain(str(example.metadata["answer"]))


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Example]]:
    return ScienceScoring(synthetic=400, transfer=200).build(no_progress).splits


def test_no_text_is_in_two_splits(splits: dict[str, list[Example]]) -> None:
    """Would catch a development split by row, and made answers that repeat a test."""
    assert list(splits) == ["train", "dev", "transfer", "test_unseen_answers", "test_unseen_questions"]
    texts = {name: {graded(example) for example in examples} for name, examples in splits.items()}
    assert not texts["train"] & texts["dev"] and len(texts["dev"]) > 20
    assert not texts["transfer"] & set().union(*(each for name, each in texts.items() if name != "transfer"))
    questions = {name: {question for question, _ in each} for name, each in texts.items()}
    assert not questions["test_unseen_questions"] & (questions["train"] | questions["dev"] | questions["transfer"])
    assert questions["test_unseen_answers"] <= questions["train"] | questions["dev"]


def test_prompts_ask_for_one_word_and_do_not_contain_the_grade(splits: dict[str, list[Example]]) -> None:
    for example in splits["train"]:
        prompt = str(example.messages[-1]["content"])
        assert prompt == (
            f"Question: {example.metadata['question']}\nReference: {example.metadata['reference']}\n"
            f"Answer: {example.metadata['answer']}"
        )
        assert example.response == example.label in ("other", "irrelevant", "contradictory", "partial", "correct")
    for example in splits["transfer"]:
        assert not example.label and example.metadata["grade"] == "" and example.metadata["source"] == "transfer"
    assert Counter(e.label for e in splits["train"]).most_common(1)[0][0] == "correct"


def test_examples_are_the_same_each_time(splits: dict[str, list[Example]]) -> None:
    again = ScienceScoring(synthetic=400, transfer=200).build(no_progress).splits
    assert again == splits
    assert ScienceScoring(synthetic=400, transfer=200, seed=1).build(no_progress).splits["train"] != splits["train"]


def test_equal_answers_stay_on_one_side() -> None:
    answers = [answer(i, ["A gap", "a  gap", "open"][i % 3] + str(i // 3)) for i in range(300)]
    made = split_answers(answers, {}, 0.3, 0, 0).answers
    keys = {name: {plain(a.answer) for a in each} for name, each in made.items()}
    assert not keys["train"] & keys["dev"] and 0.15 < len(made["dev"]) / 300 < 0.45
    with pytest.raises(InputError, match="too few to divide: 0 to train on"):
        split_answers([answer(1, "a")], {}, 0.999, 0, 0)


def test_a_test_answer_with_another_comma_counts_as_one_of_training() -> None:
    training = [answer(number, f"words {number}") for number in range(40)]
    tests = {"new": [answer(100, "Words, 7."), answer(101, "words 41")]}
    assert split_answers(training, tests, 0.2, 0, 0).shared == {"new": 1}


def test_the_name_of_a_test_is_the_name_of_a_file() -> None:
    with pytest.raises(ValueError, match=r"tests: '../x' becomes the name of a file"):
        ScienceScoring(tests={"../x": Path("a.tsv")})


def test_withheld_grades_are_in_no_example(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(
        text([BEETLE_HEADER, *(f"a{i}\tQ1\tWhy?\tgap\tword{i}\tcorrect" for i in range(90))])
    )
    task = ScienceScoring(format="beetle_tsv", train=tmp_path / "t.tsv", graded=40, dev_share=0.25)
    made = task.build(no_progress).splits
    assert len(made["train"]) + len(made["dev"]) == 40 and len(made["transfer"]) == 50
    assert all("correct" not in str(e.metadata) and not e.label for e in made["transfer"])
    kept = {a.id for a in withhold_grades([answer(i, "x") for i in range(90)], 40) if a.grade}
    more = {a.id for a in withhold_grades([answer(i, "x") for i in range(90)], 60) if a.grade}
    assert kept < more, "with more grades, those of before stay"


def test_a_test_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    """Would catch a test named train that takes the place of the training answers."""
    lines = [f"a{i}\tQ1\tWhy?\tA gap\tanswer {i}\tcorrect" for i in range(60)]
    (tmp_path / "train.tsv").write_text(text([BEETLE_HEADER, *lines]))
    (tmp_path / "test.tsv").write_text(text([BEETLE_HEADER, "t1\tQ1\tWhy?\tA gap\tof the test\tcorrect"]))
    tests = dict.fromkeys(("train", "dev"), tmp_path / "test.tsv")
    built = ScienceScoring(format="beetle_tsv", train=tmp_path / "train.tsv", tests=tests, dev_share=0.2)
    splits = built.build(no_progress).splits
    assert len(splits["train"]) + len(splits["dev"]) == 60
    assert [len(splits[f"test_{name}"]) for name in tests] == [1, 1]


def test_grades_that_are_withheld_are_checked_too_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [f"a{i}\tQ1\tWhy?\tA gap\tanswer {i}\t{'right' if i > 30 else 'correct'}" for i in range(60)]
    (tmp_path / "train.tsv").write_text(text([BEETLE_HEADER, *lines]))
    task = ScienceScoring(format="beetle_tsv", train=tmp_path / "train.tsv", graded=20)
    with pytest.raises(InputError, match=r"train.tsv, line 33: 'right' is not a grade of the scale 5way"):
        task.build(no_progress)


def test_one_question_has_one_text(tmp_path: Path) -> None:
    lines = ["a1\tQ1\tWhy?\tA gap\tx\tcorrect", "a2\tQ1\tHow?\tA gap\ty\tcorrect"]
    (tmp_path / "train.tsv").write_text(text([BEETLE_HEADER, *lines]))
    with pytest.raises(InputError, match=r"line 3: the question 'Q1' has another text in .*line 2"):
        ScienceScoring(format="beetle_tsv", train=tmp_path / "train.tsv").build(no_progress)


def test_a_file_without_the_questions_of_another_one_is_named(tmp_path: Path) -> None:
    """Would catch advice to rename the questions of ASAP-SAS, where a folder lacks their table."""
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tsv").write_text(text(["Id\tEssaySet\tScore1\tEssayText", "1\t3\t1\tA gap"]))
    (tmp_path / "train" / "prompts.tsv").write_text(text(["EssaySet\tQuestion", "3\tWhy?"]))
    task = ScienceScoring(
        format="asap_sas", scale="points", train=tmp_path / "train/a.tsv", tests={"t": tmp_path / "test/a.tsv"}
    )
    with pytest.raises(
        InputError, match=r"test/a.tsv, line 2: the question '3' has no text, but .*train/a.tsv, line 2"
    ):
        task.build(no_progress)


def test_one_question_has_one_text_in_all_files_of_a_job(tmp_path: Path) -> None:
    """Would catch two questions that are counted as one, because each file numbers its own."""
    for name, question in (("train", "Why?"), ("test", "How?")):
        (tmp_path / f"{name}.tsv").write_text(text([BEETLE_HEADER, f"{name}\tQ1\t{question}\tA gap\tx\tcorrect"]))
    task = ScienceScoring(format="beetle_tsv", train=tmp_path / "train.tsv", tests={"t": tmp_path / "test.tsv"})
    with pytest.raises(
        InputError, match=r"test.tsv, line 2: the question 'Q1' has another text in .*train.tsv, line 2"
    ):
        task.build(no_progress)


def test_transfer_answers_are_new_and_of_the_same_questions() -> None:
    answers = [answer(i, f"the bulb number {i} is in a path", question=f"Q{i % 3}") for i in range(12)]
    known = [*answers, answer(99, "bulb number 1 is in a path", question="Q1")]
    made = make_transfer(answers, known, 100, 0)
    keys = [(a.question_id, plain(a.answer)) for a in made]
    assert len(made) == len(set(keys)) == 100 and not set(keys) & {(a.question_id, plain(a.answer)) for a in known}
    assert {a.question_id for a in made} == {"Q0", "Q1", "Q2"} and not any(a.grade for a in made)
    assert make_transfer([answer(0, "")], [], 5, 0) == []


@pytest.mark.parametrize(
    ("grade", "scale", "word"),
    [
        ("partially_correct_incomplete", "5way", "partial"),
        ("partially_correct_incomplete", "3way", "incorrect"),
        ("irrelevant", "3way", "incorrect"),
        ("contradictory", "3way", "contradictory"),
        ("contradictory", "2way", "incorrect"),
        ("incorrect", "2way", "incorrect"),
        ("non_domain", "2way", "incorrect"),
        ("correct", "2way", "correct"),
        ("5", "points", "5"),
    ],
)
def test_finer_grades_collapse(grade: str, scale: Any, word: str) -> None:
    assert grade_word(grade, scale) == word


def test_a_grade_of_another_scale_ends_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(text([*BEETLE, BEETLE[1].replace("a1", "a9").replace("correct", "incorrect")]))
    with pytest.raises(InputError, match=r"t.tsv, line 5: 'incorrect' is not a grade of the scale 5way"):
        ScienceScoring(format="beetle_tsv", train=path, dev_share=0.5).build(no_progress)
    path.write_text(text([*BEETLE, BEETLE[1]]))
    with pytest.raises(InputError, match=r"t.tsv, line 5: the id 'a1' is that of .*t.tsv, line 2 too"):
        ScienceScoring(format="beetle_tsv", train=path).build(no_progress)
    with pytest.raises(ValueError, match=r"set task.scale to it"):
        ScienceScoring(format="mohler", train=path)
    path.write_text(text(MOHLER * 1))
    points = ScienceScoring(format="mohler", scale="points", train=path, dev_share=0.5).build(no_progress)
    assert {e.label for each in points.splits.values() for e in each} == {"4", "5", "1", "2"}


def example(grade: str) -> Example:
    facts = {"question_id": "Q1", "question": "<Why>?", "reference": "", "answer": "a & b", "grade": grade}
    return Example("1", (), metadata=facts)


def test_judging_by_hand() -> None:
    task = ScienceScoring()

    def judged(grade: str, text: str) -> tuple[float, ...]:
        scores = task.judge(example(grade), text)
        return scores["right"], scores["true"], scores["predicted"]

    assert judged("correct", "Correct.") == (1, 4, 4)
    assert judged("non_domain", "partial") == (0, 0, 3)
    assert judged("correct", "very good")[2] == -1
    assert judged("", "correct") == (0, -1, 4)
    assert ScienceScoring(scale="3way").judge(example("irrelevant"), "incorrect")["right"] == 1
    with pytest.raises(InputError, match="not an example of science_scoring"):
        task.judge(Example("1", ()), "correct")


def test_metrics_by_hand() -> None:
    """True 2, 2, 4, 4; predicted 2, 4, 4 and no grade. F1 of class 2: 2/3; of class 4: 2 / (2 + 1 + 1) = 1/2.

    QWK: no grade counts as 0, the farthest from 4. Observed: (0 + 4 + 0 + 16) / 4 = 5. By chance the predictions are
    0, 2, 4, 4 beside each true grade: ((4 + 0 + 4 + 4) + (16 + 4 + 0 + 0)) / 8 = 4.
    """
    pairs = [(2, 2), (2, 4), (4, 4), (4, -1)]
    scores = [{"right": float(t == p), "true": float(t), "predicted": float(p)} for t, p in pairs]
    metrics = ScienceScoring().summarise([*scores, {"right": 0.0, "true": -1.0, "predicted": 0.0}])
    assert metrics["accuracy"] == 0.5 and metrics["grades_written"] == 0.8
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["qwk"] == pytest.approx(1 - 5 / 4)


def test_silence_does_not_raise_qwk() -> None:
    """Would catch a model that answers one tenth of the questions, all right, and has a QWK of 1."""
    said = [{"right": 1.0, "true": float(i % 5), "predicted": float(i % 5)} for i in range(10)]
    silent = [{"right": 0.0, "true": float(i % 5), "predicted": -1.0} for i in range(90)]
    assert ScienceScoring().summarise(said)["qwk"] == 1 and ScienceScoring().summarise(said + silent)["qwk"] < 0


def test_points_have_the_mean_qwk_of_their_questions_too() -> None:
    """Question 1: all right; cut at 0.999. Question 2: opposite, so -1; cut too. Question 3: one grade, undefined.

    Pooled, the first two are 1 - 0.5 / 0.5 = 0.
    """
    triples = [(1, 0, 0), (1, 1, 1), (2, 0, 1), (2, 1, 0), (3, 1, 1)]
    scores = [{"right": 0.0, "true": float(t), "predicted": float(p), "question": float(q)} for q, t, p in triples]
    assert ScienceScoring(scale="points").summarise(scores[:4])["qwk"] == pytest.approx(0)
    assert ScienceScoring(scale="points").summarise(scores)["qwk_of_questions"] == pytest.approx(0, abs=1e-12)
    assert ScienceScoring(scale="points").summarise(scores[:2])["qwk_of_questions"] == pytest.approx(0.999)
    assert "qwk_of_questions" not in ScienceScoring().summarise(scores)


def silent_once(most: int | None) -> list[dict[str, float]]:
    """Scores of 20 answers with 0 to 3 points: 19 are right, and to one with 3 points the text is no grade."""
    task = ScienceScoring(scale="points")
    known = {} if most is None else {"max_points": most}
    facts = {"question_id": "Q", "question": "", "reference": "", "answer": "", **known}
    trues = [str(i % 4) for i in range(20)]
    texts = [*trues[:-1], "silence"]
    return [task.judge(Example("1", (), metadata={**facts, "grade": g}), t) for g, t in zip(trues, texts, strict=True)]


@pytest.mark.parametrize("most", [3, None])
def test_a_text_that_is_no_grade_counts_as_one_of_the_question(most: int | None) -> None:
    """Would catch silence that counts as 9 points, a grade that the question does not have.

    To a true 0 or 1, silence is 3; to a true 2 or 3, it is 0. Below, one 3 of 20 answers counts as 0.
    """
    from sklearn.metrics import cohen_kappa_score

    trues = [i % 4 for i in range(20)]
    expected = cohen_kappa_score(trues, [*trues[:-1], 0], weights="quadratic")
    metrics = ScienceScoring(scale="points").summarise(silent_once(most))
    assert metrics["qwk"] == pytest.approx(expected) and metrics["qwk_of_questions"] == pytest.approx(expected)


def test_a_grade_above_the_scale_of_its_question_is_no_grade() -> None:
    """Would catch "9 points" of 3 that costs more than silence."""
    scores = [
        {"right": 1.0, "true": float(i % 4), "predicted": float(i % 4), "question": 1.0, "best": 3.0} for i in range(20)
    ]
    found = [
        ScienceScoring(scale="points").summarise([*scores, {**scores[0], "predicted": said}])["qwk"]
        for said in (-1.0, 4.0, 9.0)
    ]
    assert found[0] == found[1] == found[2] < 1


def test_each_question_has_its_own_best_grade() -> None:
    """Silence to a true 2 of 2 points counts as 0, and to a true 2 of 5 points as 5."""
    from sklearn.metrics import cohen_kappa_score

    scores = [{"right": 1.0, "true": float(t), "predicted": float(t), "question": 1.0, "best": 2.0} for t in (0, 1)]
    silent = {"right": 0.0, "true": 2.0, "predicted": -1.0, "question": 1.0}
    for best, place in ((2.0, 0), (5.0, 5)):
        metrics = ScienceScoring(scale="points").summarise([*scores, {**silent, "best": best}])
        assert metrics["qwk"] == pytest.approx(
            cohen_kappa_score([0, 1, 2], [0, 1, place], labels=range(6), weights="quadratic")
        )


def given(task: ScienceScoring, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(i),
            "text": predicted,
            "scores": {**task.judge(example(true), predicted), "confidence": 0.9},
            "metadata": {"question_id": f"Q{i % 2}"},
        }
        for i, (true, predicted) in enumerate(pairs)
    ]


def test_what_a_report_shows_is_escaped_and_counted() -> None:
    task = ScienceScoring()
    panel = task.panel(example("correct"), "partial")
    assert panel and "&lt;Why&gt;" in panel.prompt and "a &amp; b" in panel.prompt and "class=wrong" in panel.answer
    assert panel.caption == "wrong" and task.panel(example("correct"), "correct").caption == "right"  # type: ignore[union-attr]
    answers = {"kd": given(task, [("correct", "correct"), ("correct", "partial"), ("contradictory", "correct")])}
    charts = task.charts(answers)
    assert [chart.caption.split(":")[0] for chart in charts] == [
        "Confusion matrix",
        "Reliability",
        "Accuracy by question",
    ]
    assert "<td>Q0</td><td>2</td><td>0.50</td>" in by_question(answers)
    assert answer_charts({}, ["correct"]) == []


def test_ratios_beside_the_published_claims() -> None:
    means = {
        "kd": {"parameters": 25_000.0, "ms_per_text": 0.5, "accuracy": 0.6},
        "ce": {"parameters": 25_000.0, "ms_per_text": 0.5, "accuracy": 0.575},
        "teacher": {"parameters": 100_000_000.0, "ms_per_text": 100.0, "accuracy": 0.65},
    }
    (chart,) = comparison_charts(means)
    assert "<td>4,000 x fewer</td><td>4,000 x fewer</td>" in chart.html and "200.0 x faster" in chart.html
    assert "<td>+3%</td><td>+2.5 points</td>" in chart.html and "encoder" not in chart.html
    assert comparison_charts({"teacher": means["teacher"]}) == []


def test_a_report_of_an_evaluation_without_times_or_grades_has_the_other_ratios() -> None:
    """A language model that writes grades has no time a text, and ungraded texts give no accuracy."""
    (chart,) = comparison_charts({"kd": {"parameters": 10.0}, "teacher": {"parameters": 50.0, "accuracy": 0.5}})
    assert "5 x fewer" in chart.html and "time" not in chart.html and "points" not in chart.html


def test_reliability_is_of_graded_answers_and_texts_without_a_grade_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Would catch answers that nobody graded counted as wrong ones."""
    drawn: list[Any] = []

    def curves(lines: Any, *labels: str) -> str:
        drawn.append(lines)
        return "<svg></svg>"

    monkeypatch.setattr("student.tasks.figures.curves", curves)
    facts = {"question_id": "q"}
    graded = {"true": 1.0, "predicted": 1.0, "right": 1.0, "confidence": 0.9}
    ungraded = {"true": -1.0, "predicted": 1.0, "right": 0.0, "confidence": 0.95}
    unreadable = {"true": 1.0, "predicted": -1.0, "right": 0.0}
    answers = [{"id": "a", "text": "", "scores": each, "metadata": facts} for each in (graded, ungraded, unreadable)]
    charts = answer_charts({"kd": answers}, ["incorrect", "correct"])
    assert charts[0].caption == "Confusion matrix: kd; beside it 1 text that is no grade"
    assert drawn[0]["kd"] == ([0.9], [1.0])
