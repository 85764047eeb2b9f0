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
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.common.harness import finish, spread

ROOT = Path(__file__).resolve().parents[1]
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
    parser.add_argument("--rank-of", nargs=3, metavar=("WAY", "MODEL", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        run_rank(*options.rank_of)
        return
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
            command = [*launcher, "-m", "benchmarks.start", "--rank-of", way, str(folder / "model"), str(output)]
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


def run_rank(way: str, model: str, output: str) -> None:
    """Start one rank in a way, and write what it took."""
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from student.models.build import build_model, build_structure
    from student.models.settings import ModelSettings
    from student.training.engine.config import deepspeed_config
    from student.training.engine.deepspeed_engine import start_ranks
    from student.training.engine.first_rank_weights import give_weights
    from student.training.run_settings import OptimizerSettings, RunSettings

    start_ranks()
    run = RunSettings.model_validate({"steps": 1, "batch_size": 64, "zero_stage": 3, "precision": "bf16"})
    config = deepspeed_config(OptimizerSettings(lr=0.1), run, dist.get_world_size(), False, {})
    what = (ModelSettings(pretrained=model), 280, AutoTokenizer.from_pretrained(model), 0)
    rank, bf16, cpu = dist.get_rank(), torch.bfloat16, torch.device("cpu")
    dist.barrier()
    with Watch() as watch:
        built: Any
        if way == "transformers":
            from transformers.integrations import HfDeepSpeedConfig

            kept = HfDeepSpeedConfig(config)  # Transformers looks for it while it is alive
            built = AutoModelForCausalLM.from_pretrained(model, dtype=bf16)
            del kept
        else:
            one_reader = way == "one_reader"
            has_weights = not one_reader or rank == 0
            dtype = bf16 if one_reader else torch.float32
            built = build_model(*what, test_head=False, dtype=dtype) if has_weights else build_structure(*what)
            give_weights(built, bf16, cpu, config)
        dist.barrier()
    assert all(parameter.ds_tensor.dtype is bf16 for parameter in built.parameters())
    Path(output, f"{rank}.json").write_text(json.dumps(watch.found))
    dist.barrier()


class Watch:
    """Seconds and highest memory of this process during a block, in bytes above that at its start."""

    def __enter__(self) -> "Watch":
        self._start, self._began = _resident(), time.monotonic()
        self._highest, self._ends = self._start, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        seconds = time.monotonic() - self._began
        self._ends.set()
        self._thread.join()
        peak, anonymous = (high - start for high, start in zip(self._highest, self._start, strict=True))
        self.found = {"peak": peak, "anonymous": anonymous, "seconds": seconds}

    def _follow(self) -> None:
        while not self._ends.wait(0.005):
            highest, now = self._highest, _resident()
            self._highest = (max(highest[0], now[0]), max(highest[1], now[1]))


def _resident() -> tuple[int, int]:
    """Bytes of memory, and of those that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return sizes["VmRSS"], sizes["RssAnon"]


if __name__ == "__main__":
    main()
