"""Responses are stored with their own rows, refused with the reason, or requested again with a hint."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.examples.example import Example
from cache.examples.tokenizers import decode
from cache.json_documents import decode_document
from cache.rendering.render import render_prompt
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.verify import verify_store
from teacher_serving.asking.plan import Limits, Plan, plan_capture
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.capture.start import describe, start_teacher
from teacher_serving.capture.unit import Answers, ask_teacher, store_answers
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.transformers import TransformersSettings
from teacher_serving.reduction.settings import TargetSettings
from tests.teacher_serving.asking.scripted import K, Say, Scripted, laws, say, texts
from tests.teacher_serving.engines.engines import make_oracle
from tests.teacher_serving.engines.models import save_model
from tests.teacher_serving.missing_units import missing_units

LONGEST = 700
TRANSFORMERS = TransformersSettings()


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With more positions than the tiny model: templates are long in its tokens."""
    return save_model("plain", tmp_path_factory.mktemp("roomy"), AutoTokenizer.from_pretrained(tiny_model))


@dataclass(frozen=True)
class Job:
    described: TeacherDescription
    plan: Plan

    @property
    def spec(self) -> StoreSpec:
        return self.described.spec

    def ask(self, teacher: Any) -> Answers:
        unit = list(self.plan.examples.values())
        return ask_teacher(teacher, unit, self.described.tokenizer, self.spec, self.described.prompter)

    def scripted(self, **script: Any) -> Scripted:
        return Scripted(self.described.tokenizer, **script)


@pytest.fixture
def job(model: Path) -> Callable[..., Job]:
    def make(examples: list[Example], score: bool = False, **options: Any) -> Job:
        generation = GenerationSettings(**{"max_new_tokens": 100, "answer_marker": "Answer:", **options})
        teacher = TeacherSettings(model=str(model), max_tokens=LONGEST)
        described = describe(teacher, TRANSFORMERS, TargetSettings(k=K), generation)
        limits = Limits(LONGEST, described.spec.vocab_size)
        plan = plan_capture(examples, described.tokenizer, limits, score, "assistant", generation, described.prompter)
        assert not plan.rejected
        return Job(described, plan)

    return make


def rows_of(record: Record) -> np.ndarray:
    return record.targets.rows(record.tokenized.prompt_length - 1, len(record.tokenized.tokens) - 1).logprobs


def test_wrong_responses_are_dropped_reported_and_not_requested_again(job: Callable[..., Job], tmp_path: Path) -> None:
    asked = job([say("one"), say("red"), say("up", "")], samples=2, keep="agreeing")
    script = {
        "one": [Say("so\nAnswer: two"), Say("so\nAnswer: five")],
        "red": [Say("no idea"), Say("so\nAnswer: nine")],
        "up": [Say("so\nAnswer: any"), Say("none")],
    }
    teacher = asked.scripted(plain=script)
    answers = asked.ask(teacher)
    kept = [(r.tokenized.example.id, r.tokenized.origin) for r in answers.records]
    assert kept == [("one", "generated/0"), ("up", "generated/0"), ("up", "generated/1")]
    judged = [r.tokenized.example.metadata["judgement"] for r in answers.records]
    assert judged == ["agrees", "no_truth", "no_truth"]
    reasons = sorted(reason for _, reason in answers.refused.values())
    assert reasons == [
        "not kept: the response has no label, and the label is 'two'",
        "not kept: the response says 'five', and the label is 'two'",
        "not kept: the response says 'nine', and the label is 'two'",
    ]
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, asked.spec)
    summary = store_answers(storage, asked.spec, answers)
    assert (summary.examples, summary.refused) == (3, 3)
    assert missing_units(asked.plan, storage, 8) == []
    for key, (example_id, reason) in answers.refused.items():
        told = decode_document(storage.read(f"quarantine/{key}.json"), key)
        assert (told["id"], told["reason"]) == (example_id, reason)
    assert len(teacher.asked) == 6


def test_all_are_kept_and_judged(job: Callable[..., Job]) -> None:
    asked = job([say("one")], samples=3, keep="all")
    script = [Say("so\nAnswer: two"), Say("so\nAnswer: five"), Say("no", finished=False)]
    answers = asked.ask(asked.scripted(plain={"one": script}))
    told = [record.tokenized.example.metadata for record in answers.records]
    assert [one["judgement"] for one in told] == ["agrees", "disagrees", "unparsed"]
    assert [one["finished"] for one in told] == [True, True, False]
    assert not answers.refused


