"""Each example of a step is in one micro-batch of one rank; rows are full, and ranks compute equally often."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from cache.examples.example import Segment
from cache.examples.example_order import examples_at
from cache.rows.record import Window
from cache.rows.sparse_targets import empty_targets
from student.data.batches import LanguageBatches
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from student.models.kinds.causal import PackedLayout
from student.models.rows.packing import pack
from student.training.run_settings import RunSettings
from student.training.steps.micro_batches import divide
from student.training.steps.step_stream import StepStream

EXAMPLES, PACK_TO = 3000, 4096
# Lengths spread as those of instruction data: log-normal, median 245 tokens.
LENGTHS = np.clip(np.random.default_rng(0).lognormal(5.5, 0.8, EXAMPLES), 8, 2048).astype(np.int64)


class Sizes:
    """Examples that are nothing but sizes."""

    def __init__(self, sizes: np.ndarray) -> None:
        self.sizes = sizes

    def order(self, start: int, count: int, seed: int) -> np.ndarray:
        return examples_at(start, count, len(self.sizes), seed)


def step_of(
    step: int, run: RunSettings, ranks: int, pack_to: int | None, sizes: np.ndarray = LENGTHS
) -> list[list[list[int]]]:
    """The examples of the micro-batches of each rank."""
    batches: Any = Sizes(sizes)
    examples = StepStream(batches, run.step_size, run.seed).examples(step)
    limit = run.micro_batch_limit(ranks, pack_to)
    planned = [divide(examples, sizes[examples], limit, rank, ranks, pack_to) for rank in range(ranks)]
    return [[group.examples for group in mine] for mine in planned]


class Lengths:
    """Examples of these lengths that have a loss at their second token, for LanguageBatches."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens

    def order(self, start: int, count: int, seed: int) -> np.ndarray:
        return np.arange(start, start + count) % len(self.tokens)

    def read(self, examples: Sequence[int]) -> list[Window]:
        lengths = [int(self.tokens[i]) for i in examples]
        return [
            Window(
                np.full(n, i, np.uint32),
                np.full(n, Segment.RESPONSE, np.uint8),
                empty_targets(n),
                np.zeros(n, np.float32),
            )
            for i, n in zip(examples, lengths, strict=True)
        ]


def computed_rows(run: RunSettings, ranks: int, pack_to: int, sizes: np.ndarray) -> list[np.ndarray]:
    """The input ids of each micro-batch of all ranks in the first step, as the training loop makes them."""
    batches = LanguageBatches(
        cast(Any, Lengths(sizes)),
        WeightedObjectives.of(LossSettings(objective="hard_label"), TargetForm("none")),
        PackedLayout(pack_to),
    )
    examples = StepStream(batches, run.step_size, run.seed).examples(0)
    limit = run.micro_batch_limit(ranks, pack_to)
    return [
        batches.batch(*group).inputs["input_ids"].numpy()
        for rank in range(ranks)
        for group in divide(examples, sizes[examples], limit, rank, ranks, pack_to)
        if group.examples
    ]


def test_a_micro_batch_has_the_rows_that_were_planned() -> None:
    """Would catch a second search for rows among the examples of one micro-batch, which can need more of them."""
    sizes = np.array([16, 25, 60, 16, 64, 32, 63, 17, 20, 21, 26])
    run = RunSettings(steps=1, batch_size=len(sizes), micro_batch_size=2)
    assert max(len(rows) for rows in computed_rows(run, 1, 64, sizes)) == 2
    rng = np.random.default_rng(0)
    for _ in range(400):
        sizes = rng.integers(2, 65, rng.integers(2, 14))
        ranks, micro = int(rng.integers(1, 3)), int(rng.integers(2, 5))
        run = RunSettings(steps=1, batch_size=len(sizes), micro_batch_size=micro)
        computed_ids = computed_rows(run, ranks, 64, sizes)
        assert all(rows.shape[0] <= micro and rows.shape[1] <= 64 for rows in computed_ids)
        assert sum(len(rows) for rows in computed_ids) <= pack(sizes, 64, ranks).rows


