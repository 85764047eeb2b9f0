"""A served model agrees with Transformers in float32: by token ids, by bytes, and in a complete capture."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.errors import InputError, LogitbankError
from cache.examples.example import Example
from cache.examples.tokenizers import decode
from cache.json_documents import canonical_json
from cache.rendering.render import render_prompt
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import SamplingSpec, TargetSpec
from cache.store.logit_store import LogitStore
from cluster.commands.main import main
from teacher_serving.asking.requests import continuation_request
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.engines.endpoint.teacher import EndpointTeacher
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.teacher import Request, Scored
from tests.teacher_serving.engines.endpoint.endpoint_server import vllm_server
from tests.teacher_serving.engines.engines import (
    Oracle,
    make_oracle,
    make_requests,
    make_spec,
    make_teacher,
    worst_difference,
)

pytestmark = pytest.mark.slow

K, MOST = 16, 20
TOLERANCE = 2e-5
KEY, VARIABLE = "sk-not-to-be-seen-1234567890", "LOGITBANK_TEST_KEY"
SAMPLING = SamplingSpec(1, 1.0, 1.0, 12, 0, "")


@pytest.fixture(scope="module")
def address(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "vllm.log"
    with vllm_server(tiny_model, "tiny", KEY, MOST, log) as base_url:
        os.environ[VARIABLE] = KEY
        yield base_url
        del os.environ[VARIABLE]


@pytest.fixture(scope="module")
def oracle(tiny_model: Path) -> Oracle:
    return make_oracle(tiny_model)


def served(
    address: str,
    model: Path,
    targets: TargetSpec,
    sampling: SamplingSpec | None = SAMPLING,
    padding: int = 5,
    **options: object,
) -> EndpointTeacher:
    """A teacher at the server. padding: ids of the model beyond those of the tokenizer that the spec counts."""
    given = {"api": "vllm", "base_url": address, "api_key_env": VARIABLE, "top_logprobs": targets.k, **options}
    endpoint = EndpointSettings.model_validate(given)
    tokenizer = AutoTokenizer.from_pretrained(model)
    width = len(tokenizer) + padding
    spec = replace(make_spec(model, targets), vocab_size=width, sampling=sampling, service="served")
    return EndpointTeacher(TeacherSettings(model="tiny"), endpoint, spec, tokenizer)


def same_rows(ours: SparseTargets, theirs: SparseTargets) -> None:
    assert np.array_equal(ours.offsets, theirs.offsets)
    assert np.array_equal(ours.ids, theirs.ids)
    assert np.abs(ours.logprobs - theirs.logprobs).max(initial=0) < TOLERANCE
    assert np.abs(np.exp(ours.log_tail) - np.exp(theirs.log_tail)).max(initial=0) < 1e-4


@pytest.mark.parametrize(
    "targets", [TargetSpec("topk", K), TargetSpec("nucleus", K, mass=0.3)], ids=["topk", "nucleus"]
)
def test_scores_equal_those_of_transformers(
    address: str, tiny_model: Path, oracle: Oracle, targets: TargetSpec
) -> None:
    requests = make_requests()
    # Rows with gaps, as the turns of a chat leave them.
    requests.append(Request("f" * 32, requests[-1].tokens, np.array([3, 4, 9, 50, 51, 198])))
    theirs = make_teacher("transformers", tiny_model, targets).score(requests)
    ours = served(address, tiny_model, targets).score(requests)
    for request, one, other in zip(requests, ours, theirs, strict=True):
        assert not one.refusal
        same_rows(one.targets, other.targets)
        assert np.array_equal(np.isnan(one.token_logprobs), np.isnan(other.token_logprobs))
        assert np.nanmax(np.abs(one.token_logprobs - other.token_logprobs), initial=0) < TOLERANCE
        assert worst_difference(one, oracle(request.tokens)) < TOLERANCE
        if len(request.rows) > 5:
            assert worst_difference(one, oracle(request.tokens), 1) > 0.1, "rows moved by one would be noticed"


def test_generated_rows_equal_scored_rows(address: str, tiny_model: Path) -> None:
    targets, prompts = TargetSpec("topk", K), make_requests((1, 3, 17, 64))
    teacher, scorer = served(address, tiny_model, targets), make_teacher("transformers", tiny_model, targets)
    written = teacher.generate(prompts, SAMPLING)
    for prompt, one in zip(prompts, written, strict=True):
        assert not one.refusal and 1 <= len(one.tokens) <= 12
        assert one.finished == (len(one.tokens) < 12 or one.tokens[-1] == 1)
        continuation = continuation_request(prompt, one.tokens)
        scored: Scored = scorer.score([continuation])[0]
        n = len(prompt.tokens)
        same_rows(one.rows, scored.targets.rows(n - 1, len(continuation.tokens) - 1))
        assert np.abs(one.token_logprobs - scored.token_logprobs[n:]).max() < TOLERANCE
    alone = teacher.generate(prompts[1:2], SAMPLING)[0]
    assert alone.tokens.tolist() == written[1].tokens.tolist(), "draws depend on the key, not on the batch"
    other = teacher.generate(prompts[1:2], replace(SAMPLING, seed=5))[0]
    assert other.tokens.tolist() != alone.tokens.tolist()
    greedy = replace(SAMPLING, temperature=0.0)
    mine = [one.tokens.tolist() for one in served(address, tiny_model, targets).generate(prompts, greedy)]
    assert mine == [one.tokens.tolist() for one in scorer.generate(prompts, greedy)]


def test_log_probabilities_are_those_of_the_raw_logits(address: str, tiny_model: Path) -> None:
    sampling = replace(SAMPLING, temperature=0.5, top_p=0.7)
    prompts = make_requests((3, 17))
    teacher = served(address, tiny_model, TargetSpec("topk", 4), sampling)
    scorer = make_teacher("transformers", tiny_model, TargetSpec("topk", 4))
    for prompt, one in zip(prompts, teacher.generate(prompts, sampling), strict=True):
        scored = scorer.score([continuation_request(prompt, one.tokens)])[0]
        assert np.abs(one.token_logprobs - scored.token_logprobs[len(prompt.tokens) :]).max() < TOLERANCE


def test_text_alone_comes_with_its_own_log_probabilities(address: str, tiny_model: Path) -> None:
    prompt = make_requests((17,))[0]
    one = served(address, tiny_model, TargetSpec("topk", 0)).generate([prompt], SAMPLING)[0]
    assert len(one.rows) == len(one.tokens) and len(one.rows.ids) == 0 and (one.rows.log_tail == 0).all()
    scored = make_teacher("transformers", tiny_model, TargetSpec("topk", 1)).score(
        [continuation_request(prompt, one.tokens)]
    )[0]
    assert np.abs(one.token_logprobs - scored.token_logprobs[17:]).max() < TOLERANCE


def test_padding_of_the_model_is_left_to_the_tail(address: str, tiny_model: Path) -> None:
    """A tokenizer says nothing of the ids that a model has beyond it."""
    whole = served(address, tiny_model, TargetSpec("topk", MOST)).score(make_requests((150,)))[0].targets
    width = make_spec(tiny_model, TargetSpec()).tokenizer_size
    assert (whole.ids >= width).any()
    teacher = served(address, tiny_model, TargetSpec("topk", MOST), padding=0)
    cut = teacher.score(make_requests((150,)))[0].targets
    cut.validate(width, "rows")
    assert (cut.counts <= whole.counts).all() and len(cut.ids) == int((whole.ids < width).sum())
    prompts = [Request(f"{i:08x}" + "0" * 24, np.array([1, 20, 30 + i], np.uint32)) for i in range(40)]
    written = teacher.generate(prompts, SAMPLING)
    refused = [one.refusal for one in written if one.refusal]
    assert refused and len(refused) < 40 and all("which the tokenizer does not have" in reason for reason in refused)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"top_logprobs": MOST + 1}, InputError, f"start it with --max-logprobs {MOST + 1}, or lower"),
        ({"api_key_env": None}, LogitbankError, "rejected the API key .401.; set engine.endpoint.api_key_env"),
        ({"base_url": "http://127.0.0.1:9/v1", "max_retries": 0}, LogitbankError, "no answer after 1 tries.*refused"),
    ],
)
def test_limits_of_the_server_are_reported_at_the_start(
    address: str, tiny_model: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        served(address, tiny_model, TargetSpec("topk", 4), **options)
    assert KEY not in str(raised.value)


def test_chat_rows_agree_with_the_model_for_the_tokens_that_map(address: str, tiny_model: Path, oracle: Oracle) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sampling = replace(SAMPLING, max_tokens=3)
    teacher = served(address, tiny_model, TargetSpec("topk", 5), sampling, api="openai")
    examples = [Example(str(i), ({"role": "user", "content": f"say {i} two"},)) for i in range(60)]
    prompts = [render_prompt(example, tokenizer).tokens for example in examples]
    requests = [Request(f"{i:032x}", prompts[i], messages=examples[i].messages) for i in range(60)]
    with_rows = 0
    for request, one in zip(requests, teacher.generate(requests, sampling), strict=True):
        if one.refusal:
            assert one.refusal.startswith("the service returned no text")
            continue
        m = int((one.rows.counts > 0).sum())
        if m == 0:
            continue  # a token that is no whole character: text alone
        with_rows += 1
        continuation = continuation_request(request, one.tokens)
        scored = Scored(one.rows, one.token_logprobs)
        log_p = oracle(continuation.tokens)[len(request.tokens) - 1 :]
        assert worst_difference(scored, log_p) < TOLERANCE
        token_logprobs = log_p[np.arange(m), one.tokens[:m].astype(np.int64)].numpy()
        assert np.abs(one.token_logprobs[:m] - token_logprobs).max() < TOLERANCE
        assert one.finished == (one.tokens[-1] == tokenizer.eos_token_id)
        one.rows.validate(len(tokenizer), "chat rows")
    assert with_rows >= 5


def test_a_complete_capture_from_a_served_model(
    address: str, tiny_model: Path, tmp_path: Path, oracle: Oracle, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"prompt": f"say {a} two", "response": f"{a} and two"} for a in ("one", "three", "four", "five", "six")]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "capture.toml").write_text(
        f'examples = "examples.jsonl"\nstore = "stores/s"\nunit_size = 4\n'
        f'[teacher]\nmodel = "tiny"\ntokenizer = "{tiny_model}"\nmax_tokens = 200\n'
        f'[engine]\nkind = "endpoint"\n[engine.endpoint]\napi = "vllm"\nbase_url = "{address}"\n'
        f'api_key_env = "{VARIABLE}"\ntop_logprobs = 8\nrevision = "r1"\nprice_input = 2.0\nprice_output = 6.0\n'
        "[generation]\nmax_new_tokens = 6\n"
    )

    def logitbank(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["--root", str(tmp_path), *arguments]) == 0
        return capsys.readouterr().out

    output = logitbank("capture", str(tmp_path / "capture.toml"))
    log = json.loads((tmp_path / "stores" / "s.capture.json").read_text())
    assert log["runs"][0]["cost"] > 0 and f"cost {log['runs'][0]['cost']:.4f}" in output
    assert "service        vllm completions" in logitbank("inspect", "stores/s")
    assert "sound" in logitbank("verify", "stores/s")
    store = LogitStore.open(str(tmp_path / "stores" / "s"))
    assert store.spec.weights == "service:vllm:tiny:r1" and store.spec.targets.k == 8
    assert store.info().origins["scored"] == 5
    for record in store:
        spoken = record.tokenized.prompt_length
        log_p = oracle(record.tokenized.tokens)
        token_logprobs = log_p[
            np.arange(spoken - 1, len(log_p) - 1), record.tokenized.tokens[spoken:].astype(np.int64)
        ].numpy()
        assert np.abs(record.token_logprobs[spoken:] - token_logprobs).max() < 1 / 64, "to the precision of the store"
        assert worst_difference(Scored(record.targets, record.token_logprobs), log_p) < 0.11
    shown = logitbank("inspect", "stores/s", "--example", store[0].key, "--tokenizer", str(tiny_model))
    assert "say" in shown
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert KEY.encode() not in path.read_bytes(), path


def follows(text: str) -> bool:
    """Whether a text is the start of an answer by the schema, without its white space."""
    return any(answer.startswith("".join(text.split())) for answer in ('{"age":7}', '{"age":8}'))


def test_a_served_model_follows_a_schema_and_its_rows_do_not(address: str, tiny_model: Path) -> None:
    schema = {"type": "object", "properties": {"age": {"enum": [7, 8]}}, "required": ["age"]}
    sampling = replace(SAMPLING, max_tokens=24, json_schema=canonical_json({**schema, "additionalProperties": False}))
    targets, prompts, tokenizer = (
        TargetSpec("topk", K),
        make_requests((3, 17)),
        AutoTokenizer.from_pretrained(tiny_model),
    )
    scorer = make_teacher("transformers", tiny_model, targets)
    for prompt, one in zip(
        prompts, served(address, tiny_model, targets, sampling).generate(prompts, sampling), strict=True
    ):
        # The server allows white space, of which random weights may write any amount.
        assert follows(decode(one.tokens, tokenizer))
        scored = scorer.score([continuation_request(prompt, one.tokens)])[0]
        n = len(prompt.tokens)
        same_rows(one.rows, scored.targets.rows(n - 1, n + len(one.tokens) - 1))
        assert np.abs(one.token_logprobs - scored.token_logprobs[n:]).max() < TOLERANCE
    turns = [replace(prompt, messages=({"role": "user", "content": "age in JSON"},)) for prompt in prompts]
    chat = served(address, tiny_model, targets, sampling, api="openai")
    for one in chat.generate(turns, sampling):
        assert one.refusal or follows(decode(one.tokens, tokenizer)), one.refusal
