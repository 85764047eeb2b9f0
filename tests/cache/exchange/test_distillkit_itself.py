"""DistillKit's own code reads our exports, and its captures are imported. Skipped where it is not installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.exchange.distillkit import export_distillkit
from cache.exchange.distillkit_bytes import decode_values, read_config
from tests.cache.exchange.distillkit_files import imported, peer
from tests.cache.store.sample_stores import NUCLEUS, VOCAB, heads, make_store


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
