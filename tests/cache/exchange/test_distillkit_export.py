"""Rows, masks and padding of a DistillKit export, and the round trip through it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError
from cache.examples.example import Segment
from cache.exchange.conversion import ImportedTeacher
from cache.exchange.distillkit import export_distillkit, import_distillkit
from cache.rows.spec import TargetSpec
from cache.store.logit_store import LogitStore
from tests.cache.exchange.distillkit_files import exported_rows
from tests.cache.store.sample_stores import (
    NUCLEUS,
    PROMPT,
    RESPONSE,
    TOPK,
    VOCAB,
    assert_same_targets,
    by_tokens,
    make_store,
)


@pytest.mark.parametrize("targets", [TOPK, NUCLEUS], ids=lambda spec: spec.mode)
def test_distillkit_row_i_is_the_distribution_of_token_i_plus_1(tmp_path: Path, targets: TargetSpec) -> None:
    source = make_store(tmp_path / "source", targets, units=1)
    assert export_distillkit(source, tmp_path / "out") == 0
    _, rows = exported_rows(tmp_path / "out")
    for record, row in zip(source, rows, strict=True):
        n = len(record.tokenized.tokens)
        counts = record.targets.counts
        assert row["input_ids"] == record.tokenized.tokens.tolist() and row["attention_mask"] == [1] * n
        expected = np.where(counts > 0, record.tokenized.tokens.astype(int), -100)
        assert row["labels"] == expected.tolist(), "their loss uses row i where labels[i] >= 0"
        for i in range(n):
            held = record.targets.rows(i, i + 1)
            assert row["ids"][i, : counts[i]].tolist() == held.ids.tolist()
            assert np.array_equal(row["values"][i, : counts[i]], np.minimum(held.logprobs, 0))
            assert len(set(row["ids"][i].tolist())) == 8 and row["ids"][i].max() < VOCAB
            if counts[i]:
                assert (row["values"][i, counts[i] :] == -1e4).all()
            else:
                assert row["values"][i] == pytest.approx(np.full(8, -np.log(8)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("length", [None, PROMPT + RESPONSE + 2])
def test_distillkit_round_trip_keeps_ids_and_values(tmp_path: Path, dtype: Any, length: int | None) -> None:
    source = make_store(tmp_path / "source", NUCLEUS)
    export_distillkit(source, tmp_path / "out", dtype, length, pad_id=3)
    teacher = ImportedTeacher("imported teacher", tokenizer="abc")
    import_distillkit(tmp_path / "out", str(tmp_path / "target"), teacher)
    target = LogitStore.open(str(tmp_path / "target"))
    assert (target.spec.teacher, target.spec.tokenizer, target.spec.weights) == ("imported teacher", "abc", "unknown")
    assert (target.spec.vocab_size, target.spec.targets) == (VOCAB, TargetSpec("topk", 8))
    found = by_tokens(target)
    assert len(found) == len(target) == len(source)
    for record in source:
        other = found[record.tokenized.tokens.tobytes()]
        spoken = np.where(record.tokenized.segments == Segment.PROMPT, Segment.PROMPT, Segment.RESPONSE)
        assert other.tokenized.segments.tolist() == spoken.tolist()
        # float32 finds the levels again; 8 bits of a value near -5 are worth half a step of 0.02 and more.
        assert_same_targets(other, record, {"float32": 1e-5, "float16": 0.06, "bfloat16": 0.12}[dtype])
        assert np.exp(other.targets.log_tail) == pytest.approx(np.exp(record.targets.log_tail), abs=0.02)


def test_distillkit_padding_is_masked_and_long_examples_are_counted(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", units=1)  # lengths 11, 12, 13, 11
    assert export_distillkit(source, tmp_path / "out", sequence_length=12, pad_id=5) == 1
    _, rows = exported_rows(tmp_path / "out")
    assert [len(row["input_ids"]) for row in rows] == [12] * 3
    assert [len(row["compressed_logprobs"]) for row in rows] == [12] * 3
    short = rows[0]
    assert (short["input_ids"][-1], short["attention_mask"][-2:], short["labels"][-2:]) == (5, [1, 0], [-100, -100])
    assert np.isfinite(short["values"]).all()
    with pytest.raises(InputError, match="no example has at most 10 tokens"):
        export_distillkit(source, tmp_path / "none", sequence_length=10)
    assert not (tmp_path / "none").exists()
    text = (tmp_path / "out" / "README.txt").read_text()
    assert len(text.splitlines()) == 5
    for part in ("logprob_compressor", "prepacked: true", "remove_unused_columns: false", "sequence_length: 12"):
        assert part in text
