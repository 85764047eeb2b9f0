"""Generate cluster/deploy/grafana.json and the table of docs/deploy.md, with every metric of cluster/runtime/metrics.py."""

import json
from pathlib import Path
from typing import Any

from cluster.runtime.metrics import METRICS, MetricKind, exported_name
from docs.generate.demo_table import between
from docs.generate.measurements.results import table

# Two charts side by side on the 24 columns of Grafana.
WIDTH, HEIGHT = 12, 7
BEGIN = "<!-- metrics: begin (written by `python -m docs.generate`) -->"
END = "<!-- metrics: end -->"
SOURCE = {"type": "prometheus", "uid": "${source}"}


def page(root: Path) -> str:
    """docs/deploy.md with the current table of metrics."""
    rows = [
        (f"`{exported_name(job, kind)}`", kind.kind, kind.description)
        for job, kinds in METRICS.items()
        for kind in kinds
    ]
    text = (root / "docs/deploy.md").read_text()
    return between(text, BEGIN, END, table(("metric", "kind", "what it is"), rows))


def dashboard() -> str:
    """The dashboard as JSON, to be imported into Grafana."""
    panels: list[dict[str, Any]] = []
    top = 0
    for job, kinds in METRICS.items():
        panels.append(
            {
                "type": "row",
                "title": job.capitalize(),
                "collapsed": False,
                "gridPos": _place(top, 0, 24, 1),
                "panels": [],
            }
        )
        panels += [_panel(job, kind, top + 1, number) for number, kind in enumerate(kinds)]
        top += 1 + HEIGHT * ((len(kinds) + 1) // 2)
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    document = {
        "title": "logitbank",
        "uid": "logitbank",
        "tags": ["logitbank", "ray"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_source(), _places()]},
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


def query(job: str, kind: MetricKind) -> str:
    """PromQL of a chart: a counter is shown as its growth a second."""
    name = f'{exported_name(job, kind)}{{place=~"$place"}}'
    return f"sum by (place) (rate({name}[5m]))" if kind.kind == "counter" else f"max by (place) ({name})"


def _panel(job: str, kind: MetricKind, top: int, number: int) -> dict[str, Any]:
    rate = kind.kind == "counter"
    title = kind.name.replace("_", " ") + (" a second" if rate else "")
    return {
        "type": "timeseries",
        "title": title,
        "description": kind.description,
        "datasource": SOURCE,
        "gridPos": _place(top + HEIGHT * (number // 2), WIDTH * (number % 2), WIDTH, HEIGHT),
        "fieldConfig": {"defaults": {"unit": _unit(kind), "min": 0 if rate else None}, "overrides": []},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": query(job, kind), "legendFormat": "{{place}}"}],
    }


def _unit(kind: MetricKind) -> str:
    if kind.kind == "counter" and kind.unit == "s":
        return "percentunit"  # seconds a second
    return "Bps" if kind.kind == "counter" and kind.unit == "bytes" else kind.unit


def _place(top: int, left: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _places() -> dict[str, Any]:
    """The choice of stores and runs that are shown."""
    names = "|".join(exported_name(job, kinds[0]) for job, kinds in METRICS.items())
    return {
        "name": "place",
        "label": "store or run",
        "type": "query",
        "datasource": SOURCE,
        "query": f'label_values({{__name__=~"{names}"}}, place)',
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }
