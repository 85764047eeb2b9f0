"""A capture job on Ray with a stand-in for the teacher: what the coordinator and Ray cost, without a model.

    python -m benchmarks.scale --examples 100000

Named limit: the pace of the stand-in, which sleeps as an accelerator computes, and needs no core. `units_per_s`: a
teacher that takes no time. `resume_scan_s`: planning of a job of which everything is captured, per 100,000 examples.
`coordinator_rss_mib`: of the driver process, at two sizes of the job. `efficiency_N_actors`: rate of N engines beside N
times that of one; on 2 cores, writing alone limits it when the engines are fast.

Peer: the same work as a pipeline of Ray Data (benchmarks.scale.ray_data). `more_examples_per_s`: the examples that the
larger of two jobs has more, over the seconds that its command takes longer. `after_a_deadly_example`: what a command
commits of --deadly examples, one of which kills the process of its engine, its exit code, or -1 if it was stopped after
two minutes, and its seconds.
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
from collections.abc import Sequence
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
CAPTURE = ("cluster.commands.main", "capture", "--json")
RAY_DATA = ("benchmarks.scale.ray_data",)
DEADLY_SECONDS = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000, help="of the largest job")
    parser.add_argument("--smaller", type=int, default=0, help="of the smaller one; 0: a tenth of the largest")
    parser.add_argument("--paced", type=int, default=3000, help="examples of the jobs with a paced teacher")
    parser.add_argument("--tokens-per-s", type=float, default=5000.0, help="pace of one stand-in engine")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--actors", type=int, nargs="*", default=[2, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--deadly", type=int, default=500, help="examples of the job with a deadly one; 0: none")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options)
    for name, value in results.items():
        values = list(value.values()) if isinstance(value, dict) else [value]
        print(f"{name:<28} {' '.join(f'{each:.2f}' for each in values)}")
    finish("scale", results, options.save)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures. Captures of one kind are repeated in turns with those that they are compared with."""
    model = make_model(folder / "model")
    small, large = options.smaller or max(1, options.examples // 10), options.examples
    for count in {small, large, options.paced}:
        write_examples(folder / f"{count}.jsonl", count)
    job = Job(folder, model, options.k)
    runs = {count: job.capture(count, f"free_{count}", 1, 0.0) for count in (small, large)}
    peer = {count: job.capture(count, f"peer_{count}", 1, 0.0, command=RAY_DATA) for count in (small, large)}
    again = job.capture(large, f"free_{large}", 1, 0.0)
    rates: dict[int, list[float]] = {count: [] for count in (1, *options.actors)}
    for repeat in range(options.repeats):
        for count, values in rates.items():
            run = job.capture(options.paced, f"paced_{count}_{repeat}", count, options.tokens_per_s)
            values.append(run["tokens"] / run["seconds"])
    single = statistics.median(rates[1])
    for count in (small, large):  # the command as a whole, with a start of Ray
        runs[count]["wall"] = min(runs[count]["wall"], job.capture(count, f"again_{count}", 1, 0.0)["wall"])
        peer[count]["wall"] = min(
            peer[count]["wall"], job.capture(count, f"peer_again_{count}", 1, 0.0, command=RAY_DATA)["wall"]
        )
    more = {
        name: (large - small) / (each[large]["wall"] - each[small]["wall"])
        for name, each in (("own", runs), ("ray_data", peer))
    }
    deadly = {}
    if options.deadly:
        token = write_examples(folder / "deadly.jsonl", options.deadly, model)
        for name, command in (("own", CAPTURE), ("ray_data", RAY_DATA)):
            deadly[name] = job.survive("deadly", f"deadly_{name}", token, command)
    return {
        "more_examples_per_s": more["own"],
        "more_examples_per_s_ray_data": more["ray_data"],
        "coordinator_rss_mib_ray_data": peer[large]["rss_mib"],
        **({f"after_a_deadly_example_{name}": each for name, each in deadly.items()}),
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

    def capture(
        self, examples: int, store: str, actors: int, pace: float, command: Sequence[str] = CAPTURE
    ) -> dict[str, float]:
        """Run it. rss_mib: highest of the driver; planning_s: of a run that captures nothing, without its start."""
        changes = {
            "examples": self._folder / f"{examples}.jsonl",
            "store": self._folder / store,
            "actors": actors,
            "engine.tokens_per_s": pace,
        }
        process, peak, wall = self._run(command, store, changes)
        if process.returncode:
            raise RuntimeError(f"the capture failed: {(self._folder / f'{store}.log').read_text()[-2000:]}")
        result = json.loads((self._folder / f"{store}.out").read_text().strip().splitlines()[-1])
        index = LogitStore.open(str(self._folder / store)).index
        return {
            "tokens": float(index.tokens.sum()),
            "units": len(index.unit),
            "seconds": result["seconds"],
            "planning_s": result.get("planning_seconds", 0.0),
            "rss_mib": peak,
            "wall": wall,
        }

    def survive(self, examples: str, store: str, token: int, command: Sequence[str]) -> dict[str, float]:
        """Run it with examples of which one kills its engine. Returns what is committed in the end."""
        changes = {
            "examples": self._folder / f"{examples}.jsonl",
            "store": self._folder / store,
            "engine.deadly": token,
        }
        process, _, wall = self._run(command, store, changes, DEADLY_SECONDS)
        with LogitStore.open(str(self._folder / store), unpinned=True) as opened:
            return {"committed": len(opened), "exit_code": process.returncode, "seconds": wall}

    def _run(
        self, command: Sequence[str], store: str, changes: dict[str, Any], limit: float = float("inf")
    ) -> "tuple[subprocess.Popen[bytes], float, float]":
        """The process, which has ended, its highest memory, and its seconds. Its output is in files."""
        words = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
        line = [sys.executable, "-m", *command, str(self._folder / "job.toml"), *words]
        environment = {**os.environ, PLUGINS_VARIABLE: PLUGIN, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        started, peak = time.monotonic(), 0.0
        with (self._folder / f"{store}.log").open("wb") as log, (self._folder / f"{store}.out").open("wb") as output:
            process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=output, stderr=log)
            while process.poll() is None:
                peak = max(peak, _peak(process.pid))
                time.sleep(0.1)
                if time.monotonic() - started > limit:
                    process.terminate()
                    process.wait()
                    process.returncode = -1
        return process, peak, time.monotonic() - started


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


def write_examples(path: Path, count: int, deadly: Path | None = None) -> int:
    """Different prompts of about the same length. deadly: a tokenizer, of which one example has a token alone.

    Returns this token, or 0.
    """
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            prompt, response = (" ".join(rng.choices(WORDS, k=k)) for k in (PROMPT, RESPONSE))
            mark = "~" if deadly is not None and number == count // 2 else ""
            file.write(json.dumps({"prompt": f"{number}{mark} {prompt}", "response": response}) + "\n")
    if deadly is None:
        return 0
    from transformers import AutoTokenizer

    (token,) = AutoTokenizer.from_pretrained(deadly)("~", add_special_tokens=False)["input_ids"]
    return int(token)


def _peak(pid: int) -> float:
    """Highest resident memory of a process so far, in MiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    main()
