"""What a store or the output folder of a job contains, and how far the work is. Reads files only."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import InputError, LogitbankError
from cache.storage.open import open_storage
from cache.store.commits import SPEC
from cluster.runtime.outputs import JOB, read_json
from student.training.planning.plan import PLAN, PLAN_FILE
from student.training.run_files import METRICS, RESULT, steps_done
from student.training.run_settings import RunSettings

EVALUATION = "evaluation.json"
EXAMPLES = "examples.json"
RESULTS = "results.json"
# Folders below which there are neither stores nor outputs.
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class RunState:
    """kind: "store", "training", "evaluation", "examples" or "report". state: in a few words. size: in bytes.

    facts: what the kind knows beside that, by name.
    """

    kind: str
    path: str
    size: int
    state: str
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [(self.kind, self.path), ("state", self.state), ("size", format_bytes(self.size))]
        rows += [(name.replace("_", " "), _format(value)) for name, value in self.facts.items() if value is not None]
        return "\n".join(f"{name:<18} {value}" for name, value in rows)


def state_of(path: str) -> RunState:
    """State of a store (folder or address) or of the output folder of a job. Raises InputError if it is neither."""
    if "://" in path:
        return _store_state(path)
    folder = Path(path)
    kind = _kind_of(folder)
    if kind is None:
        what = "is neither a store nor the output folder of a job" if folder.is_dir() else "no such folder"
        raise InputError(f"{path}: {what}; 'logitbank list' shows the stores and outputs below a folder")
    return _READERS[kind](path)


def states_below(folder: Path) -> Iterator[RunState]:
    """States of all stores and outputs in a folder and below it. Damaged ones are listed with what is wrong."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    kind = _kind_of(folder)
    if kind is not None:
        try:
            yield _READERS[kind](str(folder))
        except (LogitbankError, KeyError, ValueError, TypeError, OSError) as error:
            yield RunState(kind, str(folder), 0, f"damaged: {' '.join(str(error).split())}")
    if kind in ("store", "training"):
        return  # what lies below is a part of it
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not _is_skipped(child.name):
            yield from states_below(child)


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED_FOLDERS


