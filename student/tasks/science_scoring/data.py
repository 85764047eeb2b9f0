"""Graded answers of a job, divided into splits. No answer of a test split is ever changed or learned from."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.errors import InputError
from student.tasks.science_scoring.grades import ScaleName, grade_word
from student.tasks.science_scoring.prompts import plain, unit_hash
from student.tasks.science_scoring.readers import GradedAnswer, Reader
from student.tasks.science_scoring.synthetic import make_answers, make_questions
from student.tasks.science_scoring.transfer import make_transfer
from student.tasks.text_scores import normalise

# Shares of the synthetic questions that no training answer is about, and sizes of the test splits beside training.
UNSEEN_QUESTIONS = 0.2
TEST_SHARE = 0.3

Answers = list[GradedAnswer]


@dataclass(frozen=True, slots=True)
class AnswerSplits:
    """answers: by split. shared: of each test split, the answers whose words training has too, graded or not.

    Case, punctuation and articles make no other words.

    conflicts: training answers whose question and words occur with another grade too. left_out: answers by reason.
    """

    answers: dict[str, Answers]
    shared: dict[str, int]
    conflicts: int
    left_out: dict[str, int]


def read_answers(reader: Reader, train: Path | None, tests: Mapping[str, Path]) -> tuple[Answers, dict[str, Answers]]:
    """Training answers and those of each test. Raises InputError naming file and line of an answer that is wrong."""
    assert train is not None
    training, others = reader(train), {name: reader(path) for name, path in tests.items()}
    for answers in (training, *others.values()):
        _require_different_ids(answers)
    _require_one_question([answer for answers in (training, *others.values()) for answer in answers])
    for answers in others.values():
        ungraded = next((answer for answer in answers if not answer.grade), None)
        if ungraded is not None:
            raise InputError(f"{ungraded.place}: an answer of a test needs a grade; give it one, or remove the line")
    if not any(answer.grade for answer in training):
        raise InputError(f"{train}: no answer has a grade; training needs some, in the column of the grades")
    return training, others


def require_grades(answers: Sequence[GradedAnswer], scale: ScaleName) -> None:
    """Raise InputError, naming file and line, for the first answer whose grade is none of the scale."""
    for answer in filter(lambda each: each.grade, answers):
        try:
            grade_word(answer.grade, scale)
        except ValueError as error:
            raise InputError(f"{answer.place}: {error}; correct it, or set task.scale") from error


def synthetic_answers(count: int, seed: int) -> tuple[Answers, dict[str, Answers]]:
    """`count` training answers, and tests of answers to the same questions and to others."""
    rng = random.Random(f"synthetic {seed}")
    questions = make_questions(rng)
    unseen = max(1, round(UNSEEN_QUESTIONS * len(questions)))
    tests = max(20, round(TEST_SHARE * count))
    return make_answers(questions[unseen:], count, rng, "train"), {
        "unseen_answers": make_answers(questions[unseen:], tests, rng, "unseen_answers"),
        "unseen_questions": make_answers(questions[:unseen], tests, rng, "unseen_questions"),
    }


def withhold_grades(answers: Sequence[GradedAnswer], count: int | None) -> Answers:
    """The answers, with the grades of all but `count` of them removed. Which ones are kept is decided by a hash.

    It is as if nobody had graded the others: their grades are in no example.
    """
    graded = sorted((answer for answer in answers if answer.grade), key=lambda a: unit_hash("graded", a.id))
    if count is None or count >= len(graded):
        return list(answers)
    kept = {answer.id for answer in graded[:count]}
    return [answer if answer.id in kept else replace(answer, grade="") for answer in answers]


def split_answers(
    graded: Sequence[GradedAnswer], tests: Mapping[str, Answers], dev_share: float, transfer: int, seed: int
) -> AnswerSplits:
    """Divide training answers into train and dev by a hash of question and words, so that equal answers stay together.

    Training answers without a grade, if the file has some, are transfer answers, beside `transfer` made ones.
    """
    splits: dict[str, Answers] = {"train": [], "dev": [], "transfer": []}
    for answer in graded:
        is_dev = unit_hash("dev", answer.question_id, plain(answer.answer)) < dev_share
        splits["transfer" if not answer.grade else "dev" if is_dev else "train"].append(answer)
    if not splits["train"] or not splits["dev"]:
        raise InputError(
            f"{sum(map(bool, (a.grade for a in graded)))} graded answers are too few to divide: {len(splits['train'])} "
            "to train on and "
            f"{len(splits['dev'])} for early stopping; give more, or another task.dev_share"
        )
    known = [*graded, *(answer for answers in tests.values() for answer in answers)]
    made = make_transfer(splits["train"], known, transfer, seed)
    splits["transfer"] += made
    if not splits["transfer"]:
        del splits["transfer"]
    train = {_words(answer) for answer in graded}
    return AnswerSplits(
        {**splits, **{f"test_{name}": list(answers) for name, answers in tests.items()}},
        {name: sum(_words(answer) in train for answer in answers) for name, answers in tests.items()},
        _conflicts(graded),
        {"transfer answers that could not be made": transfer - len(made)},
    )


def _key(answer: GradedAnswer) -> tuple[str, str]:
    return answer.question_id, plain(answer.answer)


def _words(answer: GradedAnswer) -> tuple[str, str]:
    return answer.question_id, normalise(answer.answer)


def _conflicts(answers: Sequence[GradedAnswer]) -> int:
    grades: dict[tuple[str, str], set[str]] = defaultdict(set)
    for answer in answers:
        grades[_key(answer)].add(answer.grade)
    return sum(len(grades[_key(answer)] - {""}) > 1 for answer in answers)


def _require_one_question(answers: Sequence[GradedAnswer]) -> None:
    """A question has one text: otherwise two questions have one id, and their answers would be counted together."""
    first: dict[str, GradedAnswer] = {}
    for answer in answers:
        other = first.setdefault(answer.question_id, answer)
        if plain(other.question) != plain(answer.question):
            if not (plain(other.question) and plain(answer.question)):
                without, other = (other, answer) if plain(answer.question) else (answer, other)
                raise InputError(
                    f"{without.place}: the question {without.question_id!r} has no text, but it has one in "
                    f"{other.place}; give it in all files, or in none"
                )
            raise InputError(
                f"{answer.place}: the question {answer.question_id!r} has another text in {other.place}; give each "
                "question an id of its own"
            )


def _require_different_ids(answers: Sequence[GradedAnswer]) -> None:
    places: dict[str, str] = {}
    for answer in answers:
        if (first := places.setdefault(answer.id, answer.place)) != answer.place:
            raise InputError(f"{answer.place}: the id {answer.id!r} is that of {first} too; give each answer its own")
