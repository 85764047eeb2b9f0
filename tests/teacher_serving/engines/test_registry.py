"""An engine from outside the packages is chosen by a job file and captures a store. No file of the project changes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.registry import PLUGINS_VARIABLE
from cache.storage.open import open_storage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from teacher_serving.asking.plan import Limits, plan_capture
from teacher_serving.capture.start import describe, start_teacher
from teacher_serving.capture.unit import ask_teacher, store_answers
from teacher_serving.engines.registry import ENGINES
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.reduction.settings import TargetSettings

PLUGIN = '''
"""A teacher that expects every token equally often, with an engine of its own."""

from typing import Literal

import numpy as np

from cache.rows.sparse_targets import SparseTargets
from teacher_serving.engines.local_model import describe_local_model
from teacher_serving.engines.settings import EngineSettings
from teacher_serving.teacher import Scored


class UniformSettings(EngineSettings):
    kind: Literal["uniform"] = "uniform"
    first_id: int = 0


class UniformTeacher:
    def __init__(self, spec, first_id):
        self.spec, self.first_id = spec, first_id

    def score(self, requests):
        return [self._scored(request) for request in requests]

    def generate(self, requests, sampling):
        raise NotImplementedError

    def _scored(self, request):
        n, k, vocabulary = len(request.tokens), self.spec.targets.k, self.spec.vocab_size
        counts = np.zeros(n, np.int64)
        counts[request.rows] = k
        offsets = np.concatenate([[0], np.cumsum(counts)])
        ids = np.tile(np.arange(self.first_id, self.first_id + k, dtype=np.uint32), len(request.rows))
        log_tail = np.zeros(n, np.float32)
        log_tail[request.rows] = np.log(1 - k / vocabulary)
        token_logprobs = np.full(n, np.nan, np.float32)
        token_logprobs[request.rows + 1] = -np.log(vocabulary)
        return Scored(
            SparseTargets(offsets, ids, np.full(len(ids), -np.log(vocabulary), np.float32), log_tail), token_logprobs
        )


class UniformEngine:
    name = "uniform"
    settings = UniformSettings

    def describe(self, teacher, engine, targets, generation, score):
        return describe_local_model(teacher, targets, generation, runs_encoders=False)

    def start(self, description, teacher, engine, on_gpu):
        return UniformTeacher(description.spec, engine.first_id)

    def environment(self, engine, on_gpu):
        return {}


ENGINE = UniformEngine()
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `uniform_engine` in a folder outside the project, named in LOGITBANK_PLUGINS."""
    (tmp_path / "uniform_engine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(PLUGINS_VARIABLE, "uniform_engine")
    monkeypatch.setattr(ENGINES, "_items", None)
    yield
    sys.modules.pop("uniform_engine", None)


def test_the_engines_of_the_project_are_found() -> None:
    assert set(ENGINES.names()) == {"vllm", "transformers", "endpoint"}
    for engine in ENGINES:
        assert engine.settings.model_fields["kind"].default == engine.name
    with pytest.raises(InputError, match="unknown engine kind 'vlm'; did you mean 'vllm'"):
        ENGINES["vlm"]


@pytest.mark.usefixtures("plugin")
def test_an_engine_of_a_plugin_fills_a_store(tiny_model: Path, tmp_path: Path) -> None:
    engine = ENGINES["uniform"].settings.model_validate({"first_id": 7})
    teacher, targets = TeacherSettings(model=str(tiny_model), max_tokens=64), TargetSettings(k=4)
    description = describe(teacher, engine, targets, None)
    examples = [Example(str(i), ({"role": "user", "content": f"say {i}"},), response="one two") for i in range(5)]
    plan = plan_capture(examples, description.tokenizer, Limits(64, description.spec.vocab_size), score=True)
    started = start_teacher(description, teacher, engine, on_gpu=False)
    answers = ask_teacher(started, list(plan.examples.values()), description.tokenizer, description.spec)
    storage = open_storage(tmp_path / "store")
    create_store(storage, description.spec)
    store_answers(storage, description.spec, answers)
    take_snapshot(storage)
    store = LogitStore.open(str(tmp_path / "store"))
    assert len(store) == 5
    for window in store.read(range(5)):
        with_target = np.flatnonzero(window.targets.counts)
        assert len(with_target)
        for row in with_target:
            assert sorted(window.targets.rows(row, row + 1).ids.tolist()) == [7, 8, 9, 10]


@pytest.mark.usefixtures("plugin")
def test_a_job_file_chooses_the_engine_of_a_plugin() -> None:
    """The choices of a settings class are fixed when it is built, so a new process reads the job file."""
    import subprocess

    code = """
from cluster.capture.settings import CaptureSettings
job = CaptureSettings.model_validate({"examples": "e.jsonl", "store": "s", "teacher": {"model": "m"},
                                      "engine": {"kind": "uniform", "first_id": 3}})
print(type(job.engine).__name__, job.engine.first_id, job.model_dump(mode="json")["engine"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert run.stdout.strip() == "UniformSettings 3 {'kind': 'uniform', 'cpu_threads': None, 'first_id': 3}"


def _environment() -> dict[str, str]:
    """The environment of this process, with the modules that it can import."""
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
