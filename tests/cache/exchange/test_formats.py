"""What leaves a store in another form comes back the same; other profiles hold the same rows; mistakes are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.errors import InputError, IntegrityError, LogitbankError, SpecMismatchError, StoreError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.exchange.axolotl import export_axolotl, import_axolotl
from cache.exchange.distillkit import export_distillkit, import_distillkit
from cache.exchange.distillkit_bytes import (
    CompressionConfig,
    ResidualBin,
    decode_ids,
    decode_values,
    encode_ids,
    encode_values,
    read_config,
)
from cache.exchange.parquet import export_parquet, import_parquet
from cache.parts.layout import Profile
from cache.rows.codebook import plain_codebook
from cache.rows.codec import decode_rows, encode_rows
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import committed_units, create_store, quarantine, quarantined, unit_name
from cache.store.fill import token_blocks
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.transcode import on_grid, transcode
from cache.store.unit_writer import write_unit
from cache.store.verify import verify
from tests.cache.examples.chats import AGENT

VOCAB, PROMPT, RESPONSE = 300, 4, 7
TOPK = TargetSpec("topk", 8)
NUCLEUS = TargetSpec("nucleus", 8, mass=0.7, entropy=True, temperatures=(1.0, 2.0))
THRESHOLD = TargetSpec("threshold", threshold=0.05)
SAMPLED = TargetSpec("sampled", draws=12)


def heads(rng: np.random.Generator, rows: int, k: int, spread: tuple[float, float] = (0.1, 4.0)) -> SparseTargets:
    """The k largest of random distributions over VOCAB, flat and peaked ones."""
    logits = rng.normal(size=(rows, VOCAB)) * rng.uniform(*spread, (rows, 1))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    ids = np.argsort(-log_p, axis=1)[:, :k]
    held = np.take_along_axis(log_p, ids, axis=1)
    tail = np.log1p(-np.exp(held).sum(axis=1))
    offsets = np.arange(0, rows * k + 1, k)
    return SparseTargets(offsets, ids.ravel().astype("u4"), held.ravel().astype("f4"), tail.astype("f4"))


def cut(targets: SparseTargets, counts: npt.NDArray[np.int64]) -> SparseTargets:
    """The first `counts` entries of each row."""
    kept = targets.rank_of_entry < np.repeat(counts, targets.counts)
    rows = np.repeat(np.arange(len(counts)), counts)
    mass = np.bincount(rows, weights=np.exp(targets.logprobs[kept].astype(float)), minlength=len(counts))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return SparseTargets(offsets, targets.ids[kept], targets.logprobs[kept], np.log1p(-mass).astype("f4"))


def rows_for(spec: TargetSpec, rng: np.random.Generator, rows: int) -> SparseTargets:
    if spec.mode == "topk":
        return heads(rng, rows, spec.k)
    if spec.mode == "nucleus":
        targets = cut(heads(rng, rows, spec.k), rng.integers(1, spec.k + 1, rows))
        return replace(
            targets,
            entropy=rng.uniform(0, 5, rows).astype("f4"),
            log_normalizers=rng.normal(size=(rows, 2)).astype("f4"),
        )
    counts = rng.integers(1, 4, rows) if spec.mode == "threshold" else np.zeros(rows, np.int64)
    head = cut(heads(rng, rows, 3), counts)
    ids, logprobs, ends = [], [], [0]
    for row in range(rows):
        own = head.rows(row, row + 1)
        drawn = np.setdiff1d(rng.choice(VOCAB, 4, replace=False), own.ids)
        value = np.log(spec.threshold) if spec.mode == "threshold" else np.log(3 / spec.draws)
        ids.append(np.concatenate([own.ids, drawn]))
        logprobs.append(np.concatenate([own.logprobs, np.full(len(drawn), value)]))
        ends.append(ends[-1] + len(ids[-1]))
    return SparseTargets(
        np.array(ends), np.concatenate(ids).astype("u4"), np.concatenate(logprobs).astype("f4"), head.log_tail, counts
    )


def with_empty_rows(targets: SparseTargets, before: int) -> SparseTargets:
    return concatenate([empty_targets(before), targets, empty_targets(1)])


def records_for(spec: TargetSpec, count: int, seed: int = 0) -> list[Record]:
    """Examples of different lengths; the second row of each response holds no target."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        response = RESPONSE + i % 3
        n = PROMPT + response
        tokens = rng.integers(0, VOCAB, n).astype(np.uint32)
        segments = np.array([Segment.PROMPT] * PROMPT + [Segment.RATIONALE] * 2 + [Segment.RESPONSE] * (response - 2))
        example = Example(f"e{i}", ({"role": "user", "content": "Grüß {}"},), "why", "ü\n", {"n": i, "x": [None]})
        tokenized = TokenizedExample(example, tokens, segments.astype(np.uint8), "scored" if i % 2 else "generated/0")
        targets = with_empty_rows(rows_for(spec, rng, response), PROMPT - 1)
        own = np.where(segments == Segment.PROMPT, np.nan, -1.25).astype(np.float32)
        records.append(Record(tokenized.key, tokenized, targets, own))
    return records


