"""StoppableTeacher: gives the answers of a teacher that stops in the middle of a call, and marks the missing ones."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from cache.rows.spec import SamplingSpec
from teacher_serving.teacher import (
    Generated,
    Request,
    Scored,
    Teacher,
    TeacherStoppedError,
    refused_response,
    refused_score,
)

# The refusal of a request that the teacher did not answer because it had stopped. It never reaches a store.
UNANSWERED = "not answered: the teacher has stopped"

Answer = TypeVar("Answer", Scored, Generated)


class StoppableTeacher:
    """A teacher whose answers are kept when it stops. stopped: why it answers no more; "" while it does."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.stopped = ""

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """See Teacher.score. Requests without an answer are refused with UNANSWERED."""
        return self._call(self._teacher.score, requests, lambda request: refused_score(request, UNANSWERED))

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        """See Teacher.generate. Requests without an answer are refused with UNANSWERED."""
        return self._call(
            lambda each: self._teacher.generate(each, sampling), requests, lambda request: refused_response(UNANSWERED)
        )

    def _call(
        self,
        ask: Callable[[Sequence[Request]], list[Answer]],
        requests: Sequence[Request],
        refuse: Callable[[Request], Answer],
    ) -> list[Answer]:
        try:
            return ask(requests)
        except TeacherStoppedError as error:
            self.stopped = str(error)
            answers: Sequence[Answer | None] = error.answers or [None] * len(requests)
            return [
                refuse(request) if answer is None else answer for request, answer in zip(requests, answers, strict=True)
            ]
