"""What one capture saves: n students from it beside n students with the teacher in the loop.

Online distillation here is a Transformers teacher's forward pass and the full KL at every step, with the same student
and optimizer. Offline is one capture (start of the engine, scoring, writing) and then students that read the store.
speedup_n = n online runs / (capture + n offline runs); break_even is the n at which both take the same time. Each
student sees every example once: with more epochs the teacher in the loop is paid again, and a capture is not.
throughput_ratio_to_ce: tokens/s of a student from the store over those of hard-label training on texts alone. Kinds of
training take turns, a slice of the run at a time.

    python -m benchmarks.reuse --save
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import finish, spread
from cluster.training.rank_environment import rank_on_cpu
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.process import process_environment

STUDENTS = (1, 4, 8)


def main() -> None:
    options = parse(sys.argv[1:])
    on_cpu = rank_on_cpu(options.threads)
    environment = process_environment(options.threads, on_gpu=False) | {
        name: value for name, value in on_cpu.items() if name.startswith("MALLOC")
    }
    if missing := environment.items() - os.environ.items():  # glibc reads its settings once, when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.reuse", *sys.argv[1:]], os.environ | dict(missing))
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    show(results)
    finish("reuse", results, options.save)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=128, help="width of the student, of 4 layers")
    parser.add_argument("--teacher-hidden", type=int, default=512, help="width of the teacher")
    parser.add_argument("--teacher-layers", type=int, default=12)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--examples", type=int, default=192)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--slices", type=int, default=6, help="turns that the kinds of training take")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    from benchmarks.common.random_student import random_student

    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    sequences = rng.integers(3, options.vocab, (options.examples, options.length)).astype(np.uint32)
    teacher = random_student(options.vocab, options.teacher_hidden, options.teacher_layers)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)  # logits of a random model are flat otherwise
    size = sum(parameter.numel() for parameter in teacher.parameters())
    save_teacher(teacher, folder / "teacher", options.vocab)
    captured = capture(folder, sequences, options)
    taken, student_size = training(folder, sequences, teacher, options)
    tokens = options.examples * (options.length - 1)
    offline, online, hard = (float(np.sum(taken[name])) for name in ("offline", "online", "hard_label"))
    total = sum(captured.values())
    return {
        "vocab": options.vocab,
        "k": options.k,
        "teacher_parameters": size,
        "student_parameters": student_size,
        "teacher_over_student": size / student_size,
        "tokens": tokens,
        "threads": options.threads,
        "capture_seconds": captured,
        "student_seconds": {"offline": offline, "online": online, "hard_label": hard},
        "throughput_ratio_to_ce": float(np.median(np.array(taken["hard_label"]) / np.array(taken["offline"]))),
        "throughput_ratio_spread": spread([h / o for h, o in zip(taken["hard_label"], taken["offline"], strict=True)]),
        **{f"speedup_{n}": n * online / (total + n * offline) for n in STUDENTS},
        "break_even": total / (online - offline) if online > offline else None,
        "break_even_without_start": (total - captured["start"]) / (online - offline) if online > offline else None,
    }


def save_teacher(teacher: Any, folder: Path, vocab: int) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    teacher.save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w2").save_pretrained(folder)


def capture(folder: Path, sequences: Any, options: argparse.Namespace) -> dict[str, float]:
    """Seconds to start vLLM, to score every sequence with it, and to write the store."""
    from cache.examples.example import Example, Segment, TokenizedExample
    from cache.rows.record import Record
    from cache.rows.spec import StoreSpec, TargetSpec
    from cache.storage.local import LocalStorage
    from cache.store.commits import create_store
    from cache.store.snapshots import take_snapshot
    from cache.store.unit_writer import write_unit
    from teacher_serving.engines.vllm.teacher import VllmTeacher
    from teacher_serving.teacher import Request

    model = str(folder / "teacher")
    spec = StoreSpec(model, "", "", "", options.vocab, options.vocab, "float32", TargetSpec("topk", options.k), None)
    settings = TeacherSettings(model=model, dtype="float32", max_tokens=options.length)
    started = time.perf_counter()
    engine = VllmTeacher(model, settings, VllmSettings(cpu_threads=options.threads), spec, on_gpu=False)
    ready = time.perf_counter()
    storage = LocalStorage(folder / "store")
    create_store(storage, spec)
    scoring = writing = 0.0
    for first in range(0, len(sequences), 64):
        begun = time.perf_counter()
        unit = sequences[first : first + 64]
        requests = [Request(f"{first + i:032x}", row, np.arange(len(row) - 1)) for i, row in enumerate(unit)]
        answers = engine.score(requests)
        scored = time.perf_counter()
        records = []
        for i, (row, answer) in enumerate(zip(unit, answers, strict=True)):
            segments = np.full(len(row), Segment.RESPONSE, np.uint8)
            segments[0] = Segment.PROMPT
            example = Example(str(first + i), ({"role": "user", "content": ""},))
            tokenized = TokenizedExample(example, row, segments)
            records.append(Record(tokenized.key, tokenized, answer.targets, answer.token_logprobs))
        write_unit(storage, spec, records)
        scoring += scored - begun
        writing += time.perf_counter() - scored
    take_snapshot(storage)
    return {"start": ready - started, "scoring": scoring, "writing": writing}


def training(
    folder: Path, sequences: Any, teacher: Any, options: argparse.Namespace
) -> tuple[dict[str, list[float]], int]:
    """Seconds of each slice of each kind of training, after one step that warms up."""
    import torch

    from benchmarks.common.random_student import Course, random_student, update
    from cache.store.logit_store import LogitStore
    from student.losses.settings import LossSettings
    from student.models.loss_model import LossModel

    store = LogitStore.open(str(folder / "store"))
    steps = options.examples // options.batch

    def fresh() -> tuple[Any, Any]:
        model = random_student(options.vocab, options.hidden)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-4)

    def from_store() -> Iterator[None]:
        model, optimizer = fresh()
        course = Course.over(store, LossSettings(), options.batch)
        loss = LossModel(model, course.batches.objectives)
        for batch in course.steps(steps):
            update(loss, optimizer, batch)
            yield

    def of_texts(step: Callable[[Any, Any, Any], None]) -> Iterator[None]:
        model, optimizer = fresh()
        tokens = torch.from_numpy(sequences.astype(np.int64))
        for first in range(0, options.batch * steps, options.batch):
            step(model, optimizer, tokens[first : first + options.batch])
            yield

    runs = {
        "offline": from_store(),
        "hard_label": of_texts(hard_label_step),
        "online": of_texts(lambda model, optimizer, tokens: online_step(model, optimizer, tokens, teacher)),
    }
    size = sum(parameter.numel() for parameter in fresh()[0].parameters())
    return take_turns(runs, steps, options.slices), size


def take_turns(runs: dict[str, Iterator[None]], steps: int, slices: int) -> dict[str, list[float]]:
    """Seconds of each slice of each run. Runs take turns, and the first step of each is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        next(run)
    edges = np.linspace(1, steps, slices + 1).astype(int)
    for start, stop in pairwise(edges):
        for name, run in runs.items():
            begun = time.perf_counter()
            for _ in range(start, stop):
                next(run)
            seconds[name].append(time.perf_counter() - begun)
    # As if the first step had taken as long as the others.
    return {name: [each * steps / (steps - 1) for each in values] for name, values in seconds.items()}


