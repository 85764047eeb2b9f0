"""Records with impossible values, of another mode or of wrong lengths are refused before anything is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetMode
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, VOCAB, random_record, store_spec
from tests.cache.store.damage import all_files, units_of


def changed(targets: SparseTargets, array: str, position: int, value: Any) -> SparseTargets:
    values = getattr(targets, array).copy()
    values.reshape(-1)[position] = value
    return replace(targets, **{array: values})


def swapped(targets: SparseTargets) -> SparseTargets:
    values = targets.logprobs.copy()
    values[1], values[2] = values[2], values[1]
    return replace(targets, logprobs=values)


def bad_offsets(targets: SparseTargets) -> SparseTargets:
    """The second row takes back what the first had."""
    offsets = targets.offsets.copy()
    offsets[1] = offsets[3]
    return replace(targets, offsets=offsets)


# Row 2 of each of these records, the last token of the prompt, is the first with entries.
BAD: dict[str, tuple[Callable[[SparseTargets], SparseTargets], str]] = {
    "nan": (lambda t: changed(t, "logprobs", 5, np.nan), "row 2: log-probabilities must be finite .* not nan"),
    "inf": (lambda t: changed(t, "logprobs", 5, np.inf), "row 2: log-probabilities must be finite .* not inf"),
    "minus inf": (lambda t: changed(t, "logprobs", 5, -np.inf), "row 2: .* must be finite .* not -inf"),
    "positive": (lambda t: changed(t, "logprobs", 0, 0.5), r"row 2: .* not above 0, not 0\.5"),
    "too low": (lambda t: changed(t, "logprobs", 19, -701.0), r"log-probability -701\.0 is below"),
    "unsorted": (swapped, "row 2: log-probabilities must descend within a row; -"),
    "repeated": (lambda t: changed(t, "ids", 5, t.ids[3]), "row 2: id [0-9]+ occurs twice in one row"),
    "outside": (lambda t: changed(t, "ids", 7, VOCAB), "row 2: id 500 is outside the vocabulary of 500"),
    "far outside": (lambda t: changed(t, "ids", 7, 2**32 - 1), "row 2: id 4294967295 is outside the vocabulary"),
    "negative count": (bad_offsets, "offsets do not describe the rows"),
    "tail above 0": (lambda t: changed(t, "log_tail", 2, 0.5), "log tail mass must not be above 0"),
    "nan tail": (lambda t: changed(t, "log_tail", 2, np.nan), "log tail mass must not be above 0"),
    "all tail": (lambda t: changed(t, "log_tail", 2, 0.0), "tail of a row with exact entries must be below 1"),
    "no tail": (lambda t: changed(t, "log_tail", 0, -1.0), "tail of a row without exact entries must be 1"),
    "nan entropy": (lambda t: changed(t, "entropy", 2, np.nan), "entropy must be one finite value per row"),
    "nan normaliser": (lambda t: changed(t, "log_normalizers", 5, np.inf), "log-normalisers must be one finite"),
    "no entropy": (lambda t: replace(t, entropy=None), "entropy is not what the store's spec declares"),
    "normalisers": (lambda t: replace(t, log_normalizers=None), "0 log-normalisers a row; the spec declares 2"),
    "exact counts": (lambda t: replace(t, exact=t.counts), "sampled entries do not go with topk targets"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_record_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    change, message = BAD[name]
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    before = all_files(storage)
    good, bad = units_of("topk", 1, records=2)[0]
    bad = replace(bad, targets=change(bad.targets))
    with pytest.raises(InputError, match=message) as refusal:
        write_unit(storage, spec, [good, bad])
    assert "example 0 1" in str(refusal.value) or name == "too low"
    assert "\n" not in str(refusal.value)
    assert [path for path in all_files(storage) if "codebooks" not in path.parts] == before


@pytest.mark.parametrize(
    "mode, other, message",
    [
        ("topk", "threshold", "entries"),
        ("topk", "sampled", "entries"),
        ("nucleus", "threshold", "entries"),
        ("nucleus", "sampled", "sampled entries do not go with nucleus targets"),
        ("threshold", "topk", "sampled entries do not go with threshold targets"),
        ("threshold", "nucleus", "sampled entries do not go with threshold targets"),
        ("sampled", "topk", "sampled entries do not go with sampled targets"),
        ("sampled", "threshold", "exact entries; sampled targets have none|has [0-9]+ entries"),
    ],
)
def test_a_record_of_another_mode_is_refused(mode: TargetMode, other: TargetMode, message: str, tmp_path: Path) -> None:
    spec = store_spec(replace(TARGETS[mode], entropy=False, temperatures=()))
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    record = units_of(other, 1, records=1)[0][0]
    record = replace(record, targets=replace(record.targets, entropy=None, log_normalizers=None))
    with pytest.raises(InputError, match=f"example 0 0: .*({message})"):
        write_unit(storage, spec, [record])
    assert [path.name for path in all_files(storage)] == ["spec.json", "zarr.json"]


def test_lengths_keys_and_tokens_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    record = units_of("topk", 1, records=1)[0][0]
    tokens = record.tokenized.tokens.copy()
    tokens[3] = VOCAB
    longer = random_record(np.random.default_rng(0), "0 0", 3, 12, replace(TARGETS["topk"], k=21))
    refused = {
        "differ in length": replace(record, token_logprobs=record.token_logprobs[1:]),
        "token id is outside": replace(record, tokenized=replace(record.tokenized, tokens=tokens)),
        "32 hexadecimal digits": replace(record, key="../../../../../../../../../../x/"),
        "21 entries; topk targets of this store have at most 20": longer,
    }
    for message, bad in refused.items():
        with pytest.raises(InputError, match=f"example 0 0: .*{message}"):
            write_unit(storage, spec, [bad])
    assert [path.name for path in all_files(storage)] == ["spec.json", "zarr.json"]


@pytest.mark.parametrize("name", BAD)
def test_one_bad_record_of_hundreds_is_named_with_its_own_row(name: str, tmp_path: Path) -> None:
    """The values of a unit are checked together. Rows are counted from the start of the example all the same."""
    change, message = BAD[name]
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    unit = units_of("topk", 1, records=300)[0]
    unit[217] = replace(unit[217], targets=change(unit[217].targets))
    with pytest.raises(InputError, match=message) as refusal:
        write_unit(storage, spec, unit, "portable")
    assert "example 0 217" in str(refusal.value) or name == "too low"
    assert [path.name for path in all_files(storage)] == ["spec.json", "zarr.json"]


def test_a_bad_token_of_hundreds_of_records_is_named(tmp_path: Path) -> None:
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    unit = units_of("topk", 1, records=300)[0]
    tokens, own = unit[217].tokenized.tokens.copy(), unit[217].token_logprobs.copy()
    tokens[4], own[4] = VOCAB, 0.5
    refused = {
        f"token id is outside the vocabulary of {VOCAB}": replace(
            unit[217], tokenized=replace(unit[217].tokenized, tokens=tokens)
        ),
        r"own log-probability is 0\.5, above 0": replace(unit[217], token_logprobs=own),
        "a token id is negative": replace(
            unit[217], tokenized=replace(unit[217].tokenized, tokens=-tokens.astype(np.int64))
        ),
    }
    for message, bad in refused.items():
        with pytest.raises(InputError, match=f"example 0 217: .*{message}"):
            write_unit(storage, spec, [*unit[:217], bad, *unit[218:]], "portable")
    assert [path.name for path in all_files(storage)] == ["spec.json", "zarr.json"]
