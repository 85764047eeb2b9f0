"""Ray Tune over the trials of a sweep: which runs when, with which values, and which ends early."""

import inspect
import os
import shutil
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import SCHEDULER_IMPORT, create_scheduler
from ray.tune.search import SEARCH_ALG_IMPORT, create_searcher
from tqdm import tqdm

from cache.errors import InputError
from cluster.runtime.progress_bars import bar
from cluster.sweep.settings import Range, SweepSettings
from cluster.sweep.trial_run import run_trial
from cluster.sweep.trials import Trial, TrialMaker
from student.training.settings import TrainSettings

METRIC = "heldout_loss"
SCHEDULERS = {"asha": "async_hyperband", "median_stopping": "median_stopping_rule"}
# Of those that Ray Tune names: no search at all, and one that needs a scheduler of its own.
NO_SEARCH = frozenset({"variant_generator", "random", "bohb"})
# A trial that starts ranks elsewhere only waits for them.
WAITING_CPUS = 0.01


class TrialProgress(tune.Callback):  # type: ignore[misc]
    """A bar over the trials. Ray Tune keeps a copy of it in a file, without the bar."""

    def __init__(self, count: int) -> None:
        self._bar: tqdm[Any] | None = bar("sweep", count, "trials")

    def __getstate__(self) -> dict[str, Any]:
        return {"_bar": None}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that has ended."""
        if self._bar is not None:
            self._bar.update()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that was lost."""
        self.on_trial_complete(iteration, trials, trial)

    def close(self) -> None:
        """Draw the bar for the last time."""
        if self._bar is not None:
            self._bar.close()


def run_trials(
    sweep: SweepSettings, maker: TrialMaker, trials: list[Trial], on_gpu: bool, ranks: int
) -> list[tuple[dict[str, Any], str]]:
    """Run the trials on the Ray that this process has joined. What became of each stands in its folder.

    Returns the changes of those that were lost, each with the reason.
    trials: those that have still to run; with a search algorithm, it chooses them, and these are examples.
    """
    # Ray Tune would otherwise take over Ctrl-C, and write a result as if all were done.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    settings = trials[0].settings
    listed = [] if sweep.search else [dict(trial.changes) for trial in trials]
    count = len(listed) or sweep.samples
    progress = TrialProgress(count)
    work = sweep.output / ".tune"
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, maker=maker, listed=listed), _resources(settings, on_gpu, ranks)
    )
    tuner = tune.Tuner(
        trainable,
        param_space=_space(sweep) if sweep.search else {"number": tune.grid_search(list(range(count)))},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="min",
            search_alg=search_algorithm(sweep),
            scheduler=scheduler(sweep, settings),
            num_samples=sweep.samples if sweep.search else 1,
            max_concurrent_trials=sweep.concurrent or _together(settings, on_gpu, ranks),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(name="trials", storage_path=str(work), verbose=0, callbacks=[progress]),
    )
    try:
        results = tuner.fit()
    finally:
        progress.close()
        shutil.rmtree(work, ignore_errors=True)
    lost = []
    for result in results:
        if result.error is not None:
            changes = listed[result.config["number"]] if listed else dict(result.config)
            lost.append((changes, f"was lost: {' '.join(str(result.error).split())[:300]}"))
    return lost


def _resources(settings: TrainSettings, on_gpu: bool, ranks: int) -> dict[str, float]:
    """What a trial takes. One with several ranks waits for them, and they take theirs themselves."""
    if ranks > 1:
        return {"cpu": WAITING_CPUS}
    return {"cpu": 1, "gpu": 1} if on_gpu else {"cpu": settings.run.cpu_threads or 1}


def _together(settings: TrainSettings, on_gpu: bool, ranks: int) -> int | None:
    """Trials with several ranks that fit on the cluster. None for others: Ray counts them itself."""
    if ranks == 1:
        return None
    have, each = ("GPU", ranks) if on_gpu else ("CPU", ranks * (settings.run.cpu_threads or 1))
    return max(1, int(ray.cluster_resources().get(have, 0)) // each)


def _space(sweep: SweepSettings) -> dict[str, Any]:
    """The space as Ray Tune writes it."""

    def domain(values: tuple[Any, ...] | Range) -> Any:
        if not isinstance(values, Range):
            return tune.choice(list(values))
        if values.integer:
            draw = tune.lograndint if values.log else tune.randint
            return draw(int(values.min), int(values.max) + 1)
        return (tune.loguniform if values.log else tune.uniform)(values.min, values.max)

    return {key: domain(values) for key, values in sweep.space.items()}


def scheduler(sweep: SweepSettings, settings: TrainSettings) -> Any:
    """What ends trials early, or None. settings: of a trial. Raises InputError for an unknown option."""
    if sweep.early_stopping is None:
        return None
    name = SCHEDULERS[sweep.early_stopping]
    every = settings.heldout.every if settings.heldout else 1
    defaults: dict[str, Any] = {"time_attr": "step", "grace_period": every}
    if settings.run.steps is not None:
        defaults["max_t"] = max(settings.run.steps, every)
    options = sweep.early_stopping_options
    _require_options(SCHEDULER_IMPORT[name], options, "early_stopping_options")
    try:
        return create_scheduler(name, **(defaults | options))
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(f"early_stopping_options: {error}") from None


def search_algorithm(sweep: SweepSettings) -> Any:
    """What chooses trials, or None. Raises InputError for an unknown name or option, or if its package is missing."""
    if sweep.search is None:
        return None
    names = sorted(set(SEARCH_ALG_IMPORT) - NO_SEARCH)
    if sweep.search not in names:
        raise InputError(f"search: unknown algorithm {sweep.search!r}; valid values: {', '.join(names)}")
    try:
        _require_options(SEARCH_ALG_IMPORT[sweep.search](), sweep.search_options, "search_options")
        return create_searcher(sweep.search, **({"seed": sweep.seed} | sweep.search_options))
    except (ImportError, AssertionError, TypeError, ValueError) as error:
        raise InputError(f"search = {sweep.search!r}: {error}; install its package") from None


def _require_options(kind: Any, options: Mapping[str, Any], table: str) -> None:
    """Raise InputError for an option that Ray Tune does not know: it would leave it out without a word."""
    known = sorted(set(inspect.signature(kind.__init__).parameters) - {"self", "metric", "mode", "space"})
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"{table}.{unknown[0]}: is unknown; valid keys: {', '.join(known)}")
