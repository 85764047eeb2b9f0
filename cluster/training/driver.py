"""Train a student: plan the job, start its ranks, and restart them if one is lost."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import Any

from cache.errors import InputError
from cache.json_documents import write_json
from cluster.runtime.hardware import hardware
from cluster.runtime.outputs import locked, read_json, require_same_job, write_job
from cluster.runtime.progress_bars import counter
from cluster.runtime.ray_session import cluster_gpus, is_embedded, ray_session, require_cpus, require_gpus
from cluster.training.mirroring import DriverMirror
from cluster.training.ray_ranks import run_under_ray
from cluster.training.single_rank import SingleRank
from cluster.training.snapshot_pinning import pin_snapshots
from cluster.training.step_progress import StepProgress
from student.training.engine.checkpoints import require_continuable, require_known_format
from student.training.planning.plan import TrainingPlan
from student.training.planning.stores import OpenStores, newest_snapshot
from student.training.run_files import CHECKPOINTS, RESULT, read_progress, steps_done
from student.training.settings import TrainSettings

# A run may be continued with other values of these: they do not change what it learns from.
CHANGEABLE = frozenset(
    {
        "run.steps",
        "run.epochs",
        "run.ranks",
        "run.cpu_threads",
        "run.sequence_parallel",
        "run.micro_batch_size",
        "run.micro_batch_tokens",
        "run.checkpoint_every",
        "run.keep_checkpoints",
        "run.max_skipped_steps",
        "run.max_failures",
        "deepspeed",
        "data.prefetch",
        "data.readers",
        "data.cache",
        "mirror",
        "samples",
    }
)


def run_training(
    settings: TrainSettings, address: str | None, watch: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Train to the end, continuing an earlier run of the same job. Returns the content of training.json.

    watch: called about twice a second, and at the end.
    Raises a LogitbankError if the job cannot work, before any rank starts.
    """
    result_file = settings.output / RESULT
    stores = OpenStores(settings.data.cache)
    mirror = DriverMirror(settings)
    mirror.require_same_job(settings, CHANGEABLE)
    mirror.require_writable()
    mirror.fetch()
    if settings.data.follow is not None and settings.data.store is not None:
        newest_snapshot(settings.data.store)  # what is committed by now is what the run begins with
    settings, result = continue_job(settings, stores)
    if result is not None:
        mirror.send_missing_end()
        return result
    started = time.monotonic()
    gpus = local_gpus()
    ranks = choose_ranks(settings, gpus)
    # Ray is for several processes, and for other machines.
    if ranks == 1 and is_embedded(address):
        _run_single_rank(settings, stores, gpus > 0, watch)
    else:
        _run_under_ray(settings, stores, address, ranks, watch)
    watch()
    mirror.fetch()  # the ranks may have run where this folder is not
    finished = dict(read_json(result_file))
    finished |= {"hardware": hardware(), "wall_seconds_last_run": time.monotonic() - started}
    write_json(result_file, finished)
    mirror.send_result()
    return finished


def _run_single_rank(job: TrainSettings, stores: OpenStores, on_gpu: bool, watch: Callable[[], None]) -> None:
    """Train in a child process."""
    with SingleRank(job, on_gpu) as rank, ExitStack() as held:
        hold = cache(lambda: _hold_output(job, held))
        settings, plan = _plan(job, stores, hold)
        _record_start(settings, job, 1, hold)
        with StepProgress(settings, watch) as progress:
            rank.run(settings, plan, progress.update)


def _run_under_ray(
    job: TrainSettings, stores: OpenStores, address: str | None, local_ranks: int, watch: Callable[[], None]
) -> None:
    """Train on the Ray cluster at `address`, or on an embedded one for `local_ranks`."""
    threads = job.run.cpu_threads or 1
    with ExitStack() as held:
        hold = cache(lambda: _hold_output(job, held))
        settings, plan = _plan(job, stores, hold)
        with ray_session(address, local_ranks * threads + 1):
            gpus = cluster_gpus()
            ranks = choose_ranks(settings, gpus)
            require_gpus(ranks)
            if not gpus:
                require_cpus(ranks * threads)
            _record_start(settings, job, ranks, hold)
            elsewhere = DriverMirror(settings).last_metrics
            with StepProgress(settings, watch, elsewhere) as progress:
                run_under_ray(settings, plan, ranks, gpus > 0, progress.update)


def _plan(job: TrainSettings, stores: OpenStores, hold: Callable[[], None]) -> tuple[TrainSettings, TrainingPlan]:
    """The job with its number of steps, and its plan. hold: called before a plan is written."""
    plan = make_plan(job, stores, hold)
    settings = job.with_steps(plan.examples, plan.tokens)
    require_more_steps(settings)
    return settings, plan


