"""Students of each seed: one after another here, or in several processes that share a GPU."""

import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch

from benchmarks.fidelity.rows import Windows, bare_windows, windows_of
from benchmarks.fidelity.source.material import Material, material_of
from benchmarks.fidelity.students import Course, Judged, judge, trained_student
from benchmarks.fidelity.targets import Target


@dataclass(frozen=True, slots=True)
class Job:
    """A named course, and the kinds of targets whose students take it."""

    name: str
    course: Course
    targets: tuple[Target, ...]


def all_seeds(
    options: Namespace, material: Material, windows: Windows, jobs: Sequence[Job]
) -> Iterator[tuple[str, dict[str, list[Judged]]]]:
    """Each job's students so far, by target, whenever a further seed of it has ended.

    windows: what is there already; the rest is reduced once. Seeds in which no student was begun are left out.
    """
    started = time.time()
    deadline = started + 60 * options.minutes if options.minutes else float("inf")
    judged: dict[str, dict[str, list[Judged]]] = defaultdict(lambda: defaultdict(list))
    run = _in_processes if options.jobs > 1 else _here
    for job, result in run(options, material, windows, jobs, deadline):
        for name, each in result.items():
            judged[job][name].append(each)
        if result:
            print(f"{job}: {len(result)} students of a seed, after {time.time() - started:.0f} s", flush=True)
            yield job, dict(judged[job])


Results = Iterator[tuple[str, dict[str, Judged]]]


def _here(options: Namespace, material: Material, windows: Windows, jobs: Sequence[Job], deadline: float) -> Results:
    windows = with_missing(windows, material, jobs)
    for job in jobs:
        for seed in range(options.seeds):
            yield job.name, one_seed(material, windows, job, seed, deadline)


def _in_processes(
    options: Namespace, material: Material, windows: Windows, jobs: Sequence[Job], deadline: float
) -> Results:
    """Each process reads the text with the teacher once: that is quick on a GPU, and sharing tensors is fragile."""
    temperature = material.teacher.temperature
    torch.cuda.empty_cache()  # for the other processes
    with ProcessPoolExecutor(
        options.jobs, get_context("spawn"), initializer=_start, initargs=(options, temperature, jobs)
    ) as pool:
        futures = {pool.submit(_run, job, seed, deadline): job for job in jobs for seed in range(options.seeds)}
        for future in as_completed(futures):
            yield futures[future].name, future.result()


_SHARED: list[tuple[Material, Windows]] = []


def _start(options: Namespace, temperature: float, jobs: Sequence[Job]) -> None:
    set_up(options)
    material = material_of(options)
    material = material.at(replace(material.teacher, temperature=temperature))
    _SHARED.append((material, with_missing({}, material, jobs)))


def _run(job: Job, seed: int, deadline: float) -> dict[str, Judged]:
    return one_seed(*_SHARED[0], job, seed, deadline)


def set_up(options: Namespace) -> None:
    """Threads; and on a GPU products of 10-bit mantissas, which are several times as fast. Sums are float32."""
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")


def with_missing(windows: Windows, material: Material, jobs: Sequence[Job]) -> Windows:
    """With the rows that the jobs need and `windows` has not."""
    missing = {t.rows: None for job in jobs for t in job.targets if t.rows and t.rows not in windows}
    made = windows_of(material.teacher, material.sequences, list(missing)) if missing else {}
    return {**windows, **made, None: bare_windows(material.sequences.tokens)}


def one_seed(material: Material, windows: Windows, job: Job, seed: int, deadline: float) -> dict[str, Judged]:
    """Students of one seed, as far as the time allows."""
    result: dict[str, Judged] = {}
    for target in job.targets:
        if time.time() > deadline:
            break
        hidden = material.sequences.hidden
        student = trained_student(target, windows[target.rows], material.teacher, hidden, job.course, seed)
        result[target.name] = judge(student, material.teacher, material.heldout, seed)
    return result
