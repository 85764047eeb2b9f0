"""The ranks of a training run under Ray Train: on a cluster, or several of them on one machine."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cache.errors import LogitbankError
from cluster.training.rank_environment import rank_on_cpu
from student.training.engine.skipped_steps import DivergenceError
from student.training.planning.plan import TrainingPlan
from student.training.settings import TrainSettings


def run_under_ray(
    settings: TrainSettings, plan: TrainingPlan, ranks: int, on_gpu: bool, show: Callable[[], None]
) -> None:
    """Run the ranks to the end on the Ray that this process has joined. Ray Train starts them again if one is lost.

    show: called about twice a second. Raises the project's own error if a rank raised one.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    threads = settings.run.cpu_threads or 1
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"settings": settings.model_dump(mode="json"), "plan": asdict(plan)},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=ranks, use_gpu=on_gpu, resources_per_worker=None if on_gpu else {"CPU": threads}
        ),
        run_config=RunConfig(
            # Ray Train would otherwise restore its own state by this name. The checkpoints are this project's own.
            name=uuid.uuid4().hex,
            storage_path=str(settings.output / "ray"),
            failure_config=FailureConfig(max_failures=settings.run.max_failures),
            worker_runtime_env={"env_vars": {} if on_gpu else rank_on_cpu(threads)},
        ),
    )
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
    while thread.is_alive():
        thread.join(0.5)
        show()
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
