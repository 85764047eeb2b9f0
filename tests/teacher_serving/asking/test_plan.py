"""A job asks for each example once, in full, cut as it says, or not at all with the reason; and again for nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.examples.example import Example, Segment
from cache.examples.files.jsonl import BadExample
from cache.rendering.render import render, render_prompt
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.quarantine.entries import quarantine_example
from cluster.capture.input.input_summary import summarise_input
from teacher_serving.asking.plan import SCORED_ORIGIN, Limits, Plan, plan_capture, reject_lines
from teacher_serving.asking.prompter import make_prompter
from teacher_serving.asking.requests import continuation_request, scoring_request
from teacher_serving.asking.settings import GenerationSettings
from tests.cache.examples.chats import AGENT, MARKED, PLAIN, chat_tokenizer, turn
from tests.teacher_serving.missing_units import missing_units

LIMITS = Limits(max_tokens=60, vocab_size=325)
SAMPLES = GenerationSettings(samples=3, max_new_tokens=20)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def example(name: str, prompt: str = "say one two", response: str = "one and two", **more: Any) -> Example:
    return Example(name, (turn("user", prompt),), "", response, **more)


LONG = example("long", "red " * 50, "green " * 30)


def plan(examples: list[Example], tokenizer: Any, limits: Limits = LIMITS, **options: Any) -> Plan:
    return plan_capture(examples, tokenizer, limits, options.pop("score", True), **options)


def test_the_same_examples_give_the_same_plan(tokenizer: Any) -> None:
    examples = [example(str(i), f"say {word}") for i, word in enumerate(("one", "two", "three"))]
    first = plan(examples, tokenizer, generation=SAMPLES)
    again = plan([replace(item) for item in examples], tokenizer, generation=SAMPLES)
    assert list(first.examples) == list(again.examples) and len(first.examples) == 3 * (1 + 3)
    origins = [item.tokenized.origin for item in first.examples.values()]
    assert origins == [SCORED_ORIGIN, "generated/0", "generated/1", "generated/2"] * 3
    # One more example asks for its own and changes nothing of the others.
    more = plan([*examples, example("new", "say nine")], tokenizer, generation=SAMPLES)
    assert list(more.examples)[:12] == list(first.examples) and len(more.examples) == 16


def test_a_repeated_example_is_requested_once(tokenizer: Any) -> None:
    lines = [example("1", has_own_id=False), example("2", has_own_id=False), example("3", "say red", has_own_id=False)]
    twice = plan(lines, tokenizer, generation=SAMPLES)
    assert len(twice.examples) == 2 * (1 + 3) and twice.count == 2 and twice.duplicates == [("2", "1")]
    assert [item.tokenized.example.id for item in twice.examples.values()] == ["1"] * 4 + ["3"] * 4


CONTEXTS = [example(str(i), label=str(i), metadata={"context": f"it is {i}"}) for i in range(5)]


@pytest.mark.parametrize(
    "given",
    [
        CONTEXTS,
        [replace(item, id="same", metadata={}) for item in CONTEXTS],  # labels alone
        [replace(item, id="same", label="") for item in CONTEXTS],  # metadata alone
        [replace(item, metadata={}, label="") for item in CONTEXTS],  # ids alone
    ],
    ids=["all", "labels", "metadata", "ids"],
)
@pytest.mark.parametrize("template", [None, "step_by_step"])
def test_examples_that_differ_in_what_is_kept_are_several(
    tokenizer: Any, given: list[Example], template: str | None
) -> None:
    options: dict[str, Any] = {"template": template, "answer_marker": "Answer:"} if template else {}
    settings = GenerationSettings(samples=2, max_new_tokens=5, **options)
    prompter = make_prompter(settings, 400)
    made = plan(given, tokenizer, Limits(400, 325), generation=settings, prompter=prompter)
    assert len(made.examples) == 5 * 3 and made.count == 5 and not made.duplicates


def test_every_example_is_in_one_part_of_the_plan(tokenizer: Any) -> None:
    given = [
        example("a"),
        example("a"),
        example("silent", response=""),
        LONG,
        LONG,
        Example("empty", (turn("user", "say one"), turn("assistant", " "))),
        Example("shared", (turn("human", "say one"), turn("gpt", "one"))),
        example("b"),
    ]
    made = plan(given, tokenizer)
    assert (made.count, made.unanswered) == (2, ["silent"])
    assert made.duplicates == [("a", "a"), ("long", "long")]
    reasons = dict(made.rejected.values())
    assert reasons.keys() == {"long", "empty", "shared"} and "'gpt'; use 'assistant'" in reasons["shared"]
    assert "the last turn, the assistant's, is empty" in reasons["empty"]
    summary = summarise_input(made, invalid=0, beyond_limit=3)
    assert (summary.lines, summary.captured, summary.rejected) == (11, 2, 3)


@pytest.mark.parametrize("score, generation, count", [(True, None, 1), (False, SAMPLES, 6), (True, SAMPLES, 7)])
def test_what_is_scored_and_what_is_written(
    tokenizer: Any, score: bool, generation: GenerationSettings | None, count: int
) -> None:
    given = [example("a"), example("b", "say two", response="")]
    assert len(plan(given, tokenizer, score=score, generation=generation).examples) == count
    few = SAMPLES.model_copy(update={"examples": 1})
    assert len(plan(given, tokenizer, score=False, generation=few).examples) == 3


def test_what_is_too_long_is_refused_or_cut(tokenizer: Any) -> None:
    short = example("short")
    whole = render(LONG, tokenizer).tokens
    refusing = plan([short, LONG], tokenizer)
    assert [item.tokenized.example.id for item in refusing.examples.values()] == ["short"] and refusing.truncated == 0
    assert list(refusing.rejected.values()) == [("long", f"{len(whole)} tokens are more than teacher.max_tokens = 60")]
    room = Limits(len(whole), 325)
    kept = list(plan([short, LONG], tokenizer, room).examples)
    for policy, held in (("left", whole[-60:]), ("right", whole[:60])):
        cut = plan([short, LONG], tokenizer, replace(LIMITS, truncation=policy))
        assert not cut.rejected and cut.truncated == 1
        one, other = cut.examples.values()
        assert one.key == kept[0] and other.key != kept[1]
        assert np.array_equal(other.tokenized.tokens, held)
        assert other.tokenized.example.metadata == {"truncated_tokens": len(whole) - 60}
        assert "truncated_tokens" not in one.tokenized.example.metadata
        assert len(scoring_request(other.tokenized, "assistant").rows) > 0
    lefts, rights = (
        plan([LONG], tokenizer, replace(LIMITS, truncation=policy)).examples for policy in ("left", "right")
    )
    assert not lefts.keys() & rights.keys()


def test_a_prompt_leaves_room_for_what_is_written(tokenizer: Any) -> None:
    prompt = render_prompt(LONG, tokenizer).tokens
    n = len(prompt)
    for limit, fits in ((n + 20, True), (n + 19, False)):
        asked = plan([LONG], tokenizer, Limits(limit, 325), score=False, generation=SAMPLES)
        assert len(asked.examples) == 3 * fits
        if not fits:
            told = f"{n} + 20 tokens are more than teacher.max_tokens = {limit}"
            assert list(asked.rejected.values()) == [("long", told)]
    for policy, held in (("left", prompt[-40:]), ("right", prompt[:40])):
        cut = plan([LONG], tokenizer, replace(LIMITS, truncation=policy), score=False, generation=SAMPLES)
        assert cut.truncated == 3
        for item in cut.examples.values():
            assert np.array_equal(item.tokenized.tokens, held) and np.array_equal(item.request.tokens, held)
            assert len(continuation_request(item.request, np.zeros(20, np.uint32)).tokens) == LIMITS.max_tokens


@pytest.mark.parametrize("policy", ["refuse", "left", "right"])
def test_a_job_without_room_for_a_prompt_requests_nothing(tokenizer: Any, policy: str) -> None:
    asked = plan([example("a")], tokenizer, Limits(20, 325, policy), score=False, generation=SAMPLES)
    assert not asked.examples and "teacher.max_tokens = 20" in str(asked.rejected)


def test_an_example_with_nothing_but_prompt_left_is_refused(tokenizer: Any) -> None:
    cut = plan([LONG], tokenizer, Limits(30, 325, "right"))
    assert not cut.examples and "nothing but prompt" in next(iter(cut.rejected.values()))[1]


@pytest.mark.parametrize("context", ["bare", "same"])
def test_a_template_is_what_the_teacher_reads(tokenizer: Any, context: str) -> None:
    settings = GenerationSettings(
        samples=2, max_new_tokens=5, template="step_by_step", answer_marker="Answer:", context=context
    )
    prompter = make_prompter(settings, 400)
    limits = Limits(400, 325)
    given = example("a", label="two", metadata={"level": 1})
    asked = plan([given], tokenizer, limits, score=False, generation=settings, prompter=prompter)
    bare = render_prompt(given, tokenizer).tokens
    for item in asked.examples.values():
        read = item.request
        assert len(read.tokens) > len(bare) and "step by step" in tokenizer.decode(read.tokens.tolist())
        assert read.messages[-1]["content"].startswith("say one two\n") and "Answer:" in read.messages[-1]["content"]
        assert np.array_equal(item.tokenized.tokens, bare if context == "bare" else read.tokens)
        assert item.tokenized.example.messages == given.messages and item.tokenized.example.metadata == {"level": 1}
        assert read.key == item.key
    plainly = plan([given], tokenizer, limits, score=False, generation=SAMPLES).examples.keys()
    assert not asked.examples.keys() & plainly


def test_each_impossible_request_is_refused_alone(tokenizer: Any) -> None:
    """Refusals are told by example, and the others are captured."""
    strict = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    strict.chat_template = (
        "{% for m in messages %}{% if 'angry' in m.content %}{{ raise_exception('no shouting') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    given = [
        example("good"),
        example("angry", "so angry"),
        Example("nothing", (turn("user", ""),)),
        example("surrogate", "half a pair: \ud800"),
        example("fine", "say red"),
    ]
    made = plan(given, strict, generation=SAMPLES)
    assert {item.tokenized.example.id for item in made.examples.values()} == {"good", "fine"}
    reasons = dict(made.rejected.values())
    assert reasons.keys() == {"angry", "nothing", "surrogate"} and len(made.rejected) == 3
    assert "no shouting" in reasons["angry"] and reasons["nothing"] == "no tokens"
    assert "cannot encode" in reasons["surrogate"]


def test_an_id_that_the_teacher_does_not_have_is_refused(tokenizer: Any) -> None:
    largest = int(render(example("a"), tokenizer).tokens.max())
    assert len(plan([example("a")], tokenizer, Limits(60, largest + 1)).examples) == 1
    refusing = plan([example("a")], tokenizer, Limits(60, largest))
    assert not refusing.examples
    assert f"token {largest} is outside the teacher's vocabulary of {largest}" in str(refusing.rejected)


def test_bad_lines_are_set_aside_by_their_number(tokenizer: Any) -> None:
    made = plan([example("a")], tokenizer)
    reject_lines(made, [BadExample(2, "x", "no JSON"), BadExample(7, "x", "no JSON"), BadExample(9, "9", "no prompt")])
    assert sorted(made.rejected.values()) == [
        ("9", "line 9: no prompt"),
        ("x", "line 2: no JSON"),
        ("x", "line 7: no JSON"),
    ]
    assert not made.rejected.keys() & made.examples.keys() and all(len(key) == 32 for key in made.rejected)
    again = plan([example("a")], tokenizer)
    reject_lines(again, [BadExample(7, "x", "no JSON")])
    assert again.rejected.keys() < made.rejected.keys()


def test_examples_of_one_name_are_refused_one_by_one(tokenizer: Any) -> None:
    """The same id may come more than once."""
    other = replace(LONG, response="blue " * 40)
    made = plan([LONG, other], tokenizer)
    assert len(made.rejected) == 2


@pytest.mark.parametrize("unit_size", [1, 2, 4, 100])
def test_responses_of_an_example_stay_together(tokenizer: Any, tmp_path: Path, spec: StoreSpec, unit_size: int) -> None:
    """Which of them are kept depends on the others."""
    given = [example(str(i), f"say {word}") for i, word in enumerate(("one", "two", "three", "four", "five"))]
    made = plan(given, tokenizer, generation=SAMPLES)
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    units = missing_units(made, storage, unit_size)
    assert [item.key for unit in units for item in unit] == list(made.examples)
    for number in "01234":
        holding = [
            i
            for i, unit in enumerate(units)
            if any(item.tokenized.example.id == number and item.tokenized.origin != SCORED_ORIGIN for item in unit)
        ]
        assert len(holding) == 1
    assert all(len(unit) <= unit_size + len(given) for unit in units)
    assert unit_size > 4 or len(units) > 1
    # What is told of elsewhere is not asked for again.
    gone = list(made.examples)[1]
    quarantine_example(storage, gone, "0", "not kept")
    assert [item.key for unit in missing_units(made, storage, unit_size) for item in unit] == [
        key for key in made.examples if key != gone
    ]


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_of_a_chat_only_tokens_of_the_assistant_are_requested(template: str) -> None:
    tokenizer = chat_tokenizer(template)
    limits = Limits(400, 400)
    (item,) = plan([AGENT], tokenizer, limits).examples.values()
    tokenized = item.tokenized
    request = scoring_request(tokenized, "assistant")
    spoken = tokenized.segments != Segment.PROMPT
    assert request.rows.tolist() == (np.flatnonzero(spoken[1:])).tolist()
    assert len(np.flatnonzero(np.diff(request.rows) > 1)) >= 2, "three turns, with others between them"
    assert request.key == item.key and np.array_equal(request.tokens, tokenized.tokens)
    said = tokenizer.decode(tokenized.tokens[request.rows + 1].tolist())
    assert "it is 4" in said and "gern geschehen" in said and "must add" in said
    assert "be brief" not in said and "thanks" not in said
    (item,) = plan([AGENT], tokenizer, limits, targets_of="all").examples.values()
    assert scoring_request(item.tokenized, "all").rows.tolist() == list(range(len(item.tokenized.tokens) - 1))


def test_the_first_token_has_no_row(tokenizer: Any) -> None:
    """A chat that the assistant begins, or is cut to: its first token is the law of nothing."""
    cut = plan([LONG], tokenizer, Limits(10, 325, "left"))
    (item,) = cut.examples.values()
    assert (item.tokenized.segments != Segment.PROMPT).all()
    for asked in ("assistant", "all"):
        assert scoring_request(item.tokenized, asked).rows.tolist() == list(range(9))


def test_the_response_of_the_file_is_no_part_of_a_generated_one(tokenizer: Any) -> None:
    """Nothing of it is kept, so one question with two answers is asked once."""
    given = [example("same", response=word) for word in ("one", "two")]
    asked = plan(given, tokenizer, score=False, generation=SAMPLES)
    assert len(asked.examples) == SAMPLES.samples and asked.duplicates == [("same", "same")]
    both = plan(given, tokenizer, generation=SAMPLES)
    assert len(both.examples) == 2 + SAMPLES.samples and both.count == 2
