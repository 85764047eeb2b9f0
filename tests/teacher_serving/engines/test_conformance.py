"""Every engine gives the rows of Transformers in float32, for the same tokens, at the same positions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.examples.tokenizers import load_tokenizer
from cache.rows.spec import SamplingSpec, TargetSpec
from teacher_serving.asking.requests import continuation_request
from teacher_serving.engines.vllm.comparison import Tolerance
from teacher_serving.engines.vllm.teacher import VllmTeacher
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.reducer import Reducer
from teacher_serving.teacher import Request, Scored, Teacher
from tests.teacher_serving.engines.engines import Oracle, make_oracle, make_requests, make_teacher, worst_difference

pytestmark = pytest.mark.slow

K = 16
TOLERANCE = 2e-5
ENGINES = ("vllm", "vllm public", "transformers")
SAMPLING = SamplingSpec(samples=1, temperature=1.0, top_p=1.0, max_tokens=12, seed=0, answer_marker="")
# What needs the logits themselves, so not the public interface.
FULL = {
    "threshold": TargetSpec("threshold", threshold=0.05, entropy=True, temperatures=(0.5, 2.0)),
    "sampled": TargetSpec("sampled", draws=20, systematic=True, entropy=True),
}


@pytest.fixture(scope="module")
def oracle(tiny_model: Path) -> Oracle:
    return make_oracle(tiny_model)


@pytest.fixture(scope="module", params=ENGINES)
def scorer(request: pytest.FixtureRequest, tiny_model: Path) -> Teacher:
    """Cuts long prompts into several passes, where the engine does."""
    return make_teacher(request.param, tiny_model, TargetSpec(k=K))


@pytest.fixture(scope="module", params=ENGINES)
def writer(request: pytest.FixtureRequest, tiny_model: Path) -> Teacher:
    return make_teacher(request.param, tiny_model, TargetSpec(k=K), generates=True)


def test_scores_equal_the_oracle(scorer: Teacher, oracle: Oracle) -> None:
    given = make_requests()
    for request, scored in zip(given, scorer.score(given), strict=True):
        log_p = oracle(request.tokens)
        n, first = len(request.tokens), len(request.tokens) - 1 - len(request.rows)
        assert scored.targets.counts.tolist() == [0] * first + [K] * len(request.rows) + [0]
        assert worst_difference(scored, log_p) < TOLERANCE
        for j in request.rows:
            row = scored.targets.rows(j, j + 1)
            best = log_p[j].topk(K)
            assert np.abs(np.sort(row.logprobs)[::-1] - best.values.numpy()).max() < TOLERANCE
            assert np.exp(row.log_tail[0]) == pytest.approx(1 - float(best.values.exp().sum()), abs=1e-5)
        token_logprobs = log_p[
            torch.arange(first, n - 1), torch.from_numpy(request.tokens[first + 1 :].astype(np.int64))
        ].numpy()
        assert np.abs(scored.token_logprobs[first + 1 :] - token_logprobs).max(initial=0) < TOLERANCE
        assert np.isnan(scored.token_logprobs[: first + 1]).all()


def test_only_the_requested_rows_are_returned(scorer: Teacher, oracle: Oracle) -> None:
    tokens = make_requests()[6].tokens
    rows = np.array([3, 4, 5, 40, 100, 101, 148])
    scored = scorer.score([Request("a" * 32, tokens, rows)])[0]
    assert np.flatnonzero(scored.targets.counts).tolist() == rows.tolist()
    assert np.flatnonzero(~np.isnan(scored.token_logprobs)).tolist() == (rows + 1).tolist()
    assert worst_difference(scored, oracle(tokens)) < TOLERANCE


def test_rows_moved_by_one_would_be_noticed(scorer: Teacher, oracle: Oracle) -> None:
    request = make_requests()[4]
    scored = scorer.score([request])[0]
    for shift in (-1, 1):
        assert worst_difference(scored, oracle(request.tokens), shift) > 0.1


@pytest.mark.parametrize("kind", ENGINES)
def test_a_nucleus_has_at_least_its_mass(kind: str, tiny_model: Path, oracle: Oracle) -> None:
    teacher = make_teacher(kind, tiny_model, TargetSpec("nucleus", k=K, mass=0.3))
    request = make_requests()[4]
    scored = teacher.score([request])[0]
    assert worst_difference(scored, oracle(request.tokens)) < TOLERANCE
    for j in request.rows:
        row = scored.targets.rows(j, j + 1)
        p = np.exp(oracle(request.tokens)[j].topk(K).values.numpy())
        before = np.concatenate([[0], np.cumsum(p)[:-1]])
        assert row.counts[0] == np.count_nonzero(before < 0.3)
        assert np.exp(row.log_tail[0]) == pytest.approx(1 - p[: row.counts[0]].sum(), abs=1e-5)


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
@pytest.mark.parametrize("mode", list(FULL))
def test_draws_entropy_and_normalisers_are_those_of_the_full_logits(
    kind: str, mode: str, tiny_model: Path, oracle: Oracle
) -> None:
    targets = FULL[mode]
    teacher = make_teacher(kind, tiny_model, targets, generates=True)
    requests = make_requests()[2:]
    width = int(oracle(requests[0].tokens).shape[1])
    drawn_otherwise = 0
    for request, scored in zip(requests, teacher.score(requests), strict=True):
        log_p = oracle(request.tokens)[request.rows]
        drawn = row_uniforms(targets, request.key, request.rows)
        nothing = np.full(len(log_p), -1, np.int64)
        truth = Reducer(targets, width).reduce(log_p.float(), nothing, drawn).targets
        rows = scored.targets.rows(int(request.rows[0]), int(request.rows[-1]) + 1)
        # Logits differ in their last digits, which moves a draw that falls between two ids.
        same = [
            set(rows.rows(i, i + 1).ids.tolist()) == set(truth.rows(i, i + 1).ids.tolist()) for i in range(len(rows))
        ]
        drawn_otherwise += same.count(False)
        assert worst_difference(scored, oracle(request.tokens)) < TOLERANCE
        assert rows.entropy is not None
        assert np.abs(rows.entropy + (log_p.exp() * log_p).sum(-1).numpy()).max() < TOLERANCE
        for i, temperature in enumerate(targets.temperatures):
            assert rows.log_normalizers is not None
            exact = (log_p / temperature).logsumexp(-1).numpy()
            assert np.abs(rows.log_normalizers[:, i] - exact).max() < 5e-5
    assert drawn_otherwise <= 3
    # The same draws in another batch, and one by one; and for what the teacher writes, those of scoring it.
    alone = teacher.score(requests[3:4])[0].targets
    again = teacher.score(requests[::-1])[len(requests) - 4].targets
    assert np.array_equal(alone.ids, again.ids)
    written = teacher.generate(requests[:2], SAMPLING)
    for prompt, response in zip(requests, written, strict=False):
        scored_again = teacher.score([continuation_request(prompt, response.tokens)])[0].targets
        assert np.array_equal(scored_again.ids, response.rows.ids)


def test_generated_rows_equal_scored_rows(writer: Teacher) -> None:
    prompts = make_requests()[1:5]
    for prompt, written in zip(prompts, writer.generate(prompts, SAMPLING), strict=True):
        m = len(written.tokens)
        assert 1 <= m <= 12
        continuation = continuation_request(prompt, written.tokens)
        scored = writer.score([continuation])[0]
        again = scored.targets.rows(len(prompt.tokens) - 1, len(continuation.tokens) - 1)
        assert np.abs(written.rows.logprobs - again.logprobs).max() < TOLERANCE
        assert np.abs(written.token_logprobs - scored.token_logprobs[len(prompt.tokens) :]).max() < TOLERANCE
        wrong = scored.targets.rows(len(prompt.tokens) - 2, len(continuation.tokens) - 2)
        assert m == 1 or len(wrong.logprobs) != len(again.logprobs) or not np.allclose(wrong.logprobs, again.logprobs)


def test_draws_depend_on_the_seed_and_not_on_the_batch(writer: Teacher) -> None:
    prompts = make_requests()[1:4]
    together = writer.generate(prompts, SAMPLING)
    alone = writer.generate(prompts[1:2], SAMPLING)[0]
    other = writer.generate([Request("b" * 32, prompts[1].tokens)], SAMPLING)[0]
    assert together[1].tokens.tolist() == alone.tokens.tolist()
    assert alone.tokens.tolist() != other.tokens.tolist()


def test_more_prompts_than_fit_one_pass_are_drawn_alike(writer: Teacher) -> None:
    rng = np.random.default_rng(3)
    prompts = [Request(f"{i + 1:032x}", rng.integers(6, 300, 30).astype(np.uint32)) for i in range(12)]
    together = writer.generate(prompts, SAMPLING)
    again = writer.generate(prompts[::-1], SAMPLING)[::-1]
    assert [g.tokens.tolist() for g in together] == [g.tokens.tolist() for g in again]


def test_greedy_responses_are_the_likeliest_tokens(writer: Teacher, oracle: Oracle) -> None:
    greedy = SamplingSpec(samples=1, temperature=0.0, top_p=1.0, max_tokens=6, seed=0, answer_marker="")
    prompt = make_requests()[3]
    written = writer.generate([prompt], greedy)[0]
    continuation = continuation_request(prompt, written.tokens)
    best = oracle(continuation.tokens)[continuation.rows].argmax(-1)
    assert best.tolist() == written.tokens.tolist()


def test_responses_whose_rows_are_not_trusted_are_scored_and_the_teacher_says_so(
    tiny_model: Path, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_teacher("vllm", tiny_model, TargetSpec(k=K), generates=True)
    assert isinstance(teacher, VllmTeacher) and teacher.rows_from == ""
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "_workers_rows_from", "a reduction in plain torch")
        assert teacher.rows_from == "a reduction in plain torch"
    teacher._tolerance = Tolerance(-1.0, -1.0)
    prompts = make_requests()[1:4]
    for _ in range(2):
        for prompt, written in zip(prompts, teacher.generate(prompts, SAMPLING), strict=True):
            continuation = continuation_request(prompt, written.tokens)
            log_p = oracle(continuation.tokens)[continuation.rows]
            own = log_p[np.arange(len(written.tokens)), written.tokens.astype(np.int64)].numpy()
            assert np.abs(written.token_logprobs - own).max() < TOLERANCE
        assert teacher.rows_from.startswith("a second pass over each response (log-probabilities of generation")


@pytest.mark.parametrize("kind", ENGINES)
def test_hundreds_of_short_requests_get_their_own_rows(kind: str, tiny_model: Path) -> None:
    """Prompts are split in small steps, so that the order of vLLM's batch is not that of the requests.

    In each of these calls one step has rows that are not consecutive, but whose last minus first is their number - 1.
    """
    teacher = make_teacher(kind, tiny_model, TargetSpec(k=K))
    for seed, longest, count in ((0, 60, 256), (0, 20, 400), (1, 120, 200)):
        requests = short_requests(seed, longest, count)
        if longest != 60:
            requests.sort(key=lambda request: -len(request.tokens))  # as captures do
        assert_rows_of_requests(requests, teacher.score(requests), tiny_model)


@pytest.mark.parametrize("mode", list(FULL))
def test_hundreds_of_short_requests_get_their_own_rows_in_modes_with_draws(mode: str, tiny_model: Path) -> None:
    teacher = make_teacher("vllm", tiny_model, FULL[mode])
    requests = short_requests(0, 60, 256)
    scores = teacher.score(requests)
    if mode == "threshold":
        assert_rows_of_requests(requests, scores, tiny_model)
    for i in range(0, 256, 8):
        alone = teacher.score([requests[i]])[0]
        assert np.array_equal(alone.targets.ids, scores[i].targets.ids)
        assert np.nanmax(np.abs(alone.token_logprobs - scores[i].token_logprobs), initial=0) < TOLERANCE


def short_requests(seed: int, longest: int, count: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    requests = []
    for i in range(count):
        n = int(rng.integers(2, longest))
        tokens = rng.integers(6, 300, n).astype(np.uint32)
        requests.append(Request(f"{i + 1:032x}", tokens, np.arange(int(rng.integers(0, n - 1)), n - 1)))
    return requests


def assert_rows_of_requests(requests: list[Request], scores: list[Scored], model: Path) -> None:
    oracle = make_oracle(model)
    pairs = list(zip(requests, scores, strict=True))
    assert all(scored.targets.counts[request.rows].all() for request, scored in pairs)
    differences = [worst_difference(scored, oracle(request.tokens)) for request, scored in pairs]
    assert [i for i, difference in enumerate(differences) if difference > TOLERANCE] == []


def test_a_response_ends_at_the_stop_text(writer: Teacher, tiny_model: Path) -> None:
    """Not much later: what is cut off afterwards is paid for. Its start is the same as without a stop text."""
    tokenizer = load_tokenizer(tiny_model)
    sampling = replace(SAMPLING, max_tokens=120)
    rng = np.random.default_rng(5)
    prompts = [Request(f"{i + 1:032x}", rng.integers(6, 300, 20).astype(np.uint32)) for i in range(12)]
    for prompt, plain in zip(prompts, writer.generate(prompts, sampling), strict=True):
        text = tokenizer.decode(plain.tokens.tolist(), skip_special_tokens=True)
        lines = [line for line in text.split("\n")[1:] if line[:1].isalnum()]
        if not lines or not text.partition("\n")[0].strip():
            continue
        stopped = writer.generate([replace(prompt, stop=lines[0][0])], sampling)[0]
        n = len(stopped.tokens)
        assert n < len(plain.tokens) and stopped.tokens.tolist() == plain.tokens[:n].tolist() and stopped.finished
        assert len(stopped.rows) == n and np.array_equal(stopped.rows.ids, plain.rows.rows(0, n).ids)
        assert tokenizer.decode(stopped.tokens.tolist()).count("\n" + lines[0][0]) == 1
        return
    pytest.fail("no response has a second line; draw others")
