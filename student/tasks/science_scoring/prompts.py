"""A graded answer as an example: a prompt, one word as the response, and what a small student reads in the metadata."""

from cache.examples.example import Example
from cache.json_documents import digest
from student.tasks.science_scoring.grades import INSTRUCTIONS, ScaleName
from student.tasks.science_scoring.readers import GradedAnswer

# Metadata keys with the texts; [classes] fields names them.
FIELDS = ("question", "reference", "answer")


def make_example(answer: GradedAnswer, scale: ScaleName, word: str, source: str) -> Example:
    """The prompt has question, reference answer and student's answer. word: of the grade; "" if nobody graded it.

    source: "graded" or "transfer", by which a job selects examples.

    Without a grade the response is the word of the best grade: a capture scores responses, and the distribution that
    matters is the one before the first token, which does not depend on it. The label stays empty.
    """
    lines = (("Question", answer.question), ("Reference", answer.reference))
    known = [f"{name}: {text}\n" for name, text in lines if text]
    return Example(
        id=answer.id,
        messages=(
            {"role": "system", "content": INSTRUCTIONS[scale]},
            {"role": "user", "content": "".join(known) + f"Answer: {answer.answer}"},
        ),
        response=word or UNGRADED_RESPONSE[scale],
        label=word,
        metadata={
            "question_id": answer.question_id,
            "question": answer.question,
            "reference": answer.reference,
            "answer": answer.answer,
            "grade": answer.grade,
            "source": source,
            **({} if answer.max_points is None else {"max_points": answer.max_points}),
        },
    )


UNGRADED_RESPONSE: dict[ScaleName, str] = {"5way": "correct", "3way": "correct", "2way": "correct", "points": "0"}


def plain(text: str) -> str:
    """A text without differences of case and white space."""
    return " ".join(text.casefold().split())


def unit_hash(*texts: str) -> float:
    """A hash of texts as a number in [0, 1)."""
    return int(digest(list(texts))[:13], 16) / 16**13
