"""Any reader of Zarr, and a page of rules, is enough: what other libraries read is decoded here without our code.

`rows_by_hand` is the page in Python. It uses numpy and JSON alone.
"""

import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from cache.parts.codebook_learning import list_codebook
from cache.parts.layout import PROFILES, Profile
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import TargetMode
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import claim_codebook
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import MODES, TARGETS, VOCAB, assert_same_window, assert_stored, random_record, store_spec

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
Array = npt.NDArray[Any]
# Reads the array of a path, whole.
Read = Callable[[Path], Array]


def make_records(mode: TargetMode) -> list[Record]:
    """More than one chunk of tokens, an empty document, and one without a target."""
    rng = np.random.default_rng(20)
    lengths = [(3, 20), (0, 0), (2, 400), (5, 0), (1, 1), (40, 260), (2, 9)]
    return [random_record(rng, f"{mode} {i}", *each, TARGETS[mode]) for i, each in enumerate(lengths)]


def make_store(folder: Path, records: list[Record], mode: TargetMode, profile: Profile, lists: bool = False) -> Path:
    """A store of one unit. lists: with a codebook that has lists, whether they are worth it or not."""
    spec = store_spec(TARGETS[mode])
    storage = LocalStorage(folder)
    create_store(storage, spec)
    if lists:
        targets = concatenate([record.targets for record in records])
        tokens = np.concatenate([record.tokenized.tokens for record in records])
        claim_codebook(storage, 1, list_codebook(targets, tokens, VOCAB, by_token=mode == "sampled"), len(tokens))
    write_unit(storage, spec, records, profile)
    take_snapshot(storage)
    return folder


def read_with_zarr(path: Path) -> Array:
    return np.asarray(zarr.open_array(path, mode="r")[...])


def read_with_tensorstore(path: Path) -> Array:
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    return np.asarray(tensorstore.open(spec, read=True, open=True).result().read().result())


READERS = {"zarr-python": read_with_zarr, "tensorstore": read_with_tensorstore}


@dataclass(frozen=True)
class Codes:
    """What codes mean: the plain codebook is one whose order is that of the ids, without lists."""

    order: Array
    listed: Array
    list_start: Array
    list_of: Array
    by_token: bool

    def id(self, chosen: int, code: int) -> int:
        begin, end = self.list_start[chosen], self.list_start[chosen + 1]
        return int(self.listed[begin + code]) if code < end - begin else int(self.order[code - (end - begin)])


def codes_by_hand(store: Path, part: dict[str, Any], vocab: int, read: Read) -> Codes:
    if not part["codebook"]:
        return Codes(np.arange(vocab), np.zeros(0, int), np.zeros(2, int), np.zeros(vocab, int), False)
    folder = unpacked(store / "codebooks" / f"{part['codebook']}.zarr.zip")
    by_token = json.loads((folder / "zarr.json").read_text())["attributes"]["by_token"]
    return Codes(*(read(folder / name).astype(int) for name in ("order", "listed", "list_start", "list_of")), by_token)


