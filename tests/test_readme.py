"""Figures in the README are those that a command wrote."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("k", "vocab"), [(64, 32_000), (64, 151_936), (128, 32_000), (128, 151_936)])
def test_the_capture_table_is_the_result_files(k: int, vocab: int) -> None:
    readme = (ROOT / "README.md").read_text()
    result = json.loads((ROOT / f"benchmarks/results/capture_topk_{k}_v{vocab}_float32.json").read_text())
    line = next(line for line in readme.splitlines() if line.startswith(f"| topk, k = {k} | {vocab:,} |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2].startswith(f"{result['tokens_per_s']:,.0f} ")
    ratios = ("ratio_to_floor", "ratio_to_prefill_gemm", "ratio_to_stock_dict", "ratio_to_tuned_flat")
    assert cells[3:7] == [f"{result[name]:.2f}" for name in ratios]
    assert cells[7:] == [f"{result['writing_cost']:+.1%}", f"{result['generation_ratio']:.2f}"]


@pytest.mark.parametrize("loss", ["forward_kl", "jsd", "threshold forward_kl", "dense hard_label"])
def test_the_training_table_is_the_result_files(loss: str) -> None:
    readme = (ROOT / "README.md").read_text().partition("### What distillation costs")[2]
    line = next(line for line in readme.splitlines() if line.startswith(f"| {loss} |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
    for vocab, (time, memory) in zip((32_000, 151_936), (cells[:2], cells[2:]), strict=True):
        found = json.loads((ROOT / f"benchmarks/results/train_v{vocab}.json").read_text())["losses"][loss]
        assert time.startswith(f"{found['ratio_to_ce']['median']:.3f} ")
        assert memory == f"{found['peak_ratio_to_ce']:.2f}"


def test_the_reuse_table_is_the_result_file() -> None:
    result = json.loads((ROOT / "benchmarks/results/reuse.json").read_text())
    line = "| n online runs ÷ (one capture + n students) | "
    line += " | ".join(f"{result[f'speedup_{n}']:.2f}" for n in (1, 4, 8))
    assert line in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("kind", ["sharp", "flat"])
def test_the_ratios_of_bytes_are_those_of_the_result_files(kind: str) -> None:
    file = ROOT / f"benchmarks/results/fidelity_{kind}.json"
    result = json.loads(file.read_text())
    told = f"{kind} teacher: threshold {result[f'threshold_bytes_ratio_{kind}']:.2f}, "
    told += f"systematic {result[f'systematic_bytes_ratio_{kind}']:.2f}"
    assert told in (ROOT / "README.md").read_text()
