"""Rows, labels and padding of a batch stand where they belong."""

from collections.abc import Callable

import numpy as np
import torch

from cache.record import Record
from student.data import collate, label_rows


def test_a_row_is_the_law_of_the_token_that_follows(make_records: Callable[..., list[Record]]) -> None:
    records = [*make_records(2), *make_records(1, seed=5, prompt=3, response=2)]
    batch = collate([record.window for record in records], with_targets=True)
    assert batch.input_ids.shape == (3, 10)
    assert len(batch.rows) == 6 + 6 + 2
    flat = batch.input_ids.flatten()
    assert torch.equal(batch.labels, flat[batch.rows + 1])
    row = 0
    for record in records:
        for j in label_rows(record.tokenized.segments):
            target = record.targets.rows(j, j + 1)
            assert batch.labels[row] == record.tokenized.tokens[j + 1]
            assert batch.ids[row].tolist() == target.ids.tolist()
            assert np.allclose(batch.log_p[row].numpy(), target.logprobs)
            assert batch.log_tail[row] == target.log_tail[0]
            row += 1


def test_shorter_rows_are_padded_with_nothing(make_records: Callable[..., list[Record]]) -> None:
    from dataclasses import replace

    from cache.targets import concatenate, empty_targets
    from tests.conftest import random_targets

    (record,) = make_records(1)
    rng = np.random.default_rng(0)
    uneven = concatenate([empty_targets(3), random_targets(rng, 2, 3), random_targets(rng, 4, 7), empty_targets(1)])
    batch = collate([replace(record, targets=uneven).window], with_targets=True)
    assert torch.isfinite(batch.log_p).sum(-1).tolist() == [3, 3, 7, 7, 7, 7]


def test_hard_labels_need_no_targets_and_may_cover_the_prompt(make_records: Callable[..., list[Record]]) -> None:
    records = make_records(2)
    assert collate([record.window for record in records], with_targets=False).ids.shape == (12, 0)
    assert len(collate([record.window for record in records], with_targets=False, on_prompt=True).rows) == 18