def unpacked(path: Path) -> Path:
    """A folder with the entries of a zip file, for readers that open folders."""
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def rows_by_hand(store: Path, read: Read) -> Iterator[tuple[int, list[int], list[float], float, int]]:
    """(token, ids, log-probabilities, log tail, exact entries) of each token of the only part of a store."""
    commit = json.loads(next((store / "commits").iterdir()).read_text())
    part = unpacked(store / commit["part"]["path"])
    attributes = json.loads((part / "zarr.json").read_text())["attributes"]
    vocab = json.loads((store / "spec.json").read_text())["spec"]["vocab_size"]
    spec = attributes["targets"]
    codes = codes_by_hand(store, attributes, vocab, read)

    def numbers(name: str) -> list[int]:
        """Numbers of a stream, none where the mode has no such stream."""
        return [int(value) for value in read(part / name)] if (part / name).exists() else []

    tokens, tail = numbers("tokens/id"), numbers("tokens/tail")
    exact = numbers("tokens/exact") or [0] * len(tokens)
    sampled = numbers("tokens/sampled") or [0] * len(tokens)
    edges = attributes["bands"]
    band_codes = {edge: iter(numbers(f"rank{edge}/code")) for edge in edges}
    band_gaps = {edge: iter(numbers(f"rank{edge}/gap_pair" if edge else "rank0/gap")) for edge in edges}
    sampled_code, draws = iter(numbers("sampled/code")), iter(numbers("sampled/draws"))
    grid = read(part / "grid").astype(np.float64) if (part / "grid").exists() else np.zeros(0)
    for token, count, drawn, odds in zip(tokens, exact, sampled, tail, strict=True):
        gaps, codes_of_row = [], []
        for j in range(count):
            edge = max(edge for edge in edges if edge <= j)
            codes_of_row.append(next(band_codes[edge]))
            if edge == 0:
                gaps.append(next(band_gaps[edge]))
            elif (j - edge) % 2 == 0:
                pair = next(band_gaps[edge])
                total = (math.isqrt(8 * pair + 1) - 1) // 2
                second = pair - total * (total + 1) // 2
                gaps.append(total - second)
            else:
                gaps.append(second)
        ids: list[int] = []
        chosen = int(codes.list_of[token]) if codes.by_token else 0
        for j in range(count):
            if j == 0 and not codes.by_token:
                ids.append(int(codes.order[codes_of_row[0]]))
                chosen = int(codes.list_of[ids[0]])
                continue
            if j > 1 and gaps[j] == 0:
                codes_of_row[j] += codes_of_row[j - 1] + 1
            ids.append(codes.id(chosen, codes_of_row[j]))
        log_tail, log_head = tail_by_hand(odds)
        values = grid[np.cumsum(gaps)] if count else np.zeros(0)
        values = values + (log_head - np.log(np.exp(values).sum())) if count else values
        weights, code = [], -1
        for _ in range(drawn):
            code += next(sampled_code) + 1
            ids.append(codes.id(chosen, code))
            weights.append(
                np.log(next(draws) / spec["draws"]) if spec["mode"] == "sampled" else np.log(spec["threshold"])
            )
        yield token, ids, [*values.tolist(), *weights], log_tail, count


def tail_by_hand(odds: int) -> tuple[float, float]:
    if odds == -32767:
        return -np.inf, 0.0
    if odds == 32767:
        return 0.0, -np.inf
    return float(-np.logaddexp(0, -odds / 64)), float(-np.logaddexp(0, odds / 64))


