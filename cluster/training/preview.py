"""What a training job would do, without starting ranks and without writing to its output."""

import sys
import tempfile
from pathlib import Path

from cache.storage.open import open_storage
from cache.store.commits import SPEC
from cluster.training.driver import CHANGEABLE, choose_ranks, continue_job, local_gpus, require_more_steps, summary
from cluster.training.mirroring import DriverMirror
from student.training.engine.checkpoints import require_continuable
from student.training.planning.planner import plan_training
from student.training.planning.stores import OpenStores
from student.training.run_files import CHECKPOINTS
from student.training.settings import TrainSettings


def preview_training(settings: TrainSettings) -> str:
    """Check the job as a run would, and describe it: examples, what is left out of them, steps and ranks.

    Raises the LogitbankError with which the run would end before its first step. Where an earlier job has still to
    write the data, nothing can be checked: a line on standard error says so, and the description is empty.
    """
    if missing := _missing_inputs(settings):
        print(f"train: {', '.join(missing)}: does not exist yet, so data and model are not checked", file=sys.stderr)
        return ""
    stores = OpenStores()
    DriverMirror(settings).require_same_job(settings, CHANGEABLE)
    pinned, result = continue_job(settings, stores)
    if result is not None:
        return f"{settings.output} has a complete run of this job: {summary(result)}"
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_training(pinned.model_copy(update={"output": Path(folder)}), stores)
    planned = settings.with_steps(plan.examples, plan.tokens)
    require_more_steps(planned)
    ranks = choose_ranks(settings, local_gpus())
    if settings.run.ranks is not None:  # otherwise the cluster decides
        require_continuable(settings.output / CHECKPOINTS, settings.optimizer, settings.run, ranks)
    lines = [
        f"{plan.examples:,} training examples with {plan.tokens:,} tokens, {planned.run.total_steps:,} steps of "
        f"{settings.run.step_size} on {ranks} rank{'s' if ranks > 1 else ''} with micro-batches of "
        f"{_micro_batch(settings, ranks)}",
        *filter(None, plan.notes.split("; ")),
    ]
    return "\n".join(lines)


def _micro_batch(settings: TrainSettings, ranks: int) -> str:
    """What a micro-batch has at most, in words."""
    rows, tokens = settings.run.micro_batch_limit(ranks, settings.data.pack_to)
    if tokens is not None:
        return f"up to {tokens:,} positions"
    kind = "example" if settings.data.pack_to is None else f"packed row of up to {settings.data.pack_to:,} tokens"
    return f"{rows} {kind}{'s' if rows != 1 else ''}"


def _missing_inputs(settings: TrainSettings) -> list[str]:
    """Stores and files of the job that do not exist."""
    heldout = settings.heldout
    stores = [item.store for item in settings.data.stores]
    files = [settings.data.examples, settings.data.replay.examples if settings.data.replay else None]
    if heldout is not None:
        stores += [heldout.store] if heldout.store is not None else []
        files.append(heldout.examples)
    missing = [f"store {uri}" for uri in stores if open_storage(uri).size(SPEC) is None]
    return missing + [f"file {path}" for path in files if path is not None and not path.exists()]
