"""Answers in rounds: after a miss, a task tells the model what was wrong, and the model answers again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cache.examples.example import Example
from student.tasks.task import Task

# Answers to prompts: examples -> texts. None where the model cannot read so long a chat.
Answerer = Callable[[Sequence[Example]], Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A text and its scores. turns: the chat that it answers. too_long: feedback made the chat too long to go on."""

    text: str
    scores: dict[str, float]
    turns: tuple[dict[str, Any], ...]
    too_long: bool = False


def answer_in_rounds(
    task: Task, examples: Sequence[Example], first: Sequence[str], rounds: int, answer: Answerer
) -> list[list[Answer]]:
    """The answers of each round, [rounds + 1][examples]. An answer that gets no feedback stays as it is.

    first: the answers to the examples' own prompts, round 0. answer: called in each further round with the examples
    that go on, whose messages end with the feedback.
    """
    answers = [
        Answer(text, task.judge(example, text), example.messages) for example, text in zip(examples, first, strict=True)
    ]
    history = [answers]
    for number in range(1, rounds + 1):
        asked: dict[int, Example] = {}
        for i, (example, last) in enumerate(zip(examples, answers, strict=True)):
            feedback = task.feedback(example, last.text, number)
            if feedback is not None and not last.too_long:
                turns = (*last.turns, {"role": "assistant", "content": last.text}, *feedback)
                asked[i] = replace(example, messages=turns, rationale="", response="")
        texts = dict(zip(asked, answer(list(asked.values())), strict=True)) if asked else {}
        answers = list(answers)
        for i, text in texts.items():
            if text is None:
                answers[i] = replace(answers[i], too_long=True)
            else:
                answers[i] = Answer(text, task.judge(examples[i], text), asked[i].messages)
        history.append(answers)
    return history


def metrics_by_round(task: Task, history: Sequence[Sequence[Answer]]) -> dict[str, float]:
    """The task's metrics of round 0, and those of Task.round_metrics after each further one, as NAME_c1, NAME_c2.

    too_long_c1: answers that got no further round, because the chat was longer than the model's positions.
    """
    metrics = task.summarise([answer.scores for answer in history[0]])
    for number, answers in enumerate(history[1:], start=1):
        of_examples = zip(*history[: number + 1], strict=True)
        counted = [task.scores_after([answer.scores for answer in given]) for given in of_examples]
        later: Mapping[str, float] = task.summarise(counted)
        metrics |= {f"{name}_c{number}": later[name] for name in task.round_metrics or later}
        metrics[f"too_long_c{number}"] = sum(answer.too_long for answer in answers)
    return metrics
