"""A model with an encoder reads the prompt with the encoder; its rows are distributions of the decoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from cache.errors import InputError
from cache.examples.example import Example
from cache.rows.spec import SamplingSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.verify import verify_store
from student.tokenizers.bpe import save_tokenizer
from teacher_serving.asking.plan import Limits, plan_capture
from teacher_serving.asking.requests import continuation_request
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.capture.start import describe, start_teacher
from teacher_serving.capture.unit import ask_teacher, store_answers
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.transformers import TransformersSettings
from teacher_serving.engines.transformers.teacher import TransformersTeacher
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.reduction.settings import TargetSettings
from teacher_serving.teacher import Request
from tests.teacher_serving.engines.engines import make_spec, make_teacher, worst_difference

TOPK = TargetSpec(k=16)
TOLERANCE = 2e-5
TRANSFORMERS = TransformersSettings()
SAMPLING = SamplingSpec(samples=1, temperature=1.0, top_p=1.0, max_tokens=9, seed=0, answer_marker="")


@pytest.fixture(scope="module")
def t5(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5 with the tiny model's tokenizer, whose settings for generation are those of a summarizer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=len(tokenizer) + 5,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_factor=3.0,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config.update(num_beams=3, no_repeat_ngram_size=1, min_length=5, length_penalty=2.0)
    folder = tmp_path_factory.mktemp("t5") / "tiny"
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def dense(folder: Path, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
    """Log-probabilities float64 [len(response), vocabulary]: row i is the law of token i of the response."""
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    start = np.append([model.config.decoder_start_token_id], response[:-1].astype(np.int64))
    read, written = (torch.from_numpy(ids.astype(np.int64))[None] for ids in (prompt, start))
    with torch.inference_mode():
        return model(input_ids=read, decoder_input_ids=written).logits[0].double().log_softmax(-1)


def some_request(prompt: int, response: int, seed: int = 0) -> Request:
    tokens = np.random.default_rng(seed).integers(6, 300, prompt + response).astype(np.uint32)
    return Request(f"{seed + 1:032x}", tokens, np.arange(prompt - 1, prompt + response - 1))


@pytest.mark.parametrize("prompt, response", [(1, 1), (1, 7), (12, 1), (30, 20)])
def test_rows_are_those_of_the_decoder(t5: Path, prompt: int, response: int) -> None:
    request = some_request(prompt, response)
    scored = make_teacher("transformers", t5, TOPK).score([request])[0]
    log_p = dense(t5, request.tokens[:prompt], request.tokens[prompt:])
    # Rows of the oracle at their places among all tokens.
    placed = torch.full((prompt + response, log_p.shape[1]), -50.0, dtype=torch.float64)
    placed[prompt - 1 : -1] = log_p
    assert np.flatnonzero(scored.targets.counts).tolist() == request.rows.tolist()
    assert worst_difference(scored, placed) < TOLERANCE
    for shift in (-1, 1) if prompt + response > 2 else ():
        assert worst_difference(scored, placed, shift) > 0.1
    token_logprobs = log_p[np.arange(response), request.tokens[prompt:].astype(np.int64)].numpy()
    assert np.abs(scored.token_logprobs[prompt:] - token_logprobs).max() < TOLERANCE
    assert np.isnan(scored.token_logprobs[:prompt]).all()


def test_rows_left_out_of_the_middle_change_no_other(t5: Path) -> None:
    teacher, whole = make_teacher("transformers", t5, TOPK), some_request(10, 20)
    rows = np.array([9, 10, 14, 28])
    some = teacher.score([Request(whole.key, whole.tokens, rows)])[0].targets
    every = teacher.score([whole])[0].targets
    assert np.flatnonzero(some.counts).tolist() == rows.tolist()
    for j in rows:
        assert np.allclose(some.rows(j, j + 1).logprobs, every.rows(j, j + 1).logprobs, atol=TOLERANCE)


def test_the_prompt_is_read_by_the_encoder(t5: Path) -> None:
    """The same response after another prompt has other rows, and so has the same text cut elsewhere."""
    teacher, one = make_teacher("transformers", t5, TOPK), some_request(10, 6)
    tokens = one.tokens.copy()
    tokens[2] = 5
    other, later = Request(one.key, tokens, one.rows), Request(one.key, one.tokens, one.rows[2:])
    rows = [scored.targets.rows(13, 14).logprobs for scored in teacher.score([one, other, later])]
    assert np.abs(rows[0] - rows[1]).max() > 1e-3 and np.abs(rows[0] - rows[2]).max() > 1e-3


def test_written_rows_are_those_of_scoring_what_was_written(t5: Path) -> None:
    teacher = make_teacher("transformers", t5, TOPK, generates=True)
    prompts = [some_request(n, 0, seed=n) for n in (1, 5, 30)]
    for prompt, written in zip(prompts, teacher.generate(prompts, SAMPLING), strict=True):
        m = len(written.tokens)
        assert 1 <= m <= SAMPLING.max_tokens
        log_p = dense(t5, prompt.tokens, written.tokens)
        token_logprobs = log_p[np.arange(m), written.tokens.astype(np.int64)].numpy()
        assert np.abs(written.token_logprobs - token_logprobs).max() < TOLERANCE
        scored = teacher.score([continuation_request(prompt, written.tokens)])[0].targets
        again = scored.rows(len(prompt.tokens) - 1, len(prompt.tokens) + m - 1)
        assert np.array_equal(written.rows.ids, again.ids)
        assert np.abs(written.rows.logprobs - again.logprobs).max() < TOLERANCE
        assert written.finished == (int(written.tokens[-1]) in teacher._eos_ids)


def test_the_models_own_ways_to_generate_are_not_used(t5: Path) -> None:
    """Beams, penalties and least lengths of a model's files would draw from another law than the rows tell of."""
    teacher = make_teacher("transformers", t5, TOPK, generates=True)
    greedy = SamplingSpec(samples=1, temperature=0.0, top_p=1.0, max_tokens=12, seed=0, answer_marker="")
    repeats = 0
    for seed in range(6):
        prompt = some_request(8, 0, seed)
        written = teacher.generate([prompt], greedy)[0].tokens
        assert dense(t5, prompt.tokens, written).argmax(-1).tolist() == written.tolist()
        repeats += len(set(written.tolist())) < len(written)
    assert repeats, "no response repeats a token, so nothing was tried"


