"""What does it cost to keep the teacher's distributions, beside the forward pass that makes them?

The limits, from below: prefill alone; prefill and the LM head's matrix product; these and `torch.topk` of the logits,
called the floor. The floor is what plain PyTorch needs to find the k largest, before it normalises anything.
The peers are vLLM's public log-probabilities: as dicts with the default allocator (stock), and with the allocator
settings of a capture, as dicts and flat (tuned). All stages send the same prompts to one engine in one process and
take turns. Rates are medians over --repeats. Then: what encoding and writing add when they overlap with the next unit,
and generation with rows beside generation without.

    python -m benchmarks.capture --k 64 --vocab 32000
    python -m benchmarks.capture --model PATH --mode threshold --threshold 0.05
"""

import argparse
import ctypes
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import finish, spread
from benchmarks.common.random_teacher import random_teacher
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.engines.process import ALLOCATOR
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.process import process_environment
from teacher_serving.teacher import Request

WRITTEN = 32
# Of mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def main() -> None:
    options = parse(sys.argv[1:])
    engine = VllmSettings(batched_tokens=options.tokens, cpu_threads=options.threads, logits_mib=options.logits_mib)
    # glibc reads its settings once, when a process starts.
    missing = process_environment(engine.threads, on_gpu=False).items() - os.environ.items()
    if missing:
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.capture", *sys.argv[1:]], os.environ | dict(missing)
        )
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or random_teacher(Path(folder) / "model", options.vocab, options.hidden)
        results = measure(options, str(model), engine, Path(folder))
    results["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    show(results)
    name = f"capture_{options.mode}_{options.k}_v{results['vocab']}_{options.dtype}"
    finish("capture", results, options.save, name)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; a small random Llama of --vocab ids if not given")
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=128, help="width of the random Llama")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--mode", choices=["topk", "nucleus", "threshold", "sampled"], default="topk")
    parser.add_argument("--mass", type=float, default=0.98, help="of nucleus")
    parser.add_argument("--threshold", type=float, default=0.05)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of one forward pass")
    parser.add_argument("--logits-mib", type=int, default=512, help="memory for logits that are being reduced")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--generate", type=int, default=16, help="prompts to answer, of 32 tokens; 0 leaves it out")
    parser.add_argument("--save", action="store_true")
    return parser.parse_args(arguments)


