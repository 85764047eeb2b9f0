"""A judging model rates answers: each question is put to it once, and the rating is read from its next-token law.

The judge runs in a process of its own, because an engine may read its environment when it is imported.

python -m cluster.evaluation.judging QUESTIONS.json RATINGS.json
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.errors import InputError, LogitbankError
from cache.json_documents import digest, write_json
from cluster.evaluation.model_digest import model_digest

if TYPE_CHECKING:
    from cache.examples.tokenizers import Tokenizer
    from cluster.evaluation.settings import JudgeSettings
    from student.classification.labels import ClassIds
    from student.tasks import Question, Task

# Before the name of a score that a judging model gave.
PREFIX = "judge_"
# Key of a result: the digest of the judge whose scores it has.
JUDGED = "judge_digest"


def judged(results: Mapping[str, Any], output: Path, task: "Task", judge: "JudgeSettings") -> dict[str, Any]:
    """The results that this judge had not rated yet, with its scores; each is also written to OUTPUT/NAME.json."""
    name_of_judge = digest([judge.model_dump(mode="json"), model_digest(judge.teacher.model)])
    waiting = {name: result for name, result in results.items() if result.get(JUDGED) != name_of_judge}
    rated = add_ratings(waiting, task, judge)
    for name, result in rated.items():
        write_json(output / f"{name}.json", {**result, JUDGED: name_of_judge})
    return {name: {**result, JUDGED: name_of_judge} for name, result in rated.items()}


def add_ratings(
    results: Mapping[str, dict[str, Any]], task: "Task", judge: "JudgeSettings"
) -> dict[str, dict[str, Any]]:
    """The results of models with the judge's scores of their first answers, and the metrics computed again.

    Equal questions are asked once. judge_unrated counts the questions of a model for which the judge gave none of the
    choices a probability; they get no score.
    """
    from cache.examples.example import Example

    asked: dict[str, dict[str, Question]] = {}
    for name, result in results.items():
        for number, answer in enumerate(result["answers"][: judge.answers]):
            example = Example(answer["id"], (), metadata=answer["metadata"])
            asked[f"{name}/{number}"] = task.questions(example, answer["text"])
    different = {_key(question): question for questions in asked.values() for question in questions.values()}
    ratings = dict(zip(different, rate(list(different.values()), judge), strict=True))
    rated = {}
    for name, result in results.items():
        answers, unrated = [dict(answer) for answer in result["answers"]], 0
        for number, answer in enumerate(answers[: judge.answers]):
            given = {PREFIX + score: ratings[_key(q)] for score, q in asked[f"{name}/{number}"].items()}
            unrated += sum(value is None for value in given.values())
            answer["scores"] = answer["scores"] | {score: value for score, value in given.items() if value is not None}
        metrics = task.summarise([answer["scores"] for answer in answers])
        rated[name] = {**result, **metrics, f"{PREFIX}unrated": unrated, "answers": answers}
    return rated


def rate(questions: Sequence["Question"], judge: "JudgeSettings") -> list[float | None]:
    """The rating of each question: the mean value of its choices by the judge's probabilities; None: none of them.

    Raises LogitbankError with the end of the judge's log if it fails.
    """
    from teacher_serving.engines.process import available_threads
    from teacher_serving.engines.registry import ENGINES

    on_gpu = Path("/proc/driver/nvidia/version").exists()
    if not questions:
        return []
    with tempfile.TemporaryDirectory() as folder:
        asked, given = Path(folder) / "questions.json", Path(folder) / "ratings.json"
        engine = judge.engine.with_threads(available_threads())
        document = {
            "judge": judge.model_copy(update={"engine": engine}).model_dump(mode="json"),
            "on_gpu": on_gpu,
            "questions": [[list(question.messages), dict(question.choices)] for question in questions],
        }
        write_json(asked, document)
        environment = os.environ | dict(ENGINES[engine.kind].environment(engine, on_gpu))
        command = [sys.executable, "-m", "cluster.evaluation.judging", str(asked), str(given)]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode:
            raise LogitbankError(f"judge {judge.teacher.model!r}: it failed: {process.stderr.strip()[-600:]}")
        ratings: list[float | None] = json.loads(given.read_text())
    return ratings


def main(asked: Path, given: Path) -> None:
    """Run in the process: ask all questions, and write the ratings."""
    from cache.examples.example import Example
    from cache.rendering.render import render_prompt
    from cluster.evaluation.settings import JudgeSettings
    from student.classification.probabilities import class_log_probs
    from teacher_serving.asking.settings import GenerationSettings
    from teacher_serving.capture.start import describe, start_teacher
    from teacher_serving.reduction.settings import TargetSettings
    from teacher_serving.teacher import Request

    document = json.loads(asked.read_text())
    judge = JudgeSettings.model_validate(document["judge"])
    generation = GenerationSettings(temperature=0.0, max_new_tokens=1)
    description = describe(judge.teacher, judge.engine, TargetSettings(mode="topk", k=judge.entries), generation, False)
    requests = []
    for number, (messages, _) in enumerate(document["questions"]):
        prompt = render_prompt(Example(str(number), tuple(messages)), description.tokenizer, description.form)
        if len(prompt.tokens) >= judge.teacher.max_tokens:
            raise InputError(
                f"a question to the judge has {len(prompt.tokens)} tokens, and judge.teacher.max_tokens = "
                f"{judge.teacher.max_tokens} leaves no room for the reply; raise it"
            )
        requests.append(Request(f"{number:032x}", prompt.tokens, messages=tuple(messages)))
    teacher = start_teacher(description, judge.teacher, judge.engine, document["on_gpu"])
    ratings: list[float | None] = []
    for (_, choices), answer in zip(
        document["questions"], teacher.generate(requests, generation.sampling), strict=True
    ):
        ids = choice_ids(list(choices), description.tokenizer)
        rating = None
        if not answer.refusal and len(answer.rows):
            probabilities = class_log_probs(answer.rows.rows(0, 1), ids)
            if probabilities.has_class[0]:
                shares = np.exp(probabilities.log_probs[0].astype(np.float64))
                rating = float(shares @ np.array(list(choices.values())))
        ratings.append(rating)
    write_json(given, ratings)


def choice_ids(choices: Sequence[str], tokenizer: "Tokenizer") -> "ClassIds":
    """The tokens that only one choice begins with, in any of its spellings. " 1" and " 2" may both begin with a space.

    Raises InputError if a choice has no token of its own.
    """
    from student.classification.labels import ClassIds, first_token
    from student.classification.settings import default_variants

    begins = [{first_token(name, text, tokenizer) for text in default_variants(name)} for name in choices]
    owner = {
        token: number
        for number, tokens in enumerate(begins)
        for token in tokens - set().union(*begins[:number], *begins[number + 1 :])
    }
    if missing := [name for number, name in enumerate(choices) if number not in owner.values()]:
        raise InputError(
            f"choice {missing[0]!r} of a judge begins with no token of its own; give choices that begin differently"
        )
    ids = sorted(owner)
    return ClassIds(tuple(choices), np.array(ids, np.int64), np.array([owner[i] for i in ids], np.int64))


def _key(question: "Question") -> str:
    return digest([list(question.messages), dict(question.choices)])


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except LogitbankError as error:
        sys.exit(str(error))  # without a traceback, for the message of the parent
