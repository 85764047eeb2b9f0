"""A store exported to Parquet and imported again is the same; damaged or foreign files are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.errors import InputError, LogitbankError
from cache.exchange.parquet import export_parquet, import_parquet
from cache.rows.spec import TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import committed_units
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.examples.chats import AGENT
from tests.cache.store.sample_stores import (
    NUCLEUS,
    PROMPT,
    SAMPLED,
    THRESHOLD,
    TOPK,
    KilledError,
    assert_same_records,
    make_store,
    records_for,
    stop_after,
)


@pytest.mark.parametrize("targets", [TOPK, NUCLEUS, THRESHOLD, SAMPLED], ids=lambda spec: spec.mode)
def test_parquet_brings_back_every_array_and_text(tmp_path: Path, targets: TargetSpec) -> None:
    source = make_store(tmp_path / "source", targets)
    export_parquet(source, tmp_path / "all.parquet")
    import_parquet(tmp_path / "all.parquet", str(tmp_path / "target"), unit_examples=5)
    assert_same_records(LogitStore.open(str(tmp_path / "target"), expect=source.spec), source)


def test_parquet_columns_contain_what_their_names_say(tmp_path: Path) -> None:
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
    report = verify_store(str(tmp_path / "target"))
    assert not report.problems and not report.uncommitted


def test_truncated_or_altered_parquet_is_refused(tmp_path: Path) -> None:
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
    refused(changed("ids", pa.array([[7] * len(i) for i in table["ids"].to_pylist()])), "7 occurs twice in one row")
    refused(changed("metadata", pa.array(["{"] * 4)), "example e0: messages, metadata and tools must be JSON")
    refused(changed("key", pa.array([None] * 4, pa.string())), "column 'key' has an empty value")
