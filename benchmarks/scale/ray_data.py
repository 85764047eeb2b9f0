"""The same capture as a pipeline of Ray Data: read_json, then actors that plan, ask the teacher and write.

    python -m benchmarks.scale.ray_data job.toml --set actors=2

A peer of the own dispatcher. It has what such a pipeline has: actor pools, back-pressure and retries by Ray Data, parts
and commits by this project. It has no look at what the store has, no quarantine for an example that kills its actor,
and no units that are the same on every run. The last line is JSON: `seconds` of the pipeline, with the start of its
actors.
"""

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from cache.examples.example import Example
from cache.storage.open import open_storage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.commits import create_store
from cache.store.snapshots import take_snapshot
from cluster.capture.input.job import CaptureJob, open_job
from cluster.capture.settings import CaptureSettings
from cluster.runtime.job_file import load_job
from cluster.runtime.ray_session import ray_session
from teacher_serving.asking.plan import plan_capture
from teacher_serving.capture.start import start_teacher
from teacher_serving.capture.unit import ask_teacher, store_answers

Batch = dict[str, npt.NDArray[Any]]


class Capture:
    """Captures a batch of lines as a unit. As many calls at a time as a worker of a capture has units."""

    def __init__(self, job: CaptureJob) -> None:
        settings, self._job = job.settings, job
        self._teacher = start_teacher(job.description, settings.teacher, settings.engine, False)
        self._storage = open_storage(settings.store)
        self._codebooks = CodebookChoice(self._storage, job.description.spec)
        self._asking = threading.Lock()

    def __call__(self, batch: Batch) -> Batch:
        lines = zip(batch["prompt"].tolist(), batch["response"].tolist(), strict=True)
        examples = [Example("", ({"role": "user", "content": prompt},), response=text) for prompt, text in lines]
        unit = list(plan_capture(examples, **self._job.planning_facts()).examples.values())
        spec, tokenizer = self._job.description.spec, self._job.description.tokenizer
        with self._asking:
            answers = ask_teacher(self._teacher, unit, tokenizer, spec)
        summary = store_answers(self._storage, spec, answers, self._codebooks)
        return {"examples": np.array([summary.examples])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, help="a capture job")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of logitbank capture")
    options = parser.parse_args()
    settings = load_job(options.job, options.set, CaptureSettings, options.job.parent)
    started = time.perf_counter()
    count = capture(settings)
    print(json.dumps({"examples": count, "seconds": time.perf_counter() - started}))


def capture(settings: CaptureSettings) -> int:
    """Run the pipeline. Returns the number of examples that it has captured."""
    job = open_job(settings)
    storage = open_storage(settings.store)
    create_store(storage, job.description.spec)
    # One core more than the actors take: reading needs one.
    with ray_session(settings.address, settings.most_actors + 1):
        units = ray.data.read_json(settings.examples).map_batches(
            Capture,
            fn_constructor_args=(job,),
            batch_size=settings.unit_size,
            compute=ray.data.ActorPoolStrategy(size=settings.most_actors, max_tasks_in_flight_per_actor=4),
            num_cpus=1,
            max_concurrency=2,
        )
        count = sum(int(batch["examples"].sum()) for batch in units.iter_batches())
    take_snapshot(storage)
    return count


if __name__ == "__main__":
    main()
