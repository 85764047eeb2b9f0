"""DistillKit captures: one written by hand, what an export wrote, and DistillKit's own code if it is installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.exchange.conversion import ImportedTeacher
from cache.exchange.distillkit import import_distillkit
from cache.exchange.distillkit_bytes import (
    CompressionConfig,
    decode_ids,
    decode_values,
    encode_ids,
    encode_values,
    read_config,
)
from cache.rows.record import Record
from cache.store.logit_store import LogitStore
from tests.cache.store.sample_stores import VOCAB, heads


def exported_rows(folder: Path) -> tuple[CompressionConfig, list[dict[str, Any]]]:
    config = read_config(folder / "compression_config.yaml")
    rows = []
    for row in pq.read_table(folder / "data_0.parquet").to_pylist():
        ids = decode_ids(np.array(row["bytepacked_indices"], np.uint8), config.index_bits, config.k)
        values = decode_values(np.array(row["compressed_logprobs"], np.uint8), config)
        rows.append({**row, "ids": ids, "values": values})
    return config, rows


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
    import_distillkit(folder, str(folder / "store"), ImportedTeacher("teacher"), **settings)
    return LogitStore.open(str(folder / "store"))[0]


def peer() -> Any:
    module = pytest.importorskip("distillkit.compression")
    return pytest.importorskip("torch"), module