def target_spec(options: argparse.Namespace) -> TargetSpec:
    own: dict[str, Any] = {
        "topk": {"k": options.k},
        "nucleus": {"k": options.k, "mass": options.mass},
        "threshold": {"threshold": options.threshold},
        "sampled": {"draws": options.draws},
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
    teacher = VllmTeacher(model, settings, engine, spec, on_gpu=False)
    if teacher.fallback_reason:
        print(f"note: logitbank uses vLLM's public interface: {teacher.fallback_reason}")
    requests = random_requests(vocab, options.sequences, options.length)
    rows = sum(len(request.rows) for request in requests)
    stages = forward_stages(teacher, requests, options.k)
    seconds = interleaved(stages, options.repeats)
    rates = {name: spread([rows / s for s in taken]) for name, taken in seconds.items()}
    results: dict[str, Any] = {
        "k": options.k,
        "vocab": vocab,
        "mode": options.mode,
        "dtype": options.dtype,
        "threads": options.threads,
        "hidden": options.hidden if not options.model else None,
        "step": "public interface" if teacher.fallback_reason else "in the workers",
        "tokens_per_s": rates["ours"]["median"],
        "rates": rates,
    }
    for other in ("floor", "prefill_gemm", "prefill", "stock_dict", "tuned_dict", "tuned_flat"):
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


def interleaved(stages: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each stage in each turn, after one turn that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(repeats + 1):
        for name, stage in stages.items():
            started = time.perf_counter()
            stage()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def forward_stages(teacher: Any, requests: list[Request], k: int) -> dict[str, Callable[[], Any]]:
    """A call for each limit, each peer and ours. Each sends the same prompts through the same engine."""
    from vllm import SamplingParams

    llm = teacher._llm
    prompts = [{"prompt_token_ids": request.tokens.tolist()} for request in requests]
    runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
    own_step = runner._get_prompt_logprobs_dict

    def run(stage: Callable[..., Any] | None = None, tuned: bool = True, **options: Any) -> None:
        params = SamplingParams(max_tokens=1, temperature=0, detokenize=False, **options)
        runner._get_prompt_logprobs_dict = stage or own_step
        set_allocator(tuned)
        try:
            llm.generate(prompts, params, use_tqdm=False)
        finally:
            set_allocator(True)
            runner._get_prompt_logprobs_dict = own_step

    def logits_only(hidden: Any, scheduled: dict[str, int]) -> dict[str, Any]:
        return visit(runner, hidden, scheduled, lambda logits: None)

    def logits_and_topk(hidden: Any, scheduled: dict[str, int]) -> dict[str, Any]:
        return visit(runner, hidden, scheduled, lambda logits: logits.topk(k))

    return {
        "prefill": lambda: run(skip_reading_prefix_cache=True),
        "prefill_gemm": lambda: run(logits_only, prompt_logprobs=0),
        "floor": lambda: run(logits_and_topk, prompt_logprobs=0),
        "stock_dict": lambda: run(tuned=False, prompt_logprobs=k),
        "tuned_dict": lambda: run(prompt_logprobs=k),
        "tuned_flat": lambda: run(prompt_logprobs=k, flat_logprobs=True),
        "ours": lambda: teacher.score(requests),
    }


def set_allocator(tuned: bool) -> None:
    """Set glibc's allocator as a capture does, or to its state after a few large blocks."""
    values = [int(text) for text in ALLOCATOR.values()] if tuned else [32 << 20, 64 << 20, 128 << 10]
    for option, value in zip((M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD), values, strict=True):
        ctypes.CDLL(None).mallopt(option, min(value, (1 << 31) - 1))


def visit(runner: Any, hidden: Any, scheduled: dict[str, int], use: Callable[[Any], Any]) -> dict[str, Any]:
    """Make the logits of each prompt in a pass, as vLLM does it: prompt by prompt."""
    for name in list(runner.num_prompt_logprobs):
        if name not in scheduled:
            continue
        request = runner.requests[name]
        offset = int(runner.query_start_loc.np[runner.input_batch.req_id_to_index[name]])
        n = min(scheduled[name], len(request.prompt_token_ids) - 1 - request.num_computed_tokens)
        if n > 0:
            use(runner.model.compute_logits(hidden[offset : offset + n]))
        if request.num_computed_tokens + scheduled[name] >= len(request.prompt_token_ids):
            del runner.num_prompt_logprobs[name]
    return {}


def measure_writing(
    teacher: Any, requests: list[Request], spec: StoreSpec, folder: Path, repeats: int
) -> dict[str, Any]:
    """Score units one after the other, with and without a second thread that encodes and writes them."""
    from concurrent.futures import ThreadPoolExecutor

    from cache.examples.example import Example, Segment, TokenizedExample
    from cache.rows.record import Record
    from cache.storage.local import LocalStorage
    from cache.store.claims.codebook_choice import CodebookChoice
    from cache.store.commits import create_store
    from cache.store.unit_writer import write_unit

    storage = LocalStorage(folder / "store")
    create_store(storage, spec)
    units = 4
    written = 0

    def records(answers: list[Any]) -> list[Record]:
        nonlocal written
        made = []
        for request, answer in zip(requests, answers, strict=True):
            written += 1
            example = Example(str(written), ({"role": "user", "content": ""},))
            segments = np.full(len(request.tokens), Segment.RESPONSE, np.uint8)
            tokenized = TokenizedExample(example, request.tokens, segments, f"generated/{written}")
            made.append(Record(tokenized.key, tokenized, answer.targets, answer.token_logprobs))
        return made

    def ask() -> None:
        for _ in range(units):
            teacher.score(requests)

    def ask_and_write() -> None:
        with ThreadPoolExecutor(1) as writer:
            books = CodebookChoice(storage, spec)
            done = [
                writer.submit(write_unit, storage, spec, records(teacher.score(requests)), codebooks=books)
                for _ in range(units)
            ]
            ask_and_write.last = time.perf_counter()  # type: ignore[attr-defined]
            for call in done:
                call.result()

    write_unit(storage, spec, records(teacher.score(requests)))
    seconds = interleaved({"asked": ask, "written": ask_and_write}, min(repeats, 3))
    costs = [written / asked - 1 for asked, written in zip(seconds["asked"], seconds["written"], strict=True)]
    return {"writing_cost": float(np.median(costs)), "writing_units": units}


def measure_generation(teacher: Any, vocab: int, sampling: SamplingSpec, count: int, repeats: int) -> dict[str, Any]:
    """Tokens a second that the engine generates with rows and without. The tokens are the same."""
    from vllm import SamplingParams

    from teacher_serving.reduction.draws import sampling_seed

    rng = np.random.default_rng(1)
    prompts = [Request(f"{i + 1:032x}", rng.integers(0, vocab, 32).astype(np.uint32)) for i in range(count)]
    params = [
        SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=sampling_seed(prompt.key, sampling.seed),
            detokenize=False,
        )
        for prompt in prompts
    ]
    plain = [{"prompt_token_ids": prompt.tokens.tolist()} for prompt in prompts]
    stages = {
        "without": lambda: teacher._llm.generate(plain, params, use_tqdm=False),
        "with": lambda: teacher.generate(prompts, sampling),
    }
    seconds = interleaved(stages, repeats)
    turns = [without / ours for without, ours in zip(seconds["without"], seconds["with"], strict=True)]
    tokens = sum(len(answer.tokens) for answer in teacher.generate(prompts, sampling))
    return {
        "generation_ratio": float(np.median(turns)),
        "generation_rates": {name: spread([tokens / s for s in taken]) for name, taken in seconds.items()},
    }


def show(results: dict[str, Any]) -> None:
    print(
        f"{results['mode']}, k = {results['k']}, vocabulary {results['vocab']:,}, {results['dtype']}, "
        f"{results['threads']} thread(s); {results['step']}"
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
