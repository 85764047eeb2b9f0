"""The task: examples from graded answers, and scores of predicted grades."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from zlib import crc32

from pydantic import Field, model_validator

from cache.errors import InputError
from cache.examples.example import Example
from cache.json_documents import digest
from cache.progress import Progress
from student.tasks.html import definitions
from student.tasks.science_scoring.charts import answer_charts, comparison_charts
from student.tasks.science_scoring.data import (
    AnswerSplits,
    read_answers,
    require_grades,
    split_answers,
    synthetic_answers,
    withhold_grades,
)
from student.tasks.science_scoring.grades import ScaleName, grade_word, scale_words
from student.tasks.science_scoring.kappa import mean_qwk_of_questions, qwk
from student.tasks.science_scoring.prompts import make_example, plain
from student.tasks.science_scoring.readers import READERS, GradedAnswer
from student.tasks.task import Answer, Built, Chart, Panel, Task

Format = Literal["synthetic", "beetle_tsv", "semeval_xml", "mohler", "asap_sas"]


class ScienceScoring(Task):
    """Grade short answers to questions of science (`[task] name = "science_scoring"`).

    The splits are train, dev (a part of the training answers, chosen by hash), transfer (answers that nobody graded),
    and one test_NAME for each of `tests`.
    """

    build_keys: ClassVar[tuple[str, ...]] = (
        "format",
        "train",
        "tests",
        "dev_share",
        "graded",
        "transfer",
        "seed",
        "synthetic",
    )
    label_metrics: ClassVar[tuple[str, ...]] = ("qwk_of_questions",)

    name: Literal["science_scoring"] = Field("science_scoring", description="selects this task")
    format: Format = Field("synthetic", description="of the files; synthetic needs none")
    train: Path | None = Field(None, description="file or folder of graded answers")
    tests: dict[str, Path] = Field({}, description="further files by name, such as unseen_answers")
    scale: ScaleName = Field("5way", description="scale of the grades; a finer one of the data is made coarser")
    dev_share: float = Field(0.1, gt=0, lt=1, description="share of the training answers for early stopping")
    graded: int | None = Field(
        None, ge=10, description="use the grades of so many training answers; the others become transfer answers"
    )
    transfer: int = Field(0, ge=0, description="answers to make that nobody graded")
    seed: int = Field(0, ge=0, description="of the answers that are made")
    synthetic: int = Field(1000, ge=50, description="graded training answers that the synthetic format makes")

    def unused_keys(self) -> dict[str, str]:
        if self.format == "synthetic":
            return dict.fromkeys(("train", "tests"), 'format = "synthetic" reads no file')
        return {"synthetic": "only the synthetic format makes graded answers"}

    @model_validator(mode="after")
    def _scale_fits(self) -> Self:
        is_points = self.format in ("mohler", "asap_sas")
        # A job that only judges answers names no format.
        if "format" in self.model_fields_set and is_points != (self.scale == "points"):
            scales = '"points"' if is_points else '"5way", "3way" or "2way"'
            raise ValueError(f'format = "{self.format}" has grades of the scale {scales}; set task.scale to it')
        if wrong := [name for name in self.tests if not re.fullmatch(r"[A-Za-z0-9._-]+", name)]:
            raise ValueError(f"tests: {wrong[0]!r} becomes the name of a file; use letters, digits, '_', '-' and '.'")
        return self

    def build(self, progress: Progress) -> Built:
        """Read or make the answers, and divide them into splits. Raises InputError naming file and line of bad data."""
        if self.format != "synthetic" and self.train is None:
            raise InputError(f'task.format = "{self.format}" needs task.train, the file of the graded answers')
        if self.format == "synthetic":
            graded, tests = synthetic_answers(self.synthetic, self.seed)
        else:
            graded, tests = read_answers(READERS[self.format], self.train, self.tests)
            for answers in (graded, *tests.values()):  # also those whose grade is not used
                require_grades(answers, self.scale)
        splits = split_answers(withhold_grades(graded, self.graded), tests, self.dev_share, self.transfer, self.seed)
        examples = {name: self._examples(name, answers) for name, answers in splits.answers.items()}
        progress(1, 1)
        return Built(examples, {**_statistics(splits, examples), "left_out": splits.left_out})

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Score a predicted grade: whether it is right, and both grades as their places in the scale, the worst is 0.

        -1 is a text that is no grade, or an answer that nobody graded; neither is right. "question" is a number that
        stands for the question, "best" the place of its best grade, where its points are known.
        """
        if not {"question_id", "grade"} <= set(example.metadata):
            raise InputError(
                f"example {example.id}: its metadata has no 'question_id' and 'grade', so it is not an example of "
                "science_scoring; give the [task] that built the examples"
            )
        words = scale_words(self.scale)
        grade = str(example.metadata["grade"])
        true = words.index(grade_word(grade, self.scale)) if grade else -1
        predicted = _place(text, words)
        most = example.metadata.get("max_points")
        return {
            "right": float(true == predicted and true >= 0),
            "true": float(true),
            "predicted": float(predicted),
            "question": float(crc32(str(example.metadata["question_id"]).encode())),
            **({"best": float(most)} if self.scale == "points" and isinstance(most, int) else {}),
        }

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Share of texts that are a grade, and over the answers with a grade: accuracy, macro F1 and QWK.

        A text that is no grade counts as one more class, which is never right; for QWK, as the grade farthest
        from the true one. Points of several questions are scales of their own: for them there is also the mean QWK of
        the questions, and where an example does not say the best grade, it is the best true one.
        """
        from sklearn.metrics import f1_score

        graded = [score for score in scores if score["true"] >= 0]
        true, predicted = ([int(score[name]) for score in graded] for name in ("true", "predicted"))
        labels = sorted(set(true) | set(predicted) - {-1})
        is_points = self.scale == "points"  # all sets of points share ten words, of which a question has fewer
        best = None if is_points else len(scale_words(self.scale)) - 1
        by_question = {"qwk_of_questions": mean_qwk_of_questions(graded)} if is_points else {}
        return {
            "grades_written": sum(score["predicted"] >= 0 for score in scores) / max(len(scores), 1),
            "accuracy": sum(score["right"] for score in graded) / max(len(graded), 1),
            "macro_f1": float(f1_score(true, predicted, labels=labels, average="macro", zero_division=0))
            if graded
            else 0.0,
            "qwk": qwk(graded, best),
            **by_question,
        }

    def panel(self, example: Example, text: str) -> Panel | None:
        """Question, reference and answer with the true grade, and the predicted grade."""
        facts = example.metadata
        grade = facts["grade"] and grade_word(facts["grade"], self.scale)
        prompt = {"question": facts["question"], "reference": facts["reference"], "answer": facts["answer"]}
        wrong = frozenset({"grade"}) if grade and plain(text) != grade else frozenset[str]()
        caption = "nobody graded it" if not grade else "wrong" if wrong else "right"
        shown = {**{name: value for name, value in prompt.items() if value}, "true grade": grade or "none"}
        return Panel(definitions(shown), definitions({"grade": text}, wrong), caption)

    def charts(self, answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
        """Confusion matrices, reliability, and accuracy by question."""
        return answer_charts(answers, scale_words(self.scale))

    def comparisons(self, metrics: Mapping[str, Mapping[str, float]]) -> list[Chart]:
        """The claims of Latif et al. 2024 beside these models."""
        return comparison_charts(metrics)

    def _examples(self, split: str, answers: Sequence[GradedAnswer]) -> list[Example]:
        """Ordered by hash, so that the first lines of a file are a fair sample of it."""
        examples = [self._example(split, answer) for answer in answers]
        return sorted(examples, key=lambda example: digest(["order", example.id]))

    def _example(self, split: str, answer: GradedAnswer) -> Example:
        word = grade_word(answer.grade, self.scale) if answer.grade else ""
        return make_example(answer, self.scale, word, "transfer" if split == "transfer" else "graded")


def _statistics(splits: AnswerSplits, examples: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Of each split the questions, the answers by grade, and those that training has too; conflicts of grades."""
    return {
        "questions": {name: len({a.question_id for a in answers}) for name, answers in splits.answers.items()},
        "grades": {name: dict(Counter(e.label or "none" for e in each)) for name, each in examples.items()},
        "answers_also_in_train": splits.shared,
        "same_answer_with_other_grade": splits.conflicts,
    }


def _place(text: str, words: Sequence[str]) -> int:
    """The place of a text in the scale; -1 if it is none of its words. A final period is passed over."""
    word = plain(text).rstrip(".")
    return words.index(word) if word in words else -1
