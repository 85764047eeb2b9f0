"""Reference and shuffled answers beside those of models, and a judging model that rates all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.examples.tokenizers import load_tokenizer
from cache.progress import Progress
from cluster.evaluation import judging
from cluster.evaluation.controls import control_answers
from cluster.evaluation.driver import run_evaluation
from cluster.evaluation.judging import add_ratings, choice_ids, rate
from cluster.evaluation.settings import EvaluateSettings, JudgeSettings
from student.tasks import Built, Question, Task

YES_NO = {"one": 1.0, "two": 0.0}


class Echo(Task):
    """Say a word (a task for tests)."""

    name: Literal["echo"] = "echo"

    def build(self, progress: Progress) -> Built:
        return Built({})

    def judge(self, example: Example, text: str) -> dict[str, float]:
        return {"right": float(text == example.metadata["word"])}

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        rated = [score["judge_fits"] for score in scores if "judge_fits" in score]
        mean = sum(score["right"] for score in scores) / len(scores)
        return {"right": mean, **({"judge_fits": sum(rated) / len(rated)} if rated else {})}

    def questions(self, example: Example, text: str) -> dict[str, Question]:
        return {"fits": Question(({"role": "user", "content": f"say {text}"},), YES_NO)}


def example(word: str) -> Example:
    return Example(word, ({"role": "user", "content": f"say {word}"},), response=word, metadata={"word": word})


def judge_of(model: Path, **keys: Any) -> JudgeSettings:
    return JudgeSettings.model_validate(
        {"teacher": {"model": str(model), "dtype": "float32", "max_tokens": 250}, "engine": {"kind": "transformers"}}
        | keys
    )


def test_shuffled_answers_are_those_of_other_examples() -> None:
    examples = [example(word) for word in ("one", "one", "two", "three")]
    assert control_answers("reference", examples) == ["one", "one", "two", "three"]
    assert control_answers("shuffled", examples) == ["two", "two", "three", "one"]
    assert control_answers("shuffled", examples[:2]) == ["one", "one"]


def test_equal_questions_are_asked_once_and_a_missing_rating_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def rated(questions: list[Question], judge: JudgeSettings) -> list[float | None]:
        asked.extend(question.messages[0]["content"] for question in questions)
        return [None if "three" in question.messages[0]["content"] else 0.25 for question in questions]

    monkeypatch.setattr(judging, "rate", rated)

    def result(*texts: str) -> Mapping[str, Any]:
        answers = [{"id": text, "text": text, "scores": {"right": 1.0}, "metadata": {"word": text}} for text in texts]
        return {"right": 1.0, "answers": answers, "seconds": 1}

    results: dict[str, Any] = {"a": result("one", "two", "one"), "b": result("two", "three", "four")}
    added = add_ratings(results, Echo(), judge_of(Path("x"), answers=2))
    assert asked == ["say one", "say two", "say three"]
    assert added["a"]["judge_fits"] == 0.25 and added["a"]["judge_unrated"] == 0 and added["a"]["seconds"] == 1
    assert added["b"]["judge_fits"] == 0.25 and added["b"]["judge_unrated"] == 1
    assert [sorted(answer["scores"]) for answer in added["b"]["answers"]] == [
        ["judge_fits", "right"],
        ["right"],
        ["right"],
    ]
    assert results["a"]["answers"][0]["scores"] == {"right": 1.0}


def test_tokens_that_two_choices_begin_with_are_of_none(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    ids = choice_ids(["1", "2"], tokenizer)
    assert [tokenizer.decode([token]) for token in ids.ids.tolist()] == ["1", "2"] and ids.class_of.tolist() == [0, 1]
    with pytest.raises(InputError, match="choice '10' of a judge begins with no token of its own"):
        choice_ids(["10", "11"], tokenizer)


@pytest.mark.slow
def test_a_rating_is_the_mean_value_by_the_judges_probabilities(tmp_path: Path, tiny_model: Path) -> None:
    """The judge's own law, computed here with Transformers, gives the rating; a second run asks nothing again."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cache.rendering.render import render_prompt

    write_examples(tmp_path / "heldout.jsonl", [example(word) for word in ("one", "two", "three")])
    settings = EvaluateSettings.model_construct(
        output=tmp_path / "evaluation",
        examples=tmp_path / "heldout.jsonl",
        task=Echo(),
        models={"model": str(tiny_model)},
        controls=("reference", "shuffled"),
        judge=judge_of(tiny_model, entries=325),
    )
    models = run_evaluation(settings)["models"]
    assert (models["reference"]["right"], models["shuffled"]["right"]) == (1.0, 0.0)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny_model).eval(),
        AutoTokenizer.from_pretrained(tiny_model),
    )
    expected = []
    for word in ("one", "two", "three"):
        tokens = render_prompt(Example("", ({"role": "user", "content": f"say {word}"},)), tokenizer).tokens
        with torch.inference_mode():
            law = model(torch.tensor([tokens.tolist()])).logits[0, -1].softmax(-1)
        # This tokenizer has no capitals after a space, so both choices begin " One" and " Two" with the same token.
        yes, no = (
            float(law[[tokenizer("\n" + form, add_special_tokens=False)["input_ids"][1] for form in forms]].sum())
            for forms in (("one", " one", "One"), ("two", " two", "Two"))
        )
        expected.append(yes / (yes + no))
    assert models["reference"]["judge_fits"] == pytest.approx(sum(expected) / 3, abs=1e-3)
    assert models["model"]["judge_unrated"] == 0
    files = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "evaluation").glob("*.json") if path.stem != "evaluation"
    }
    run_evaluation(settings)
    assert all(path.stat().st_mtime_ns == time for path, time in files.items() if path.stem != "job")
    assert rate([], judge_of(tiny_model)) == []
