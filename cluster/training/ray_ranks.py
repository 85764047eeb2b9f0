"""The ranks of a training run under Ray Train: on a cluster, or several of them on one machine."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cache.errors import InputError, LogitbankError, SpecMismatchError
from cluster.training.rank_environment import rank_on_cpu
from student.training.engine.skipped_steps import DivergenceError
from student.training.planning.plan import TrainingPlan
from student.training.settings import TrainSettings


def run_under_ray(
    settings: TrainSettings, plan: TrainingPlan, ranks: int, on_gpu: bool, show: Callable[[], None]
) -> None:
    """Run the ranks to the end on the Ray that this process has joined. Ray Train starts them again if one fails.

    show: called about twice a second. Raises the project's own error if a rank raised one: Ray Train knows no error
    that ends a run, so the ranks that it starts again return at once.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    threads = settings.run.cpu_threads or 1
    trainer = TorchTrainer(
        _rank,
        train_loop_config={
            "settings": settings.model_dump(mode="json"),
            "plan": asdict(plan),
            "first_error": _first_error(),
        },
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
            if (error := trainer.fit().return_value) is not None:
                errors.append(error)
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


class FirstError:
    """An actor that keeps the first error of a run, from one start of its ranks to the next."""

    def __init__(self) -> None:
        self._error: LogitbankError | None = None

    def keep(self, error: LogitbankError) -> None:
        """Keep this error if it is the first one."""
        self._error = self._error or error

    def get(self) -> LogitbankError | None:
        """The error that was kept."""
        return self._error


def _first_error() -> Any:
    """A handle of the actor, which lives as long as this process uses it, on the same machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(FirstError).options(num_cpus=0, scheduling_strategy=here).remote()


def _rank(config: dict[str, Any]) -> LogitbankError | None:
    """What each Ray Train worker runs. Returns the error of the job, if there is one: a restart would only repeat it.

    An error of one rank is raised, because the others wait for it. They and it return it when they are started again.
    """
    import ray

    from student.training.train import train

    kept = config["first_error"]
    error: LogitbankError | None = ray.get(kept.get.remote())
    if error is not None:
        return error
    try:
        train(TrainSettings.model_validate(config["settings"]), TrainingPlan(**config["plan"]))
    except DivergenceError as diverged:  # of all ranks
        return diverged
    except (InputError, SpecMismatchError) as own:  # others may pass, such as those of an object store
        ray.get(kept.keep.remote(own))
        raise
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