@pytest.mark.parametrize("context", ["bare", "same"])
@pytest.mark.parametrize("template", [None, "step_by_step"])
def test_a_hinted_response_carries_the_rows_of_the_prompt_without_the_hint(
    job: Callable[..., Job], context: str, template: str | None
) -> None:
    options = {"samples": 2, "keep": "rationalize", "context": context, "template": template}
    asked = job([say("one"), say("red"), say("up")], **options)
    wrong, right = Say("so\nAnswer: nine"), Say("because\nAnswer: two")
    script = {"one": [wrong, wrong], "red": [wrong, right], "up": [wrong, Say("none")]}
    teacher = asked.scripted(plain=script, hinted={"one": [right, wrong], "up": [Say("none"), right]})
    answers = asked.ask(teacher)
    told = {
        (r.tokenized.example.id, r.tokenized.origin): r.tokenized.example.metadata["hinted"] for r in answers.records
    }
    # One sample of "red" agrees, so it is not asked again; of the others, the samples that agree once told.
    expected = {("one", "generated/0"): True, ("red", "generated/1"): False, ("up", "generated/1"): True}
    assert told == expected
    assert len(answers.refused) == 3 and len(teacher.asked) == 6 + 4
    assert sum("right answer is: two" in text for text in teacher.asked) == 4
    tokenizer = asked.described.tokenizer
    for record in answers.records:
        item = asked.plan.examples[record.key]
        bare, read = render_prompt(item.tokenized.example, tokenizer).tokens, item.teacher_prompt
        assert (len(read) > len(bare)) == (template is not None)
        n = record.tokenized.prompt_length
        assert np.array_equal(record.tokenized.tokens[:n], read if context == "same" else bare)
        assert "right answer" not in decode(record.tokenized.tokens, tokenizer)
        written = record.tokenized.tokens[n:].tolist()
        assert np.array_equal(rows_of(record), laws(read.tolist(), written))
        assert texts(record, tokenizer)["LABEL"] == " two"
        if record.tokenized.example.metadata["hinted"]:
            request = next(r for r in teacher.scores if r.key == record.key)
            assert np.array_equal(request.tokens, [*read, *written])
            own = -1.0 - request.rows / 100
            assert np.allclose(record.token_logprobs[n:], own.astype(np.float32))


def test_a_hint_that_does_not_fit_refuses_one_example(job: Callable[..., Job]) -> None:
    long = Example("long", ({"role": "user", "content": "say long " + "red " * 270},), label="two")
    asked = job([say("one"), long], keep="rationalize")
    wrong, right = Say("so\nAnswer: nine"), Say("so\nAnswer: two")
    teacher = asked.scripted(plain={"one": [wrong], "long": [wrong]}, hinted={"one": [right]})
    answers = asked.ask(teacher)
    assert [record.tokenized.example.id for record in answers.records] == ["one"]
    assert [name for name, _ in answers.refused.values()] == ["long"]
    assert "tokens of the prompt with the hint are more than 600" in str(answers.refused)


def test_one_that_cannot_be_answered_leaves_its_neighbours(job: Callable[..., Job], tmp_path: Path) -> None:
    words = ("one", "two", "red", "up")
    given_responses = [Example(w, say(w).messages, "", "and so on") for w in words]
    asked = job(given_responses, score=True, samples=2)
    good = Say("so\nAnswer: two")
    script = {
        "one": [good, Say("", refusal="the service says no")],
        "two": [Say("so\nAnswer: two", lost=3), good],
        "red": [good, good],
        "up": [Say("so\nAnswer: two", lost=0), Say("", refusal="again")],
    }
    teacher = asked.scripted(plain=script, unscorable=("red",), refused=("up",))
    answers = asked.ask(teacher)
    kept = [(r.tokenized.example.id, r.tokenized.origin) for r in answers.records]
    assert kept == [
        ("one", "scored"),
        ("one", "generated/0"),
        ("two", "scored"),
        ("two", "generated/1"),
        ("red", "generated/0"),
        ("red", "generated/1"),
    ]
    reasons = sorted((name, reason.partition(" for token")[0]) for name, reason in answers.refused.values())
    lost = "the teacher gave no finite distribution"
    assert reasons == [
        ("one", "the service says no"),
        ("red", lost),
        ("two", lost),
        ("up", "again"),
        ("up", "no up"),
        ("up", lost),
    ]
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, asked.spec)
    assert store_answers(storage, asked.spec, answers).examples == 6
    assert missing_units(asked.plan, storage, 4) == []
    take_snapshot(storage)
    assert len(LogitStore.open(str(tmp_path / "store"))) == 6


