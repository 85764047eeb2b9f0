"""The Ray actor that owns a teacher engine, captures units and writes their parts itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from cache.codebook import Codebook
from cache.codebooks import read_codebook
from cache.example import TokenizedExample
from cache.spec import StoreSpec
from cache.storage import open_storage
from cluster.config import CaptureSettings
from teacher_serving.capture import UnitSummary, capture_unit, start_teacher
from teacher_serving.vllm_teacher import engine_environment


class CaptureWorker:
    """A teacher and a store. Lives in a process of its own; returns summaries only."""

    def __init__(self, settings: CaptureSettings, folder: str, spec: StoreSpec, tokenizer: Any, on_gpu: bool) -> None:
        self._teacher = start_teacher(Path(folder), settings.teacher, settings.engine, spec, on_gpu)
        self._tokenizer = tokenizer
        self._storage = open_storage(settings.store)
        self._spec = spec
        self._codebook: Codebook | None = None  # there is none before the first unit is written

    def ready(self) -> bool:
        """True once the engine is up."""
        return True

    def capture(self, unit: Sequence[TokenizedExample]) -> UnitSummary:
        self._codebook = self._codebook or read_codebook(self._storage, self._spec.vocab_size)
        return capture_unit(self._teacher, unit, self._tokenizer, self._storage, self._spec, self._codebook)


def start_worker(settings: CaptureSettings, folder: str, spec: StoreSpec, tokenizer: Any, on_gpu: bool) -> Any:
    """A handle to a new actor. Ray restarts it when its process or node dies."""
    engine = settings.engine
    resources: dict[str, Any] = {"num_gpus": engine.tensor_parallel} if on_gpu else {"num_cpus": engine.cpu_threads}
    actor = ray.remote(CaptureWorker).options(
        **resources,
        max_restarts=-1,
        runtime_env={"env_vars": {**engine_environment(engine, on_gpu), "HF_HUB_OFFLINE": "1"}},
    )
    return actor.remote(settings, folder, spec, tokenizer, on_gpu)
