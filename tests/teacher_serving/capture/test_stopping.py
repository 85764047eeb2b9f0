"""A teacher that stops in the middle of a unit: wherever it stops, a rerun gives what one run would have given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cache.rows.spec import SamplingSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import read_entries
from teacher_serving.asking.plan import Limits, Plan, plan_capture
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.capture.start import describe
from teacher_serving.capture.unit import ask_teacher, store_answers
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.transformers import TransformersSettings
from teacher_serving.reduction.settings import TargetSettings
from teacher_serving.teacher import Generated, Request, Scored, TeacherStoppedError
from tests.teacher_serving.asking.scripted import K, Say, Scripted, say
from tests.teacher_serving.missing_units import missing_units

LIMIT = 700
RIGHT, WRONG = "so\nAnswer: two", "so\nAnswer: five"
# What the teacher says to the samples of each word. The label is always "two".
SAMPLES = {"one": (RIGHT, WRONG), "red": (WRONG, WRONG), "up": (WRONG, RIGHT), "left": (RIGHT, RIGHT)}
HINTED = {"one": WRONG, "red": RIGHT, "up": WRONG, "left": WRONG}


@dataclass
class Stopping:
    """Answers `good` requests of each kind of call, then stops. paid: keys and kinds of the answered requests."""

    tokenizer: Any
    plan: Plan
    good: int
    paid: list[tuple[str, str]] = field(default_factory=list)

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        return self._answer(requests, self._say)

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        return self._answer(requests, lambda request: Scripted(self.tokenizer).score([request])[0], "score")

    def _say(self, request: Request) -> Generated:
        planned = self.plan.examples[request.key]
        word = planned.tokenized.example.id
        text = SAMPLES[word][int(planned.tokenized.origin[-1])]
        one = Scripted(self.tokenizer, plain={word: [Say(text)]}, hinted={word: [Say(HINTED[word])]})
        return one.generate([request], SamplingSpec(1, 1.0, 1.0, 9, 0, ""))[0]

    def _answer(self, requests: Sequence[Request], answer: Any, kind: str = "") -> list[Any]:
        answers = []
        for request in requests:
            if len(self.paid) >= self.good:
                raise TeacherStoppedError("no credit", answers + [None] * (len(requests) - len(answers)))
            answers.append(answer(request))
            hint = "hint" if "right answer is" in self.tokenizer.decode(request.tokens.tolist()) else ""
            self.paid.append((request.key, kind or hint))
        return answers


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.teacher_serving.engines.models import save_model

    return save_model("plain", tmp_path_factory.mktemp("roomy"), AutoTokenizer.from_pretrained(tiny_model))


def make_plan(model: Path, keep: str) -> tuple[TeacherDescription, Plan]:
    generation = GenerationSettings(
        samples=2,
        keep=keep,
        max_new_tokens=100,
        answer_marker="Answer:",
        template="few_shot" if keep[0] == "r" else None,
    )
    teacher = TeacherSettings(model=str(model), max_tokens=LIMIT)
    described = describe(teacher, TransformersSettings(), TargetSettings(k=K), generation)
    limits = Limits(LIMIT, described.spec.vocab_size)
    examples = [say(word) for word in SAMPLES]
    plan = plan_capture(examples, described.tokenizer, limits, False, "assistant", generation, described.prompter)
    assert len(plan.examples) == 8 and not plan.rejected
    return described, plan


def capture(described: TeacherDescription, plan: Plan, storage: LocalStorage, good: int) -> Stopping:
    """Capture what the store lacks with a teacher that gives `good` answers."""
    teacher = Stopping(described.tokenizer, plan, good)
    create_store(storage, described.spec)
    for unit in missing_units(plan, storage, 8):
        answers = ask_teacher(teacher, unit, described.tokenizer, described.spec, described.prompter)
        assert bool(answers.stopped) == (len(teacher.paid) == good)
        store_answers(storage, described.spec, answers)
    return teacher


def content(storage: LocalStorage) -> tuple[dict[str, str], dict[str, str]]:
    """Responses and reasons of the quarantine, by key."""
    store = LogitStore.open(str(storage), unpinned=True)
    texts = {record.key: record.tokenized.example.rationale + record.tokenized.example.response for record in store}
    return texts, {entry.key: entry.reason for entry in read_entries(storage)}


@pytest.mark.parametrize("keep", ["all", "agreeing", "rationalize"])
def test_wherever_a_teacher_stops_the_rerun_gives_the_same(model: Path, tmp_path: Path, keep: str) -> None:
    described, plan = make_plan(model, keep)
    whole = LocalStorage(tmp_path / "whole")
    calls = capture(described, plan, whole, 10**6).paid
    assert len(calls) == (8 if keep != "rationalize" else 12)
    for good in range(0, len(calls), 1 if keep == "rationalize" else 3):
        storage = LocalStorage(tmp_path / str(good))
        first = capture(described, plan, storage, good)
        assert not any("stopped" in entry.reason for entry in read_entries(storage))
        second = capture(described, plan, storage, 10**6)
        assert content(storage) == content(whole)
        if keep != "rationalize":
            assert len(first.paid) == good and not set(first.paid) & set(second.paid), "none is paid for twice"
