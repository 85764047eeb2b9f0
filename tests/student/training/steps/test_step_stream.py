"""Steps of a number of tokens: where they begin, on which examples, and what it takes to continue them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError
from student.data.settings import StepSize
from student.training.run_settings import RunSettings
from student.training.steps.micro_batches import MicroBatchLimit, divide
from student.training.steps.step_stream import START, StepStart, StepStream, require_steps_of_whole_examples
from tests.student.training.steps.test_micro_batches import EXAMPLES, LENGTHS, Sizes

TOKENS = 20_000
BATCHES: Any = Sizes(LENGTHS)


def stream(first: int = 0, start: StepStart = START, tokens: int = TOKENS) -> StepStream:
    return StepStream(BATCHES, StepSize(None, tokens), 7, first, start)


@pytest.mark.parametrize("tokens", [2048, TOKENS, 1_000_003])
def test_steps_have_their_tokens_to_within_one_example(tokens: int) -> None:
    """Over the end of an epoch. Would catch a sum that drifts, and an example that two steps have or none."""
    steps = stream(tokens=tokens)
    used = [steps.examples(step) for step in range(60)]
    assert np.array_equal(np.concatenate(used), BATCHES.order(0, sum(map(len, used)), 7))
    reached = np.cumsum([LENGTHS[examples].sum() for examples in used])
    too_much = reached - tokens * np.arange(1, 61)
    last = np.array([LENGTHS[examples[-1]] for examples in used])
    assert (too_much >= 0).all() and (too_much < last).all()


def test_a_stream_goes_on_from_the_start_of_any_step() -> None:
    """As a continued run does. Would catch a step that depends on when it was asked for."""
    whole = stream()
    for first in (1, 13, 40):
        before = np.concatenate([whole.examples(step) for step in range(first)])
        later = stream(first, StepStart(len(before), int(LENGTHS[before].sum())))
        for step in (first + 5, first, first + 2):
            assert np.array_equal(later.examples(step), whole.examples(step))


def test_threads_ask_in_any_order() -> None:
    expected = [stream().examples(step).tolist() for step in range(50)]
    shared, order = stream(), np.random.default_rng(0).permutation(50).tolist()
    with ThreadPoolExecutor(8) as threads:
        found = dict(zip(order, threads.map(lambda step: shared.examples(step).tolist(), order), strict=True))
    assert [found[step] for step in range(50)] == expected


def test_epochs_count_tokens() -> None:
    """Would catch a number of steps from which the last examples of an epoch are missing."""
    total = int(LENGTHS.sum())
    run = RunSettings(epochs=2, batch_tokens=TOKENS).with_steps(len(LENGTHS), total)
    used = np.concatenate([stream().examples(step) for step in range(run.total_steps)])
    assert len(used) >= 2 * len(LENGTHS) and run.total_steps == -(-2 * total // TOKENS)
    less = sum(len(stream().examples(step)) for step in range(run.total_steps - 1))
    assert less < 2 * len(LENGTHS)


def test_a_step_shorter_than_an_example_is_refused() -> None:
    require_steps_of_whole_examples(LENGTHS, StepSize(None, int(LENGTHS.max())))
    require_steps_of_whole_examples(LENGTHS, StepSize(1))
    with pytest.raises(InputError, match=r"run\.batch_tokens = 100: the longest example has 2,048 tokens"):
        require_steps_of_whole_examples(LENGTHS, StepSize(None, 100))


def test_an_example_longer_than_a_step_leaves_no_step_empty() -> None:
    """As one that a growing store gets. Would catch steps without examples, and tokens that are never caught up."""
    sizes = np.where(np.arange(EXAMPLES) % 50 == 7, 9000, LENGTHS)
    batches: Any = Sizes(sizes)
    steps = StepStream(batches, StepSize(None, 2048), 7)
    used = [steps.examples(step) for step in range(400)]
    assert min(map(len, used)) == 1
    reached = np.cumsum([sizes[examples].sum() for examples in used])
    assert (reached >= 2048 * np.arange(1, 401)).all() and reached[-1] < 2048 * 400 + 3 * 9000


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_micro_batches_by_positions(ranks: int) -> None:
    """Would catch padding beyond the limit, ranks that compute more often, and lost examples."""
    limit, computed, real = 4096, 0, 0
    for step in range(5):
        examples = stream(tokens=200_000 * ranks).examples(step)
        sizes = LENGTHS[examples]
        groups = [divide(examples, sizes, MicroBatchLimit(None, limit), rank, ranks) for rank in range(ranks)]
        assert len({len(mine) for mine in groups}) == 1
        members = [LENGTHS[group.examples] for mine in groups for group in mine if group.examples]
        assert all(len(rows) * rows.max() <= limit for rows in members)
        assert sorted(i for mine in groups for group in mine for i in group.examples) == sorted(examples.tolist())
        real, computed = real + sizes.sum(), computed + sum(len(rows) * rows.max() for rows in members)
    assert real / computed > 0.95
    alone = divide(np.arange(2), np.array([9000, 10]), MicroBatchLimit(None, limit), 0, 1)
    assert [group.examples for group in alone] == [[0], [1]], "a longer example is computed alone"


def test_what_a_step_has_is_given_once() -> None:
    assert RunSettings(steps=1).step_size == StepSize(64) and RunSettings(steps=1, batch_tokens=9).batch_size is None
    for both in ({"batch_size": 8, "batch_tokens": 9}, {"micro_batch_size": 8, "micro_batch_tokens": 9}):
        with pytest.raises(ValueError, match="not both"):
            RunSettings(steps=1, **both)  # type: ignore[arg-type]
    by_tokens = RunSettings(steps=1, batch_tokens=4096)
    assert (by_tokens.ranks_for(8), by_tokens.micro_batch_of(8)) == (8, 32), "tokens can always be divided"
    by_positions = RunSettings(steps=1, batch_size=6, micro_batch_tokens=512)
    assert by_positions.ranks_for(4) == 4 and by_positions.micro_batch_limit(4) == MicroBatchLimit(None, 512)