def computed(group: list[int], rows: int, pack_to: int | None, sizes: np.ndarray = LENGTHS) -> int:
    """Positions of the rows of a micro-batch, filled as well as its examples allow."""
    if not group or pack_to is None:
        return len(group) * int(sizes[group].max(initial=0))
    packing = pack(sizes[group], pack_to)
    assert packing.rows <= rows + 1  # a search among these examples alone may need a row more than was planned
    return packing.rows * packing.width


@pytest.mark.parametrize("pack_to", [None, 2048, PACK_TO, 1 << 20])
@pytest.mark.parametrize("ranks, micro", [(1, 12), (1, 3), (2, 2), (3, 4), (4, 1)])
def test_every_example_of_a_step_is_in_one_micro_batch(ranks: int, micro: int, pack_to: int | None) -> None:
    """Would catch one that two ranks share, ranks that compute more often, and examples that depend on the ranks."""
    run = RunSettings(steps=9, batch_size=12, micro_batch_size=micro, ranks=ranks)
    for step in range(3):
        groups = step_of(step, run, ranks, pack_to)
        assert len({len(mine) for mine in groups}) == 1
        if pack_to is None:
            assert {len(group) for mine in groups for group in mine} == {micro}
        assert all(sum(LENGTHS[group]) <= (pack_to or 1 << 20) * micro for mine in groups for group in mine)
        assert sorted(i for mine in groups for group in mine for i in group) == sorted(
            examples_at(step * 12, 12, EXAMPLES, 0).tolist()
        )


def test_ranks_without_examples_have_empty_micro_batches() -> None:
    run = RunSettings(steps=9, batch_size=3, ranks=4)
    groups = step_of(0, run, 4, PACK_TO)
    assert [len(mine) for mine in groups] == [1, 1, 1, 1]
    assert [len(mine[0]) for mine in groups] == [1, 1, 1, 0]


@pytest.mark.parametrize("ranks", [1, 4, 8, 64])
@pytest.mark.parametrize("micro", [1, 4, 16])
def test_packed_rows_are_full_and_ranks_are_equally_busy(ranks: int, micro: int) -> None:
    """As a run trains them. Would catch packing inside a micro-batch of a few examples, which fills 8% to 31%."""
    run = RunSettings(steps=9, batch_size=256, micro_batch_size=micro)
    real = rows = 0
    for step in range(8):
        groups = step_of(step, run, ranks, PACK_TO)
        real += int(sum(LENGTHS[group].sum() for mine in groups for group in mine))
        rows += sum(computed(group, micro, PACK_TO) for mine in groups for group in mine)
        loads = [sum(int(LENGTHS[group].sum()) for group in mine) for mine in groups]
        # A rank can have an example that is longer than its fair share.
        assert max(loads) < 1.1 * max(np.mean(loads), LENGTHS.max())
    assert real / rows > 0.95


def test_padded_micro_batches_have_examples_of_similar_length() -> None:
    """Would catch micro-batches in the order of the examples, which are 55% padding."""
    run = RunSettings(steps=9, batch_size=256, micro_batch_size=4)
    groups = [group for step in range(8) for mine in step_of(step, run, 8, None) for group in mine]
    real = sum(int(LENGTHS[group].sum()) for group in groups)
    assert real / sum(computed(group, 4, None) for group in groups) > 0.7
    assert real / sum(computed(group, 4, None) for group in np.reshape(np.arange(2048), (-1, 4)).tolist()) < 0.6


@pytest.mark.parametrize("pack_to", [None, PACK_TO])
def test_the_longest_come_first_and_ranks_compute_similar_lengths_together(pack_to: int | None) -> None:
    """Would catch a peak of memory in the middle of a step, and ranks that wait for one with longer rows."""
    run = RunSettings(steps=9, batch_size=256, micro_batch_size=4)
    widths = np.array(
        [[computed(group, 4, pack_to) for group in mine] for mine in step_of(0, run, 4, pack_to)], np.float64
    )
    full = widths[:, :-1] if pack_to else widths  # the last micro-batch may have fewer rows
    assert (np.diff(full.max(axis=0)) <= 0).all()
    assert (full.max(axis=0) / full.min(axis=0))[1:].max(initial=1) < 1.3
