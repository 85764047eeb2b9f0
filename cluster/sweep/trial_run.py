"""One trial in the process that Ray Tune gives it: a training job that reports its held-out losses while it runs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.errors import LogitbankError
from cache.json_documents import write_json
from cluster.sweep.trials import TrialMaker
from cluster.training.driver import run_training
from student.training.run_files import METRICS

OUTCOME = "trial.json"
Report = Callable[[dict[str, Any]], None]


def run_trial(config: dict[str, Any], maker: TrialMaker, listed: list[dict[str, Any]]) -> dict[str, Any]:
    """What Ray Tune runs. config: "number" of a trial in `listed`; without such a list, the changes themselves.

    Returns the last report. A job that fails with an error of the project says so in its folder, and ends well for Ray.
    """
    from ray import tune

    changes = listed[config["number"]] if listed else config
    output: Path | None = None
    try:
        settings = maker.trial(changes).settings
        output = settings.output
        watch = HeldoutWatch(output / METRICS, tune.report)
        write_outcome(output, changes, "running")
        result = run_training(settings, "local", watch.update)
    except LogitbankError as error:
        if output is not None:
            write_outcome(output, changes, "failed", " ".join(str(error).split()))
        return {"step": 0, "heldout_loss": float("inf")}
    write_outcome(output, changes, "finished")
    # A student that never had a finite loss must not look like the best one to a search.
    return {
        "step": result["steps"],
        "heldout_loss": float("inf") if result["best_loss"] is None else result["best_loss"],
    }


def write_outcome(output: Path, changes: Any, state: str, reason: str = "") -> None:
    """Note in the folder of a trial what became of it. state: "running", "finished", "failed" or "ended early"."""
    write_json(output / OUTCOME, {"changes": dict(changes), "state": state, "reason": reason})


class HeldoutWatch:
    """Reports each new held-out loss of a metrics file."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path, self._report, self._step, self._read = path, report, 0, 0

    def update(self) -> None:
        """Read what was added to the file, and report it. A run that goes on from a checkpoint writes a shorter one."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read:
                    self._read = 0
                file.seek(self._read)
                added = file.read()
        except FileNotFoundError:
            return
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            if '"heldout_objective"' not in line:
                continue
            values = json.loads(line)
            loss = values["heldout_objective"]
            if values["step"] > self._step:
                self._step = values["step"]
                self._report({"step": self._step, "heldout_loss": float("inf") if loss is None else loss})