def make_store(
    folder: Path, targets: TargetSpec = TOPK, units: int = 3, examples: int = 4, profile: Profile = "compact"
) -> LogitStore:
    spec = StoreSpec("teacher", "weights", "tokenizer", "template", VOCAB, VOCAB, "float32", targets, None)
    storage = LocalStorage(folder)
    create_store(storage, spec)
    for unit in range(units):
        write_unit(storage, spec, records_for(targets, examples, unit), profile)
    take_snapshot(storage)
    return LogitStore.open(str(folder))


def by_level(record: Record) -> list[tuple[Any, ...]]:
    """Entries of each row such that only the order within one value is forgotten."""
    targets = record.targets
    kind = targets.rank_of_entry < np.repeat(targets.exact_counts, targets.counts)
    values = np.round(targets.logprobs.astype(float), 4)
    return sorted(zip(targets.row_of_entry, ~kind, -values, targets.ids, strict=True))


def assert_same_targets(found: Record, wanted: Record, tolerance: float = 1e-5) -> None:
    assert np.array_equal(found.targets.offsets, wanted.targets.offsets)
    assert np.array_equal(found.targets.exact_counts, wanted.targets.exact_counts)
    assert np.array_equal(np.isneginf(found.targets.log_tail), np.isneginf(wanted.targets.log_tail))
    assert np.abs(sorted_values(found) - sorted_values(wanted)).max() <= tolerance


def sorted_values(record: Record) -> npt.NDArray[np.float32]:
    """Log-probabilities in the order of row and id: compares values of the same id."""
    order = np.lexsort((record.targets.ids, record.targets.row_of_entry))
    return np.asarray(record.targets.logprobs[order])


def assert_same_records(found: LogitStore, wanted: LogitStore) -> None:
    assert len(found) == len(wanted)
    for record in wanted:
        other = found[found.find(record.key)]
        assert other.tokenized.example == record.tokenized.example
        assert other.tokenized.origin == record.tokenized.origin
        assert np.array_equal(other.tokenized.tokens, record.tokenized.tokens)
        assert np.array_equal(other.tokenized.segments, record.tokenized.segments)
        assert np.array_equal(other.token_logprobs, record.token_logprobs, equal_nan=True)
        assert_same_targets(other, record)
        assert [e[:2] + e[3:] for e in by_level(other)] == [e[:2] + e[3:] for e in by_level(record)]
        assert np.array_equal(other.targets.log_tail, record.targets.log_tail)
        for name in ("entropy", "log_normalizers"):
            mine, theirs = getattr(other.targets, name), getattr(record.targets, name)
            assert (mine is None) == (theirs is None)
            assert mine is None or np.array_equal(mine, theirs, equal_nan=True)


def by_tokens(store: LogitStore) -> dict[bytes, Record]:
    """Records of a store that kept nothing but tokens."""
    return {record.tokenized.tokens.tobytes(): record for record in store}


class KilledError(Exception):
    """A kill between two units."""