def assert_rows_agree(store: Path, read: Read) -> None:
    """Our reader and the rules give the same tokens, ids, log-probabilities, tails and counts."""
    ours = LogitStore.open(str(store))
    tokens, ids, logprobs, tails, exact, counts = [], [], [], [], [], []
    for token, ids_of_row, values, log_tail, count in rows_by_hand(store, read):
        tokens.append(token)
        ids += ids_of_row
        logprobs += values
        tails.append(log_tail)
        exact.append(count)
        counts.append(len(ids_of_row))
    windows = ours.read(range(len(ours)))
    targets = concatenate([window.targets for window in windows])
    assert np.array_equal(np.concatenate([window.tokens for window in windows]), tokens)
    assert np.array_equal(targets.counts, counts)
    assert np.array_equal(targets.exact_counts, exact)
    assert np.array_equal(targets.ids, ids)
    assert len(ids) > 1000
    assert np.abs(targets.logprobs - np.array(logprobs)).max() < 1e-5
    with np.errstate(invalid="ignore"):
        assert np.allclose(targets.log_tail, tails, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mode", MODES)
def test_the_rules_read_a_portable_store(mode: TargetMode, reader: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", make_records(mode), mode, "portable")
    assert_rows_agree(store, READERS[reader])


@pytest.mark.parametrize("reader", READERS)
def test_the_rules_read_a_fast_store(reader: str, tmp_path: Path) -> None:
    assert_rows_agree(make_store(tmp_path / "store", make_records("threshold"), "threshold", "fast"), READERS[reader])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lists", [False, True])
def test_the_rules_and_the_codebook_read_a_compact_store(mode: TargetMode, lists: bool, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", make_records(mode), mode, "compact", lists)
    (book,) = (store / "codebooks").glob("*.zarr.zip")
    group: Any = zarr.open_group(zarr.storage.ZipStore(book), mode="r")
    assert (group["listed"].shape[0] > 0) == lists
    assert_rows_agree(store, read_with_zarr)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_array_of_a_part_is_read_by_its_path(profile: Profile, tmp_path: Path) -> None:
    """Names that a plain reader is told of in groups, with the values of the record beside those of the rows."""
    records = make_records("topk")
    store = make_store(tmp_path / "store", records, "topk", profile)
    part = next((store / "parts").glob("*/*.zarr.zip"))
    group: Any = zarr.open_group(zarr.storage.ZipStore(part), mode="r")
    lengths = [len(record.tokenized.tokens) for record in records]
    assert np.array_equal(group["examples/token_start"][...], np.cumsum([0, *lengths]))
    starts = group["examples/description_start"][...]
    text = group["examples/description"][...].tobytes()
    for record, start, stop in zip(records, starts, starts[1:], strict=False):
        description = json.loads(text[start:stop])
        assert description["key"] == record.key
        assert description["example"]["messages"] == list(record.tokenized.example.messages)
    surprisal = group["tokens/surprisal"][...]
    asked = np.concatenate([record.token_logprobs for record in records])
    assert np.array_equal(surprisal == 65534, np.isnan(asked))
    assert np.array_equal(surprisal[~np.isnan(asked)] / -64, asked[~np.isnan(asked)])
    with_target = np.concatenate([record.targets.counts for record in records]) > 0
    targets = concatenate([record.targets for record in records])
    assert targets.entropy is not None and targets.log_normalizers is not None
    assert np.array_equal(group["tokens/entropy"][...][with_target], targets.entropy[with_target])
    assert np.array_equal(group["tokens/log_normalizer"][...][with_target], targets.log_normalizers[with_target])
    exact = group["tokens/exact"][...].astype(int)
    ends = (8, 24, 64, 10**6)
    before = {}
    for edge, end in zip((0, *ends), ends, strict=False):
        if f"chunks/rank{edge}_start" in group:
            before[f"rank{edge}"] = np.clip(exact, edge, end) - edge
        if f"chunks/rank{edge}_pair_start" in group:
            before[f"rank{edge}_pair"] = (np.clip(exact, edge, end) - edge + 1) // 2
    assert set(group["chunks"]) - {"sampled_start"} == {f"{name}_start" for name in before}
    for name, counts in before.items():
        chunks = group[f"chunks/{name}_start"][...]
        sums = np.cumsum([0, *counts])
        size = group["tokens/id"].chunks[0]
        assert np.array_equal(chunks, [*sums[:-1:size], sums[-1]])


def in_order_of_ids(targets: SparseTargets) -> SparseTargets:
    """Entries of one level follow the codebook's order, and that differs between profiles."""
    kind = targets.rank_of_entry >= np.repeat(targets.exact_counts, targets.counts)
    order = np.lexsort((targets.ids, kind, targets.row_of_entry))
    return replace(targets, ids=targets.ids[order], logprobs=targets.logprobs[order])


@pytest.mark.parametrize("mode", MODES)
def test_all_profiles_return_the_same_windows(mode: TargetMode, tmp_path: Path) -> None:
    records = make_records(mode)
    windows: dict[str, list[Window]] = {}
    for name, profile, lists in [
        ("portable", "portable", False),
        ("fast", "fast", False),
        ("compact", "compact", False),
        ("lists", "compact", True),
    ]:
        folder = make_store(tmp_path / name, records, mode, profile, lists)  # type: ignore[arg-type]
        report = verify_store(str(folder))
        assert not report.problems and not report.uncommitted
        store = LogitStore.open(str(folder))
        windows[name] = [store[i].window for i in range(len(store))]
    for i, record in enumerate(records):
        assert_stored(windows["portable"][i], record.window, TARGETS[mode])
        assert_same_window(windows["fast"][i], windows["portable"][i])
        expected = replace(windows["portable"][i], targets=in_order_of_ids(windows["portable"][i].targets))
        for name in ("compact", "lists"):
            found = windows[name][i]
            assert_same_window(replace(found, targets=in_order_of_ids(found.targets)), expected)


def test_only_a_compact_store_has_a_codebook(tmp_path: Path) -> None:
    """A portable part must be readable without a second place to look up."""
    for profile in PROFILES:
        store = make_store(tmp_path / profile, make_records("nucleus"), "nucleus", profile)
        assert (store / "codebooks").exists() == (profile == "compact")


def test_one_store_may_contain_parts_of_all_profiles(tmp_path: Path) -> None:
    records = make_records("topk")
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    for i, profile in enumerate(PROFILES):
        write_unit(storage, spec, records[2 * i : 2 * i + 2], profile)
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    written = {record.key: record for record in records}
    assert len(store) == 6
    for found in store:
        assert_stored(found.window, written[found.key].window, TARGETS["topk"])
    assert not verify_store(str(storage)).problems
