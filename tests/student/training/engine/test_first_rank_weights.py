"""Rank 0 alone reads the weights, and every rank begins with just these: with its share of them under ZeRO-3."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BartConfig, DeepseekV3Config, LlamaConfig, MarianConfig, T5Config

from student.models.registry import kind_of
from student.training.engine.first_rank_weights import has_one_reader
from student.training.run_settings import OptimizerSettings, RunSettings
from tests.student.training.engine.one_reader_ranks import CASES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[4]
SIZES: dict[str, Any] = {"vocab_size": 325, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.1}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": 325, "pad_token_id": 2}
MLA = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
EXPERTS = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
BART = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_layers": 2, "decoder_layers": 2}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64, "vocab_size": 325}
MODELS: dict[str, Any] = {
    "bart": lambda: BartConfig(**BART),
    "marian": lambda: MarianConfig(**BART, pad_token_id=2, decoder_start_token_id=2, decoder_vocab_size=325),
    "untied": lambda: LlamaConfig(**SIZES),
    "llama": lambda: LlamaConfig(**SIZES),
    "tied": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True),
    "bfloat16": lambda: LlamaConfig(**SIZES),
    "t5": lambda: T5Config(**T5, decoder_start_token_id=2, tie_word_embeddings=True),
    # Its correction of the load of experts is a buffer of the checkpoint.
    "corrected": lambda: DeepseekV3Config(
        **{**SIZES, "num_key_value_heads": 2}, **MLA, **EXPERTS, first_k_dense_replace=1, n_shared_experts=1
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("one_reader")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for name, make in MODELS.items():
        torch.manual_seed(1)
        config = make()
        model = kind_of(config).auto_class().from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for value in (*model.parameters(), *(each for key, each in model.named_buffers() if "bias" in key)):
                value.add_(torch.randn_like(value), alpha=0.02)
        (model.bfloat16() if name in ("bfloat16", "bart") else model).save_pretrained(folder / name)
        if name == "untied":
            document = json.loads((folder / name / "config.json").read_text())
            (folder / name / "config.json").write_text(json.dumps({**document, "tie_word_embeddings": True}))
        tokenizer.save_pretrained(str(folder / name))
    output = folder / "out" / "results.json"
    output.parent.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.student.training.engine.one_reader_ranks", str(folder), str(output)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    content: dict[str, dict[str, Any]] = json.loads(output.read_text())
    return content


@pytest.mark.parametrize("name", CASES)
def test_ranks_share_the_weights_that_one_has_read(results: dict[str, dict[str, Any]], name: str) -> None:
    """Pretrained and new, tied, with fewer layers, more logits and adapters; buffers of a checkpoint too."""
    result, (*_, precision, stage) = results[name], CASES[name]
    assert result["names"] and result["different"] == []
    # Marian's code needs values to make room for more logits, so there each rank reads them.
    assert result["devices"] == [["cpu"], ["cpu" if "marian" in name else "meta"]]
    assert result["is_same"] == ("untied" not in name)
    assert result["dtypes"] == [{"fp32": "torch.float32", "bf16": "torch.bfloat16"}[precision]]
    assert result["buffers"] == result["checksums"] == [True, True]
    assert all((0.45 < share < 0.6) if stage == 3 else share == 1 for share in result["shares"])


def test_weights_are_not_widened_on_the_way(results: dict[str, dict[str, Any]]) -> None:
    """Would catch a start that needs the memory of float32 where file and run have bfloat16."""
    dtypes = {name: result["loaded_as"] for name, result in results.items()}
    narrow = {name.rpartition("-stage")[0] for name, dtype in dtypes.items() if dtype == "torch.bfloat16"}
    assert narrow == {"bfloat16-bf16", "bart-bf16", "dora"}
    assert set(dtypes.values()) == {"torch.bfloat16", "torch.float32"}


@pytest.mark.parametrize(
    ("ranks", "stage", "mics", "in_4_bits", "wanted"),
    [
        (1, 3, -1, False, False),
        (2, 0, -1, False, True),
        (2, 3, -1, False, True),
        (2, 2, -1, True, False),
        (8, 3, 4, False, False),
        (8, 2, 4, False, True),
    ],
)
def test_who_reads(ranks: int, stage: int, mics: int, in_4_bits: bool, wanted: bool) -> None:
    run = RunSettings.model_validate({"steps": 1, "zero_stage": stage})
    options = {"zero_optimization": {"mics_shard_size": mics}}
    assert has_one_reader(run, OptimizerSettings(lr=0.1), options, ranks, in_4_bits) == wanted
