"""The tokens of a response are assigned to segments by its text: rationale, label, the rest, and what is cut off."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.tokenizers import decode
from cache.rows.record import Record
from cache.rows.spec import PromptingSpec, SamplingSpec, StoreSpec, TargetSpec
from student.tokenizers.bpe import learn_tokenizer
from teacher_serving.asking.plan import PlannedExample
from teacher_serving.asking.rationales import generate_records
from tests.teacher_serving.asking.scripted import VOCABULARY, K, Say, Scripted, laws, say, texts

ASKED = Example("1", ({"role": "user", "content": "say red two. 42 **up**"},), response="So two.")
LEARNED = learn_tokenizer([ASKED], 300)
PIECES = ["red", " two", "42", "🙂", "é", "\n", " ", "**", ".", '"', "So", "Answer:", "ß", "–"]
TEXTS = st.lists(st.sampled_from(PIECES)).map("".join)


def respond(
    response: Say,
    tokenizer: Any = LEARNED,
    label: str = "two",
    marker: str = "Answer:",
    stop: str = "",
    keep: str = "all",
) -> tuple[Record | None, str]:
    """The record of one response, or why there is none."""
    prompt = np.asarray(tokenizer("say red")["input_ids"], np.uint32)
    tokenized = TokenizedExample(say("red", label), prompt, np.zeros(len(prompt), np.uint8), "generated/0")
    sampling = SamplingSpec(1, 1.0, 1.0, 99, 0, marker)
    prompting = PromptingSpec("", "", "", "", keep, stop, "bare")
    targets = TargetSpec(k=K)
    spec = StoreSpec("t", "w", "k", "c", VOCABULARY, 300, "float32", targets, sampling, prompting=prompting)
    teacher = Scripted(tokenizer, {"red": [response]})
    records, refused = generate_records(teacher, [PlannedExample(tokenized)], tokenizer, spec, sampling, None)
    assert len(records) + len(refused) == 1
    for record in records.values():
        n = record.tokenized.prompt_length
        written = record.tokenized.tokens[n:].tolist()
        assert np.array_equal(record.tokenized.tokens[:n], prompt)
        rows = record.targets.rows(n - 1, n + len(written) - 1)
        assert np.array_equal(rows.logprobs, laws(prompt.tolist(), written))
        assert record.target_rows == len(written) and np.isfinite(record.token_logprobs[n:]).all()
        assert len(record.token_logprobs) == len(record.targets) == len(record.tokenized.tokens)
    return next(iter(records.values()), None), next((reason for _, reason in refused.values()), "")


@pytest.mark.parametrize(
    "text, rationale, label, status",
    [
        ("one and one.\nAnswer: two", "one and one.\n", " two", "parsed"),
        ("one and one.\n**Answer:** two", "one and one.\n", " two", "parsed"),
        ("red 🙂\nAnswer: 42.\nleft over", "red 🙂\n", "42", "parsed"),
        ('up. Answer: "five"', "up. ", "five", "parsed"),
        ("Answer: two", "", " two", "no_rationale"),
        ("I do not know", "", "", "no_label"),
        ("so\nAnswer:", "", "", "no_label"),
        ("down 🙂🙂\nAnswer: 🙂", "down 🙂🙂\n", "🙂", "parsed"),
    ],
)
def test_segments_are_those_of_the_text(text: str, rationale: str, label: str, status: str) -> None:
    record, _ = respond(Say(text))
    assert record
    found, example = texts(record, LEARNED), record.tokenized.example
    assert (found["RATIONALE"], found["LABEL"].strip()) == (rationale, label.strip())
    assert example.rationale == rationale and example.rationale + example.response == text
    assert example.metadata["status"] == status and example.metadata["finished"] is True
    assert example.metadata["teacher_label"] == label.strip() and example.metadata["hinted"] is False
    assert record.tokenized.segments[-1] == Segment.RESPONSE, "the token of the end is no label"


@given(TEXTS, TEXTS)
@settings(deadline=None)
def test_segments_cover_their_text_and_no_other_token(before: str, after: str) -> None:
    """Whatever the tokens: those of the label write it, and without the first or the last of them they do not."""
    record, _ = respond(Say(f"{before}\nAnswer:{after}"))
    assert record
    n = record.tokenized.prompt_length
    tokens, segments = record.tokenized.tokens[n:], record.tokenized.segments[n:]
    example = record.tokenized.example
    label = example.metadata["teacher_label"]
    assert example.rationale + example.response == decode(tokens, LEARNED) == f"{before}\nAnswer:{after}"
    reasons = int((segments == Segment.RATIONALE).sum())
    assert (segments[:reasons] == Segment.RATIONALE).all()
    assert decode(tokens[:reasons], LEARNED).startswith(example.rationale)
    assert not reasons or not decode(tokens[: reasons - 1], LEARNED).startswith(example.rationale)
    places = np.flatnonzero(segments == Segment.LABEL)
    assert (len(places) == 0) == (label == "")
    if label:
        first, last = int(places[0]), int(places[-1])
        assert last - first == len(places) - 1
        assert label in decode(tokens[first : last + 1], LEARNED)
        assert label not in decode(tokens[first + 1 : last + 1], LEARNED)
        assert label not in decode(tokens[first:last], LEARNED)


def test_without_a_marker_all_is_response() -> None:
    record, _ = respond(Say("one and one.\nAnswer: two"), marker="")
    assert record and (record.tokenized.segments[record.tokenized.prompt_length :] == Segment.RESPONSE).all()
    assert record.tokenized.example.rationale == ""
    assert record.tokenized.example.metadata == {"finished": True, "status": "parsed"}


@pytest.mark.parametrize("tail", ["\nQ: more?\nAnswer: five", "\n\n  Q: x", "\nQ:"])
def test_what_follows_the_stop_text_is_cut_off(tail: str) -> None:
    text = "so 🙂\nAnswer: two"
    record, _ = respond(Say(text + tail, finished=False), stop="Q:", keep="agreeing")
    assert record
    example, n = record.tokenized.example, record.tokenized.prompt_length
    assert decode(record.tokenized.tokens[n:], LEARNED) == example.rationale + example.response
    assert (example.rationale + example.response).rstrip() == text
    assert example.metadata["finished"] is True and texts(record, LEARNED)["LABEL"].strip() == "two"
    _, reason = respond(Say(text + " 🙂" + tail), stop="Q:", keep="agreeing")
    assert reason == "not kept: the response says 'two 🙂', and the label is 'two'"


def test_a_token_across_the_stop_text_is_cut_off_too() -> None:
    """Half of "Q:" must not stay behind: here the end of the line and the Q are one token."""
    letters = ["<e>", "ĊQ", "Ċ", "Q", ":", "Ġ", *"5sayred"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(letters))}
    raw = Tokenizer(models.BPE(vocabulary, [("Ċ", "Q")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<e>")
    record, reason = respond(Say("5\nQ:5"), tokenizer, label="5", marker="", stop="Q:", keep="agreeing")
    assert record, reason
    assert record.tokenized.example.response == "5"
    assert decode(record.tokenized.tokens[record.tokenized.prompt_length :], tokenizer) == "5"
