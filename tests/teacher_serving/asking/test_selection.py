"""Which responses of a teacher are kept, by their labels."""

import json

import pytest

from cache.answers.parsing import parse_answer
from teacher_serving.asking.selection import KeepPolicy, LabelMatch, Selection, compare_label, select_samples
from tests.cache.answers.test_answers import read_shared


@pytest.mark.parametrize(
    "text, truth, expected",
    [
        ("So.\nAnswer: 4", "4.0", "agrees"),
        ("Answer: 4", "4.0", "agrees"),
        ("So.\nAnswer: 5", "4.0", "disagrees"),
        ("So.", "4.0", "unparsed"),
        ("So.\nAnswer: 4", " ", "no_truth"),
        ("So.", "", "no_truth"),
    ],
)
def test_judge(text: str, truth: str, expected: LabelMatch) -> None:
    assert compare_label(parse_answer(text, "Answer:"), truth) == expected


@pytest.mark.parametrize(
    "judgements, keep, kept, needs_hint",
    [
        (["disagrees", "agrees", "unparsed"], "all", (0, 1, 2), False),
        (["disagrees", "agrees", "unparsed"], "agreeing", (1,), False),
        (["disagrees", "agrees", "unparsed"], "rationalize", (1,), False),
        (["disagrees", "unparsed"], "all", (0, 1), False),
        (["disagrees", "unparsed"], "agreeing", (), False),
        (["disagrees", "unparsed"], "rationalize", (), True),
        (["no_truth", "no_truth"], "agreeing", (0, 1), False),
        (["no_truth", "no_truth"], "rationalize", (0, 1), False),
        ([], "rationalize", (), False),
    ],
)
def test_decide(judgements: list[LabelMatch], keep: KeepPolicy, kept: tuple[int, ...], needs_hint: bool) -> None:
    assert select_samples(judgements, keep) == Selection(kept, needs_hint)


@pytest.mark.parametrize(
    "outputs, truths, parsed, agreeing",
    [(["train_CoT_0", "train_CoT_1"], "svamp_train", 789, 594), (["test_CoT_0"], "svamp_test", 198, 155)],
)
def test_labels_of_released_palm_rationales_are_found(
    outputs: list[str], truths: str, parsed: int, agreeing: int
) -> None:
    """Those without a label were read: PaLM repeats itself until its text is cut, or never answers."""
    texts = [text for name in outputs for text in json.loads(read_shared(f"svamp/palm/{name}.json"))]
    labels = [json.loads(line)["label"] for line in read_shared(f"svamp/{truths}.json").splitlines()]
    answers = [parse_answer(text, "The answer is", "Q:") for text in texts]
    assert [answer.status for answer in answers].count("parsed") == parsed
    matches = [compare_label(answer, label) for answer, label in zip(answers, labels, strict=True)]
    assert matches.count("agrees") == agreeing
    assert not [answer.rationale for answer in answers if "\nQ:" in answer.rationale]
