"""What jobs tell the metrics of Ray. Prometheus collects them from every node; without Ray, nothing is told.

The tables of this module are all metrics of the project; the Grafana dashboard is generated from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray


@dataclass(frozen=True, slots=True)
class MetricKind:
    """A metric. counter: it only grows. unit: of Grafana's axis, such as "short", "bytes" or "percentunit"."""

    name: str
    kind: Literal["counter", "gauge"]
    description: str
    unit: str = "short"


CAPTURE = (
    MetricKind("planned", "gauge", "examples of the whole job, an estimate until its input is read"),
    MetricKind("answered", "gauge", "examples of the job that are in the store or in quarantine"),
    MetricKind("captured", "counter", "examples that this driver has committed"),
    MetricKind("rows", "counter", "tokens with a distribution that this driver has committed"),
    MetricKind("refused", "counter", "examples that went into quarantine"),
    MetricKind("bytes", "counter", "bytes of the parts that were committed", "bytes"),
    MetricKind("cost", "counter", "price that a service charged"),
    MetricKind("deaths", "counter", "units that lost their engine and were tried again"),
    MetricKind("engines", "gauge", "engines that are ready"),
    MetricKind("queue", "gauge", "units that are planned and not given to an engine"),
    MetricKind("in_flight", "gauge", "units that engines have in hand"),
    MetricKind("idle_share", "gauge", "share of the places of ready engines without a unit", "percentunit"),
)
TRAINING = (
    MetricKind("step", "gauge", "steps done"),
    MetricKind("objective", "gauge", "what is minimised, of the last step"),
    MetricKind("heldout_objective", "gauge", "the same on held-out examples"),
    MetricKind("tokens", "counter", "tokens with a loss"),
    MetricKind("tokens_per_s", "gauge", "tokens with a loss a second, of the last step"),
    MetricKind("memory_mib", "gauge", "highest memory of rank 0 in MiB: of its GPU, or of its process", "mbytes"),
    MetricKind("mfu", "gauge", "share of the GPUs' dense bfloat16 arithmetic in the last step", "percentunit"),
    MetricKind("seconds", "counter", "seconds of the training loop", "s"),
    MetricKind("data_wait_seconds", "counter", "seconds of the training loop in which rank 0 waited for data", "s"),
    MetricKind("gradient_norm", "gauge", "norm of the gradient before it is clipped"),
    MetricKind("skipped_steps", "counter", "steps whose gradient was not finite"),
)
METRICS: Mapping[str, Sequence[MetricKind]] = {"capture": CAPTURE, "training": TRAINING}


def exported_name(job: str, kind: MetricKind) -> str:
    """The name of a metric of a kind of job as Prometheus sees it."""
    return f"ray_{_own_name(job, kind)}" + ("_total" if kind.kind == "counter" else "")


def _own_name(job: str, kind: MetricKind) -> str:
    return f"logitbank_{job}_{kind.name}"


class Metrics:
    """The metrics of one job. job: "capture" or "training". place: its store or output, the tag of every value."""

    def __init__(self, job: str, place: str) -> None:
        self._job, self._tags = job, {"place": place}
        self._shown: dict[str, Any] = {}
        self._totals: dict[str, float] = {}

    def show(self, values: Mapping[str, Any]) -> None:
        """Tell the present values, by the names of the table. Others, and values that are no numbers, are left out."""
        if not ray.is_initialized():
            return
        for kind in METRICS[self._job]:
            value = values.get(kind.name)
            if isinstance(value, int | float):
                self._show(kind, float(value))

    def _show(self, kind: MetricKind, value: float) -> None:
        from ray.util import metrics

        if kind.name not in self._shown:
            made = metrics.Counter if kind.kind == "counter" else metrics.Gauge
            self._shown[kind.name] = made(_own_name(self._job, kind), kind.description, tuple(self._tags))
        shown = self._shown[kind.name]
        if kind.kind == "gauge":
            shown.set(value, self._tags)
        elif (more := value - self._totals.get(kind.name, 0.0)) > 0:
            shown.inc(more, self._tags)
            self._totals[kind.name] = value
