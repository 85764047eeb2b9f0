"""Answers that nobody graded, made from graded ones, for the teacher to grade: where a student learns more than labels.

Four changes, each as often: two answers to a question joined at a word of each, one word replaced by another of the
answers to the same question, one word left out, the answer given to another question. What a change does to the grade
is not known here; the teacher's distribution says it.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from student.tasks.science_scoring.prompts import plain
from student.tasks.science_scoring.readers import GradedAnswer

MAX_TRIES = 20


def make_transfer(
    answers: Sequence[GradedAnswer], known: Sequence[GradedAnswer], count: int, seed: int
) -> list[GradedAnswer]:
    """At most `count` different answers without a grade, made from `answers` alone.

    known: answers that must not be made again, such as those of the test splits. Fewer than `count` come back if
    MAX_TRIES tries for each find no more.
    """
    rng = random.Random(f"transfer {seed}")
    by_question: dict[str, list[GradedAnswer]] = defaultdict(list)
    for answer in answers:
        if answer.answer.split():
            by_question[answer.question_id].append(answer)
    taken = {(answer.question_id, plain(answer.answer)) for answer in known}
    sources = [answer for group in by_question.values() for answer in group]
    made: list[GradedAnswer] = []
    for _ in range(MAX_TRIES * count if sources else 0):
        if len(made) == count:
            break
        source = rng.choice(sources)
        question, text = rng.choice(CHANGES)(source, by_question, rng)
        key = question.question_id, plain(text)
        if text and key not in taken:
            taken.add(key)
            made.append(replace(question, id=f"transfer-{len(made)}", answer=text, grade="", place=f"from {source.id}"))
    return made


Groups = dict[str, list[GradedAnswer]]


def _join(source: GradedAnswer, groups: Groups, rng: random.Random) -> tuple[GradedAnswer, str]:
    first, second = source.answer.split(), rng.choice(groups[source.question_id]).answer.split()
    return source, " ".join(first[: rng.randint(1, len(first))] + second[rng.randrange(len(second)) :])


def _replace(source: GradedAnswer, groups: Groups, rng: random.Random) -> tuple[GradedAnswer, str]:
    words = source.answer.split()
    words[rng.randrange(len(words))] = rng.choice(rng.choice(groups[source.question_id]).answer.split())
    return source, " ".join(words)


def _leave_out(source: GradedAnswer, groups: Groups, rng: random.Random) -> tuple[GradedAnswer, str]:
    words = source.answer.split()
    del words[rng.randrange(len(words))]
    return source, " ".join(words)


def _move(source: GradedAnswer, groups: Groups, rng: random.Random) -> tuple[GradedAnswer, str]:
    return groups[rng.choice(list(groups))][0], source.answer


CHANGES = (_join, _replace, _leave_out, _move)
