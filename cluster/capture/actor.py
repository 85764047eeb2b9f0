"""The Ray actor that owns a teacher engine, captures units and writes their parts itself."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from cache.errors import LogitbankError
from cache.rows.codebook import Codebook
from cache.storage.open import open_storage
from cache.store.codebook_claim import read_codebook
from cluster.capture.settings import CaptureSettings
from teacher_serving.asking.plan import PlannedExample
from teacher_serving.capture.teacher import start_teacher
from teacher_serving.capture.unit import Answers, UnitSummary, ask_teacher, store_answers
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.registry import ENGINES

# One unit is with the teacher while another is written.
UNITS_IN_HAND = 2


class CaptureWorker:
    """A teacher and a store. Lives in a process of its own; returns summaries only.

    The teacher has one thread and the store another: encoding and writing a unit take place while the next is asked.
    """

    def __init__(self, settings: CaptureSettings, description: TeacherDescription, on_gpu: bool) -> None:
        self._asking, self._writing = ThreadPoolExecutor(1, "teacher"), ThreadPoolExecutor(1, "store")
        self._description = description
        self._failure: LogitbankError | None = None
        try:
            self._teacher = self._asking.submit(
                start_teacher, description, settings.teacher, settings.engine, on_gpu
            ).result()
        except LogitbankError as error:
            # Told when it is asked for: Ray wraps errors of a constructor in a page of its own text.
            self._failure = error
        self._storage = open_storage(settings.store)
        self._codebook: Codebook | None = None  # there is none before the first unit is written

    async def ready(self) -> bool:
        """True once the engine is up. Raises what keeps it from starting."""
        if self._failure is not None:
            raise self._failure
        return True

    async def capture(self, unit: Sequence[PlannedExample]) -> UnitSummary:
        await self.ready()
        loop = asyncio.get_running_loop()
        description = self._description
        answers = await loop.run_in_executor(
            self._asking,
            ask_teacher,
            self._teacher,
            unit,
            description.tokenizer,
            description.spec,
            description.prompter,
        )
        return await loop.run_in_executor(self._writing, self._store, answers)

    def _store(self, answers: Answers) -> UnitSummary:
        spec = self._description.spec
        self._codebook = self._codebook or read_codebook(self._storage, spec.vocab_size)
        return store_answers(self._storage, spec, answers, self._codebook)


def start_worker(settings: CaptureSettings, description: TeacherDescription, on_gpu: bool) -> Any:
    """A handle to a new actor. Ray restarts it when its process or node dies."""
    engine = settings.engine
    resources: dict[str, Any] = {"num_gpus": engine.gpus} if on_gpu else {"num_cpus": engine.cpu_threads}
    actor = ray.remote(CaptureWorker).options(
        **resources,
        max_restarts=-1,
        max_concurrency=UNITS_IN_HAND,
        runtime_env={"env_vars": {**ENGINES[engine.kind].environment(engine, on_gpu), "HF_HUB_OFFLINE": "1"}},
    )
    return actor.remote(settings, description, on_gpu)
