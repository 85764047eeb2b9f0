"""Examples that are too long are refused or truncated, and never truncated to a prompt."""

import numpy as np
import pytest

from cache.errors import InputError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.truncation import Truncation, truncate

P, R = Segment.PROMPT, Segment.RESPONSE


def tokenized(*segments: Segment) -> TokenizedExample:
    example = Example("1", (), metadata={"task": 7})
    return TokenizedExample(example, np.arange(len(segments), dtype=np.uint32), np.array(segments, np.uint8), "scored")


@pytest.mark.parametrize("policy", ["refuse", "left", "right"])
@pytest.mark.parametrize("most", [4, 5])
def test_what_fits_is_left_alone(policy: Truncation, most: int) -> None:
    example = tokenized(P, P, R, R)
    assert truncate(example, most, policy) is example


def test_too_long_is_refused_by_number() -> None:
    with pytest.raises(InputError, match=r"^4 tokens are more than teacher.max_tokens = 3$"):
        truncate(tokenized(P, P, R, R), 3, "refuse")


@pytest.mark.parametrize("policy, tokens, segments", [("left", [2, 3, 4], [P, R, R]), ("right", [0, 1, 2], [P, R, P])])
def test_one_end_is_cut(policy: Truncation, tokens: list[int], segments: list[Segment]) -> None:
    example = tokenized(P, R, P, R, R)
    cut = truncate(example, 3, policy)
    assert cut.tokens.tolist() == tokens and cut.segments.tolist() == segments
    assert cut.tokens.dtype == np.uint32 and cut.segments.dtype == np.uint8
    assert cut.example.metadata == {"task": 7, "truncated_tokens": 2} and cut.origin == "scored"
    assert example.example.metadata == {"task": 7} and cut.key != example.key


@pytest.mark.parametrize(
    "segments, policy, most",
    [
        ([P, P, R, R], "right", 2),
        ([P, R, P, P], "left", 2),
        ([P, P, P, R], "left", 1),  # no row precedes it
        ([P, R], "left", 0),
    ],
)
def test_nothing_but_prompt_is_no_example(segments: list[Segment], policy: Truncation, most: int) -> None:
    with pytest.raises(InputError, match=f"of {len(segments)} tokens the (first|last) {most} are nothing but prompt"):
        truncate(tokenized(*segments), most, policy)


@pytest.mark.parametrize("policy, tokens", [("left", [2, 3]), ("right", [0, 1])])
def test_what_was_all_prompt_may_be_cut(policy: Truncation, tokens: list[int]) -> None:
    assert truncate(tokenized(P, P, P, P), 2, policy).tokens.tolist() == tokens
