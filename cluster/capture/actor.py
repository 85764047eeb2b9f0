"""CaptureWorker: the Ray actor that owns a teacher. It captures units and writes their parts."""

import asyncio
import os
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ray

from cache.errors import LogitbankError
from cache.storage.open import open_storage
from cache.store.claims.codebook_choice import CodebookChoice
from cluster.capture.settings import CaptureSettings
from teacher_serving.asking.plan import PlannedExample
from teacher_serving.capture.start import start_teacher
from teacher_serving.capture.unit import Answers, UnitSummary, ask_teacher, store_answers
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.registry import ENGINES
from teacher_serving.teacher import CountsAnswers, NamesRowSource, TeacherDiedError

# Units that are written while the teacher answers another one. A teacher on a GPU answers faster than one thread
# encodes; on a CPU a second thread would take the teacher's core.
WRITERS_ON_GPU, WRITERS_ON_CPU = 3, 1


def writers(on_gpu: bool) -> int:
    """Threads of a worker that encode and write."""
    return WRITERS_ON_GPU if on_gpu else WRITERS_ON_CPU


def units_per_worker(on_gpu: bool) -> int:
    """Units that a worker has at a time: one that its teacher answers, and those that are written."""
    return 1 + writers(on_gpu)


class CaptureWorker:
    """A teacher and a store in one process. Returns only summaries of units.

    Teacher and store have threads of their own, so that units are written while the teacher answers the next one.
    """

    def __init__(self, settings: CaptureSettings, description: TeacherDescription, on_gpu: bool) -> None:
        self._asking, self._writing = ThreadPoolExecutor(1, "teacher"), ThreadPoolExecutor(writers(on_gpu), "store")
        self._description = description
        self._failure: LogitbankError | None = None
        self._unwritten = 0
        # Size of the unit that the teacher is answering, and the teacher's count of answers when that unit started.
        self._current_size = self._current_start = 0
        try:
            self._tokenizer = description.tokenizer
            self._teacher = self._asking.submit(
                start_teacher, description, settings.teacher, settings.engine, on_gpu
            ).result()
        except LogitbankError as error:
            # Raised later by `ready`. Ray adds a page of text to errors of a constructor.
            self._failure = error
        self._storage = open_storage(settings.store)
        self._codebooks = CodebookChoice(self._storage, description.spec)

    async def ready(self) -> bool:
        """Return True when the engine has started. Raises the error of its start."""
        if self._failure is not None:
            raise self._failure
        return True

    async def capture(
        self, units: Sequence[Sequence[PlannedExample]], number: int = 0, places: Sequence[int] | None = None
    ) -> UnitSummary:
        """Let the teacher answer one of these units, or its responses at these places; write and commit their part."""
        await self.ready()
        unit = units[number] if places is None else [units[number][place] for place in places]
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._asking, self._ask, unit)
        self._unwritten += len(unit)
        summary = await loop.run_in_executor(self._writing, self._store, answers)
        self._unwritten -= len(unit)
        return summary

    async def examples_in_progress(self) -> int:
        """Count the examples that the teacher has answered and that are not committed yet."""
        answered = min(self._current_size, self._answered() - self._current_start)
        return self._unwritten + answered

    def _ask(self, unit: Sequence[PlannedExample]) -> Answers:
        self._current_start, self._current_size = self._answered(), len(unit)
        teacher = self._description
        try:
            answers = ask_teacher(self._teacher, unit, self._tokenizer, teacher.spec, teacher.prompter)
        except TeacherDiedError:
            # Ray starts a new process with a new engine in its place, and the driver captures the unit again.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        self._current_size = 0
        return answers

    def _answered(self) -> int:
        return self._teacher.answered if isinstance(self._teacher, CountsAnswers) else 0

    def _store(self, answers: Answers) -> UnitSummary:
        spec = self._description.spec
        summary = store_answers(self._storage, spec, answers, self._codebooks)
        return (
            replace(summary, rows_from=self._teacher.rows_from)
            if isinstance(self._teacher, NamesRowSource)
            else summary
        )


def start_worker(settings: CaptureSettings, description: TeacherDescription, on_gpu: bool) -> Any:
    """Start an actor and return its handle. Ray restarts it when its process or node dies."""
    engine = settings.engine
    resources: dict[str, Any] = {"num_gpus": engine.gpus} if on_gpu else {"num_cpus": engine.threads}
    actor = ray.remote(CaptureWorker).options(
        **resources,
        max_restarts=-1,
        max_concurrency=units_per_worker(on_gpu) + 1,  # one more call for the progress
        runtime_env={"env_vars": {**ENGINES[engine.kind].environment(engine, on_gpu), "HF_HUB_OFFLINE": "1"}},
    )
    return actor.remote(settings, description, on_gpu)
