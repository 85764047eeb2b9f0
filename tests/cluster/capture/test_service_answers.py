"""What services answer beside the text: reasoning, log-probabilities that are missing or wrong, broken forms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.examples.example import Segment
from cache.rows.record import Record
from cache.store.logit_store import LogitStore
from cluster.capture.planning import plan_job
from cluster.capture.run_log import RunLog
from teacher_serving.capture.unit import UnitSummary
from tests.cluster.capture.service_jobs import capture_units, job_at, write_job
from tests.teacher_serving.engines.endpoint.endpoint_server import (
    Call,
    Reply,
    completion,
    failing_service,
    message,
)

REASONING = "two and two are four"
ANSWER = "four five"


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Path:
    return write_job(tmp_path, tiny_model, [{"id": f"e{i}", "prompt": f"say {i}"} for i in range(3)])


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def entries(tokenizer: Any, text: str, logprob: float = -0.5, extra: float = -1.0) -> list[dict[str, Any]]:
    """The tokens of a text as OpenAI lists them: with bytes, and with another likely token each."""
    listed = []
    for id_ in tokenizer(text, add_special_tokens=False)["input_ids"]:
        token = tokenizer.decode([id_])
        one = {"token": token, "bytes": list(token.encode()), "logprob": logprob}
        other = {"token": " red", "bytes": list(b" red"), "logprob": extra}
        listed.append({**one, "top_logprobs": [one, other]})
    return listed


def special(text: str) -> dict[str, Any]:
    """A token that is part of no text, such as the end of the reasoning."""
    one = {"token": text, "bytes": list(text.encode()), "logprob": -0.01}
    return {**one, "top_logprobs": [one]}


def answer(logprobs: Any = None, finish_reason: str = "stop", **fields: Any) -> Reply:
    body = {"role": "assistant", "content": ANSWER, **fields}
    return completion("", message=body, logprobs=logprobs, finish_reason=finish_reason)


def capture(workplace: Path, reply: Any, *changes: str) -> tuple[list[Record], UnitSummary, LogitStore]:
    """Capture with a service that gives the trial request a plain answer, and all others this reply."""
    trial = reply if callable(reply) else lambda call: reply
    with failing_service(trial) as (address, _):
        summary = capture_units(job_at(workplace, address, *changes))[0]
    store = LogitStore.open(str(workplace / "s"), unpinned=True)
    return list(store), summary, store


def rows_of(record: Record, *segments: Segment) -> int:
    chosen = np.isin(record.tokenized.segments, segments)
    return int((record.targets.counts[np.flatnonzero(chosen) - 1] > 0).sum())


def length_of(record: Record, *segments: Segment) -> int:
    return int(np.isin(record.tokenized.segments, segments).sum())


BLOCKS = [{"type": "thinking", "thinking": REASONING, "signature": "x"}, {"type": "text", "text": ANSWER}]
PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": REASONING}]},
    {"type": "text", "text": ANSWER},
]
SHAPES = {
    "deepseek": answer(reasoning_content=REASONING),
    "vllm": answer(reasoning=REASONING, reasoning_content=None),
    "older vllm": answer(reasoning_content=REASONING, tool_calls=[]),
    "openrouter": answer(reasoning=REASONING, reasoning_details=[{"type": "reasoning.text", "text": REASONING}]),
    "mistral": answer(content=PARTS),
}


@pytest.mark.parametrize("name", SHAPES)
def test_reasoning_becomes_the_rationale(workplace: Path, name: str) -> None:
    records, summary, _ = capture(workplace, SHAPES[name])
    assert summary.examples == 3 and not summary.refused
    for record in records:
        example = record.tokenized.example
        assert (example.rationale.strip(), example.response) == (REASONING, ANSWER)
        assert length_of(record, Segment.RATIONALE) and length_of(record, Segment.RESPONSE)
        assert example.metadata["status"] == "parsed" and example.metadata["finished"]


def test_thinking_of_anthropic_becomes_the_rationale(workplace: Path) -> None:
    body = {"type": "message", "content": BLOCKS, "stop_reason": "end_turn", "usage": {}}
    hidden = {**body, "content": [{"type": "redacted_thinking", "data": "x"}, *BLOCKS[1:]]}
    replies = {"say 0": Reply(200, body), "say 1": Reply(200, hidden)}
    records, _, _ = capture(
        workplace, lambda call: replies.get(call.turn, message(ANSWER)), "engine.endpoint.api=anthropic"
    )
    texts = [(record.tokenized.example.rationale.strip(), record.tokenized.example.response) for record in records]
    assert texts == [(REASONING, ANSWER), ("", ANSWER), ("", ANSWER)]


@pytest.mark.parametrize(
    "content",
    [
        f"<think>\n{REASONING}\n</think>\n\n{ANSWER}",
        f"{REASONING}\n</think>\n\n{ANSWER}",
        f"<thinking>{REASONING}</thinking> {ANSWER}",
        f"[THINK]{REASONING}[/THINK]{ANSWER}",
    ],
)
def test_tags_inside_the_text_end_the_rationale(workplace: Path, tokenizer: Any, content: str) -> None:
    listed = entries(tokenizer, content)
    reply = answer({"content": listed}, content=content)
    records, summary, _ = capture(workplace, reply, "engine.endpoint.top_logprobs=2")
    for record in records:
        example = record.tokenized.example
        assert REASONING in example.rationale and example.rationale + example.response == content
        assert example.response == ANSWER
        both = (Segment.RATIONALE, Segment.RESPONSE)
        assert rows_of(record, *both) == len(listed) and summary.without_rows == 0


def test_tags_that_an_answer_explains_are_no_reasoning(workplace: Path) -> None:
    content = "write <think>one</think> before it"
    records, _, _ = capture(workplace, answer(content=content))
    assert [record.tokenized.example.response for record in records] == [content] * 3
    assert not any(record.tokenized.example.rationale for record in records)


def test_the_label_is_looked_for_after_the_reasoning(workplace: Path) -> None:
    reply = answer(reasoning_content="Answer: one. No.", content="so it is two\nAnswer: five")
    records, _, _ = capture(workplace, reply, "generation.answer_marker=Answer:")
    for record in records:
        example = record.tokenized.example
        assert example.metadata["teacher_label"] == "five" and example.rationale.endswith("so it is two\n")
        assert example.rationale.startswith("Answer: one. No.") and example.response == "Answer: five"


def test_rows_of_the_answer_are_kept_beside_reasoning(workplace: Path, tokenizer: Any) -> None:
    """DeepSeek lists the answer's tokens alone. vLLM lists those of the reasoning and the tags before them."""
    of_answer = entries(tokenizer, ANSWER)
    of_reasoning = entries(tokenizer, REASONING)
    replies = {
        "say 0": {"content": of_answer, "reasoning_content": of_reasoning},
        "say 1": {"content": [special("<think>"), *of_reasoning, special("</think>"), *of_answer]},
        "say 2": {"content": [*of_reasoning, *entries(tokenizer, "\n\n"), *of_answer, special("<|end|>")]},
    }

    def reply(call: Call) -> Reply:
        default = {"content": of_answer}
        return answer(replies.get(call.turn, default), reasoning_content=REASONING)

    records, summary, _ = capture(workplace, reply, "engine.endpoint.top_logprobs=2")
    assert summary.without_rows == 0 and summary.examples == 3
    for record in records:
        example = record.tokenized.example
        assert (example.rationale.strip(), example.response) == (REASONING, ANSWER)
        has_end = example.id == "e2"
        assert rows_of(record, Segment.RESPONSE) == len(of_answer) + has_end
        assert rows_of(record, Segment.RATIONALE) in (0, len(of_reasoning) + len(entries(tokenizer, "\n\n")))
    assert [rows_of(record, Segment.RATIONALE) > 0 for record in records] == [False, False, True]


