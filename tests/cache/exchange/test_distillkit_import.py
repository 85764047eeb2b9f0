"""Import of DistillKit captures: labels, masks and padding are respected; invalid captures are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cache.errors import InputError, IntegrityError
from cache.examples.example import Example, Segment
from cache.exchange.conversion import ImportedTeacher
from cache.exchange.distillkit import import_distillkit
from cache.exchange.distillkit_bytes import encode_ids, encode_values
from cache.rows.spec import TargetSpec
from tests.cache.exchange.distillkit_files import capture, imported
from tests.cache.store.sample_stores import VOCAB, heads


def test_a_capture_without_labels_is_all_response(tmp_path: Path) -> None:
    record = imported(capture(tmp_path / "in"))
    assert record.targets.counts.tolist() == [3, 3, 3, 3, 3, 0]
    assert record.tokenized.segments.tolist() == [Segment.RESPONSE] * 6
    assert record.tokenized.example == Example("0", ())
    expected = heads(np.random.default_rng(0), 5, 3)
    assert np.array_equal(record.targets.ids, expected.ids)
    assert np.abs(record.targets.logprobs - expected.logprobs).max() < TargetSpec().tail_step / 2 + 0.02
    assert np.exp(record.targets.log_tail[:5]) == pytest.approx(np.exp(expected.log_tail), abs=0.01)


def test_the_row_after_the_last_token_is_left_out(tmp_path: Path) -> None:
    values = encode_values(np.full((6, 3), -2, np.float32), "float32").tolist()
    ids = encode_ids(np.tile(np.arange(3, dtype=np.uint32), (6, 1)), 9).tolist()
    whole = imported(capture(tmp_path / "in", compressed_logprobs=[values], bytepacked_indices=[ids]))
    assert whole.targets.counts.tolist() == [3, 3, 3, 3, 3, 0]
    columns: dict[str, Any] = {"compressed_logprobs": [values], "bytepacked_indices": [ids]}
    columns["attention_mask"] = [[1, 1, 1, 1, 0, 0]]
    assert imported(capture(tmp_path / "padded", **columns)).targets.counts.tolist() == [3, 3, 3, 0]


def test_labels_mark_rows_or_tokens(tmp_path: Path) -> None:
    labels = [[-100, -100, 1, 1, 1, -100]]
    rows = imported(capture(tmp_path / "rows", labels=labels))
    assert rows.targets.counts.tolist() == [0, 0, 3, 3, 3, 0]
    assert rows.tokenized.segments.tolist() == [0, 0, 0, 3, 3, 3]
    tokens = imported(capture(tmp_path / "tokens", labels=labels), labels="tokens")
    assert tokens.targets.counts.tolist() == [0, 3, 3, 3, 0, 0]
    assert tokens.tokenized.segments.tolist() == [0, 0, 3, 3, 3, 0]


def test_entries_that_only_fill_a_row_are_dropped(tmp_path: Path) -> None:
    values = np.array([[-0.5, -1e4, -np.inf], [-1e4, -0.7, -1.5]], np.float32)
    record = imported(
        capture(tmp_path / "in", tokens=3, compressed_logprobs=[encode_values(values, "float32").tolist()])
    )
    assert record.targets.counts.tolist() == [1, 2, 0]
    assert np.diff(record.targets.rows(1, 2).logprobs) < 0, "rows are sorted"
    assert np.exp(record.targets.log_tail[0]) == pytest.approx(1 - np.exp(-0.5), abs=5e-3)


def test_what_is_not_a_distillkit_capture_is_refused_by_name(tmp_path: Path) -> None:
    good = pq.read_table(capture(tmp_path / "good") / "data_0.parquet").to_pydict()
    text = (tmp_path / "good" / "compression_config.yaml").read_text()

    def refused(name: str, why: str, config: str = text, **columns: Any) -> None:
        folder = capture(tmp_path / name, **columns)
        (folder / "compression_config.yaml").write_text(config)
        with pytest.raises(InputError, match=why):
            import_distillkit(folder, str(tmp_path / "target"), ImportedTeacher("teacher"))
        assert not (tmp_path / "target").exists()

    logprobs, indices = good["compressed_logprobs"][0], good["bytepacked_indices"][0]
    nan = encode_values(np.full((5, 3), np.nan, np.float32), "float32").tolist()
    twice = encode_ids(np.full((5, 3), 7, np.uint32), 9).tolist()
    beyond = encode_ids(np.full((5, 3), VOCAB, np.uint32), 9).tolist()
    refused("fewer rows", "6 tokens, 4 compressed_logprobs and 5 byte", compressed_logprobs=[logprobs[:4]])
    refused("narrow", r"rows of \[11\] bytes; .* says 12", compressed_logprobs=[[row[1:] for row in logprobs]])
    refused("few labels", "6 tokens and 5 labels", labels=[[1] * 5])
    refused("left padding", "zeros before ones", attention_mask=[[0, 1, 1, 1, 1, 1]])
    refused("not numbers", "must be log-prob|as a log-probability", compressed_logprobs=[nan])
    refused("twice", "7 occurs twice", bytepacked_indices=[twice])
    refused("beyond", "300 is outside the vocabulary", bytepacked_indices=[beyond])
    refused("token beyond", "input_ids has 300", input_ids=[[VOCAB] * 6])
    refused("empty", "column 'bytepacked_indices' has an empty value", bytepacked_indices=[None])
    refused("unknown", "field 'codebook' is not known", text + "codebook: 3\n")
    refused("dtype", "dtype 'int8'", text.replace("exact_dtype: float32", "exact_dtype: int8"))
    refused("sum", "do not make k = 3", text.replace("exact_k: 3", "exact_k: 2"))
    refused("d", "d is None", text.replace("d: 300\n", ""))
    refused("nonsense", "'what' is not of a form that DistillKit writes", "what\n")
    refused("no YAML", "compression_config.yaml, line 2: is not of a form that DistillKit writes", "d: 3\n  k: [\n")
    refused("object", "is not of a form that DistillKit writes", "!!python/object/apply:os.getcwd []\n")
    assert indices
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"compression_config.yaml: no such file"):
        import_distillkit(tmp_path / "nothing", str(tmp_path / "target"), ImportedTeacher("teacher"))
    (tmp_path / "nothing" / "compression_config.yaml").write_text(text)
    with pytest.raises(InputError, match="has no data_<i>"):
        import_distillkit(tmp_path / "nothing", str(tmp_path / "target"), ImportedTeacher("teacher"))
    (tmp_path / "nothing" / "data_0.parquet").write_bytes((tmp_path / "good" / "data_0.parquet").read_bytes()[:-9])
    with pytest.raises(IntegrityError, match=r"data_0.parquet: truncated"):
        import_distillkit(tmp_path / "nothing", str(tmp_path / "target"), ImportedTeacher("teacher"))
