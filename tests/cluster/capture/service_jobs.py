"""Capture from a service in this process, as an actor does, without Ray."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.store.commits import create_store
from cluster.capture.actor import CaptureWorker
from cluster.capture.planning import plan_job
from cluster.capture.settings import CaptureSettings
from cluster.runtime.job_file import load_job
from teacher_serving.capture.unit import UnitSummary


def write_job(folder: Path, tokenizer: Path, examples: Sequence[dict[str, Any]], unit_size: int = 8) -> Path:
    """Write examples and a capture job into a folder; returns the folder. The job needs engine.endpoint.base_url."""
    (folder / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    (folder / "capture.toml").write_text(
        f'examples = "examples.jsonl"\nstore = "s"\nscore = false\nunit_size = {unit_size}\n'
        f'[teacher]\nmodel = "m"\ntokenizer = "{tokenizer}"\nmax_tokens = 300\n'
        '[engine]\nkind = "endpoint"\n[engine.endpoint]\napi = "openai"\ntop_logprobs = 0\nmax_retries = 0\n'
        "price_input = 1000.0\nprice_output = 10000.0\n[generation]\nmax_new_tokens = 40\n"
    )
    return folder


def job_at(folder: Path, address: str, *changes: str) -> CaptureSettings:
    """The job in a folder, for the service at an address, with changed keys."""
    settings = [f"engine.endpoint.base_url={address}", *changes]
    return load_job(folder / "capture.toml", settings, CaptureSettings, folder)


def start_worker(job: CaptureSettings) -> tuple[CaptureWorker, Any]:
    """A ready worker and the plan of a job, whose store exists."""
    planned = plan_job(job)
    worker = CaptureWorker(job, planned.job.description, on_gpu=False)
    asyncio.run(worker.ready())
    create_store(planned.job.storage, planned.job.description.spec)
    return worker, planned


def capture_units(job: CaptureSettings) -> list[UnitSummary]:
    """Capture the missing units until one is stopped."""
    worker, planned = start_worker(job)
    summaries = []
    for work in planned.works:
        summaries.append(asyncio.run(worker.capture(work.units, work.number, work.places)))
        if summaries[-1].stopped:
            break
    return summaries
