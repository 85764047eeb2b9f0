"""Start the ranks of a training run with Ray Train, show their progress, and restart them when one is lost."""

import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from cache.documents import write_json
from cache.errors import LogitbankError
from cache.examples.jsonl import read_examples
from cache.store.logit_store import LogitStore
from cluster.job.outputs import JOB, claim, hardware, read_json
from cluster.job.progress_bars import bar, counter
from cluster.job.ray_session import cluster_has_gpus, ray_session, require_gpus
from student.data.settings import DataSettings, WeightedStore
from student.training.run_files import METRICS, RESULT, steps_done
from student.training.settings import HeldoutSettings, TrainSettings

Pinnable = TypeVar("Pinnable", DataSettings, HeldoutSettings)

# Ranks on a CPU share one machine: one thread each, and the allocator told to keep its buffers.
RANK_ON_CPU = {
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}


# What changes no content: a run may be continued with other values of these.
CHANGEABLE = frozenset(
    {"run.ranks", "run.micro_batch_size", "run.checkpoint_every", "run.max_failures", "data.prefetch", "data.readers"}
)


def run_training(settings: TrainSettings, address: str | None) -> dict[str, Any]:
    """Train to the end, from wherever an earlier run stopped. Returns the content of training.json."""
    result = settings.output / RESULT
    started_before = steps_done(settings.output) > 0 or result.exists()
    settings = pin_snapshot(settings)
    if not started_before:
        check_inputs(settings)
    claim(settings.output, settings, started_before, CHANGEABLE)
    if result.exists():
        return dict(read_json(result))
    started = time.monotonic()
    with ray_session(address, settings.run.ranks + 1):
        require_gpus(settings.run.ranks)
        _fit(settings, cluster_has_gpus())
    finished = dict(read_json(result))
    finished |= {"hardware": hardware(), "wall_seconds_last_run": time.monotonic() - started}
    write_json(result, finished)
    return finished


def pin_snapshot(settings: TrainSettings) -> TrainSettings:
    """The same job with a number for every snapshot: the one asked for, that of an earlier start, or the newest."""
    job = settings.output / JOB
    earlier = read_json(job) if job.exists() and steps_done(settings.output) else {}
    updates: dict[str, Any] = {"data": _pinned(settings.data, earlier.get("data") or {})}
    if settings.heldout is not None:
        updates["heldout"] = _pinned(settings.heldout, earlier.get("heldout") or {})
    return settings.model_copy(update=updates)


def _pinned(data: Pinnable, earlier: dict[str, Any]) -> Pinnable:
    """Settings of data with a snapshot for each store; those of `earlier`, where it has them."""
    updates: dict[str, Any] = {}
    if data.store is not None and data.snapshot is None:
        updates["snapshot"] = LogitStore.open(data.store, earlier.get("snapshot")).snapshot
    for name in ("mixture", "teachers"):
        items: tuple[WeightedStore, ...] = getattr(data, name, ())
        before = earlier.get(name) or [{}] * len(items)
        updates[name] = tuple(
            item
            if item.snapshot is not None
            else item.model_copy(update={"snapshot": LogitStore.open(item.store, old.get("snapshot")).snapshot})
            for item, old in zip(items, before, strict=False)
        )
    return data.model_copy(update={name: value for name, value in updates.items() if value})


def check_inputs(settings: TrainSettings) -> None:
    """Raise for what can be seen to be wrong before any rank starts: data, tokenizer and model."""
    from student.training.metrics_log import require_wandb
    from student.training.prepare import prepare

    if settings.tracking.wandb:
        require_wandb()
    if settings.data.examples is not None:
        read_examples(settings.data.examples)
        if not settings.tokenizer.path:
            return  # the tokenizer is learned, and the model is of its size
    prepared = prepare(settings, counter("preparing", "examples"))
    if prepared.notes:
        print(f"train: {prepared.notes}", flush=True)


def _fit(settings: TrainSettings, on_gpu: bool) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _rank,
        train_loop_config={"settings": settings.model_dump(mode="json")},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=settings.run.ranks, use_gpu=on_gpu, resources_per_worker=None),
        run_config=RunConfig(
            # Ray Train would otherwise resume its own state from a name that was used before; ours is the checkpoint.
            name=uuid.uuid4().hex,
            storage_path=str(settings.output / "ray"),
            failure_config=FailureConfig(max_failures=settings.run.max_failures),
            worker_runtime_env={"env_vars": {} if on_gpu else RANK_ON_CPU},
        ),
    )
    print(f"train: starting {settings.run.ranks} ranks from step {steps_done(settings.output)}", flush=True)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(settings, over), daemon=True)
    watcher.start()
    try:
        trainer.fit()
    except Exception as error:
        raise _own_error(error) or error from None
    finally:
        over.set()
        watcher.join()


def _rank(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    from student.training.loop import train

    train(TrainSettings.model_validate(config["settings"]))


def _watch(settings: TrainSettings, over: threading.Event) -> None:
    """Draw the progress that rank 0 writes to its metrics file, from the first step of this run on."""
    path = settings.output / METRICS
    done = steps_done(settings.output)
    shown: tqdm[Any] | None = None
    finished = False
    while not finished:
        finished = over.wait(0.5)
        last = _last_line(path)
        if last and last["step"] > done:
            shown = shown or bar(settings.output.name, settings.run.steps, "steps", initial=last["step"])
            rate = last["tokens"] / last["seconds"]
            shown.set_postfix_str(f"loss {last['objective']:.3f}, {rate:,.0f} tokens/s", refresh=False)
            shown.update(last["step"] - shown.n)
    if shown is not None:
        shown.close()


def _last_line(path: Path) -> dict[str, Any] | None:
    """The newest complete line, or None."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().split(b"\n")[:-1]
        return dict(json.loads(lines[-1])) if lines else None
    except (FileNotFoundError, ValueError):
        return None


def _own_error(error: BaseException) -> LogitbankError | None:
    """The project's own error inside Ray Train's, where a rank raised one."""
    for inner in getattr(error, "worker_failures", {}).values():
        seen: BaseException | None = inner
        while seen is not None:
            if isinstance(seen, LogitbankError):
                return seen
            cause = getattr(seen, "cause", None) or getattr(seen, "_base_exc", None) or seen.__cause__
            seen = cause if isinstance(cause, BaseException) else None
    return None