def test_rows_after_other_text_than_the_reasoning_are_not_kept(workplace: Path, tokenizer: Any) -> None:
    """Rows belong to what the teacher wrote before. Tokens that the text and the reasoning lack are such a context."""
    of_answer, of_reasoning = entries(tokenizer, ANSWER), entries(tokenizer, REASONING)
    odd = {**of_answer[0], "token": "\ufffd", "bytes": [0xE2]}
    replies = {
        "say 0": answer({"content": [odd, *of_answer]}),
        "say 1": answer({"content": [*of_reasoning, *of_answer]}),
        "say 2": answer({"content": [*entries(tokenizer, "red up"), *of_answer]}, reasoning_content=REASONING),
    }
    good = answer({"content": of_answer})
    records, summary, _ = capture(
        workplace, lambda call: replies.get(call.turn, good), "engine.endpoint.top_logprobs=2"
    )
    assert (summary.examples, summary.without_rows, summary.rows) == (3, 3, 0)
    assert [record.tokenized.example.response for record in records] == [ANSWER] * 3


def test_a_reasoning_service_needs_more_than_a_short_trial(workplace: Path, tokenizer: Any) -> None:
    """The trial ends within the reasoning. That says nothing about log-probabilities of an answer."""

    def reply(call: Call) -> Reply:
        if call.body["max_tokens"] < 40:
            return answer(content=None, reasoning_content=REASONING, finish_reason="length")
        return answer({"content": entries(tokenizer, ANSWER)}, reasoning_content=REASONING)

    records, summary, _ = capture(workplace, reply, "engine.endpoint.top_logprobs=2")
    assert len(records) == 3 and summary.without_rows == 0


