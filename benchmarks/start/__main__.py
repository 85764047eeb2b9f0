"""The start of a student on several ranks: memory and seconds until every rank has its share of the weights (ZeRO-3).

    python -m benchmarks.start --ranks 4

A random Llama is saved in bfloat16, and started for a bfloat16 run: as this project does it, where rank 0 alone reads
the weights; as every rank loading the model in float32, which this project did before; and, as the peer, by
Transformers' own loading under ZeRO-3.

Named limit: the bytes of the weights, which some process must have read. `peak`: of a rank, above what it had before,
as a multiple of these bytes. `anonymous`: of it, what is no file in memory. On a CPU a rank's share counts too, and no
device takes it away.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common.harness import finish, spread

ROOT = Path(__file__).resolve().parents[2]
WAYS = {
    "one_reader": "rank 0 alone reads",
    "every_rank": "every rank loads it in float32",
    "transformers": "Transformers' own",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options)
    print(f"{results['parameters']:,} parameters, {results['mib']:.0f} MiB in bfloat16, {options.ranks} ranks")
    for way, words in WAYS.items():
        found = results[way]
        peaks = ", ".join(
            f"{name} {found[name]['median']:.2f} ({found[name]['min']:.2f} to {found[name]['max']:.2f})"
            for name in ("first_peak", "first_anonymous", "other_peak", "other_anonymous", "seconds")
        )
        print(f"{words:<34} {peaks}")
    finish("start", results, options.save)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures. The ways take turns."""
    parameters = save_model(folder / "model", options)
    size = 2.0 * parameters
    found: dict[str, list[list[dict[str, float]]]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats):
        for way, runs in found.items():
            output = folder / f"{way}-{repeat}"
            output.mkdir()
            launcher = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc-per-node={options.ranks}",
            ]
            command = [*launcher, "-m", "benchmarks.start.rank", way, str(folder / "model"), str(output)]
            environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
            runs.append([json.loads((output / f"{rank}.json").read_text()) for rank in range(options.ranks)])
    results: dict[str, Any] = {"parameters": parameters, "mib": size / (1 << 20), "ranks": options.ranks}
    for way, runs in found.items():
        results[way] = {
            **{f"first_{name}": spread([run[0][name] / size for run in runs]) for name in ("peak", "anonymous")},
            **{
                f"other_{name}": spread([max(rank[name] for rank in run[1:]) / size for run in runs])
                for name in ("peak", "anonymous")
            },
            "seconds": spread([max(rank["seconds"] for rank in run) for run in runs]),
        }
    return results


def save_model(folder: Path, options: argparse.Namespace) -> int:
    """A random Llama in several files. Returns its number of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from cache.examples.example import Example
    from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

    text = Example("0", ({"role": "user", "content": "some words"},), response="other words")
    tokenizer: PreTrainedTokenizerFast = learn_tokenizer([text] * 20, 280)
    save_tokenizer(tokenizer, folder)
    heads = options.hidden // 128
    config = LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 11 // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        dtype="bfloat16",
    )
    with torch.device("cpu"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200MB")
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
