"""Export to and import from axolotl's JSON Lines: values, masks, round trips and refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError
from cache.exchange.axolotl import export_axolotl, import_axolotl
from cache.exchange.conversion import ImportedTeacher
from cache.store.logit_store import LogitStore
from tests.cache.store.sample_stores import NUCLEUS, PROMPT, TOPK, VOCAB, assert_same_targets, by_tokens, make_store


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_axolotl_rows_sum_to_1_and_count_where_the_next_token_is_labelled(tmp_path: Path, temperature: float) -> None:
    source = make_store(tmp_path / "source", NUCLEUS, units=1)
    export_axolotl(source, tmp_path / "out.jsonl", temperature)
    for record, line in zip(source, lines_of(tmp_path / "out.jsonl"), strict=True):
        targets, n = record.targets, len(record.tokenized.tokens)
        assert line["labels"] == [-100] * PROMPT + record.tokenized.tokens[PROMPT:].tolist()
        assert line["attention_mask"] == [1] * n
        mask, logprobs = np.array(line["target_mask"]), np.array(line["target_logprobs"])
        assert np.array(line["target_token_ids"]).shape == logprobs.shape == mask.shape == (n, 8)
        assert mask.sum(axis=1).tolist() == targets.counts.tolist()
        for i in range(n):
            row = targets.rows(i, i + 1)
            count = len(row.ids)
            assert bool(mask[i].any()) == (i + 1 < n and line["labels"][i + 1] != -100)
            assert line["target_token_ids"][i] == row.ids.tolist() + [0] * (8 - count)
            assert (logprobs[i, count:] == -1e9).all()
            if count:
                powers = np.exp(row.logprobs.astype(float) / temperature)
                assert logprobs[i, :count] == pytest.approx(np.log(powers / powers.sum()), abs=1e-5)


@pytest.mark.parametrize("renormalised", [True, False])
def test_axolotl_round_trip_keeps_ids_and_values(tmp_path: Path, renormalised: bool) -> None:
    source = make_store(tmp_path / "source")
    export_axolotl(source, tmp_path / "out.jsonl", renormalise=renormalised)
    import_axolotl(
        tmp_path / "out.jsonl",
        str(tmp_path / "target"),
        ImportedTeacher("teacher"),
        VOCAB,
        renormalised,
        unit_examples=5,
    )
    target = LogitStore.open(str(tmp_path / "target"))
    assert target.spec.targets == TOPK and len(target) == len(source)
    found = by_tokens(target)
    for record in source:
        other = found[record.tokenized.tokens.tobytes()]
        filled = record.targets.counts > 0
        assert other.tokenized.prompt_length == PROMPT
        if renormalised:
            assert np.isneginf(other.targets.log_tail[filled]).all()
            mass = np.bincount(record.targets.row_of_entry, np.exp(record.targets.logprobs), len(record.targets))
            shift = np.log(mass[record.targets.row_of_entry]).astype(np.float32)
            wanted = replace(record.targets, logprobs=record.targets.logprobs - shift, log_tail=other.targets.log_tail)
            assert_same_targets(other, replace(record, targets=wanted), 0.12)
        else:
            assert_same_targets(other, record)
            assert np.array_equal(other.targets.log_tail, record.targets.log_tail)


def test_what_is_not_axolotl_data_is_refused_by_line_and_field(tmp_path: Path) -> None:
    export_axolotl(make_store(tmp_path / "source", units=1), tmp_path / "out.jsonl")
    good = lines_of(tmp_path / "out.jsonl")

    def refused(why: str, vocab_size: int = VOCAB, **changes: Any) -> None:
        (tmp_path / "changed.jsonl").write_text(json.dumps({**good[0], **changes}) + "\n")
        with pytest.raises(InputError, match=f"changed.jsonl.*{why}"):
            import_axolotl(tmp_path / "changed.jsonl", str(tmp_path / "target"), ImportedTeacher("teacher"), vocab_size)
        assert not (tmp_path / "target").exists()

    mask, ids, values = (good[0][f"target_{name}"] for name in ("mask", "token_ids", "logprobs"))
    refused("line 1: target row .* no labelled token follows", target_mask=[mask[-1], *mask[:-1]])
    refused("line 1: target row 2 has entries", target_mask=[*mask[1:], mask[0]])
    refused(r"'labels' has the shape \[10\]; it must be \[11\]", labels=good[0]["labels"][1:])
    refused("'target_mask' has the shape", target_mask=mask[1:])
    refused("'target_logprobs' must be numbers, and rows of one length", target_logprobs=[values[0][1:], *values[1:]])
    refused("differ in their number of entries", target_token_ids=[row[1:] for row in ids])
    refused("occurs twice", target_token_ids=[[7] * 8 for _ in ids])
    refused("as a log-probability", target_logprobs=[[0.5] * 8 for _ in ids])
    refused("'input_ids' has a token outside", input_ids=[-1] * 11)
    refused("outside the vocabulary of 4", vocab_size=4)
    refused("zeros before ones", attention_mask=[0] + [1] * 10)
    refused("'input_ids' must be a list", input_ids=[])
    (tmp_path / "cut.jsonl").write_text((tmp_path / "out.jsonl").read_text()[:-40])
    with pytest.raises(InputError, match=r"cut.jsonl, line 4: truncated, or not JSON"):
        import_axolotl(
            tmp_path / "cut.jsonl", str(tmp_path / "cut"), ImportedTeacher("teacher"), VOCAB, unit_examples=4
        )
    assert not (tmp_path / "cut").exists()
    (tmp_path / "other.jsonl").write_text('{"input_ids": [1]}\n')
    with pytest.raises(InputError, match="has no 'attention_mask'"):
        import_axolotl(tmp_path / "other.jsonl", str(tmp_path / "cut"), ImportedTeacher("teacher"), VOCAB)
    with pytest.raises(InputError, match=r"temperature 2.0"):
        export_axolotl(LogitStore.open(str(tmp_path / "source")), tmp_path / "raw", 2.0, renormalise=False)


def test_axolotl_padding_and_rows_without_mask_are_empty(tmp_path: Path) -> None:
    export_axolotl(make_store(tmp_path / "source", units=1), tmp_path / "out.jsonl", renormalise=False)
    line = lines_of(tmp_path / "out.jsonl")[0]
    n = len(line["input_ids"])
    padding = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    for name, value in padding.items():
        line[name] += [value]
    for name in ("target_token_ids", "target_logprobs", "target_mask"):
        line[name] += [[0] * 8]
    line["target_mask"][PROMPT] = [0] * 8
    (tmp_path / "padded.jsonl").write_text(json.dumps(line) + "\n\n")
    import_axolotl(
        tmp_path / "padded.jsonl", str(tmp_path / "target"), ImportedTeacher("teacher"), VOCAB, renormalised=False
    )
    record = LogitStore.open(str(tmp_path / "target"))[0]
    assert len(record.tokenized.tokens) == n and record.tokenized.example.id == "1"
    assert record.targets.counts.tolist() == [0] * (PROMPT - 1) + [8, 0] + [8] * (n - PROMPT - 2) + [0]
