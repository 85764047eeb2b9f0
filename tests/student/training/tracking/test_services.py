"""What services get of a run, through the one interface and in the libraries themselves where they are installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cache.errors import InputError
from student.training.settings import TrainSettings
from student.training.tracking.services import SERVICES, Sample, ServiceKind, require_services
from student.training.tracking.tracker import Tracker
from tests.student.training.ranks import settings_of

SAMPLES = [Sample("a\u2028 question", "answer\n", "reference"), Sample("another", "", "")]
STEPS = [(1, {"objective": 2.5, "tokens": 7}), (2, {"objective": float("nan"), "tokens": 9, "note": "text"})]


class Recorder:
    """A service that keeps what it gets."""

    made: ClassVar[list["Recorder"]] = []

    def __init__(self, settings: TrainSettings, first: int) -> None:
        self.first, self.logged, self.closed = first, list[tuple[int, dict[str, float]]](), 0
        self.samples: list[tuple[int, list[Sample]]] = []
        self.made.append(self)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.logged.append((step, dict(numbers)))

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self.samples.append((step, list(samples)))

    def close(self) -> None:
        self.closed += 1


def job(tmp_path: Path, **tracking: Any) -> TrainSettings:
    options = {"tracking": {"tensorboard": False, **tracking}, "samples": {}}
    settings = settings_of(tmp_path / "run", tmp_path / "store", **options)
    settings.output.mkdir(exist_ok=True)
    return settings


def log_all(settings: TrainSettings, first: int = 0) -> None:
    tracker = Tracker(settings, first)
    if not first:
        tracker.log_samples(0, SAMPLES)
    for step, values in STEPS[first:]:
        tracker.log_step(step, values)
        tracker.log_samples(step, SAMPLES)
    tracker.close()


def test_a_service_gets_finite_numbers_of_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch texts, NaN, a service that stays open, and one that the job did not ask for."""
    kinds = {"wandb": ServiceKind(Recorder, ""), "mlflow": ServiceKind(Recorder, "")}
    monkeypatch.setattr("student.training.tracking.services.SERVICES", kinds)
    monkeypatch.setattr(Recorder, "made", [])
    log_all(job(tmp_path, mlflow="experiment"))
    (one,) = Recorder.made
    assert (one.first, one.closed) == (0, 1)
    assert one.logged == [(1, {"objective": 2.5, "tokens": 7.0}), (2, {"tokens": 9.0})]
    assert one.samples == [(step, SAMPLES) for step in (0, 1, 2)]
    log_all(job(tmp_path, mlflow="experiment", wandb="project"), first=1)
    assert [each.first for each in Recorder.made] == [0, 1, 1]


def test_every_service_has_a_key_of_the_settings() -> None:
    assert set(SERVICES) == set(TrainSettings.model_fields["tracking"].annotation.model_fields)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_named_before_the_run(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(library: str) -> None:
        raise ImportError(f"No module named {library!r}")

    monkeypatch.setattr("student.training.tracking.services.importlib.import_module", missing)
    require_services(job(tmp_path))
    with pytest.raises(InputError, match=rf"tracking\.{name}: {name} is not installed; run `pip install {name}`"):
        require_services(job(tmp_path, **{name: "x"}))


def test_a_run_of_mlflow_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    settings = job(tmp_path, mlflow="experiment")
    for first in (0, 1):
        log_all(settings, first)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("experiment").experiment_id])
    assert run.info.status == "FINISHED" and run.data.metrics == {"objective": 2.5, "tokens": 9.0}
    assert [each.step for each in client.get_metric_history(run.info.run_id, "tokens")][:2] == [1, 2]
    assert run.data.tags["optimizer.lr"] == "0.003"
    assert {each.path for each in client.list_artifacts(run.info.run_id, "samples")} == {
        f"samples/step-{step}.json" for step in (0, 1, 2)
    }


def test_a_run_of_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_all(job(tmp_path, wandb="project"))
    assert list((tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb"))