def stop_after(number: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= number:
            raise KilledError

    return progress


# --- transcode


@pytest.mark.parametrize("targets", [TOPK, NUCLEUS, THRESHOLD, SAMPLED], ids=lambda spec: spec.mode)
def test_no_profile_changes_a_row(tmp_path: Path, targets: TargetSpec) -> None:
    source = make_store(tmp_path / "source", targets)
    before = str(tmp_path / "source")
    for profile in ("portable", "fast", "compact", "portable"):
        after = str(tmp_path / f"{Path(before).name}-{profile}")
        transcode(before, after, profile)
        found = LogitStore.open(after, expect=source.spec)
        assert_same_records(found, source)
        assert found.index.profile.tolist() == [("compact", "portable", "fast").index(profile)] * 3
        assert np.array_equal(found.index.unit, source.index.unit), "units stay what they are"
        report = verify(after)
        assert not report.problems and not report.uncommitted
        before = after


@pytest.mark.parametrize("k", [2, 4, 16, 64])
@pytest.mark.parametrize("step", [0.005, 0.04])
def test_values_that_were_stored_once_do_not_drift(k: int, step: float) -> None:
    """The shift of a flat row exceeds half a step: rounding it again would choose other levels."""
    spec = TargetSpec("topk", k, step=step)
    codebook, tokens = plain_codebook(VOCAB), np.zeros(6000, np.uint32)

    def stored(targets: SparseTargets) -> SparseTargets:
        return decode_rows(encode_rows(targets, tokens, spec, codebook), tokens, spec, codebook, "test")

    rng = np.random.default_rng(k)
    counts = rng.integers(0, k + 1, 6000)
    first = stored(cut(heads(rng, 6000, k, (0.01, 8.0)), counts))
    again = first
    for _ in range(3):
        again = stored(on_grid(again, spec))
        assert np.array_equal(again.ids, first.ids)
        assert np.abs(again.logprobs - first.logprobs).max() < 2e-6
        assert np.array_equal(again.log_tail, first.log_tail)
    if k < 16:
        assert np.abs(stored(first).logprobs - first.logprobs).max() > step / 2, "this test has no rows that drift"


def test_rows_that_no_store_held_are_left_alone() -> None:
    targets = heads(np.random.default_rng(0), 200, 16)
    assert np.array_equal(on_grid(targets, TargetSpec("topk", 16)).logprobs, targets.logprobs)
    assert on_grid(empty_targets(3), TOPK).counts.tolist() == [0, 0, 0]


def test_an_interrupted_transcode_continues_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def counted(storage: Any, spec: StoreSpec, records: Any, *rest: Any) -> Any:
        written.append(unit_name([record.key for record in records]))
        return write_unit(storage, spec, records, *rest)

    monkeypatch.setattr("cache.store.transcode.write_unit", counted)
    source = make_store(tmp_path / "source", units=4)
    target = tmp_path / "target"
    with pytest.raises(KilledError):
        transcode(str(tmp_path / "source"), str(target), "fast", progress=stop_after(2))
    with pytest.raises(StoreError, match="no snapshot yet"):
        LogitStore.open(str(target))
    early = {path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()}
    transcode(str(tmp_path / "source"), str(target), "fast")
    assert_same_records(LogitStore.open(str(target)), source)
    assert len(committed_units(LocalStorage(target))) == 4
    assert {path: path.stat().st_mtime_ns for path in early} == early
    assert len(written) == len(set(written)) == 4, "what was committed was written again"


def test_other_units_hold_the_same_examples_and_an_old_snapshot_only_its_own(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", units=2, examples=5)
    quarantine(source.storage, "a" * 32, "bad", "too long")
    write_unit(source.storage, source.spec, records_for(TOPK, 2, seed=9))
    take_snapshot(source.storage)
    transcode(str(tmp_path / "source"), str(tmp_path / "old"), "portable", snapshot=1, unit_examples=3)
    old = LogitStore.open(str(tmp_path / "old"))
    assert_same_records(old, source)
    assert len(old.index.unit) == 4 and not quarantined(LocalStorage(tmp_path / "old"))
    transcode(str(tmp_path / "source"), str(tmp_path / "new"), "portable")
    assert quarantined(LocalStorage(tmp_path / "new")) == ["a" * 32]
    assert LogitStore.open(str(tmp_path / "new")).info().quarantined == 1


def test_an_example_of_two_units_is_copied_once(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", units=1, examples=3)
    write_unit(source.storage, source.spec, [*records_for(TOPK, 3)[1:], *records_for(TOPK, 1, seed=5)])
    take_snapshot(source.storage)
    transcode(str(tmp_path / "source"), str(tmp_path / "target"), "fast")
    target = LogitStore.open(str(tmp_path / "target"))
    assert len(target) == 4 and int(target.index.counts[:, 0].sum()) == 4


def test_a_compact_target_learns_its_codebook_from_the_whole_source(tmp_path: Path) -> None:
    """A first unit of another kind gives a codebook that suits no other unit."""
    spec = StoreSpec("teacher", "weights", "tokenizer", "template", VOCAB, VOCAB, "float32", TOPK, None)
    storage = LocalStorage(tmp_path / "source")
    create_store(storage, spec)
    rng = np.random.default_rng(0)
    # Few ids are ever an entry, in the unit that comes first, also by its name, others than later.
    units = sorted(range(4), key=lambda unit: unit_name([record.key for record in records_for(TOPK, 40, unit)]))
    for place, unit in enumerate(units):
        base = heads(rng, 30, TOPK.k)
        drawn = np.stack([rng.choice(20, TOPK.k, replace=False) for _ in range(30)]) + (0 if place == 0 else 250)
        records = []
        for record in records_for(TOPK, 40, unit):
            rows = rng.integers(0, 30, len(record.targets) - PROMPT)
            picked = concatenate([base.rows(r, r + 1) for r in rows])
            ids = drawn[rng.integers(0, 30, len(rows))].ravel().astype(np.uint32)
            records.append(replace(record, targets=with_empty_rows(replace(picked, ids=ids), PROMPT - 1)))
        write_unit(storage, spec, records)
    take_snapshot(storage)
    transcode(str(storage), str(tmp_path / "target"), "compact")
    source, target = LogitStore.open(str(storage)), LogitStore.open(str(tmp_path / "target"))
    codes = ("first/code", "rest/code")
    before, after = (sum(store.bytes_by_array()[name] for name in codes) for store in (source, target))
    assert after < 0.95 * before
    assert_same_records(target, source)


def test_transcode_refuses_what_would_mix_or_overwrite(tmp_path: Path) -> None:
    make_store(tmp_path / "source", units=1)
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    with pytest.raises(InputError, match="is the source itself"):
        transcode(source, f"{tmp_path}/target/../source", "fast")
    with pytest.raises(InputError, match="profile 'zip': unknown"):
        transcode(source, target, "zip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 examples a unit"):
        transcode(source, target, "fast", unit_examples=0)
    assert not (tmp_path / "target").exists()
    transcode(source, target, "fast")
    with pytest.raises(StoreError, match="already there in profile fast, wanted portable"):
        transcode(source, target, "portable")
    make_store(tmp_path / "other", NUCLEUS, units=1)
    with pytest.raises(SpecMismatchError, match="targets: stored"):
        transcode(source, str(tmp_path / "other"), "fast")


def test_blocks_hold_no_more_tokens_than_they_may() -> None:
    lengths = np.array([3, 3, 3, 50, 1, 1, 9])
    assert [list(block) for block in token_blocks(lengths, 10)] == [[0, 1, 2], [3], [4, 5], [6]]
    assert list(token_blocks(lengths[:0])) == []


# --- Parquet


@pytest.mark.parametrize("targets", [TOPK, NUCLEUS, THRESHOLD, SAMPLED], ids=lambda spec: spec.mode)
def test_parquet_brings_back_every_array_and_text(tmp_path: Path, targets: TargetSpec) -> None:
    source = make_store(tmp_path / "source", targets)
    export_parquet(source, tmp_path / "all.parquet")
    import_parquet(tmp_path / "all.parquet", str(tmp_path / "target"), unit_examples=5)
    assert_same_records(LogitStore.open(str(tmp_path / "target"), expect=source.spec), source)


def test_parquet_columns_say_what_they_hold(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", NUCLEUS, units=1)
    export_parquet(source, tmp_path / "all.parquet")
    row, record = pq.read_table(tmp_path / "all.parquet").to_pylist()[2], source[2]
    assert row["key"] == record.key and json.loads(row["messages"]) == list(record.tokenized.example.messages)
    assert row["tokens"] == record.tokenized.tokens.tolist()
    start, stop = row["offsets"][PROMPT], row["offsets"][PROMPT + 1]
    assert row["ids"][start:stop] == record.targets.rows(PROMPT, PROMPT + 1).ids.tolist()
    assert np.isnan(row["entropy"][0]) and len(row["log_normalizers"][PROMPT]) == 2


def test_parquet_keeps_label_and_tools_and_reads_files_without(tmp_path: Path) -> None:
    agent = replace(AGENT, label="4")
    records = [replace(r, tokenized=replace(r.tokenized, example=agent)) for r in records_for(TOPK, 2, seed=9)]
    source = make_store(tmp_path / "source", units=1)
    write_unit(source.storage, source.spec, records)
    take_snapshot(source.storage)
    export_parquet(LogitStore.open(str(tmp_path / "source")), tmp_path / "all.parquet")
    older = pq.read_table(tmp_path / "all.parquet").drop_columns(["label", "tools"])
    pq.write_table(older, tmp_path / "older.parquet")
    for name, wanted in (("all", agent), ("older", replace(agent, label="", tools=()))):
        import_parquet(tmp_path / f"{name}.parquet", str(tmp_path / name))
        found = [record.tokenized.example for record in LogitStore.open(str(tmp_path / name))]
        assert found.count(wanted) == 2 and len(found) == 6


def test_an_interrupted_parquet_import_continues(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source")
    export_parquet(source, tmp_path / "all.parquet")
    with pytest.raises(KilledError):
        import_parquet(tmp_path / "all.parquet", str(tmp_path / "target"), 3, progress=stop_after(6))
    import_parquet(tmp_path / "all.parquet", str(tmp_path / "target"), 3)
    assert_same_records(LogitStore.open(str(tmp_path / "target")), source)
    report = verify(str(tmp_path / "target"))
    assert not report.problems and not report.uncommitted


def test_parquet_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    export_parquet(make_store(tmp_path / "source"), tmp_path / "all.parquet")
    data = (tmp_path / "all.parquet").read_bytes()
    altered = bytearray(data)
    altered[len(data) // 3] ^= 1
    for name, content in (("cut", data[:-50]), ("altered", bytes(altered)), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LogitbankError, match=name):
            import_parquet(tmp_path / name, str(tmp_path / f"store of {name}"))
        assert not (tmp_path / f"store of {name}" / "snapshots").exists()
    with pytest.raises(InputError, match="no such file"):
        import_parquet(tmp_path / "absent", str(tmp_path / "target"))


def test_an_altered_byte_of_a_parquet_file_changes_no_row_unseen(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", units=1)
    export_parquet(source, tmp_path / "all.parquet")
    data = (tmp_path / "all.parquet").read_bytes()
    refused = 0
    for number, place in enumerate(np.linspace(8, 0.6 * len(data), 24).astype(int)):
        altered = bytearray(data)
        altered[place] ^= 4
        (tmp_path / "altered.parquet").write_bytes(bytes(altered))
        try:
            import_parquet(tmp_path / "altered.parquet", str(tmp_path / f"{number}"), profile="fast")
        except LogitbankError:
            refused += 1
        else:  # the byte was of no meaning
            assert_same_records(LogitStore.open(str(tmp_path / f"{number}")), source)
    assert refused > 12


def test_parquet_of_others_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", units=1)
    export_parquet(source, tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")

    def refused(changed: Any, why: str) -> None:
        pq.write_table(changed, tmp_path / "changed.parquet")
        with pytest.raises(LogitbankError, match=why):
            import_parquet(tmp_path / "changed.parquet", str(tmp_path / "target"))
        assert not (tmp_path / "target" / "spec.json").exists() or not committed_units(
            LocalStorage(tmp_path / "target")
        )

    def changed(name: str, values: Any) -> Any:
        return table.set_column(table.schema.get_field_index(name), name, values)

    tails = table["log_tail"].to_pylist()
    refused(table.replace_schema_metadata({}), "no 'logitbank' metadata")
    document = table.schema.metadata[b"logitbank"].replace(b'"k":8', b'"k":9')
    refused(table.replace_schema_metadata({b"logitbank": document}), "fingerprint is that of another spec")
    refused(table.drop_columns(["segments"]), "no column 'segments'")
    refused(changed("tokens", pa.array([t[1:] for t in table["tokens"].to_pylist()])), "example e0.*differ in length")
    refused(changed("log_tail", pa.array([t[1:] for t in tails], pa.list_(pa.float32()))), "example e0: offsets")
    refused(changed("ids", pa.array([[7] * len(i) for i in table["ids"].to_pylist()])), "7 stands twice in one row")
    refused(changed("metadata", pa.array(["{"] * 4)), "example e0: messages, metadata and tools must be JSON")
    refused(changed("key", pa.array([None] * 4, pa.string())), "column 'key' has an empty value")


@pytest.mark.parametrize("export", [export_parquet, export_distillkit, export_axolotl])
def test_an_export_appears_whole_or_not_at_all(tmp_path: Path, export: Callable[..., Any]) -> None:
    source = make_store(tmp_path / "source", units=1)
    place = tmp_path / "exports" / "out"
    with pytest.raises(KilledError):
        export(source, place, progress=stop_after(1))
    assert list((tmp_path / "exports").iterdir()) == []
    export(source, place)
    before = {path: path.read_bytes() for path in (tmp_path / "exports").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="out: exists already"):
        export(source, place)
    assert before == {path: path.read_bytes() for path in (tmp_path / "exports").rglob("*") if path.is_file()}


# --- DistillKit


def test_the_worked_example_has_these_bytes() -> None:
    values = encode_values(np.array([[-0.5, -1.25, -3.0]], np.float32), "bfloat16")
    assert values.tolist() == [[0, 191, 160, 191, 64, 192]]
    assert encode_ids(np.array([[7, 2, 9]], np.uint32), 4).tolist() == [[114, 144]]


@pytest.mark.parametrize("bits", [1, 4, 9, 18, 32])
def test_packed_ids_come_back(bits: int) -> None:
    ids = np.random.default_rng(bits).integers(0, 1 << bits, (5, 7)).astype(np.uint32)
    packed = encode_ids(ids, bits)
    assert packed.shape == (5, -(-7 * bits // 8))
    assert np.array_equal(decode_ids(packed, bits, 7), ids)


def test_bfloat16_rounds_to_nearest_even() -> None:
    config = CompressionConfig(10, 4, 4, (), "bfloat16", delta_encoding=False)
    # 8 bits of precision: steps of 1/128 at 1, so the middles go to the even neighbour.
    values = np.array([[-1 - 1 / 256, -1 - 3 / 256, -1 - 1.01 / 256, -1e4]], np.float32)
    decoded = decode_values(encode_values(values, "bfloat16"), config)
    assert decoded.tolist() == [[-1.0, -1 - 4 / 256, -1 - 2 / 256, -9984.0]]


def test_approximated_values_are_exact_part_terms_and_bins() -> None:
    """Written by hand from the description: 1 exact value, 2 - 1.5 t, and a bin of 3-bit integers in units of 0.5."""
    config = CompressionConfig(
        100, 4, 1, (ResidualBin("float16", 3, 2),), "float32", (0, 1), "float16", delta_encoding=False
    )
    data = np.array([-1.0], "<f4").tobytes() + np.array([-2.0, -1.5, 0.5], "<f2").tobytes() + bytes([0b101_000_00])
    row = np.frombuffer(data, np.uint8)[None]
    assert row.shape[1] == config.logprob_bytes == 11
    assert decode_values(row, config).tolist() == [[-1.0, -2 + 0.5, -3.5 - 2.0, -5.0]]
    delta = replace(config, delta_encoding=True)
    assert decode_values(row, delta).tolist() == [[-1.0, -2.5, -8.0, -13.0]]
    one_bit = CompressionConfig(100, 3, 0, (ResidualBin("float32", 1, 3),), delta_encoding=False)
    row = np.frombuffer(np.array([2.0], "<f4").tobytes() + bytes([0b01000000]), np.uint8)[None]
    assert decode_values(row, one_bit).tolist() == [[-2.0, 2.0, -2.0]]


def exported_rows(folder: Path) -> tuple[CompressionConfig, list[dict[str, Any]]]:
    config = read_config(folder / "compression_config.yaml")
    rows = []
    for row in pq.read_table(folder / "data_0.parquet").to_pylist():
        ids = decode_ids(np.array(row["bytepacked_indices"], np.uint8), config.index_bits, config.k)
        values = decode_values(np.array(row["compressed_logprobs"], np.uint8), config)
        rows.append({**row, "ids": ids, "values": values})
    return config, rows


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
    import_distillkit(tmp_path / "out", str(tmp_path / "target"), "imported teacher", tokenizer="abc")
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


@pytest.mark.parametrize("targets", [THRESHOLD, SAMPLED], ids=lambda spec: spec.mode)
def test_forms_without_draws_refuse_stores_that_have_them(tmp_path: Path, targets: TargetSpec) -> None:
    source = make_store(tmp_path / "source", targets, units=1)
    for export in (export_distillkit, export_axolotl):
        with pytest.raises(InputError, match=rf"{targets.mode} targets have entries that stand for draws"):
            export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def capture(folder: Path, tokens: int = 6, k: int = 3, **columns: Any) -> Path:
    """A folder as DistillKit's own capture writes it: no labels, one row less than tokens."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    targets = heads(rng, tokens - 1, k)
    config = CompressionConfig(VOCAB, k, k, (), "float32", delta_encoding=False)
    values = {
        "input_ids": [rng.integers(0, VOCAB, tokens).tolist()],
        "compressed_logprobs": [encode_values(targets.logprobs.reshape(-1, k), "float32").tolist()],
        "bytepacked_indices": [encode_ids(targets.ids.reshape(-1, k), config.index_bits).tolist()],
        **columns,
    }
    (folder / "compression_config.yaml").write_text(config.to_yaml())
    pq.write_table(pa.table(values), folder / "data_0.parquet")
    return folder


def imported(folder: Path, **settings: Any) -> Record:
    import_distillkit(folder, str(folder / "store"), "teacher", **settings)
    return LogitStore.open(str(folder / "store"))[0]


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
            import_distillkit(folder, str(tmp_path / "target"), "teacher")
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
    refused("twice", "7 stands twice", bytepacked_indices=[twice])
    refused("beyond", "300 is outside the vocabulary", bytepacked_indices=[beyond])
    refused("token beyond", "input_ids has 300", input_ids=[[VOCAB] * 6])
    refused("empty", "column 'bytepacked_indices' has an empty value", bytepacked_indices=[None])
    refused("unknown", "field 'codebook' is not known", text + "codebook: 3\n")
    refused("dtype", "dtype 'int8'", text.replace("exact_dtype: float32", "exact_dtype: int8"))
    refused("sum", "do not make k = 3", text.replace("exact_k: 3", "exact_k: 2"))
    refused("d", "d is None", text.replace("d: 300\n", ""))
    refused("nonsense", "line 1: 'what'", "what\n")
    assert indices
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"compression_config.yaml: no such file"):
        import_distillkit(tmp_path / "nothing", str(tmp_path / "target"), "teacher")
    (tmp_path / "nothing" / "compression_config.yaml").write_text(text)
    with pytest.raises(InputError, match="has no data_<i>"):
        import_distillkit(tmp_path / "nothing", str(tmp_path / "target"), "teacher")
    (tmp_path / "nothing" / "data_0.parquet").write_bytes((tmp_path / "good" / "data_0.parquet").read_bytes()[:-9])
    with pytest.raises(IntegrityError, match=r"data_0.parquet: truncated"):
        import_distillkit(tmp_path / "nothing", str(tmp_path / "target"), "teacher")


def test_configuration_with_terms_and_bins_is_read_in_both_spellings(tmp_path: Path) -> None:
    path = tmp_path / "compression_config.yaml"
    path.write_text(
        "d: 300 # ids\nexact_k: 2\nk: 9\nexact_dtype: 'float16'\npolynomial_terms:\n- 0\n- 2\n- sqrt\nresidual_bins:\n"
        "- element_bits: 8\n  num_elements: 3\n  scale_dtype: float16\n- element_bits: 1\n  num_elements: 4\n"
        "  scale_dtype: float32\nnormalize_t: true\n"
    )
    config = read_config(path)
    assert (config.polynomial_terms, config.normalize_t, config.delta_encoding) == ((0, 2, "sqrt"), True, True)
    assert config.residual_bins == (ResidualBin("float16", 8, 3), ResidualBin("float32", 1, 4))
    assert config.logprob_bytes == 4 + 12 + 5 + 5
    path.write_text("d: 300\nk: 9\nexact_k: 2\npolynomial_terms: [0, 2, sqrt]\nresidual_bins: []\n")
    assert read_config(path).polynomial_terms == (0, 2, "sqrt")


# --- DistillKit's own code, where it is installed


def peer() -> Any:
    module = pytest.importorskip("distillkit.compression")
    return pytest.importorskip("torch"), module


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_distillkit_itself_reads_what_is_exported(tmp_path: Path, dtype: Any) -> None:
    torch, distillkit = peer()
    yaml = pytest.importorskip("yaml")
    source = make_store(tmp_path / "source", NUCLEUS, units=1)
    export_distillkit(source, tmp_path / "out", dtype, sequence_length=14)
    settings = yaml.safe_load((tmp_path / "out" / "compression_config.yaml").read_text())
    compressor = distillkit.LogprobCompressor(config=distillkit.DistributionQuantizationConfig(**settings))
    rows = pq.read_table(tmp_path / "out" / "data_0.parquet").to_pylist()
    batch = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    ids, values = compressor.decompress_to_sparse(batch)
    for i, record in enumerate(source):
        targets = record.targets
        place = targets.row_of_entry, targets.rank_of_entry
        assert np.array_equal(ids[i].numpy()[place], targets.ids)
        precision = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8}[dtype]
        assert np.allclose(values[i].float().numpy()[place], np.minimum(targets.logprobs, 0), rtol=precision, atol=0)
        assert (batch["labels"][i].numpy()[: len(targets)] >= 0).tolist() == (targets.counts > 0).tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"exact_k": 8, "exact_dtype": "bfloat16"},
        {"exact_k": 8, "exact_dtype": "float32", "delta_encoding": True},
        {"exact_k": 2, "polynomial_terms": [0, 1, "sqrt"], "normalize_t": True, "exact_dtype": "float16"},
        {"exact_k": 2, "polynomial_terms": [0, 1], "term_dtype": "bfloat16", "bins": [(8, 3), (1, 2)]},
        {"exact_k": 3, "bins": [(5, 5)], "error_diffusion": True},
        {"exact_k": 3, "polynomial_terms": [0, 1, 2, "exp"], "bins": [(3, 2)], "delta_encoding": True},
    ],
    ids=str,
)
def test_what_distillkit_itself_wrote_is_imported(tmp_path: Path, settings: dict[str, Any]) -> None:
    torch, distillkit = peer()
    yaml = pytest.importorskip("yaml")
    bins = [
        {"scale_dtype": "float16", "element_bits": bits, "num_elements": count}
        for bits, count in settings.pop("bins", [])
    ]
    config = distillkit.DistributionQuantizationConfig(
        **{"d": VOCAB, "k": 8, "residual_bins": bins, "delta_encoding": False, **settings}
    )
    compressor = distillkit.LogprobCompressor(config=config)
    targets = heads(np.random.default_rng(3), 40, 8, (0.5, 4.0))
    ids, values = targets.ids.reshape(1, 40, 8).astype(np.int64), targets.logprobs.reshape(1, 40, 8)
    packed = compressor.compress_from_sparse(torch.tensor(ids), torch.tensor(values))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "compression_config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    columns = {name: [tensor[0].tolist()] for name, tensor in packed.items()}
    pq.write_table(pa.table({"input_ids": [list(range(41))], **columns}), tmp_path / "in" / "data_0.parquet")
    _, decoded = compressor.decompress_to_sparse(packed)
    mine = decode_values(
        packed["compressed_logprobs"][0].numpy(), read_config(tmp_path / "in" / "compression_config.yaml")
    )
    coarse = "bfloat16" in settings.values()
    assert np.allclose(mine, decoded[0].float().numpy(), rtol=2**-7 if coarse else 2**-9, atol=0.05 if coarse else 2e-3)
    record = imported(tmp_path / "in")
    for row in range(40):
        assert set(record.targets.rows(row, row + 1).ids.tolist()) == set(ids[0, row].tolist())


# --- axolotl


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
    import_axolotl(tmp_path / "out.jsonl", str(tmp_path / "target"), "teacher", VOCAB, renormalised, unit_examples=5)
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
            import_axolotl(tmp_path / "changed.jsonl", str(tmp_path / "target"), "teacher", vocab_size)
        assert not (tmp_path / "target").exists()

    mask, ids, values = (good[0][f"target_{name}"] for name in ("mask", "token_ids", "logprobs"))
    refused("line 1: target row .* no labelled token follows", target_mask=[mask[-1], *mask[:-1]])
    refused("line 1: target row 2 counts", target_mask=[*mask[1:], mask[0]])
    refused(r"'labels' has the shape \[10\]; it must be \[11\]", labels=good[0]["labels"][1:])
    refused("'target_mask' has the shape", target_mask=mask[1:])
    refused("'target_logprobs' must be numbers, and rows of one length", target_logprobs=[values[0][1:], *values[1:]])
    refused("differ in their number of entries", target_token_ids=[row[1:] for row in ids])
    refused("stands twice", target_token_ids=[[7] * 8 for _ in ids])
    refused("as a log-probability", target_logprobs=[[0.5] * 8 for _ in ids])
    refused("'input_ids' has a token outside", input_ids=[-1] * 11)
    refused("outside the vocabulary of 4", vocab_size=4)
    refused("zeros before ones", attention_mask=[0] + [1] * 10)
    refused("'input_ids' must be a list", input_ids=[])
    (tmp_path / "cut.jsonl").write_text((tmp_path / "out.jsonl").read_text()[:-40])
    with pytest.raises(InputError, match=r"cut.jsonl, line 4: truncated, or not JSON"):
        import_axolotl(tmp_path / "cut.jsonl", str(tmp_path / "cut"), "teacher", VOCAB, unit_examples=4)
    assert not (tmp_path / "cut").exists()
    (tmp_path / "other.jsonl").write_text('{"input_ids": [1]}\n')
    with pytest.raises(InputError, match="has no 'attention_mask'"):
        import_axolotl(tmp_path / "other.jsonl", str(tmp_path / "cut"), "teacher", VOCAB)
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
    import_axolotl(tmp_path / "padded.jsonl", str(tmp_path / "target"), "teacher", VOCAB, renormalised=False)
    record = LogitStore.open(str(tmp_path / "target"))[0]
    assert len(record.tokenized.tokens) == n and record.tokenized.example.id == "1"
    assert record.targets.counts.tolist() == [0] * (PROMPT - 1) + [8, 0] + [8] * (n - PROMPT - 2) + [0]
