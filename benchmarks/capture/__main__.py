"""What does it cost to keep the teacher's distributions, beside the forward pass that makes them?

The limits, from below: prefill alone; prefill and the LM head's matrix product; these and `torch.topk` of the logits,
called the floor. The floor is what plain PyTorch needs to find the k largest, before it normalises anything.
The peers are vLLM's public log-probabilities: as dicts with the default allocator (stock), and with the allocator
settings of a capture, as dicts and flat (tuned); the allocator matters on a CPU alone. All stages send the same prompts
to one engine in one process and take turns. Rates are medians over --repeats. Then: what encoding and writing add when
they overlap with the next unit, and generation with rows beside generation without.

    python -m benchmarks.capture --k 64 --vocab 32000
    python -m benchmarks.capture --model PATH --mode threshold --threshold 0.05
    python -m benchmarks.capture --device cuda --vocab 151936 --hidden 2048 --layers 16 --sequences 32 --length 1024
"""

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.capture.generation import WRITTEN, measure_generation
from benchmarks.capture.stages import forward_stages, interleaved, runner_of
from benchmarks.capture.writing import measure_writing
from benchmarks.common.harness import finish, spread
from benchmarks.common.random_teacher import random_teacher
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.process import process_environment
from teacher_serving.teacher import Request

# The stages reach the engine's model, which must be in this process.
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def main() -> None:
    options = parse(sys.argv[1:])
    engine = VllmSettings(
        batched_tokens=options.tokens,
        cpu_threads=options.threads,
        logits_mib=options.logits_mib,
        options={"enforce_eager": True} if options.eager else {},
    )
    wanted = {**process_environment(engine.threads, options.on_gpu), **IN_PROCESS}
    # glibc reads its settings once, when a process starts.
    if missing := wanted.items() - os.environ.items():
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.capture", *sys.argv[1:]], os.environ | dict(missing)
        )
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or random_teacher(Path(folder) / "model", options.vocab, options.hidden, options.layers)
        results = measure(options, str(model), engine, Path(folder))
    results["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    show(results)
    device = "_cuda" if options.on_gpu else ""
    name = f"capture_{options.mode}_{options.k}_v{results['vocab']}_{options.dtype}{device}"
    finish("capture", results, options.save, name)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", help="model folder; a small random Llama of --vocab ids if not given")
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=128, help="width of the random Llama")
    parser.add_argument("--layers", type=int, default=4, help="of the random Llama")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--mode", choices=["topk", "nucleus", "threshold", "sampled"], default="topk")
    parser.add_argument("--mass", type=float, default=0.98, help="of nucleus")
    parser.add_argument("--threshold", type=float, default=0.05)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tokens", type=int, help="of one forward pass; 2,048 on a CPU, 8,192 on a GPU")
    parser.add_argument("--logits-mib", type=int, default=512, help="memory for logits that are being reduced")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--generate", type=int, default=16, help="prompts to answer, of 32 tokens; 0 leaves it out")
    parser.add_argument("--eager", action="store_true", help="on a GPU: neither compile the model nor capture graphs")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    options.on_gpu = options.device == "cuda"
    options.dtype = options.dtype or ("bfloat16" if options.on_gpu else "float32")
    options.tokens = options.tokens or (8192 if options.on_gpu else 2048)
    return options


def target_spec(options: argparse.Namespace) -> TargetSpec:
    own: dict[str, Any] = {
        "topk": {"k": options.k},
        "nucleus": {"k": options.k, "mass": options.mass},
        "threshold": {"threshold": options.threshold},
        "sampled": {"draws": options.draws, "systematic": True},
    }[options.mode]
    return TargetSpec(options.mode, **own)


def measure(options: argparse.Namespace, model: str, engine: VllmSettings, folder: Path) -> dict[str, Any]:
    import torch
    from transformers import AutoConfig

    from teacher_serving.engines.vllm.teacher import VllmTeacher

    torch.set_num_threads(options.threads)
    vocab = int(AutoConfig.from_pretrained(model).get_text_config().vocab_size)
    sampling = SamplingSpec(1, 1.0, 1.0, WRITTEN, 0, "")
    spec = StoreSpec(model, "", "", "", vocab, vocab, options.dtype, target_spec(options), sampling)
    settings = TeacherSettings(model=model, dtype=options.dtype, max_tokens=max(options.length, 32 + WRITTEN))
    teacher = VllmTeacher(model, settings, engine, spec, on_gpu=options.on_gpu)
    if teacher.fallback_reason:
        print(f"note: logitbank uses vLLM's public interface: {teacher.fallback_reason}")
    requests = random_requests(vocab, options.sequences, options.length)
    rows = sum(len(request.rows) for request in requests)
    stages = forward_stages(teacher, requests, options.k, options.on_gpu)
    seconds = interleaved(stages, options.repeats)
    rates = {name: spread([rows / s for s in taken]) for name, taken in seconds.items()}
    results: dict[str, Any] = {
        "k": options.k,
        "vocab": vocab,
        "mode": options.mode,
        "dtype": options.dtype,
        "device": options.device,
        "threads": options.threads,
        "hidden": options.hidden if not options.model else None,
        "layers": options.layers if not options.model else None,
        "step": "public interface" if teacher.fallback_reason else "in the workers",
        "runner": runner_of(teacher),
        "tokens_per_s": rates["ours"]["median"],
        "rates": rates,
    }
    for other in seconds.keys() - {"ours"}:
        # Turn by turn, so that what slows the machine for a while slows both.
        turns = [theirs / ours for theirs, ours in zip(seconds[other], seconds["ours"], strict=True)]
        results[f"ratio_to_{other}"] = float(np.median(turns))
    results |= measure_writing(teacher, requests, spec, folder, options.repeats)
    if options.generate:
        results |= measure_generation(teacher, vocab, sampling, options.generate, options.repeats)
    return results


def random_requests(vocab: int, count: int, length: int) -> list[Request]:
    """Requests for every row of `count` random sequences."""
    rng = np.random.default_rng(0)
    rows = np.arange(length - 1)
    return [Request(f"{i + 1:032x}", rng.integers(0, vocab, length).astype(np.uint32), rows) for i in range(count)]


def show(results: dict[str, Any]) -> None:
    print(
        f"{results['mode']}, k = {results['k']}, vocabulary {results['vocab']:,}, {results['dtype']}, "
        f"{results['device']}, {results['threads']} thread(s); {results['step']} of runner {results['runner']}"
    )
    print(f"{'':<16}{'tokens/s':>12}{'min':>12}{'max':>12}{'us/token':>12}{'ours / it':>12}")
    for name, rate in results["rates"].items():
        ratio = results["tokens_per_s"] / rate["median"]
        print(
            f"{name:<16}{rate['median']:>12,.0f}{rate['min']:>12,.0f}{rate['max']:>12,.0f}"
            f"{1e6 / rate['median']:>12,.0f}{ratio:>12.2f}"
        )
    print(f"encoding and writing beside the next unit: {results['writing_cost']:+.1%} of the time")
    if "generation_ratio" in results:
        print(f"generation with rows: {results['generation_ratio']:.2f} of generation without")


if __name__ == "__main__":
    main()