def _hold_output(job: TrainSettings, held: ExitStack) -> None:
    """Let no other training write to the output until `held` ends. Raises InputError if another one has it.

    Called before the first file is written, which may be the plan: its ranks read it at each start. Not earlier: a job
    that is refused leaves nothing behind.
    """
    held.enter_context(locked(job.output))
    if steps_done(job.output):  # another training may have begun and ended since this job was compared with it
        require_same_job(job.output, job, CHANGEABLE)


def _record_start(settings: TrainSettings, job: TrainSettings, ranks: int, hold: Callable[[], None]) -> None:
    """Record the job. Only now: a job that is refused leaves the record of the earlier one."""
    settings.run.micro_batch_limit(ranks, settings.data.pack_to)
    require_continuable(settings.output / CHECKPOINTS, settings.optimizer, settings.run, ranks)
    hold()
    write_job(settings.output, job)
    DriverMirror(settings).send_job()
    print(f"train: starting {ranks} rank{'s' if ranks > 1 else ''} from step {steps_done(settings.output)}", flush=True)


def continue_job(settings: TrainSettings, stores: OpenStores) -> tuple[TrainSettings, dict[str, Any] | None]:
    """The job with pinned snapshots, and its result if an earlier run has done all of it.

    Raises InputError if the output has a run of another job, or a longer one; or if a metrics service is missing.
    """
    from student.training.tracking.services import require_services

    result_file = settings.output / RESULT
    has_started = steps_done(settings.output) > 0 or result_file.exists()
    settings = pin_snapshots(settings, stores)
    if has_started:
        require_same_job(settings.output, settings, CHANGEABLE)
        if result_file.exists() and is_complete(result := read_json(result_file), settings):
            return settings, dict(result)
        require_known_format(settings.output / CHECKPOINTS)
        if settings.run.steps is not None:
            require_more_steps(settings)
    require_services(settings)
    return settings, None


def make_plan(settings: TrainSettings, stores: OpenStores, begin: Callable[[], None] = lambda: None) -> TrainingPlan:
    """Check the job and plan it for all ranks. begin: called before a plan is written."""
    from student.training.planning.planner import plan_training

    plan = plan_training(settings, stores, counter("preparing", "examples"), begin)
    if plan.notes:
        print(f"train: {plan.notes}", flush=True)
    return plan


def is_complete(result: dict[str, Any], settings: TrainSettings) -> bool:
    """Whether a run that ended has nothing left to do. False if the job now has more steps.

    result: content of training.json. Raises InputError if the job is shorter than the run.
    """
    settings = settings.with_steps(result["examples"], result.get("example_tokens", 0))
    require_more_steps(settings)
    return bool(result["steps"] >= settings.run.total_steps or result.get("stopped_early"))


def choose_ranks(settings: TrainSettings, gpus: int) -> int:
    """The number of ranks on a cluster with so many GPUs.

    As requested; otherwise as many as the run had before, if the GPUs and the batch allow it; otherwise the default.
    """
    progress = read_progress(settings.output / CHECKPOINTS)
    if settings.run.ranks is None and progress:
        ranks = int(progress["ranks"])
        if settings.run.fits_ranks(ranks, settings.data.pack_to) and (not gpus or ranks <= gpus):
            return ranks
    return settings.run.ranks_for(gpus, settings.data.pack_to)


def local_gpus() -> int:
    """GPUs of this machine, which an embedded Ray offers."""
    import torch

    return torch.cuda.device_count()


def summary(result: dict[str, Any]) -> str:
    """The outcome of a run in one line. result: content of training.json."""
    planned = result.get("planned_steps", result["steps"])
    steps = f"{result['steps']:,} of {planned:,} steps" + (" (stopped early)" if result.get("stopped_early") else "")
    losses = []
    if result["best_loss"] is not None:
        losses.append(f"best held-out loss {result['best_loss']:.4f} at step {result['best_step']:,}")
    if result.get("last_loss") is not None:
        losses.append(f"last training loss {result['last_loss']:.4f}")
    skipped = result.get("skipped_steps", 0)
    facts = [
        steps,
        *([f"{skipped:,} of them left out (gradient not finite)"] if skipped else []),
        *losses,
        f"{result['parameters']:,} parameters",
        f"{result['seconds']:.0f} s",
        f"{result['tokens_per_s']:,.0f} tokens/s",
        f"{result['data_wait_share']:.1%} of the time waiting for data",
    ]
    if share := result.get("real_token_share"):
        facts.append(f"{share:.1%} of the computed tokens real")
    if count := result.get("examples_without_loss"):
        facts.append(f"{count:,} times an example without a token that has a loss")
    return "; ".join(filter(None, [", ".join(facts), result.get("notes")]))


def require_more_steps(settings: TrainSettings) -> None:
    """Raise InputError if the output has a run of more steps."""
    done = steps_done(settings.output)
    steps = settings.run.total_steps
    if steps < done:
        raise InputError(
            f"run.steps = {steps}: {settings.output} has a run of {done} steps already; give {done} or more steps, or "
            "another output"
        )
