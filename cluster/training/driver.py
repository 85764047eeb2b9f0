"""Train a student: plan the job, start its ranks with Ray Train, and restart them if one is lost."""

import threading
import time
import uuid
from dataclasses import asdict
from typing import Any

from cache.errors import InputError, LogitbankError
from cache.json_documents import write_json
from cluster.runtime.hardware import hardware
from cluster.runtime.outputs import read_json, require_same_job, write_job
from cluster.runtime.progress_bars import counter
from cluster.runtime.ray_session import cluster_gpus, ray_session, require_cpus, require_gpus
from cluster.training.snapshot_pinning import pin_snapshots
from cluster.training.step_progress import StepProgress
from student.training.engine.checkpoints import require_known_format
from student.training.planning.plan import TrainingPlan
from student.training.planning.stores import OpenStores
from student.training.run_files import CHECKPOINTS, RESULT, read_progress, steps_done
from student.training.settings import TrainSettings
from student.training.skipped_steps import DivergenceError
from teacher_serving.engines.process import cpu_environment

# All ranks on a CPU share one machine. Each has one thread, and its allocator keeps large buffers.
RANK_ON_CPU = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", **cpu_environment(1)}

# A run may be continued with other values of these: they do not change what it learns from.
CHANGEABLE = frozenset(
    {
        "run.steps",
        "run.epochs",
        "run.ranks",
        "run.micro_batch_size",
        "run.checkpoint_every",
        "run.keep_checkpoints",
        "run.max_skipped_steps",
        "run.max_failures",
        "data.prefetch",
        "data.readers",
    }
)


def run_training(settings: TrainSettings, address: str | None) -> dict[str, Any]:
    """Train to the end, continuing an earlier run of the same job. Returns the content of training.json.

    Raises a LogitbankError if the job cannot work, before any rank starts.
    """
    result_file = settings.output / RESULT
    stores = OpenStores()
    settings, result = continue_job(settings, stores)
    if result is not None:
        return result
    job = settings
    plan = make_plan(settings, stores)
    settings = settings.with_steps(plan.examples)
    require_more_steps(settings)
    started = time.monotonic()
    with ray_session(address, choose_ranks(settings, local_gpus()) + 1):
        gpus = cluster_gpus()
        ranks = choose_ranks(settings, gpus)
        settings.run.micro_batch_of(ranks, settings.data.pack_to)
        require_gpus(ranks)
        if not gpus:
            require_cpus(ranks)
        # Only now: a job that is refused leaves the record of the earlier one.
        write_job(settings.output, job)
        _run_ranks(settings, plan, ranks, gpus > 0)
    finished = dict(read_json(result_file))
    finished |= {"hardware": hardware(), "wall_seconds_last_run": time.monotonic() - started}
    write_json(result_file, finished)
    return finished


def continue_job(settings: TrainSettings, stores: OpenStores) -> tuple[TrainSettings, dict[str, Any] | None]:
    """The job with pinned snapshots, and its result if an earlier run has done all of it.

    Raises InputError if the output has a run of another job, or a longer one; or if a metrics service is missing.
    """
    from student.training.metrics_log import require_wandb

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
    if settings.tracking.wandb:
        require_wandb()
    return settings, None


def make_plan(settings: TrainSettings, stores: OpenStores) -> TrainingPlan:
    """Check the job and plan it for all ranks."""
    from student.training.planning.planner import plan_training

    plan = plan_training(settings, stores, counter("preparing", "examples"))
    if plan.notes:
        print(f"train: {plan.notes}", flush=True)
    return plan


def is_complete(result: dict[str, Any], settings: TrainSettings) -> bool:
    """Whether a run that ended has nothing left to do. False if the job now has more steps.

    result: content of training.json. Raises InputError if the job is shorter than the run.
    """
    settings = settings.with_steps(result["examples"])
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


def _run_ranks(settings: TrainSettings, plan: TrainingPlan, ranks: int, on_gpu: bool) -> None:
    """Run the ranks to the end and show their progress. Raises the project's own error if a rank raised one."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _rank,
        train_loop_config={"settings": settings.model_dump(mode="json"), "plan": asdict(plan)},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=ranks, use_gpu=on_gpu, resources_per_worker=None),
        run_config=RunConfig(
            # Ray Train would otherwise restore its own state by this name. The checkpoints are this project's own.
            name=uuid.uuid4().hex,
            storage_path=str(settings.output / "ray"),
            failure_config=FailureConfig(max_failures=settings.run.max_failures),
            worker_runtime_env={"env_vars": {} if on_gpu else RANK_ON_CPU},
        ),
    )
    print(f"train: starting {ranks} rank{'s' if ranks > 1 else ''} from step {steps_done(settings.output)}", flush=True)
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            if message := trainer.fit().return_value:
                errors.append(DivergenceError(message))
        except BaseException as error:
            errors.append(error)

    # Not in the main thread: there, Ray Train takes over SIGINT and ends this process with exit code 1.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    with StepProgress(settings) as progress:
        while thread.is_alive():
            thread.join(0.5)
            progress.update()
    if errors:
        raise _own_error(errors[0]) or errors[0] from None


def _rank(config: dict[str, Any]) -> str | None:
    """What each Ray Train worker runs. Returns why the run diverged, if it did: a restart would only repeat it."""
    from student.training.train import train

    try:
        train(TrainSettings.model_validate(config["settings"]), TrainingPlan(**config["plan"]))
    except DivergenceError as error:
        return str(error)
    return None


def _own_error(error: BaseException) -> LogitbankError | None:
    """The LogitbankError inside an error of Ray Train, if a rank raised one."""
    for failure in getattr(error, "worker_failures", {}).values():
        current: BaseException | None = failure
        while current is not None:
            if isinstance(current, LogitbankError):
                return current
            cause = getattr(current, "cause", None) or getattr(current, "_base_exc", None) or current.__cause__
            current = cause if isinstance(cause, BaseException) else None
    return None