def format_bytes(size: int) -> str:
    """A size for people, in binary units."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _kind_of(folder: Path) -> str | None:
    """Kind of a folder by the files in it, or None if it is neither a store nor an output."""
    if (folder / SPEC).is_file():
        return "store"
    if (folder / RESULT).is_file() or (folder / METRICS).is_file() or _job_has(folder, "optimizer"):
        return "training"
    if (folder / EVALUATION).is_file() or _job_has(folder, "models"):
        return "evaluation"
    if (folder / EXAMPLES).is_file():
        return "examples"
    return "report" if (folder / RESULTS).is_file() else None


def _job_has(folder: Path, key: str) -> bool:
    """Whether the folder contains the resolved job of a command whose settings have this key."""
    try:
        return key in json.loads((folder / JOB).read_text())
    except (OSError, ValueError, TypeError):
        return False


def _store_state(uri: str) -> RunState:
    from cache.store.logit_store import LogitStore
    from cache.store.snapshot_reading import latest_snapshot

    info = LogitStore.open(uri, unpinned=True).info()
    snapshot = latest_snapshot(open_storage(uri))
    capture = _capture_facts(uri)
    planned = capture.get("planned_examples")
    finished = info.examples + info.quarantined
    if planned is None:
        state = f"{info.examples:,} examples" + ("" if snapshot else ", no snapshot yet")
    elif finished < planned:
        state = f"{finished:,} of {planned:,} examples answered"
    else:
        state = "complete" if snapshot else "captured, no snapshot yet"
    facts = {
        "committed_units": info.units,
        "committed_examples": info.examples,
        "in_quarantine": info.quarantined,
        "quarantine": info.quarantine or None,
        **capture,
        "worked_on_by": _drivers(uri) or None,
        "tokens_with_target": info.rows,
        "newest_snapshot": snapshot or None,
        "fingerprint": info.spec.fingerprint,
        "teacher": info.spec.teacher,
    }
    return RunState("store", uri, info.bytes, state, facts)


def _drivers(uri: str) -> list[str]:
    """The drivers that capture into a store now, and how far each is."""
    from cluster.capture.sharing.drivers import drivers_of

    lines = []
    for driver in drivers_of(open_storage(uri)):
        facts = driver.facts
        rate = facts["rows"] / facts["seconds"] if facts["seconds"] else 0.0
        lines.append(
            f"{driver.host}, process {driver.pid}: {facts['answered']:,} of {facts['planned']:,} examples answered, "
            f"{rate:,.0f} tokens/s"
        )
    return lines


def _capture_facts(uri: str) -> dict[str, Any]:
    """What the capture log beside a store says. Stores that were imported have none."""
    from cluster.capture.run_log import capture_log_path

    path = capture_log_path(uri)
    log = read_json(path) if path.exists() else {}
    run = log["runs"][-1] if log.get("runs") else {}
    return {
        "planned_examples": log.get("planned"),
        "tokens_per_s": run["rows"] / run["seconds"] if run.get("seconds") else None,
        "stopped": run.get("stopped") or None,
        "updated": _age(path) if log else None,
    }


def _training_state(path: str) -> RunState:
    output = Path(path)
    job = read_json(output / JOB) if (output / JOB).is_file() else {}
    planned = _planned_steps(output, job)
    lines = _metrics(output / METRICS)
    last = lines[-1] if lines else {}
    step = last.get("step", 0)
    result = read_json(output / RESULT) if (output / RESULT).is_file() else None
    if result is not None:
        planned = result.get("planned_steps", planned)
        stopped_early = result.get("stopped_early", planned is not None and result["steps"] < planned)
        state = f"complete, stopped early at step {result['steps']:,} of {planned:,}" if stopped_early else "complete"
    elif not step:
        state = "not started"
    else:
        state = f"step {step:,} of {planned:,}" if planned else f"step {step:,}"
    # The line of step 0 is of a student that nothing was taught yet.
    heldout = [
        line["heldout_objective"] for line in lines if line["step"] and line.get("heldout_objective") is not None
    ]
    facts = {
        "steps": step or None,
        "planned_steps": planned,
        "checkpoint_at_step": steps_done(output) or None,
        "tokens": last.get("tokens"),
        "tokens_per_s": last["tokens"] / last["seconds"] if last.get("seconds") else None,
        "objective": last.get("objective"),
        "best_heldout_loss": min(heldout, default=None),
        "updated": _age(output / METRICS) if lines else None,
    }
    return RunState("training", path, _size_below(output), state, facts)


def _planned_steps(output: Path, job: dict[str, Any]) -> int | None:
    """The number of steps of a job. None before the first plan of a job that counts in epochs."""
    run = job.get("run")
    if not run:
        return None
    plan = output / PLAN / PLAN_FILE
    settings = RunSettings.model_validate(run)
    if settings.epochs is not None and plan.is_file():
        planned = read_json(plan)
        settings = settings.with_steps(planned["examples"], planned.get("tokens", 0))
    return settings.steps


def _evaluation_state(path: str) -> RunState:
    output = Path(path)
    models = list(read_json(output / JOB)["models"]) if (output / JOB).is_file() else []
    finished = [name for name in models if (output / f"{name}.json").is_file()]
    is_complete = (output / EVALUATION).is_file()
    state = "complete" if is_complete else f"{len(finished)} of {len(models)} models evaluated"
    return RunState("evaluation", path, _size_in(output), state, {"models": models, "evaluated": finished})


def _examples_state(path: str) -> RunState:
    return RunState("examples", path, _size_in(Path(path)), "complete", read_json(Path(path) / EXAMPLES)["examples"])


def _report_state(path: str) -> RunState:
    return RunState("report", path, _size_in(Path(path)), "complete")


_READERS: dict[str, Callable[[str], RunState]] = {
    "store": _store_state,
    "training": _training_state,
    "evaluation": _evaluation_state,
    "examples": _examples_state,
    "report": _report_state,
}


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file. The last one may be half written."""
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _size_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _size_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _age(path: Path) -> str:
    """Time since the last change of a file."""
    seconds = max(0.0, time.time() - path.stat().st_mtime)
    for limit, unit, length in ((120, "seconds", 1), (7200, "minutes", 60), (172_800, "hours", 3600)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}"
    if isinstance(value, dict):
        return "; ".join(f"{count:,} {reason}" for reason, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
