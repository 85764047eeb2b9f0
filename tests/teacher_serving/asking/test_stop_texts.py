"""An engine ends a response at the first stop text. No answer may be lost by it."""

import numpy as np
import pytest

from cache.examples.example import TokenizedExample
from cache.examples.tokenizers import decode
from cache.rows.record import Record
from cache.rows.spec import PromptingSpec, SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.asking.plan import PlannedExample
from teacher_serving.asking.rationales import generate_records
from tests.teacher_serving.asking.scripted import VOCABULARY, K, Say, Scripted, laws, say
from tests.teacher_serving.asking.test_rationale_segments import LEARNED


def respond(response: str, prompt: str = "say red", finished: bool = True) -> tuple[Record | None, Scripted]:
    """The record of one response of a teacher that ends at stop texts, and this teacher."""
    tokens = np.asarray(LEARNED(prompt)["input_ids"], np.uint32)
    tokenized = TokenizedExample(say("red"), tokens, np.zeros(len(tokens), np.uint8), "generated/0")
    sampling = SamplingSpec(1, 1.0, 1.0, 99, 0, "Answer:")
    spec = StoreSpec(
        "t", "w", "k", "c", VOCABULARY, 300, "float32", TargetSpec(k=K), sampling,
        prompting=PromptingSpec("", "", "", "", "all", "Q:", "bare"),
    )  # fmt: skip
    script = {"red": [Say(response, finished=finished)]}
    teacher = Scripted(LEARNED, script, ends_at_stop=True, repeats=True)
    records, _ = generate_records(teacher, [PlannedExample(tokenized)], LEARNED, spec, sampling, None)
    for record in records.values():
        n = record.tokenized.prompt_length
        written = record.tokenized.tokens[n:].tolist()
        rows = record.targets.rows(n - 1, n + len(written) - 1)
        assert np.array_equal(rows.logprobs, laws(tokens.tolist(), written)), "rows of the response that was kept"
    return next(iter(records.values()), None), teacher


def text_of(record: Record) -> str:
    return decode(record.tokenized.tokens[record.tokenized.prompt_length :], LEARNED)


@pytest.mark.parametrize(
    "response, prompt, kept, calls",
    [
        ("so.\nAnswer: two\nQ: next\nAnswer: five", "say red", "so.\nAnswer: two", 1),
        ("so.\nAnswer: two", "say red", "so.\nAnswer: two", 1),
        ("<think>\nIt was\nQ: 2\nso.\n</think>\nAnswer: two\nQ: x", "say red", None, 2),
        ("<think>\nIt was\nQ: 2\nso.\n</think>\nAnswer: two", "say red", None, 2),
        ("<think>so.</think>\nQ: red\nAnswer: two\nQ: x", "say red", None, 2),
        ("It was\nQ: 2\nso.\n</think>\nAnswer: two\nQ: x", "say red <think>\n", None, 1),
        ("\nQ: red?\nAnswer: two\nQ: x", "say red", "\nQ: red?\nAnswer: two", 2),
        ("\n\nQ: red?\nAnswer: two", "say red", "\n\nQ: red?\nAnswer: two", 2),
    ],
)
def test_the_stop_text_ends_a_response_only_where_it_counts(
    response: str, prompt: str, kept: str | None, calls: int
) -> None:
    """Would catch an engine that ends in reasoning, or at once, so that the response has no answer."""
    record, teacher = respond(response, prompt)
    assert record
    assert text_of(record).rstrip() == (kept if kept is not None else response.removesuffix("\nQ: x"))
    assert record.tokenized.example.metadata["teacher_label"] == "two" and record.tokenized.example.metadata["finished"]
    assert len(teacher.asked) == calls, "nothing is asked twice without need"


@pytest.mark.parametrize("prompt, opening", [("say red", "<think>\n"), ("say red <think>\n", "")])
def test_reasoning_that_reached_the_limit_is_not_cut(prompt: str, opening: str) -> None:
    """Would catch reasoning that counts as finished because it quotes the stop text."""
    response = f"{opening}It was\nQ: 2\nso"
    record, _ = respond(response, prompt, finished=False)
    assert record and text_of(record) == response
    assert record.tokenized.example.metadata["finished"] is False
    assert record.tokenized.example.metadata["status"] == "no_label"
