"""Services that show metrics, behind one interface.

To add one: write a class with the methods of Service that is made from the settings of a job, add it to SERVICES under
the key of [tracking] that turns it on, and add this key to TrackingSettings.
"""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from textwrap import indent
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from cache.errors import InputError
from cache.json_documents import digest
from student.training.run_files import TENSORBOARD
from student.training.settings import TrainSettings

# The tag by which a continued run finds its run of MLflow.
RUN_TAG = "logitbank.run"


class Sample(NamedTuple):
    """What a student wrote after a prompt, which has its special tokens. reference: what the example answers, or ""."""

    prompt: str
    text: str
    reference: str


class Service(Protocol):
    """What shows the metrics of one run. It is made on rank 0, with the number of steps that were done before."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Show finite numbers of a step. A continued run repeats steps after its checkpoint."""
        ...

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Show what the student writes after a step, if the job has [samples]."""
        ...

    def close(self) -> None:
        """The run ends, or is interrupted."""
        ...


class TensorBoard:
    """Files in OUTPUT/tensorboard. What an interrupted run logged for the steps that are repeated is hidden."""

    def __init__(self, settings: TrainSettings, first: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(settings.output / TENSORBOARD), purge_step=first + 1)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        for number, sample in enumerate(samples, start=1):
            # Indented text is shown as it is, not as Markdown.
            parts = [f"**{name}**\n\n{indent(text, '    ')}" for name, text in sample._asdict().items() if text]
            self._writer.add_text(f"samples/{number}", "\n\n".join(parts), step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project tracking.wandb. Its key and address come from the environment."""

    def __init__(self, settings: TrainSettings, first: int) -> None:
        self._run = import_library("wandb").init(
            project=settings.tracking.wandb,
            name=settings.output.name,
            dir=str(settings.output),
            config=settings.model_dump(mode="json"),
            resume="allow",
            id=_run_name(settings),
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        table = import_library("wandb").Table(columns=list(Sample._fields), data=[list(each) for each in samples])
        self._run.log({"samples": table}, step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """A run of the experiment tracking.mlflow, at MLFLOW_TRACKING_URI. A continued training goes on in its run."""

    def __init__(self, settings: TrainSettings, first: int) -> None:
        mlflow = import_library("mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient()
        name = settings.tracking.mlflow
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        own = f"tags.`{RUN_TAG}` = '{_run_name(settings)}'"
        found = self._client.search_runs([number], own, max_results=1)
        tags = {RUN_TAG: _run_name(settings)}
        run = found[0] if found else self._client.create_run(number, tags=tags, run_name=settings.output.name)
        self._number = run.info.run_id
        self._client.update_run(self._number, "RUNNING")
        for key, value in flat(settings.model_dump(mode="json", exclude_none=True)).items():
            self._client.set_tag(self._number, key, value)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._number, metrics=metrics)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._client.log_dict(self._number, [each._asdict() for each in samples], f"samples/step-{step}.json")

    def close(self) -> None:
        self._client.set_terminated(self._number)


class ServiceKind(NamedTuple):
    """make: the service of a job that has done so many steps. library: what has to be installed for it, "" for none."""

    make: Callable[[TrainSettings, int], Service]
    library: str


SERVICES: Mapping[str, ServiceKind] = MappingProxyType(
    {
        "tensorboard": ServiceKind(TensorBoard, ""),
        "wandb": ServiceKind(WeightsAndBiases, "wandb"),
        "mlflow": ServiceKind(Mlflow, "mlflow"),
    }
)


def open_services(settings: TrainSettings, first: int) -> list[Service]:
    """The services of a job, on rank 0. first: the number of steps done before."""
    return [kind.make(settings, first) for name, kind in SERVICES.items() if getattr(settings.tracking, name)]


def require_services(settings: TrainSettings) -> None:
    """Raise InputError if a service of the job needs a library that is not installed."""
    for name, kind in SERVICES.items():
        if getattr(settings.tracking, name) and kind.library:
            import_library(kind.library)


def import_library(name: str) -> Any:
    """The library of a service. Raises InputError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"tracking.{name}: {name} is not installed; run `pip install {name}` ({error})") from None


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """The values of nested tables by their keys with points, as texts."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = str(value)
    return found


def _run_name(settings: TrainSettings) -> str:
    """The same for each start of a run, also from its mirror on another machine."""
    place = digest(str(settings.mirror or settings.output))
    return f"{settings.output.parent.name}-{settings.output.name}-{place[:8]}"