def test_answers_without_log_probabilities_are_counted(workplace: Path, tokenizer: Any) -> None:
    replies = {
        "say 0": answer(None),
        "say 1": answer({"content": None}),
        "say 2": answer({"content": entries(tokenizer, "another text")}),
    }
    good = answer({"content": entries(tokenizer, ANSWER)})
    records, summary, _ = capture(
        workplace, lambda call: replies.get(call.turn, good), "engine.endpoint.top_logprobs=2"
    )
    assert (summary.examples, summary.without_rows, summary.rows) == (3, 3, 0)
    assert [record.tokenized.example.response for record in records] == [ANSWER] * 3
    job = job_at(workplace, "http://host", "engine.endpoint.top_logprobs=2")
    log = RunLog(job)
    log.set_input(plan_job(job).input, 3, is_complete=True)
    log.begin()
    log.add(summary)
    assert json.loads((workplace / "s.capture.json").read_text())["runs"][0]["without_rows"] == 3


def wrong(listed: list[dict[str, Any]], **fields: Any) -> Reply:
    return answer({"content": [{**listed[0], **fields}, *listed[1:]]})


def top(listed: list[dict[str, Any]], *logprobs: Any) -> Reply:
    others = [
        {"token": word, "bytes": None, "logprob": value} for word, value in zip((" red", " up"), logprobs, strict=False)
    ]
    return wrong(listed, top_logprobs=[listed[0]["top_logprobs"][0], *others])