def test_what_an_encoder_cannot_do_is_refused(t5: Path) -> None:
    teacher = TeacherSettings(model=str(t5), max_tokens=100)
    with pytest.raises(InputError, match=r'has an encoder, which needs engine\.kind = "transformers"'):
        describe(teacher, VllmSettings(), TargetSettings(k=4), None)
    with pytest.raises(InputError, match=r'targets\.of = "all": an encoder reads the prompt'):
        describe(teacher, TRANSFORMERS, TargetSettings(k=4, of="all"), None)
    assert describe(teacher, TRANSFORMERS, TargetSettings(k=4), None).spec.vocab_size == make_spec(t5, TOPK).vocab_size


def test_a_capture_comes_back_from_its_store(t5: Path, tmp_path: Path) -> None:
    settings = TeacherSettings(model=str(t5), max_tokens=100)
    generation = GenerationSettings(samples=2, max_new_tokens=6)
    described = describe(settings, TRANSFORMERS, TargetSettings(k=8), generation)
    examples = [
        Example(str(i), ({"role": "user", "content": f"say {word} and stop"},), "", f"{word} red")
        for i, word in enumerate(("one", "two", "three"))
    ]
    limits = Limits(settings.max_tokens, described.spec.vocab_size)
    plan = plan_capture(examples, described.tokenizer, limits, True, "assistant", generation, described.prompter)
    teacher = start_teacher(described, settings, TRANSFORMERS, on_gpu=False)
    assert isinstance(teacher, TransformersTeacher)
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, described.spec)
    unit = list(plan.examples.values())
    answers = ask_teacher(teacher, unit, described.tokenizer, described.spec, described.prompter)
    assert not answers.refused and [record.key for record in answers.records] == list(plan.examples)
    assert store_answers(storage, described.spec, answers).examples == 9
    take_snapshot(storage)
    assert verify_store(str(tmp_path / "store")).problems == []
    store = LogitStore.open(str(tmp_path / "store"), expect=described.spec)
    assert store.info().origins == {"scored": 3, "generated": 6}
    given = {record.key: record for record in answers.records}
    for record in store:
        n = record.tokenized.prompt_length
        before = given[record.key]
        assert np.array_equal(record.tokenized.tokens, before.tokenized.tokens)
        assert np.array_equal(record.targets.offsets, before.targets.offsets)
        log_p = dense(t5, record.tokenized.tokens[:n], record.tokenized.tokens[n:])
        assert record.target_rows == len(log_p)
        for i in range(len(log_p)):
            row = record.targets.rows(n - 1 + i, n + i)
            truth = log_p[i].numpy()[row.ids]
            assert np.abs(row.logprobs - truth).max() <= described.spec.targets.tail_step