@pytest.mark.parametrize("trouble", ["refusal", "lost row", "unscorable"])
def test_trouble_after_the_hint_costs_one_example(job: Callable[..., Job], trouble: str) -> None:
    asked = job([say("one"), say("red")], keep="rationalize")
    wrong, right = Say("so\nAnswer: nine"), Say("so\nAnswer: two")
    hinted = {"refusal": Say("", refusal="no"), "lost row": Say(right.text, lost=1)}.get(trouble, right)
    teacher = asked.scripted(
        plain={"one": [wrong], "red": [wrong]},
        hinted={"one": [right], "red": [hinted]},
        unscorable=("red",) if trouble == "unscorable" else (),
    )
    answers = asked.ask(teacher)
    kept = [record.tokenized.example.id for record in answers.records]
    # What the hinted prompt's own rows are does not matter: those of the other prompt are kept.
    assert kept == (["one", "red"] if trouble == "lost row" else ["one"])
    for record in answers.records:
        n = record.tokenized.prompt_length
        assert (record.targets.counts[n - 1 : -1] > 0).all() and np.isfinite(record.token_logprobs[n:]).all()


def test_a_refusal_to_score_a_hinted_response_is_reported(job: Callable[..., Job]) -> None:
    asked = job([say("one"), say("red")], keep="rationalize")
    wrong, right = Say("so\nAnswer: nine"), Say("so\nAnswer: two")
    teacher = asked.scripted(
        plain={"one": [wrong], "red": [wrong]}, hinted={"one": [right], "red": [right]}, refused=("red",)
    )
    answers = asked.ask(teacher)
    assert [record.tokenized.example.id for record in answers.records] == ["one"]
    assert list(answers.refused.values()) == [("red", "no red")]


@pytest.mark.parametrize("context", ["bare", "same"])
def test_a_real_teacher_fills_a_store_with_rationales(
    job: Callable[..., Job], model: Path, tmp_path: Path, context: str
) -> None:
    examples = [say(word) for word in ("one", "red", "up")]
    asked = job(examples, samples=2, template="step_by_step", max_new_tokens=15, context=context)
    teacher = start_teacher(
        asked.described, TeacherSettings(model=str(model), max_tokens=LONGEST), TRANSFORMERS, on_gpu=False
    )
    answers = asked.ask(teacher)
    assert len(answers.records) == 6 and not answers.refused
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, asked.spec)
    store_answers(storage, asked.spec, answers)
    take_snapshot(storage)
    assert verify_store(str(tmp_path / "store")).problems == []
    store = LogitStore.open(str(tmp_path / "store"), expect=asked.spec)
    assert len(store) == 6 and missing_units(asked.plan, storage, 8) == []
    oracle = make_oracle(model)
    for record in store:
        item = asked.plan.examples[record.key]
        n = record.tokenized.prompt_length
        written = record.tokenized.tokens[n:]
        prompt = item.teacher_prompt if context == "same" else item.tokenized.tokens
        assert np.array_equal(record.tokenized.tokens[:n], prompt)
        log_p = oracle(np.concatenate([item.teacher_prompt, written]))[len(item.teacher_prompt) - 1 : -1].numpy()
        for i in range(len(written)):
            row = record.targets.rows(n - 1 + i, n + i)
            assert len(row.ids) == K
            assert np.abs(row.logprobs - log_p[i][row.ids]).max() <= asked.spec.targets.tail_step
            assert row.logprobs.max() >= log_p[i].max() - asked.spec.targets.tail_step
        own = log_p[np.arange(len(written)), written.astype(np.int64)]
        assert np.abs(record.token_logprobs[n:] - own).max() < 0.01
        assert record.tokenized.example.metadata["status"] in ("parsed", "no_label", "no_rationale")
