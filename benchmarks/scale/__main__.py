"""A capture job on Ray with a stand-in for the teacher: what the coordinator and Ray cost, without a model.

    python -m benchmarks.scale --examples 100000

Named limit: the pace of the stand-in, which sleeps as an accelerator computes, and needs no core. `units_per_s`: a
teacher that takes no time. `resume_scan_s`: planning of a job of which everything is captured, per 100,000 examples.
`coordinator_rss_mib`: of the driver process, at two sizes of the job. `efficiency_N_actors`: rate of N engines beside N
times that of one; on 2 cores, writing alone limits it when the engines are fast.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common.harness import finish, spread
from cache.registry import PLUGINS_VARIABLE
from cache.store.logit_store import LogitStore

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "benchmarks.scale.stand_in_engine"
WORDS = ("one", "two", "three", "red", "blue", "green", "up", "down")
# Words of a prompt and of a response; about 70 tokens an example.
PROMPT, RESPONSE = 32, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000, help="of the largest job")
    parser.add_argument("--paced", type=int, default=3000, help="examples of the jobs with a paced teacher")
    parser.add_argument("--tokens-per-s", type=float, default=5000.0, help="pace of one stand-in engine")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--actors", type=int, nargs="*", default=[2, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options)
    for name, value in results.items():
        values = [value[key] for key in ("median", "min", "max")] if isinstance(value, dict) else [value]
        print(f"{name:<28} {' '.join(f'{each:.2f}' for each in values)}")
    finish("scale", results, options.save)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures. Captures of one kind are repeated in turns with those that they are compared with."""
    model = make_model(folder / "model")
    small, large = max(1, options.examples // 10), options.examples
    for count in {small, large, options.paced}:
        write_examples(folder / f"{count}.jsonl", count)
    job = Job(folder, model, options.k)
    runs = {count: job.capture(count, f"free_{count}", 1, 0.0) for count in (small, large)}
    again = job.capture(large, f"free_{large}", 1, 0.0)
    rates: dict[int, list[float]] = {count: [] for count in (1, *options.actors)}
    for repeat in range(options.repeats):
        for count, values in rates.items():
            run = job.capture(options.paced, f"paced_{count}_{repeat}", count, options.tokens_per_s)
            values.append(run["tokens"] / run["seconds"])
    single = statistics.median(rates[1])
    return {
        "units_per_s": runs[large]["units"] / runs[large]["seconds"],
        "examples_per_s": large / runs[large]["seconds"],
        "resume_scan_s": again["planning_s"],
        "resume_scan_examples": large,
        "coordinator_rss_mib": runs[large]["rss_mib"],
        f"coordinator_rss_mib_{small}": runs[small]["rss_mib"],
        "pace_of_one": spread([rate / options.tokens_per_s for rate in rates[1]]),
        **{
            f"efficiency_{count}_actors": spread([rate / (count * single) for rate in rates[count]])
            for count in options.actors
        },
    }


class Job:
    """The capture job, run by its command."""

    def __init__(self, folder: Path, model: Path, k: int) -> None:
        self._folder = folder
        (folder / "job.toml").write_text(
            f'examples = "e.jsonl"\nstore = "s"\nunit_size = 64\n[teacher]\nmodel = "{model}"\nmax_tokens = 512\n'
            f'[engine]\nkind = "stand_in"\ncpu_threads = 1\n[targets]\nk = {k}\n'
        )

    def capture(self, examples: int, store: str, actors: int, pace: float) -> dict[str, float]:
        """Run it. rss_mib: highest of the driver; planning_s: of a run that captures nothing, without its start."""
        changes = {"examples": f"{examples}.jsonl", "store": store, "actors": actors, "engine.tokens_per_s": pace}
        command = [sys.executable, "-m", "cluster.commands.main", "--root", str(self._folder), "capture"]
        command += [str(self._folder / "job.toml"), "--json"]
        command += [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
        environment = {**os.environ, PLUGINS_VARIABLE: PLUGIN, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        log = self._folder / f"{store}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, _peak(process.pid))
                time.sleep(0.1)
        output = process.stdout.read() if process.stdout else ""
        if process.returncode:
            raise RuntimeError(f"the capture failed: {log.read_text()[-2000:]}")
        result = json.loads(output.strip().splitlines()[-1])
        index = LogitStore.open(str(self._folder / store)).index
        return {
            "tokens": float(index.tokens.sum()),
            "units": len(index.unit),
            "seconds": result["seconds"],
            "planning_s": result["planning_seconds"],
            "rss_mib": peak,
        }


def make_model(folder: Path) -> Path:
    """A tiny Llama with a tokenizer. The stand-in loads no weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from cache.examples.example import Example
    from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

    texts = [Example(str(i), ({"role": "user", "content": word},), response=word) for i, word in enumerate(WORDS)]
    tokenizer = learn_tokenizer(texts * 20, 320)
    save_tokenizer(tokenizer, folder)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, num_key_value_heads=1, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_examples(path: Path, count: int) -> None:
    """Different prompts of about the same length."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            prompt, response = (" ".join(rng.choices(WORDS, k=k)) for k in (PROMPT, RESPONSE))
            file.write(json.dumps({"prompt": f"{number} {prompt}", "response": response}) + "\n")


def _peak(pid: int) -> float:
    """Highest resident memory of a process so far, in MiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    main()
