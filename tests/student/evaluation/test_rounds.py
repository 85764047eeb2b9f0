"""Rounds of feedback: who is asked again, with which chat, and what is reported of each round."""

from collections.abc import Sequence
from typing import Literal

from cache.examples.example import Example
from cache.progress import Progress
from student.evaluation.rounds import answer_in_rounds, metrics_by_round
from student.tasks.task import Built, Task


class Count(Task):
    """Right is the number in the metadata."""

    name: Literal["count"] = "count"

    def build(self, progress: Progress) -> Built:
        raise NotImplementedError

    def judge(self, example: Example, text: str) -> dict[str, float]:
        return {"right": float(text == example.metadata["number"])}

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        return {"accuracy": sum(score["right"] for score in scores) / len(scores), "answers": float(len(scores))}

    def feedback(self, example: Example, text: str, number: int) -> list[dict[str, str]] | None:
        if text == example.metadata["number"]:
            return None
        return [{"role": "user", "content": f"{text} is wrong, try {number}"}]


def examples() -> list[Example]:
    return [
        Example(name, ({"role": "user", "content": name},), response="2", metadata={"number": "2"}) for name in "abc"
    ]


def test_only_misses_are_asked_again_with_the_whole_chat() -> None:
    """Would catch a right answer that is overwritten, and a chat that forgets its first round."""
    chats: list[list[tuple[str, ...]]] = []

    def answer(asked: Sequence[Example]) -> list[str | None]:
        chats.append([tuple(turn["content"] for turn in example.messages) for example in asked])
        assert all(not example.response for example in asked)
        return ["2" if example.id == "b" else "3" for example in asked]

    history = answer_in_rounds(Count(), examples(), ["2", "0", "1"], 2, answer)
    assert [[item.text for item in answers] for answers in history] == [
        ["2", "0", "1"],
        ["2", "2", "3"],
        ["2", "2", "3"],
    ]
    assert chats == [
        [("b", "0", "0 is wrong, try 1"), ("c", "1", "1 is wrong, try 1")],
        [("c", "1", "1 is wrong, try 1", "3", "3 is wrong, try 2")],
    ]
    metrics = metrics_by_round(Count(), history)
    assert (metrics["accuracy"], metrics["accuracy_c1"], metrics["accuracy_c2"]) == (1 / 3, 2 / 3, 2 / 3)
    Count.round_metrics = ("accuracy",)
    try:
        assert "answers_c1" in metrics and "answers_c1" not in metrics_by_round(Count(), history)
    finally:
        Count.round_metrics = ()


def test_a_chat_that_is_too_long_keeps_its_answer_and_is_counted() -> None:
    asked: list[int] = []

    def answer(chats: Sequence[Example]) -> list[str | None]:
        asked.append(len(chats))
        return [None if example.id == "c" else "0" for example in chats]

    history = answer_in_rounds(Count(), examples(), ["2", "0", "1"], 2, answer)
    assert asked == [2, 1]
    assert [item.text for item in history[2]] == ["2", "0", "1"]
    metrics = metrics_by_round(Count(), history)
    assert (metrics["too_long_c1"], metrics["too_long_c2"]) == (1, 1)


def test_a_task_without_feedback_has_rounds_that_change_nothing() -> None:
    class Silent(Count):
        def feedback(self, example: Example, text: str, number: int) -> None:
            return None

    history = answer_in_rounds(Silent(), examples(), ["0", "0", "0"], 1, lambda chats: [])
    assert history[1] == history[0]