def hard_label_step(model: Any, optimizer: Any, tokens: Any) -> None:
    """A step of hard labels with the same fused head."""
    import torch

    from student.losses.head.fused_loss import fused_loss
    from student.losses.head.transform import LogitTransform
    from student.losses.row_losses import LossTerm

    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    labels = tokens[:, 1:].reshape(-1, 1)
    weights = torch.full((len(labels),), 1 / len(labels))
    term = LossTerm(weights, labels, torch.zeros(labels.shape))
    fused_loss(hidden, model.lm_head.weight, None, LogitTransform(), [term])[0].backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def online_step(model: Any, optimizer: Any, tokens: Any, teacher: Any) -> None:
    """The teacher in the loop: KL over the whole vocabulary, as TRL's GKD trainer does it."""
    import torch
    from torch.nn import functional

    with torch.no_grad():
        log_p = functional.log_softmax(teacher(input_ids=tokens, use_cache=False).logits[:, :-1].float(), -1)
    log_q = functional.log_softmax(model(input_ids=tokens, use_cache=False).logits[:, :-1].float(), -1)
    functional.kl_div(log_q.flatten(0, 1), log_p.flatten(0, 1), reduction="batchmean", log_target=True).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def show(results: dict[str, Any]) -> None:
    captured, students = results["capture_seconds"], results["student_seconds"]
    sizes = [results[name] / 1e6 for name in ("teacher_parameters", "student_parameters")]
    print(
        f"vocabulary {results['vocab']:,}, k = {results['k']}, teacher {sizes[0]:.1f} M, student {sizes[1]:.1f} M "
        f"({results['teacher_over_student']:.1f} x), {results['tokens']:,} tokens, {results['threads']} thread(s)"
    )
    print("capture: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in captured.items()))
    print("a student: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in students.items()))
    for n in STUDENTS:
        both = n * students["online"], sum(captured.values()) + n * students["offline"]
        print(f"{n} students: online {both[0]:,.0f} s, one capture {both[1]:,.0f} s: {results[f'speedup_{n}']:.2f} x")
    ratio = results["throughput_ratio_spread"]
    print(
        f"of hard labels' throughput: {results['throughput_ratio_to_ce']:.3f} "
        f"({ratio['min']:.3f} to {ratio['max']:.3f}); even at {results['break_even'] or float('nan'):.1f} students"
    )


if __name__ == "__main__":
    main()
