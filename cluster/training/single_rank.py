"""The only rank of a training run on this machine: a child process, which starts much faster than Ray."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from cache.errors import LogitbankError
from cluster.training.rank_environment import rank_on_cpu
from student.training.planning.plan import TrainingPlan
from student.training.run_files import RANK_LOG
from student.training.settings import TrainSettings
from teacher_serving.engines.process import available_threads

# A group of one process needs an address, and any free port.
GROUP = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
GROUP |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


class RankLostError(LogitbankError):
    """The process of the rank ended without a result, or with an error that is not the project's own."""


class SingleRank:
    """A process that waits for a plan and then trains. Its imports take seconds: start it before the job is planned.

    Use it as a context manager: the process ends with the block.
    """

    def __init__(self, settings: TrainSettings, on_gpu: bool) -> None:
        self._environment = GROUP | ({} if on_gpu else rank_on_cpu(settings.run.cpu_threads or available_threads()))
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, settings: TrainSettings, plan: TrainingPlan, show: Callable[[], None]) -> None:
        """Run the rank to the end. A lost process, or an error that may pass, starts it again from its checkpoint.

        show: called about twice a second. Raises the project's own error if the rank raised one, and RankLostError
        after run.max_failures restarts.
        """
        failures = 0
        while True:
            try:
                self._run_once(settings, plan, show)
                return
            except RankLostError as error:
                failures += 1
                if failures > settings.run.max_failures:
                    raise
                print(f"train: {error}; starting again ({failures} of {settings.run.max_failures})", flush=True)
                self._end()
                self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(target=_rank, args=(pipe,), name="rank", daemon=True)
        with _environment(self._environment):
            self._process.start()
        pipe.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _run_once(self, settings: TrainSettings, plan: TrainingPlan, show: Callable[[], None]) -> None:
        log = settings.output / RANK_LOG
        try:
            self._pipe.send((settings, plan, log))
            while not self._pipe.poll(0.5):
                show()
            show()
            outcome = self._pipe.recv()
        except (EOFError, ConnectionError):  # no result: the process is gone
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise RankLostError(f"the process of the rank was lost ({how}); its output is in {log}") from None
        if isinstance(outcome, LogitbankError):
            raise outcome
        if outcome is not None:
            raise RankLostError(f"the rank failed: {outcome}; its output is in {log}")


def _rank(pipe: Connection) -> None:
    """What the child process runs. Sends None at its end, or the error that ended it."""
    # Ctrl-C of a terminal reaches this process too. The driver decides, and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    _write_output_to(Path(os.devnull))
    outcome: LogitbankError | str | None = None
    try:
        from student.training.train import train

        settings, plan, log = pipe.recv()
        _write_output_to(log)
        train(settings, plan)
    except LogitbankError as error:
        outcome = error
    except BaseException as error:
        traceback.print_exc()
        outcome = f"{type(error).__name__}: {error}"
    pipe.send(outcome)


def _write_output_to(path: Path) -> None:
    """Append to a file whatever this process prints, also from compiled code."""
    with path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while: a spawned process takes those of its parent."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