def test_wrong_answers_have_defined_outcomes(workplace: Path, tokenizer: Any) -> None:
    listed = entries(tokenizer, ANSWER)
    nan, infinity = float("nan"), float("inf")
    refused: dict[str, tuple[Reply, str]] = {
        "null content": (answer(content=None), "the service returned no text"),
        "no content": (completion("", message={"role": "assistant"}), "the service returned no text"),
        "spaces": (answer(content=" \n"), "the service returned no text"),
        "only reasoning": (
            answer(content=None, reasoning_content=REASONING, finish_reason="length"),
            "only reasoning within generation.max_new_tokens = 40; raise it",
        ),
        "nothing at the limit": (answer(content="", finish_reason="length"), "no text within generation.max_new"),
        "no choices": (Reply(200, {"choices": []}), "form of its API"),
        "null choices": (Reply(200, {"choices": None}), "form of its API"),
        "no message": (Reply(200, {"choices": [{"finish_reason": "stop"}]}), "form of its API"),
        "null message": (Reply(200, {"choices": [{"message": None}]}), "form of its API"),
        "number as content": (answer(content=7), "form of its API"),
        "half a surrogate pair": (answer(content="one \ud83d"), "surrogate"),
        "filtered": (answer(finish_reason="content_filter"), "declined: content filter"),
        "NaN": (wrong(listed, logprob=nan), "not valid: one is nan"),
        "positive": (wrong(listed, logprob=0.7), "not valid: one is 0.7"),
        "infinite": (wrong(listed, logprob=infinity), "not valid: one is inf"),
        "null log-probability": (wrong(listed, logprob=None), "form of its API"),
        "text as log-probability": (wrong(listed, logprob="low"), "form of its API"),
        "NaN among the likely": (top(listed, nan), "not valid: one is nan"),
        "positive among the likely": (top(listed, 2.0), "not valid: one is 2.0"),
        "more than certain": (top(listed, -0.1, -0.2), "no distribution"),
        "byte above 255": (wrong(listed, bytes=[300]), "form of its API"),
        "bytes as text": (wrong(listed, bytes="one"), "form of its API"),
        "entry without a token": (wrong(listed, token=None, bytes=None, logprob=None), "form of its API"),
    }
    kept: dict[str, tuple[Reply, int]] = {
        "plain": (answer({"content": listed}), len(listed)),
        "limit": (answer({"content": listed}, finish_reason="length"), len(listed)),
        "slightly above 0": (wrong(listed, logprob=0.0004), len(listed)),
        "never": (wrong(listed, logprob=-9999.0), len(listed)),
        "null list": (wrong(listed, top_logprobs=None), len(listed) - 1),
        "no list": (wrong(listed, top_logprobs=[]), len(listed) - 1),
        "null bytes": (answer({"content": [{**each, "bytes": None} for each in listed]}), len(listed)),
        "no usage": (Reply(200, {"choices": answer({"content": listed}).body["choices"], "usage": None}), len(listed)),
        "an error that is null": (Reply(200, {**answer({"content": listed}).body, "error": None}), len(listed)),
        "halves of a character": (answer({"content": halves("four é")}, content="four é"), -1),
    }
    cases = {
        **{name: reply for name, (reply, _) in refused.items()},
        **{name: reply for name, (reply, _) in kept.items()},
    }
    write_job(workplace, Path(tokenizer.name_or_path), [{"id": name, "prompt": name} for name in cases], unit_size=64)
    good = answer({"content": listed})
    records, summary, store = capture(
        workplace, lambda call: cases.get(call.turn, good), "engine.endpoint.top_logprobs=3"
    )
    assert not summary.stopped, "the trial request has good answers"
    documents = [json.loads(path.read_text()) for path in (workplace / "s" / "quarantine").glob("*.json")]
    reasons = {document["id"]: document["reason"] for document in documents}
    assert set(reasons) == set(refused)
    assert not {name: reasons[name] for name, (_, text) in refused.items() if text not in reasons[name]}
    by_id = {record.tokenized.example.id: record for record in records}
    assert set(by_id) == set(kept) and store.info().quarantined == len(refused)
    rows = {name: rows_of(record, Segment.RESPONSE) for name, record in by_id.items()}
    assert {name: count for name, (_, count) in kept.items() if count >= 0} == {
        name: count for name, count in rows.items() if kept[name][1] >= 0
    }
    assert by_id["halves of a character"].tokenized.example.response == "four é"
    assert not by_id["limit"].tokenized.example.metadata["finished"]


def halves(text: str) -> list[dict[str, Any]]:
    """The bytes of a text one by one, as tokens. Services write incomplete characters as U+FFFD, or name the bytes."""
    return [
        {
            "token": "\ufffd",
            "bytes": [byte],
            "logprob": -0.5,
            "top_logprobs": [{"token": "\ufffd", "bytes": None, "logprob": -0.5}],
        }
        for byte in text.encode()
    ]


def test_an_answer_that_is_no_json_is_about_its_example_if_others_are(workplace: Path) -> None:
    """One that is never readable does not end every run at the same example."""
    broken = Reply(200, '{"choices": [{"mess', {"content-type": "application/json"})
    records, summary, store = capture(workplace, lambda call: broken if call.turn == "say 1" else answer())
    assert (len(records), summary.refused, summary.stopped) == (2, 1, "")
    assert "is not a JSON object" in next(iter(store.info().quarantine))
